"""One reader per public data set: its folder -> manifest, and a report of what could not be used.

Every reader returns `(manifest, rejected)`. `rejected` has the columns source, path, row (line in the
table, 1 is the header; `""` for a file that no row names) and reason. Nothing outside the folder is read.
"""

import re
from pathlib import Path, PurePosixPath

import pandas as pd

from covidtf.sources.chexpert import read_chexpert
from covidtf.sources.folders import collect, list_files
from covidtf.sources.metadata import (
    CHESTXRAY14,
    COVID_CHESTXRAY,
    LABELS,
    PHANTOM,
    RejectedError,
    patient_columns,
    person_columns,
    read_rows,
    view_word,
)
from covidtf.sources.released import read_covid_xray_5k

__all__ = [
    "COVID_COLUMNS",
    "covid_path",
    "covid_row",
    "read_chestxray14",
    "read_chexpert",
    "read_covid_chestxray",
    "read_covid_xray_5k",
    "read_phantom",
]

COVID_COLUMNS = ("patientid", "finding", "view", "filename")
Read = tuple[pd.DataFrame, pd.DataFrame]


def read_covid_chestxray(folder: str | Path) -> Read:
    """Chest X-rays of a clone of covid-chestxray-dataset: `metadata.csv` and `images/`.

    The label is COVID-19 where one of the finding's words is ("COVID-19, ARDS", "Pneumonia/Viral/COVID-19"),
    else non-COVID; findings "todo", "Unknown" and none are rejected, as are CT rows and their views. Lateral
    images stay, with view `L`. A patient may have images of both labels. Releases before April 2020, without
    the columns modality and folder, are read too.

    Args:
        folder: The clone.
    Returns:
        Manifest and rejected; a file that two rows name is kept by its first row if they agree.
    Raises:
        DataError: The table is absent, not UTF-8, lacks columns or has no usable row.
    Reference: Cohen et al., 2020, arXiv 2006.11988.
    """
    root, table = Path(folder), Path(folder, "metadata.csv")
    rows, bad = read_rows(table, root, COVID_COLUMNS)
    folders = {covid_path(fields).rpartition("/")[0] for _, fields in rows if _is_xray(fields)}
    inside = sorted(name for name in folders if name and name[0] != "/" and ".." not in name.split("/"))
    return collect(COVID_CHESTXRAY, table, (rows, bad), list_files(root, inside), covid_path, covid_row)


def covid_path(fields: dict[str, str]) -> str:
    """Path of the image of a row of covid-chestxray-dataset's `metadata.csv`."""
    return str(PurePosixPath(fields.get("folder") or "images", fields["filename"]))


def _is_xray(fields: dict[str, str]) -> bool:
    return fields.get("modality", "X-ray").casefold() == "x-ray"


def covid_row(fields: dict[str, str]) -> dict:
    """Manifest columns of a row of covid-chestxray-dataset's `metadata.csv`; see `read_covid_chestxray`."""
    if not _is_xray(fields):
        raise RejectedError(f"modality must be X-ray. Received: {fields['modality']!r}")
    finding = fields["finding"]
    if finding.casefold() in ("", "todo", "unknown"):
        raise RejectedError(f"the finding must be known. Received: {finding!r}")
    is_covid = "covid-19" in (word.strip().casefold() for word in re.split("[,/]", finding))
    return {
        "label": LABELS[0] if is_covid else LABELS[1],
        "finding": finding,
        **patient_columns(COVID_CHESTXRAY, fields["patientid"]),
        "view": view_word(fields["view"]),
        **person_columns(fields.get("sex", ""), fields.get("age", "")),
        "url": fields.get("url", ""),
        "licence": fields.get("license", ""),
    }


def read_chestxray14(folder: str | Path) -> Read:
    """Images of ChestX-ray14: `Data_Entry_2017_v2020.csv`, else `Data_Entry_2017.csv`, and their images.

    Images lie in `images/` or in `images_001/images/` to `images_012/images/`. All are non-COVID; the view
    is UNKNOWN and sex and age are absent where the table has no such columns.

    Raises:
        DataError: As `read_covid_chestxray`.
    Reference: Wang et al., CVPR 2017, arXiv 1705.02315.
    """
    root = Path(folder)
    table = root / "Data_Entry_2017_v2020.csv"
    table = table if table.is_file() else root / "Data_Entry_2017.csv"
    parts = read_rows(table, root, ("Image Index", "Finding Labels", "Patient ID"))
    folders = ["images", *sorted(f"{path.name}/images" for path in root.glob("images_[0-9]*"))]
    files = list_files(root, folders)
    places = {path.rpartition("/")[2]: path for path in sorted((*files.inside, *files.refused), reverse=True)}

    def locate(fields: dict[str, str]) -> str:
        return places.get(fields["Image Index"], f"images/{fields['Image Index']}")

    return collect(CHESTXRAY14, table, parts, files, locate, _chestxray14_row)


def _chestxray14_row(fields: dict[str, str]) -> dict:
    if not fields["Finding Labels"]:
        raise RejectedError("the finding must be known. Received: ''")
    sex = fields.get("Patient Gender") or fields.get("Patient Sex", "")
    return {
        "image_id": f"{CHESTXRAY14}/images/{fields['Image Index']}",
        "label": LABELS[1],
        "finding": fields["Finding Labels"],
        **patient_columns(CHESTXRAY14, fields["Patient ID"]),
        "view": view_word(fields.get("View Position", "")),
        **person_columns(sex, fields.get("Patient Age", "")),
    }


def read_phantom(folder: str | Path) -> Read:
    """The package's own phantoms: `metadata.csv` and `images/`; further columns of the table are kept.

    Raises:
        DataError: As `read_covid_chestxray`.
    """
    root, table = Path(folder), Path(folder, "metadata.csv")
    parts = read_rows(table, root, ("filename", "patient_id", "finding", "label", "view"))

    def locate(fields: dict[str, str]) -> str:
        return f"images/{fields['filename']}"

    return collect(PHANTOM, table, parts, list_files(root, ["images"]), locate, _phantom_row)


def _phantom_row(fields: dict[str, str]) -> dict:
    if fields["label"] not in LABELS:
        raise RejectedError(f"the label must be one of {LABELS}. Received: {fields['label']!r}")
    others = {key: value for key, value in fields.items() if key != "filename"}
    return {
        **others,
        **patient_columns(PHANTOM, fields["patient_id"].removeprefix(f"{PHANTOM}:")),
        "view": view_word(fields["view"]),
        **person_columns(fields.get("sex", ""), fields.get("age", "")),
    }
