"""CheXpert: its small and its full release, whose folders differ, as one manifest."""

import re
from pathlib import Path

import pandas as pd

from covidtf.files import DataError
from covidtf.sources.folders import collect, list_files
from covidtf.sources.metadata import CHEXPERT, LABELS, RejectedError, person_columns, read_rows

CHEXPERT_LABELS = (
    "No Finding",
    "Enlarged Cardiomediastinum",
    "Cardiomegaly",
    "Lung Opacity",
    "Lung Lesion",
    "Edema",
    "Consolidation",
    "Pneumonia",
    "Atelectasis",
    "Pneumothorax",
    "Pleural Effusion",
    "Pleural Other",
    "Fracture",
    "Support Devices",
)
CHEXPERT_COLUMNS = ("Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", *CHEXPERT_LABELS)


def read_chexpert(folder: str | Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Images of CheXpert, small or full release: `train.csv` and/or `valid.csv` and the folders they name.

    `finding` joins the labels that are 1 with `|`; those that are -1 are in the extra column `uncertain`.
    `split` is the published one, `train` or `val`. `image_id` is `CheXpert/<train|valid>/<patient>/<study>/
    <file>` for every release and wherever it lies. The view of the few frontal images whose AP/PA column
    says neither ("LL", "RL") is UNKNOWN.

    A rejected row's reason begins with its table.

    Args:
        folder: The release, its parent, or the parent of the full release's `CheXpert-v1.0 batch N` folders.
    Raises:
        DataError: As `read_covid_chestxray`; or the folder holds more than one release.
    Reference: Irvin et al., AAAI 2019, arXiv 1901.07031.
    """
    root = Path(folder)
    release = chexpert_release(root)
    prefix = "" if release == root else f"{release.name}/"
    tables = [table for name in ("train.csv", "valid.csv") if (table := release / name).is_file()]
    if not tables:
        raise DataError(f"{root}: train.csv or valid.csv was wanted, here or in a folder CheXpert-v1.0*")
    read = {table.name: read_rows(table, root, CHEXPERT_COLUMNS) for table in tables}
    rows, bad = ([row for parts in read.values() for row in parts[number]] for number in (0, 1))
    folders = [f"{prefix}train", f"{prefix}valid"]
    if prefix.startswith("CheXpert-v1.0 batch"):
        folders += [path.name for path in root.glob("CheXpert-v1.0 batch*") if path != release]
    files = list_files(root, folders)
    places = {chexpert_name(path): path for path in sorted((*files.inside, *files.refused))}

    def locate(fields: dict[str, str]) -> str:
        name = chexpert_name(fields["Path"])
        return places.get(name, f"{prefix}{name}")

    table, rejected = collect(CHEXPERT, tables[0], (rows, bad), files, locate, chexpert_row)
    named = {(locate(fields), str(line)): name for name, parts in read.items() for line, fields in parts[0]}
    return table, rejected.assign(reason=_with_table(rejected, named))


def _with_table(rejected: pd.DataFrame, named: dict[tuple[str, str], str]) -> list[str]:
    """Reasons that begin with the table whose row is meant, because both have a row 2."""
    rows = zip(rejected["path"], rejected["row"], rejected["reason"], strict=True)
    return [f"{named[path, row]}: {reason}" if (path, row) in named else reason for path, row, reason in rows]


def find_chexpert(folder: Path) -> Path:
    """The folder that `read_chexpert` and `rebuild_v3` want, out of a folder of public data sets.

    `CheXpert-v1.0-small` comes before `CheXpert-v1.0`, because COVID-XRay-5K was made of it; each may be a
    link to a folder elsewhere. Where there are only the full release's folders `CheXpert-v1.0 batch N`, which
    must not be links one by one, it is `folder` itself.

    Raises:
        DataError: None of these is there; says what was looked for and what is there.
    """
    for name in ("CheXpert-v1.0-small", "CheXpert-v1.0"):
        if (folder / name).is_dir():
            return folder / name
    if any(folder.glob("CheXpert-v1.0 batch*")):
        return folder
    raise DataError(
        f"{folder}: a folder or link CheXpert-v1.0-small or CheXpert-v1.0, or folders CheXpert-v1.0 batch N, "
        f"were wanted. Received: {sorted(path.name for path in folder.iterdir())[:20]}"
    )


def chexpert_release(folder: Path) -> Path:
    """The folder of a CheXpert release: `folder`, or the one `CheXpert-v1.0*` under it.

    Raises:
        DataError: `folder` is absent or holds several releases.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; a release of CheXpert was wanted")
    parts = ("train.csv", "valid.csv", "train", "valid")
    found = [
        place
        for place in (folder, *sorted(folder.glob("CheXpert-v1.0*")))
        if any((place / part).exists() for part in parts)
    ]
    if folder in found or not found:
        return folder
    if len(found) > 1:
        names = [place.name for place in found]
        raise DataError(f"{folder}: one release of CheXpert was wanted. Received: {names}; name one of them")
    return found[0]


def chexpert_name(path: str) -> str:
    """`<train|valid>/<patient>/<study>/<file>` out of any release's path; what is not such stays as it is.

    >>> chexpert_name("CheXpert-v1.0-small/valid/patient64541/study1/view1_frontal.jpg")
    'valid/patient64541/study1/view1_frontal.jpg'
    >>> chexpert_name("CheXpert-v1.0 batch 2 (train 1)/patient00001/study1/view1_frontal.jpg")
    'train/patient00001/study1/view1_frontal.jpg'
    """
    match = re.search(r"(?:(?:^|/)(train|valid)/)?(patient\d+/study\d+/[^/]+)$", path)
    return f"{match[1] or 'train'}/{match[2]}" if match else path


def chexpert_row(fields: dict[str, str]) -> dict:
    """Manifest columns of a row of `train.csv` or `valid.csv`; see `read_chexpert`."""
    name = chexpert_name(fields["Path"])
    if not re.fullmatch(r"(train|valid)/patient\d+/study\d+/[^/]+", name):
        raise RejectedError("Path must end in <train|valid>/patientN/studyN/<file>")
    if fields["Frontal/Lateral"] not in ("Frontal", "Lateral"):
        raise RejectedError(f"Frontal/Lateral must be either. Received: {fields['Frontal/Lateral']!r}")
    values = {label: _value(label, fields[label]) for label in CHEXPERT_LABELS}
    split, patient, study, _ = name.split("/")
    lateral = fields["Frontal/Lateral"] == "Lateral"
    view = "L" if lateral else {"AP": "AP", "PA": "PA"}.get(fields["AP/PA"], "UNKNOWN")
    return {
        "image_id": f"{CHEXPERT}/{name}",
        "label": LABELS[1],
        "finding": "|".join(label for label, value in values.items() if value == 1),
        "patient_id": f"{CHEXPERT}:{patient}",
        "case_id": f"{CHEXPERT}:{patient}/{study}",
        "view": view,
        "split": "val" if split == "valid" else "train",
        **person_columns(fields["Sex"], fields["Age"]),
        "uncertain": "|".join(label for label, value in values.items() if value == -1),
    }


def _value(label: str, text: str) -> float:
    values = {"": 0.0, "0": 0.0, "0.0": 0.0, "1": 1.0, "1.0": 1.0, "-1": -1.0, "-1.0": -1.0}
    if text not in values:
        raise RejectedError(f"{label} must be 1, 0, -1 or nothing. Received: {text!r}")
    return values[text]
