"""A public data set's table: its text read strictly, its words turned into the manifest's."""

import csv
import io
import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from covidtf.files import DataError

LABELS = ("COVID-19", "non-COVID")
COVID_CHESTXRAY, CHEXPERT = "covid-chestxray-dataset", "CheXpert"
CHESTXRAY14, PHANTOM = "ChestX-ray14", "phantom"
OUTSIDE = "is a symbolic link that leads out of the folder"
_VIEWS = {
    "pa": "PA",
    "ap": "AP",
    "ap erect": "AP",
    "ap semi erect": "AP",
    "ap supine": "AP Supine",
    "aps": "AP Supine",
    "l": "L",
    "lateral": "L",
    "": "UNKNOWN",
    "unknown": "UNKNOWN",
}
_SEXES = {"male": "M", "m": "M", "female": "F", "f": "F", "unknown": ""}
_YEARS = {"": 1.0, "Y": 1.0, "M": 1 / 12, "D": 1 / 365.25}


Row = tuple[int, dict[str, str]]


class RejectedError(Exception):
    """One row cannot be used; the message is the reason that the report gives."""


def is_outside(path: Path, root: Path) -> bool:
    """Whether `path`, links followed, lies outside the folder `root`, links followed."""
    return not path.resolve().is_relative_to(root.resolve())


def read_rows(path: Path, root: Path, wanted: Sequence[str]) -> tuple[list[Row], list[dict]]:
    """Rows of a CSV table as published: UTF-8 with or without a BOM, column names in any case.

    Args:
        path: The table.
        root: Folder of the data set, which `path` must not lead out of.
        wanted: Columns that must be there, spelt as the rows returned shall spell them.
    Returns:
        `(line, {column: stripped text})` of every row, `line` counted from 1 for the header; and the rows
        of a wrong number of fields, as `{"path": "", "row", "reason"}`.
    Raises:
        DataError: The file is absent, leads out of `root`, is not UTF-8 or not CSV, or lacks a column.
    """
    if is_outside(path, root):
        raise DataError(f"{path}: {OUTSIDE}")
    records = _records(path)
    names = _header(path, next(records, (1, []))[1], wanted)
    rows, bad = [], []
    for line, fields in records:
        while len(fields) > len(names) and not fields[-1].strip():
            fields.pop()
        if len(fields) == len(names):
            rows.append(
                (line, {name: value.strip() for name, value in zip(names, fields, strict=True) if name})
            )
        else:
            reason = f"{path.name}: {len(names)} fields were wanted. Received: {len(fields)}"
            bad.append({"path": "", "row": str(line), "reason": reason})
    return rows, bad


def _header(path: Path, fields: list[str], wanted: Sequence[str]) -> list[str]:
    spelling = {name.casefold(): name for name in wanted}
    names = [spelling.get(name.strip().casefold(), name.strip()) for name in fields]
    absent = [name for name in wanted if name not in names]
    if absent:
        raise DataError(f"{path}: columns {absent} are missing. Received: {names}")
    repeated = sorted({name for name in names if name and names.count(name) > 1})
    if repeated:
        raise DataError(f"{path}: columns {repeated} come more than once. Received: {names}")
    return names


def _records(path: Path) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(io.StringIO(_text(path), newline=""), strict=True)
    line = 1
    try:
        for fields in reader:
            if fields:
                yield line, fields
            line = reader.line_num + 1
    except csv.Error as error:
        raise DataError(f"{path}: row {line}: not CSV: {error}") from error


def _text(path: Path) -> str:
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    data = path.read_bytes()
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise DataError(
            f"{path}: row {line}: the text must be UTF-8. Received: byte 0x{data[error.start]:02x}. If it is "
            "Latin-1, convert it first, for example with `iconv -f latin1 -t utf-8`"
        ) from error


def patient_columns(source: str, text: str) -> dict[str, str]:
    """`patient_id` and `case_id`, prefixed by their source; no patient is refused."""
    if not text:
        raise RejectedError("the patient must be known. Received: ''")
    return {"patient_id": f"{source}:{text}", "case_id": f"{source}:{text}"}


def view_word(text: str) -> str:
    """The manifest's word for a source's view; a view that is no chest X-ray's is refused."""
    if text.casefold() not in _VIEWS:
        raise RejectedError(f"the view must be one of a chest X-ray. Received: {text!r}")
    return _VIEWS[text.casefold()]


def person_columns(sex: str, age: str) -> dict:
    """`sex` (M, F, else the source's word) and `age` in years; `058Y`, `013M`, `001D` are read too.

    >>> person_columns("Female", "018M")
    {'sex': 'F', 'age': 1.5}
    """
    match = re.fullmatch(r"(\d+(?:\.\d*)?)([YMD]?)", age)
    if age and not match:
        raise RejectedError(f"the age must be a number of years or nothing. Received: {age!r}")
    years = float(match[1]) * _YEARS[match[2]] if match else math.nan
    return {"sex": _SEXES.get(sex.casefold(), sex), "age": years}
