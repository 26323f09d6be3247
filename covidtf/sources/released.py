"""COVID-XRay-5K as its authors released it: folders of images whose names say where they come from."""

import re
from importlib import resources
from pathlib import Path, PurePosixPath

import pandas as pd

from covidtf.files import DataError
from covidtf.sources.folders import finish, list_files
from covidtf.sources.metadata import CHEXPERT, COVID_CHESTXRAY, LABELS

_FOLDERS = {"covid": LABELS[0], "non": LABELS[1]}
_SPLITS = ("train", "val", "test")
_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp"}
_NEGATIVE = re.compile(r"(?:(.+)-)?(patient\d+)-(study\d+)-(view\d+_(?:frontal|lateral)\.\w+)")
# Augmentor 0.2 names a copy <folder>_original_<name>_<uuid4>.<ending>.
_COPY = re.compile(r".+?_original_(.+)_[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\.\w+")


def published_files() -> pd.DataFrame:
    """Every original file of COVID-XRay-5K v3: split, label, source, path, patient_id, git_blob_sha1.

    `source` is the manifest's name; the CheXpert files are those of the small release. `patient_id` is `""`
    for the four images that no metadata describes. `image_id` is added.
    """
    with resources.files("covidtf.published").joinpath("covid_xray_5k_v3.csv").open("rb") as file:
        table = pd.read_csv(file, dtype=str, keep_default_na=False)
    table["source"] = table["source"].replace("CheXpert-v1.0-small", CHEXPERT)
    table["image_id"] = table["source"] + "/" + table["path"]
    return table


def published_counts() -> pd.DataFrame:
    """Images per version, split and label as published, with the certainty of each number.

    Certainty: A read in a primary artefact, B quoted by a third party, C inferred, M from memory.
    """
    with resources.files("covidtf.published").joinpath("split_counts.csv").open("rb") as file:
        return pd.read_csv(file)


def patient_ids(source: str, patient: str, path: str) -> dict[str, str]:
    """`patient_id` and `case_id` of a file; without a patient the file stands alone as `unknown:<name>`.

    >>> patient_ids("CheXpert", "patient00003", "train/patient00003/study1/view1_frontal.jpg")["case_id"]
    'CheXpert:patient00003/study1'
    >>> patient_ids("covid-chestxray-dataset", "", "images/4-x-day1.jpg")["patient_id"]
    'covid-chestxray-dataset:unknown:4-x-day1.jpg'
    """
    parts = PurePosixPath(path)
    name = f"{source}:{patient}" if patient else f"{source}:unknown:{parts.name}"
    case = f"{name}/{parts.parent.name}" if patient and source == CHEXPERT else name
    return {"patient_id": name, "case_id": case}


def read_covid_xray_5k(folder: str | Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The released archive, v1 or v3: `train|val|test/{covid,non}`, here or in the one folder above them.

    `source` is where an image comes from, and `original_path` its place there (for CheXpert, the key to the
    findings in `train.csv`). The patient is read from a negative's name and looked up for a positive in the
    published v3 list; a name that tells nothing gives the patient `<source>:unknown:<name>`, so that
    `patient_id.str.contains(":unknown:").sum()` counts them. The finding of a negative is its name's prefix
    and `""` without one: names without a prefix are not all No Finding. Augmentor's copies in train name
    their original in `parent_id`; without it, or outside train, they are rejected. The archive has no URLs;
    `xray5k.join_metadata` adds them.

    Raises:
        DataError: The folders are not there, or no image can be used.
    Reference: Minaee et al., Medical Image Analysis 65:101794, 2020.
    """
    root = Path(folder)
    prefix = _prefix(root)
    files = list_files(root, [f"{prefix}{split}" for split in _SPLITS])
    listed = published_files()
    positives = listed[listed["label"] == LABELS[0]]
    patients = {PurePosixPath(row.path).name: row for row in positives.itertuples()}
    rows = {}
    rejected = [{"path": path, "row": "", "reason": reason} for path, reason in files.refused.items()]
    copies = []
    for path in sorted(files.inside):
        place = path.removeprefix(prefix)
        reason = _reason_to_reject(place)
        if reason:
            rejected.append({"path": path, "row": "", "reason": reason})
        elif _COPY.fullmatch(PurePosixPath(path).name):
            copies.append((place, path))
        else:
            rows[place] = _original(place, path, patients)
    for place, path in copies:
        _add_copy(place, path, rows, rejected)
    return finish("COVID-XRay-5K", root, list(rows.values()), rejected)


def _prefix(root: Path) -> str:
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; the released COVID-XRay-5K was wanted")
    for place in (root, *sorted(path for path in root.iterdir() if path.is_dir())):
        if (place / "train").is_dir() or (place / "test").is_dir():
            return "" if place == root else f"{place.name}/"
    names = sorted(path.name for path in root.iterdir())[:10]
    raise DataError(f"{root}: train/ and test/ with covid/ and non/ in each were wanted. Received: {names}")


def _reason_to_reject(place: str) -> str:
    parts = PurePosixPath(place)
    if len(parts.parts) < 3 or parts.parts[1] not in _FOLDERS:
        return "must be in a folder covid or non"
    if parts.name.startswith(".") or parts.suffix.lower() not in _SUFFIXES:
        return "does not have the name of an image"
    return ""


def _original(place: str, path: str, patients: dict) -> dict:
    split, folder, *_, name = PurePosixPath(place).parts
    negative = _NEGATIVE.fullmatch(name)
    view, finding, patient, original = "UNKNOWN", "", "", ""
    source = COVID_CHESTXRAY if folder == "covid" else CHEXPERT
    if folder == "covid":
        finding = LABELS[0]
        if name in patients:
            patient, original = patients[name].patient_id, patients[name].path
    elif negative:
        finding, patient = negative[1] or "", negative[2]
        original = f"train/{patient}/{negative[3]}/{negative[4]}"
        view = "L" if "lateral" in negative[4] else "UNKNOWN"
    return {
        "image_id": f"{source}/{place}",
        "source": source,
        "path": path,
        "label": _FOLDERS[folder],
        "finding": finding,
        **patient_ids(source, patient, original or name),
        "view": view,
        "split": split,
        "parent_id": "",
        "original_path": original,
    }


def _add_copy(place: str, path: str, rows: dict[str, dict], rejected: list[dict]) -> None:
    split, folder, *_, name = PurePosixPath(place).parts
    while match := _COPY.fullmatch(name):
        name = match[1]
    parent = rows.get(f"{split}/{folder}/{name}")
    if split != "train":
        reason = "is Augmentor's copy of an image and not in train"
    elif parent is None:
        reason = f"is Augmentor's copy of {name}, which is not in {split}/{folder}"
    else:
        image_id = f"{parent['source']}/{place}"
        rows[place] = {**parent, "image_id": image_id, "path": path, "parent_id": parent["image_id"]}
        return
    rejected.append({"path": path, "row": "", "reason": reason})
