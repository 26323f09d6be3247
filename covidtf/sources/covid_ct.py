"""COVID-CT: single CT slices cut from publications, with a published train, val and test."""

from pathlib import Path, PurePosixPath

import pandas as pd

from covidtf.files import DataError
from covidtf.sources.folders import Files, collect, finish, list_files
from covidtf.sources.metadata import LABELS, RejectedError, patient_columns, read_rows

COVID_CT = "COVID-CT"
COLUMNS = ("file", "label", "split", "patient_id")
_FOLDERS = {"CT_COVID": ("COVID", LABELS[0]), "CT_NonCOVID": ("NonCOVID", LABELS[1])}
_SPLITS = ("train", "val", "test")


def read_covid_ct(folder: str | Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Slices of COVID-CT: `slices.csv`, or the authors' clone with its lists under `Data-split/`.

    `slices.csv` has the columns file, label (COVID-19 or non-COVID), split (train, val or test) and
    patient_id. The authors' lists name files and no patients (a spreadsheet does): there the publication
    stands for the patient of a COVID-19 slice, the article for a crawled non-COVID slice (`91%0.jpg` and
    `91%1.jpg`), and each other slice counts as a patient of its own, which it need not be.
    Images lie in `CT_COVID/` and `CT_NonCOVID/`, in the folder or in its `Images-processed/`. Where the files
    of the published test are absent, there is none: it is not drawn from the rest.

    Args:
        folder: Of either kind.
    Returns:
        Manifest and rejected, as all readers; `case_id` is the patient.
    Raises:
        DataError: No table and no lists, or none of their files can be used.
    Reference: Zhao et al. 2020, arXiv 2003.13865; github UCSD-AI4H/COVID-CT.
    """
    root, table = Path(folder), Path(folder, "slices.csv")
    if table.is_file():
        parts = read_rows(table, root, COLUMNS)
        files = list_files(root, sorted({row["file"].partition("/")[0] for _, row in parts[0]} - {""}))
        return collect(COVID_CT, table, parts, files, lambda row: row["file"], _row)
    return _from_lists(root)


def _row(fields: dict[str, str]) -> dict:
    for name, allowed in (("label", LABELS), ("split", _SPLITS)):
        if fields[name] not in allowed:
            raise RejectedError(f"the {name} must be one of {allowed}. Received: {fields[name]!r}")
    if not fields["file"]:
        raise RejectedError("the file must be named. Received: ''")
    if not fields["patient_id"]:
        raise RejectedError("the patient must be known. Received: ''")
    return _columns(fields["label"], fields["split"], fields["patient_id"])


def _columns(label: str, split: str, patient: str) -> dict:
    columns = patient_columns(COVID_CT, patient)
    return {"label": label, "finding": label, "split": split, "view": "UNKNOWN", **columns}


def _from_lists(root: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    parent = "Images-processed/" if (root / "Images-processed").is_dir() else ""
    files = list_files(root, [f"{parent}{name}" for name in _FOLDERS])
    rows, rejected = [], []
    for name, (word, label) in _FOLDERS.items():
        for split in _SPLITS:
            listed = root / "Data-split" / word / f"{split}CT_{word}.txt"
            for number, line in enumerate(_lines(listed), start=1):
                path = f"{parent}{name}/{line}"
                try:
                    files.check(path)
                    rows.append(
                        _columns(label, split, _publication(line)) | {"source": COVID_CT, "path": path}
                    )
                except RejectedError as error:
                    rejected.append({"path": path, "row": f"{listed.name} {number}", "reason": str(error)})
    rows, again = _once(rows)
    named = {row["path"] for row in [*rows, *again]}
    return finish(COVID_CT, root, rows, rejected + again + _unlisted(files, named))


def _lines(listed: Path) -> list[str]:
    if not listed.is_file():
        raise DataError(f"{listed}: no such list, and no slices.csv; COVID-CT comes with one or the other")
    return [line.strip() for line in listed.read_text(encoding="utf-8").splitlines() if line.strip()]


def _publication(name: str) -> str:
    stem = PurePosixPath(name).stem
    return stem.partition("%")[0].partition("-p")[0] if stem[:4] == "2020" or "%" in stem else stem


def _once(rows: list[dict]) -> tuple[list[dict], list[dict]]:
    """Each file once; a file that is in two lists is in none, since it would be in two splits or classes."""
    paths = pd.Series([row["path"] for row in rows], dtype="str")
    twice = paths.duplicated(keep=False).to_numpy()
    again = [
        {"path": path, "row": "", "reason": "two lists name this file"} for path in sorted(set(paths[twice]))
    ]
    return [row for row, bad in zip(rows, twice, strict=True) if not bad], again


def _unlisted(files: Files, named: set[str]) -> list[dict]:
    reasons = dict.fromkeys(files.inside, "no list names this file") | files.refused
    return [
        {"path": path, "row": "", "reason": reasons[path]} for path in sorted(reasons) if path not in named
    ]
