"""The manifest: one row per image, a schema that is checked, errors that name file and row."""

import csv
import re
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd

from covidtf.files import DataError, refuse_rows, write_csv

REQUIRED = (
    "image_id",
    "path",
    "label",
    "finding",
    "source",
    "patient_id",
    "case_id",
    "view",
    "split",
    "parent_id",
    "sha256",
)
OPTIONAL = ("sex", "age", "url", "licence")
VIEWS = ("PA", "AP", "AP Supine", "L", "UNKNOWN")
SPLITS = ("", "train", "val", "test")


def make(rows: list[dict] | pd.DataFrame, name: str) -> pd.DataFrame:
    """Checked manifest from rows that may leave out columns.

    Args:
        rows: One mapping per image. Absent text is `""`, absent `age` is NaN. `image_id` defaults to
            `<source>/<path>`; `patient_id` and `case_id` are expected to be prefixed by their source already.
        name: What the rows come from (a file's path), for error messages.
    Returns:
        Table with the columns `REQUIRED + OPTIONAL`, then any others in their order.
    Raises:
        DataError: As `validate`.
    """
    table = pd.DataFrame(rows).copy()
    for column in REQUIRED + OPTIONAL:
        if column not in table:
            table[column] = np.nan if column == "age" else ""
    absent = table["image_id"].fillna("") == ""
    table.loc[absent, "image_id"] = table["source"] + "/" + table["path"]
    others = [column for column in table if column not in REQUIRED + OPTIONAL]
    return validate(table[[*REQUIRED, *OPTIONAL, *others]].reset_index(drop=True), name)


def read(path: str | Path) -> pd.DataFrame:
    """Read and check a manifest written by `write`; empty text stays `""`, `age` is a float.

    Raises:
        DataError: If the file is not a manifest; names the file and the row.
    """
    try:
        with Path(path).open(encoding="utf-8-sig", newline="") as file:
            lines = [line for line in csv.reader(file, strict=True) if line]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: not a manifest: {error}") from error
    header, rows = (lines[0], lines[1:]) if lines else ([], [])
    if len(set(header)) < len(header):
        raise DataError(f"{path}: each column may occur once. Received: {header}")
    # pandas would fill short rows and shift long ones without a word.
    for number, row in enumerate(rows, start=2):
        if len(row) != len(header):
            raise DataError(f"{path}: row {number}: {len(header)} fields were wanted. Received: {len(row)}")
    table = pd.DataFrame(rows, columns=header, dtype="str")
    if "age" in table:
        table["age"] = _numbers(table["age"], path)
    return validate(table, path)


def write(table: pd.DataFrame, path: str | Path) -> Path:
    """Check `table` and write it as CSV in one step; what was there before stays if the check fails."""
    return write_csv(validate(table, path), path)


def validate(table: pd.DataFrame, name: str | Path) -> pd.DataFrame:
    """Check a manifest against the schema.

    Args:
        table: Columns `REQUIRED` and any others; one row per image.
        name: File the table came from or goes to, for error messages.
    Returns:
        `table`, unchanged.
    Raises:
        DataError: Absent columns, missing values, repeated `image_id`, a `path` that is absolute or leads out
            of its folder, an unknown view or split, a malformed sha256, an augmented row whose original is
            absent, of another patient or label, or which is in a split other than train, or in train while
            its original is not. Names `name` and the first offending row (2 is the first below the header).
    """
    absent = [column for column in REQUIRED if column not in table]
    if absent:
        raise DataError(f"{name}: columns {absent} are missing. Received: {list(table.columns)}")
    for column in REQUIRED:
        is_text = table[column].map(lambda value: isinstance(value, str))
        refuse_rows(table, name, column, ~is_text.astype(bool), "text, empty where unknown")
    for column in ("image_id", "path", "label", "source", "patient_id"):
        refuse_rows(table, name, column, table[column] == "", "a value")
    refuse_rows(table, name, "image_id", table["image_id"].duplicated(), "a unique value")
    refuse_rows(
        table, name, "path", ~table["path"].map(_is_inside), "a relative path inside its source's folder"
    )
    refuse_rows(table, name, "view", ~table["view"].isin(VIEWS), f"one of {VIEWS}")
    refuse_rows(table, name, "split", ~table["split"].isin(SPLITS), f"one of {SPLITS}")
    hexadecimal = table["sha256"].map(lambda value: bool(re.fullmatch(r"([0-9a-f]{64})?", value)))
    refuse_rows(table, name, "sha256", ~hexadecimal, "64 hexadecimal digits or nothing")
    return _validate_augmented(table, name)


def _validate_augmented(table: pd.DataFrame, name: str | Path) -> pd.DataFrame:
    augmented = table["parent_id"] != ""
    if not augmented.any():
        return table
    originals = table.loc[~augmented].set_index("image_id")
    known = table["parent_id"].isin(originals.index)
    refuse_rows(
        table, name, "parent_id", augmented & ~known, "the image_id of an original in the same manifest"
    )
    parents = originals.reindex(table["parent_id"])
    for column in ("patient_id", "label"):
        differs = augmented & (parents[column].to_numpy() != table[column].to_numpy())
        refuse_rows(table, name, column, differs, f"the {column} of its original")
    outside = augmented & ~table["split"].isin(("", "train"))
    refuse_rows(table, name, "split", outside, "train, because augmented images never leave it")
    alone = augmented & (table["split"] == "train") & (parents["split"].to_numpy() != "train")
    refuse_rows(table, name, "split", alone, "empty, because the original is not in train")
    return table


def _is_inside(path: str) -> bool:
    parts = PurePosixPath(path)
    return not parts.is_absolute() and ".." not in parts.parts and "\\" not in path


def _numbers(values: pd.Series, name: str | Path) -> pd.Series:
    numbers = pd.to_numeric(values.replace("", np.nan), errors="coerce")
    bad = numbers.isna() & (values != "")
    refuse_rows(pd.DataFrame({"age": values}), name, "age", bad, "a number of years or nothing")
    return numbers.astype(float)
