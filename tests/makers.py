"""Tiny fakes of the public data sets, in their published layouts, for the tests."""

import csv
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from covidtf.sources.chexpert import CHEXPERT_COLUMNS, CHEXPERT_LABELS

COVID_HEADER = "patientid,offset,sex,age,finding,view,modality,date,location,folder,filename,doi,url,license,"
CHESTXRAY14_HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],"
)


def image(path: Path, size: int = 16, seed: int | None = None) -> Path:
    """A grey noise image, made from `seed` or else from the file's name."""
    rng = np.random.default_rng(list(path.name.encode()) if seed is None else seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rng.integers(0, 256, (size, size), dtype=np.uint8)).save(path)
    return path


def table(path: Path, columns: list[str], rows: list[list], encoding: str = "utf-8") -> Path:
    """A CSV file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding=encoding) as file:
        csv.writer(file, lineterminator="\n").writerows([columns, *rows])
    return path


def covid_chestxray(folder: Path, rows: list[dict], encoding: str = "utf-8") -> Path:
    """A clone of covid-chestxray-dataset; each row changes some of an ordinary row's fields.

    The images named are made, unless the row says `make=False`.
    """
    columns = COVID_HEADER.split(",")
    lines = []
    for number, changes in enumerate(rows, 1):
        row = dict.fromkeys(columns, "") | {
            "patientid": str(number),
            "finding": "COVID-19",
            "view": "PA",
            "modality": "X-ray",
            "folder": "images",
            "filename": f"{number}.png",
            "url": f"https://example.org/{number}",
            "license": "CC BY",
            **changes,
        }
        if row.pop("make", True):
            image(folder / row["folder"] / row["filename"])
        lines.append([row[column] for column in columns])
    table(folder / "metadata.csv", columns, lines, encoding)
    return folder


def chexpert(folder: Path, findings: dict[str, str], release: str = "CheXpert-v1.0-small") -> Path:
    """A release of CheXpert in `folder/release`.

    Args:
        findings: `patient00001/study1/view1_frontal.jpg` to the labels that are 1, joined by `|`; a label
            with `?` is -1. A key may begin with `valid/`; lateral images are those whose name says so.
    """
    rows = {"train": [], "valid": []}
    for name, words in findings.items():
        split = "valid" if name.startswith("valid/") else "train"
        place = f"{split}/{name.removeprefix('valid/')}"
        image(folder / release / place)
        labels = dict.fromkeys(CHEXPERT_LABELS, "")
        labels |= {
            word.rstrip("?"): "-1.0" if word.endswith("?") else "1.0" for word in words.split("|") if word
        }
        person = ["Female", "40", "Lateral", ""] if "lateral" in name else ["Male", "50", "Frontal", "AP"]
        rows[split].append([f"{release}/{place}", *person, *labels.values()])
    for split, lines in rows.items():
        table(folder / release / f"{split}.csv", list(CHEXPERT_COLUMNS), lines)
    return folder / release


def chestxray14(
    folder: Path, rows: list[list], header: str = CHESTXRAY14_HEADER, images: str = "images"
) -> Path:
    """ChestX-ray14 with rows as given, their images in `folder/images`."""
    for row in rows:
        image(folder / images / row[0])
    table(folder / "Data_Entry_2017.csv", header.split(","), rows)
    return folder


def released(folder: Path, names: list[str]) -> Path:
    """COVID-XRay-5K as released, out of paths such as `train/covid/a.png`."""
    for name in names:
        image(folder / name)
    return folder


def predictions(score, positive, **columns) -> pd.DataFrame:
    """Predictions of one source's test rows; patients are single images unless `patient_id` is given."""
    score = np.asarray(score, dtype=float)
    rows = pd.DataFrame(
        {
            "image_id": [f"a/{index}" for index in range(len(score))],
            "patient_id": [f"a:{index}" for index in range(len(score))],
            "case_id": "",
            "source": "a",
            "view": "PA",
            "finding": "",
            "split": "test",
            "label": np.where(positive, "COVID-19", "non-COVID"),
            "score_COVID-19": score,
            "score_non-COVID": 1 - score,
        }
    )
    return rows.assign(**columns)
