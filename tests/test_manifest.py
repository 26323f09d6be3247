"""The manifest's schema is checked, and its errors name the file and the row."""

import numpy as np
import pandas as pd
import pytest

from covidtf import manifest
from covidtf.files import DataError


def rows(**changes):
    """Three images of two patients; the third is an augmented copy of the first."""
    table = [
        {"path": "images/a.png", "patient_id": "s:1", "split": "train", "age": 40},
        {"path": "images/b.png", "patient_id": "s:2", "split": "test", "url": "https://x.org/1"},
        {"path": "images/a#aug1.png", "patient_id": "s:1", "split": "train", "parent_id": "s/images/a.png"},
    ]
    common = {"source": "s", "label": "COVID-19", "finding": "COVID-19, ARDS", "case_id": "s:1", "view": "PA"}
    table = [common | {"parent_id": "", "url": "", "age": np.nan} | row for row in table]
    for key, value in changes.items():
        column, row = key.rsplit("_", 1)
        table[int(row)][column] = value
    return table


def test_make_fills_what_rows_leave_out():
    """Absent columns become empty text or NaN, image_id is source and path, columns have one order."""
    table = manifest.make([row | {"bits": 8} for row in rows()], "rows")
    assert list(table) == [*manifest.REQUIRED, *manifest.OPTIONAL, "bits"]
    assert list(table["image_id"]) == ["s/images/a.png", "s/images/b.png", "s/images/a#aug1.png"]
    assert set(table["sha256"]) == set(table["licence"]) == {""}
    assert manifest.make([], "rows").empty


def test_make_keeps_a_given_image_id():
    """Only rows without an image_id get one."""
    table = manifest.make(rows(image_id_1="own"), "rows")
    assert list(table["image_id"]) == ["s/images/a.png", "own", "s/images/a#aug1.png"]


def test_round_trip(tmp_path):
    """What is written is read back equal, empty text, missing ages, quotes and line breaks included."""
    table = manifest.make(rows(finding_0='a "b",\nc', finding_1="NA"), "rows")
    path = manifest.write(table, tmp_path / "m.csv")
    pd.testing.assert_frame_equal(manifest.read(path), table)


def test_read_accepts_a_byte_order_mark(tmp_path):
    """A manifest saved by a spreadsheet starts with a mark that belongs to no column name."""
    path = manifest.write(manifest.make(rows(), "rows"), tmp_path / "m.csv")
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert len(manifest.read(path)) == 3


@pytest.mark.parametrize(
    ("changes", "row", "column"),
    [
        ({"path_1": "images/a.png"}, 3, "image_id"),
        ({"path_1": "../a.png"}, 3, "path"),
        ({"path_1": "/a.png"}, 3, "path"),
        ({"path_1": r"images\b.png"}, 3, "path"),
        ({"path_1": ""}, 3, "path"),
        ({"label_0": ""}, 2, "label"),
        ({"patient_id_1": ""}, 3, "patient_id"),
        ({"patient_id_1": 2}, 3, "patient_id"),
        ({"finding_1": None}, 3, "finding"),
        ({"finding_1": np.nan}, 3, "finding"),
        ({"view_1": "pa"}, 3, "view"),
        ({"split_1": "validation"}, 3, "split"),
        ({f"sha256_{0}": "ABC"}, 2, "sha256"),
        ({"parent_id_2": "s/images/c.png"}, 4, "parent_id"),
        ({"parent_id_2": "s/images/a#aug1.png"}, 4, "parent_id"),
        ({"patient_id_2": "s:2"}, 4, "patient_id"),
        ({"label_2": "non-COVID"}, 4, "label"),
        ({"split_2": "val"}, 4, "split"),
        ({"split_0": "test"}, 4, "split"),
        ({"split_0": ""}, 4, "split"),
    ],
)
def test_make_refuses(changes, row, column):
    """Each breach of the schema is an error that names the table, the row and the column."""
    with pytest.raises(DataError, match=rf"list\.csv: row {row}: `{column}` must be"):
        manifest.make([{"sha256": ""} | line for line in rows(**changes)], "list.csv")


def test_an_unused_copy_may_have_an_original_elsewhere():
    """A copy in no split is allowed while its original is in val: that is how val is taken from train."""
    table = manifest.make(rows(split_0="val", split_2=""), "rows")
    assert list(table["split"]) == ["val", "test", ""]


def test_validate_tells_missing_columns():
    """The error lists what is missing and what there is."""
    with pytest.raises(DataError, match=r"m\.csv: columns \['view'\] are missing\. Received: \['image_id'"):
        manifest.validate(manifest.make(rows(), "rows").drop(columns="view"), "m.csv")


def _text(tmp_path):
    return manifest.write(manifest.make(rows(), "rows"), tmp_path / "m.csv").read_text().splitlines()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda lines: [*lines[:2], lines[2][:20]], "row 3: 15 fields were wanted"),
        (lambda lines: [lines[0], *(line + "," for line in lines[1:])], "row 2: 15 fields were wanted"),
        (lambda lines: [lines[0].replace("finding", "label"), *lines[1:]], "each column may occur once"),
        (lambda lines: [lines[0].replace("label", "class"), *lines[1:]], r"columns \['label'\] are missing"),
        (
            lambda lines: [line.replace("40.0", "forty").replace(",40,", ",forty,") for line in lines],
            "row 2: `age`",
        ),
        (lambda lines: [*lines, '"s/images/z.png'], "not a manifest: unexpected end of data"),
        (lambda lines: [], "columns .* are missing"),
    ],
)
def test_read_refuses_damaged_files(tmp_path, damage, message):
    """A file cut short, shifted, renamed or empty is an error with its name, never a shifted table."""
    path = tmp_path / "m.csv"
    path.write_text("".join(line + "\n" for line in damage(_text(tmp_path))))
    with pytest.raises(DataError, match=rf"m\.csv: {message}"):
        manifest.read(path)


def test_read_refuses_other_encodings(tmp_path):
    """Latin-1 text is refused, because guessing an encoding changes names without a word."""
    path = tmp_path / "m.csv"
    path.write_bytes("\n".join(_text(tmp_path)).replace("ARDS", "pneumopathie bactérienne").encode("latin-1"))
    with pytest.raises(DataError, match=r"m\.csv: not a manifest: 'utf-8' codec"):
        manifest.read(path)


def test_write_checks_before_it_writes(tmp_path):
    """A table that breaks the schema leaves the file that was there."""
    table = manifest.make(rows(), "rows")
    path = manifest.write(table, tmp_path / "m.csv")
    before = path.read_bytes()
    with pytest.raises(DataError, match="`label` must be a value"):
        manifest.write(table.assign(label=""), path)
    assert path.read_bytes() == before
