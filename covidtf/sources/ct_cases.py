"""CT data sets of whole cases: COVID19-Diag as people keep it, and the package's own phantoms.

Both give one manifest row per case, whose `path` is a study: a folder or a file as `covidtf.ct.read_study`
takes it.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import pandas as pd

from covidtf.files import DataError
from covidtf.sources.folders import finish
from covidtf.sources.metadata import (
    OUTSIDE,
    PHANTOM,
    RejectedError,
    is_outside,
    patient_columns,
    person_columns,
    read_rows,
)

COVID19_DIAG = "COVID19-Diag"
CT_LABELS = ("COVID-19", "Normal", "Bacterial Pneumonia")
TABLE = "cases.csv"
# What people call the class folders, without case, blanks, dashes and underscores.
_WORDS = {
    "COVID-19": {"covid19", "covid", "ncp", "covidct", "ctcovid"},
    "Normal": {"normal", "normals", "normalcases", "nc", "healthy", "control", "controls"},
    # Not "CP" and "pneumonia": elsewhere these are common pneumonias, viral ones too.
    "Bacterial Pneumonia": {"bacterialpneumonia", "bacterial", "bp"},
}
_SPLITS = {"train": "train", "training": "train", "val": "val", "test": "test", "testing": "test"}
_FILES = (".nii", ".nii.gz", ".dcm")


def read_covid19_diag(folder: str | Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Cases of COVID19-Diag. Its layout is not published; this is ours, and tolerant.

    Either `cases.csv` with the columns case, path and class, and if you like patient and split (train, val or
    test); a path is relative to the folder and leads to a study. Or class folders, each entry of which is a
    case: a folder of DICOM files or of slice images, or a file (.nii, .nii.gz, .dcm of several frames). Class
    folders may lie in `train/` and `test/`, and are known by many names: "COVID-19", "covid_19", "NCP";
    "Normal", "healthy"; "Bacterial Pneumonia", "bacterial", "BP".

    The names of cases go into every table: they must not be patients' names. A case is taken for a patient,
    unless `cases.csv` says otherwise. Where each class numbers its cases anew, the class becomes part of the
    name.

    Args:
        folder: As described.
    Returns:
        Manifest of one row per case, and rejected: a case in two classes or splits, a study that two cases
        name (all rows of it), an empty case, a class without cases, files that are no case.
    Raises:
        DataError: No such folder, or no case can be used.
    Reference: Hu et al. 2021, Neurocomputing 458:232-245.
    """
    root = Path(folder)
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; COVID19-Diag is given by its authors on request")
    rejected: list[dict] = []
    listed = (root / TABLE).is_file()
    found = _listed(root, rejected) if listed else _numbered_per_class(list(_in_folders(root, rejected)))
    rows = _without_conflicts(found, rejected)
    present = {row["label"] for row in rows}
    for label in CT_LABELS:
        if label not in present:
            rejected.append({"path": label, "row": "", "reason": "this class has no case"})
    return finish(COVID19_DIAG, root / TABLE if listed else root, rows, rejected)


