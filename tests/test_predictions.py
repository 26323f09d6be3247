"""The predictions table."""

import numpy as np
import pandas as pd
import pytest

from covidtf import predictions
from covidtf.files import DataError


def table(**changes) -> pd.DataFrame:
    rows = pd.DataFrame(
        {
            "image_id": ["a/1", "a/2", "a/3"],
            "patient_id": ["a:1", "a:1", "a:2"],
            "case_id": "",
            "source": "a",
            "view": "PA",
            "finding": ["COVID-19", "", "No Finding"],
            "split": ["val", "val", "test"],
            "label": ["COVID-19", "COVID-19", "non-COVID"],
            "score_COVID-19": [0.9, 0.123456789, 0.0],
            "score_non-COVID": [0.1, 0.876543211, 1.0],
        }
    )
    return rows.assign(**changes)


def test_written_table_reads_back_equal(tmp_path):
    """A round trip through CSV keeps empty text, order, and nine digits of the scores."""
    path = predictions.write(table(), tmp_path / "predictions.csv")
    pd.testing.assert_frame_equal(predictions.read(path), table())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"score_COVID-19": [0.9, np.nan, 0.0]}, r"row 3: `score_COVID-19` must be a number in \[0, 1\]"),
        ({"score_COVID-19": [0.9, 0.1, -0.1]}, r"row 4: `score_COVID-19` must be .* Received: -0.1 \(1 such"),
        ({"score_COVID-19": [1.5, 0.1, 0.0]}, r"row 2: `score_COVID-19` must be .* Received: 1.5"),
        ({"score_non-COVID": [0.5, 0.876543211, 1.0]}, r"row 2: `score_COVID-19` must be .* sum to 1"),
        ({"score_COVID-19": ["0.9", "0.1", "0"]}, "`score_COVID-19` must hold floats"),
        ({"image_id": ["a/1", "a/1", "a/3"]}, "row 3: `image_id` must be a unique value. Received: 'a/1'"),
        ({"patient_id": ["a:1", "a:1", ""]}, "row 4: `patient_id` must be a value"),
        ({"finding": ["COVID-19", None, ""]}, "row 3: `finding` must be text"),
        ({"split": ["val", "dev", "test"]}, "row 3: `split` must be train, val or test. Received: 'dev'"),
        ({"label": ["COVID-19", "COVID-19", "flu"]}, r"columns \['score_flu'\] are missing, one per label"),
    ],
)
def test_bad_table_is_refused_by_row(changes, message):
    """Each fault of a table is an error that names the file, the row, what was wanted and what came."""
    with pytest.raises(DataError, match=r"^p\.csv: " + message):
        predictions.validate(table(**changes), "p.csv")


def test_absent_column_and_no_row_are_refused():
    """A table without a required column, and one without a row, are errors."""
    with pytest.raises(DataError, match=r"columns \['patient_id'\] are missing"):
        predictions.validate(table().drop(columns="patient_id"))
    with pytest.raises(DataError, match="at least one scored image was wanted"):
        predictions.validate(table().iloc[:0])


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b"image_id,score_a\nx,high\n", b"a,b\n1,2\n"])
def test_file_that_is_no_table_is_named(tmp_path, content):
    """Reading a file of something else names that file."""
    path = tmp_path / "predictions.csv"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"predictions\.csv"):
        predictions.read(path)


def test_refused_table_leaves_the_file_as_it_was(tmp_path):
    """Writing a bad table over a good one changes nothing."""
    path = predictions.write(table(), tmp_path / "predictions.csv")
    before = path.read_bytes()
    with pytest.raises(DataError, match="unique"):
        predictions.write(table(image_id="a/1"), path)
    assert path.read_bytes() == before
