"""The predictions table: one scored image per row, checked before anything is computed from it."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from covidtf.files import DataError, refuse_rows, write_csv

COLUMNS = ("image_id", "patient_id", "case_id", "source", "view", "finding", "split", "label")
# Scores of one image sum to 1; half-precision outputs miss it by about 0.002.
_SUM_TOLERANCE = 0.01


def read(path: str | Path) -> pd.DataFrame:
    """Read and check a `predictions.csv`; empty text stays `""`, scores are floats.

    Raises:
        DataError: If the file is not a predictions table; names the file and the row.
    """
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except (UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise DataError(f"{path}: not a predictions table: {error}") from error
    for column in _score_columns(table):
        numbers = pd.to_numeric(table[column], errors="coerce")
        refuse_rows(table, path, column, numbers.isna(), "a number")
        table[column] = numbers.astype(float)
    return validate(table, path)


def write(table: pd.DataFrame, path: str | Path) -> Path:
    """Check `table` and write it as CSV in one step; what was there before stays if the check fails."""
    return write_csv(validate(table, path), path)


def same_images(tables: Mapping[str, pd.DataFrame]) -> None:
    """Make sure that tables are of the same images, so that draws of both are of the same patients.

    Args:
        tables: Predictions by name, rows in any order.
    Raises:
        DataError: An image, or its patient, case, split or label, is not in all of them; names the first
            table that differs.
    """
    columns = ["image_id", "patient_id", "case_id", "split", "label"]
    images = {name: set(table[columns].itertuples(index=False, name=None)) for name, table in tables.items()}
    first = next(iter(images), "")
    for name, found in images.items():
        if found != images[first]:
            odd = sorted({image for image, *_ in found ^ images[first]})
            raise DataError(
                f"{name}: the {len(images[first])} images of {first!r} were wanted. Received: {len(found)}, "
                f"{len(odd)} of them in one alone or told otherwise, first {odd[0]!r}"
            )


def validate(table: pd.DataFrame, name: str | Path = "predictions") -> pd.DataFrame:
    """Check a predictions table.

    Args:
        table: Columns `COLUMNS` and one `score_<label>` in [0, 1] per class; one row per image.
        name: File the table came from or goes to, for error messages.
    Returns:
        `table`, unchanged.
    Raises:
        DataError: No row, absent columns, missing values, repeated `image_id`, an unknown split, a label
            without a score column, scores that are NaN, outside [0, 1] or do not sum to 1. Names `name` and
            the first offending row (2 is the first below the header).
    """
    absent = [column for column in COLUMNS if column not in table]
    if absent:
        raise DataError(f"{name}: columns {absent} are missing. Received: {list(table.columns)}")
    if table.empty:
        raise DataError(f"{name}: at least one scored image was wanted. Received: no row")
    for column in COLUMNS:
        refuse_rows(table, name, column, table[column].isna(), "text, empty where unknown")
    for column in ("image_id", "patient_id", "source", "label"):
        refuse_rows(table, name, column, table[column] == "", "a value")
    refuse_rows(table, name, "image_id", table["image_id"].duplicated(), "a unique value")
    refuse_rows(table, name, "split", ~table["split"].isin(("train", "val", "test")), "train, val or test")
    return _validate_scores(table, name)


def _validate_scores(table: pd.DataFrame, name: str | Path) -> pd.DataFrame:
    columns = _score_columns(table)
    wanted = [f"score_{label}" for label in sorted(set(table["label"]))]
    absent = [column for column in wanted if column not in columns]
    if absent:
        raise DataError(f"{name}: columns {absent} are missing, one per label. Received: {columns}")
    for column in columns:
        if not pd.api.types.is_float_dtype(table[column]):
            raise DataError(f"{name}: `{column}` must hold floats. Received: {table[column].dtype}")
        refuse_rows(table, name, column, ~table[column].between(0.0, 1.0), "a number in [0, 1]")
    total = table[columns].sum(axis="columns")
    wrong = pd.Series(~np.isclose(total, 1.0, rtol=0.0, atol=_SUM_TOLERANCE), index=table.index)
    refuse_rows(table, name, columns[0], wrong, f"one of scores that sum to 1 over {columns}")
    return table


def _score_columns(table: pd.DataFrame) -> list[str]:
    return [column for column in table.columns if column.startswith("score_")]
