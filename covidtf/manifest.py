"""The manifest: one row per image, a schema that is checked, errors that name file and row."""

import re
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd

from covidtf.files import DataError, write_csv

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
        table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except (UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise DataError(f"{path}: not a manifest: {error}") from error
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
            absent, of another patient or outside train. Names `name` and the first offending row (2 is the
            first below the header).
    """
    absent = [column for column in REQUIRED if column not in table]
    if absent:
        raise DataError(f"{name}: columns {absent} are missing. Received: {list(table.columns)}")
    for column in REQUIRED:
        _refuse(table, name, column, table[column].isna(), "text, empty where unknown")
    for column in ("image_id", "path", "label", "source", "patient_id"):
        _refuse(table, name, column, table[column] == "", "a value")
    _refuse(table, name, "image_id", table["image_id"].duplicated(), "a unique value")
    _refuse(table, name, "path", ~table["path"].map(_is_inside), "a relative path inside its source's folder")
    _refuse(table, name, "view", ~table["view"].isin(VIEWS), f"one of {VIEWS}")
    _refuse(table, name, "split", ~table["split"].isin(SPLITS), f"one of {SPLITS}")
    hexadecimal = table["sha256"].map(lambda value: bool(re.fullmatch(r"([0-9a-f]{64})?", value)))
    _refuse(table, name, "sha256", ~hexadecimal, "64 hexadecimal digits or nothing")
    return _validate_augmented(table, name)


def _validate_augmented(table: pd.DataFrame, name: str | Path) -> pd.DataFrame:
    augmented = table["parent_id"] != ""
    if not augmented.any():
        return table
    originals = table.loc[~augmented].set_index("image_id")
    known = table["parent_id"].isin(originals.index)
    _refuse(table, name, "parent_id", augmented & ~known, "the image_id of an original in the same manifest")
    parents = originals.reindex(table["parent_id"])
    for column in ("patient_id", "label"):
        differs = augmented & (parents[column].to_numpy() != table[column].to_numpy())
        _refuse(table, name, column, differs, f"the {column} of its original")
    outside = augmented & ~table["split"].isin(("", "train"))
    _refuse(table, name, "split", outside, "train, because augmented images never leave it")
    return table


def _refuse(table: pd.DataFrame, name: str | Path, column: str, bad: pd.Series, wanted: str) -> None:
    if bad.any():
        position = int(np.flatnonzero(bad.to_numpy())[0])
        value = table[column].iloc[position]
        raise DataError(
            f"{name}: row {position + 2}: `{column}` must be {wanted}. Received: {value!r} "
            f"({int(bad.sum())} such rows)"
        )


def _is_inside(path: str) -> bool:
    parts = PurePosixPath(path)
    return not parts.is_absolute() and ".." not in parts.parts and "\\" not in path


def _numbers(values: pd.Series, name: str | Path) -> pd.Series:
    numbers = pd.to_numeric(values.replace("", np.nan), errors="coerce")
    bad = numbers.isna() & (values != "")
    _refuse(pd.DataFrame({"age": values}), name, "age", bad, "a number of years or nothing")
    return numbers.astype(float)