def read_phantom_cts(folder: str | Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The package's own CT phantoms: `cases.csv` and `studies/`; further columns of the table are kept.

    Raises:
        DataError: The table is absent or malformed, or no case can be used.
    """
    root, rejected, rows = Path(folder), [], []
    wanted = ("case_id", "patient_id", "path", "finding", "label", "sex", "age")
    lines, bad = read_rows(root / TABLE, root, wanted)
    for line, fields in lines:
        try:
            _check_study(root, fields["path"])
        except RejectedError as error:
            rejected.append({"path": fields["path"], "row": str(line), "reason": str(error)})
            continue
        person = person_columns(fields["sex"], fields["age"])
        known = {"source": PHANTOM, "view": "UNKNOWN", **patient_columns(PHANTOM, fields["patient_id"])}
        rows.append(fields | known | person | {"case_id": f"{PHANTOM}:{fields['case_id']}"})
    return finish(PHANTOM, root / TABLE, rows, [*bad, *rejected])


def label_of(word: str) -> str:
    """The label that a class folder's or a table's word stands for.

    Raises:
        RejectedError: It stands for none.

    >>> label_of("covid_19"), label_of("Bacterial pneumonia")
    ('COVID-19', 'Bacterial Pneumonia')
    """
    plain = re.sub(r"[\s_-]+", "", word.casefold())
    for label, words in _WORDS.items():
        if plain in words:
            return label
    raise RejectedError(f"the class must be one of {CT_LABELS}. Received: {word!r}")


def _listed(root: Path, rejected: list[dict]) -> list[dict]:
    lines, bad = read_rows(root / TABLE, root, ("case", "path", "class"))
    rejected.extend(bad)
    rows = []
    for line, fields in lines:
        try:
            rows.append(_from_line(root, fields) | {"row": str(line)})
        except RejectedError as error:
            rejected.append({"path": fields["path"], "row": str(line), "reason": str(error)})
    return rows


def _from_line(root: Path, fields: dict[str, str]) -> dict:
    split = fields.get("split", "")
    if split.casefold() not in {"", *_SPLITS}:
        raise RejectedError(f"the split must be one of {tuple(_SPLITS)} or nothing. Received: {split!r}")
    if not fields["case"]:
        raise RejectedError("the case must have a name. Received: ''")
    _check_study(root, fields["path"])
    case, label = fields["case"], label_of(fields["class"])
    row = _row(PurePosixPath(fields["path"]).as_posix(), label, _SPLITS.get(split.casefold(), ""))
    patient = patient_columns(COVID19_DIAG, fields.get("patient") or case)["patient_id"]
    return row | _named(case) | {"patient_id": patient}


def _check_study(root: Path, path: str) -> None:
    if not path or is_outside(root / path, root):
        raise RejectedError("the path leads out of the folder" if path else "the path must be given")
    if not (root / path).exists():
        raise RejectedError("the study is absent")
    if (root / path).is_dir() and not any(files for _, _, files in os.walk(root / path)):
        raise RejectedError("the study's folder holds no file")


def _in_folders(root: Path, rejected: list[dict]) -> Iterator[dict]:
    parts = [path for path in _folders(root) if path.name.casefold() in _SPLITS]
    for path in (path for path in _entries(root) if parts and path not in parts):
        rejected.append({"path": path.name, "row": "", "reason": "beside train and test, so in neither"})
    for part in parts or [root]:
        split = _SPLITS[part.name.casefold()] if parts else ""
        for place in _entries(part):
            path = place.relative_to(root).as_posix()
            try:
                if not place.is_dir():
                    raise RejectedError("no class folder: a file beside them")
                label = label_of(place.name)
            except RejectedError as error:
                rejected.append({"path": path, "row": "", "reason": str(error)})
                continue
            if not _entries(place):
                rejected.append({"path": path, "row": "", "reason": "a class folder without a case"})
            yield from _cases(root, place, label, split, rejected)


def _cases(root: Path, place: Path, label: str, split: str, rejected: list[dict]) -> Iterator[dict]:
    for entry in _entries(place):
        path = entry.relative_to(root).as_posix()
        try:
            if is_outside(entry, root):
                raise RejectedError(OUTSIDE)
            if entry.is_file() and not entry.name.casefold().endswith(_FILES):
                raise RejectedError(f"no case: a folder, or a file of {_FILES}; slices go into one per case")
            _check_study(root, path)
        except RejectedError as error:
            rejected.append({"path": path, "row": "", "reason": str(error)})
            continue
        name = re.sub(r"(\.nii\.gz|\.nii|\.dcm)$", "", entry.name, flags=re.IGNORECASE)
        yield _row(path, label, split) | _named(name) | {"row": ""}


def _folders(root: Path) -> list[Path]:
    return [path for path in _entries(root) if path.is_dir()]


def _entries(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def _row(path: str, label: str, split: str) -> dict:
    return {
        "source": COVID19_DIAG,
        "path": path,
        "label": label,
        "finding": label,
        "view": "UNKNOWN",
        "split": split,
    }


def _numbered_per_class(rows: list[dict]) -> list[dict]:
    """The rows, with the class in the names of cases where each class counts its own: 1, 2, 3 in all of them.

    Taken for such where the names that classes share are all numbers (with a word before, as in `case12`) and
    at least half as many as the smallest class has. A case that was put into two classes by mistake is then
    found by its slices, which are equal.
    """
    names = {label: {row["name"].casefold() for row in rows if row["label"] == label} for label in CT_LABELS}
    present = [found for found in names.values() if found]
    shared = {name for found in present for name in found if sum(name in other for other in present) > 1}
    smallest = min(map(len, present), default=0)
    numbers = all(re.fullmatch(r"[a-z]*[\s_-]*\d+", name) for name in shared)
    if len(shared) < max(2, smallest / 2) or not numbers:
        return rows
    return [row | _named(f"{row['label']}/{row['name']}") for row in rows]


def _named(case: str) -> dict[str, str]:
    return {"name": case, **patient_columns(COVID19_DIAG, case)}


def _without_conflicts(rows: list[dict], rejected: list[dict]) -> list[dict]:
    """Cases that are there once; one in two classes, splits or places, or two of one study, tell nothing."""
    for key, what in ((lambda row: row["name"].casefold(), "case"), (lambda row: row["path"], "study")):
        same: dict[str, list[dict]] = {}
        for row in rows:
            same.setdefault(key(row), []).append(row)
        rows = [found[0] for found in same.values() if len(found) == 1]
        for found in same.values():
            if len(found) > 1:
                rejected.extend(_conflict(found, what))
    return [{key: value for key, value in row.items() if key not in ("name", "row")} for row in rows]


def _conflict(found: list[dict], what: str) -> list[dict]:
    words = {"label": "two classes", "split": "two splits", "path": "two places"}
    differing = [key for key in ("label", "split") if len({row[key] for row in found}) > 1] or ["path"]
    where = " and ".join(words[key] for key in differing) if what == "case" else "two cases"
    reason = f"one {what} in {where}: {', '.join(row['path'] for row in found)}"
    return [{"path": row["path"], "row": row["row"], "reason": reason} for row in found]
