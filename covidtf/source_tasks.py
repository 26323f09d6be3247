"""The images of a source task: class folders, a zip of them, or ChestX-ray14 without the target's test."""

from pathlib import Path

import numpy as np
import pandas as pd

from covidtf import manifest, phantom, sources, splits
from covidtf.config import ROOT, SourceConfig
from covidtf.datasets import PHANTOMS, Collected
from covidtf.duplicates import duplicates
from covidtf.files import DataError
from covidtf.runs import slug
from covidtf.sources.class_folders import read_class_folders, unpack
from covidtf.sources.metadata import CHESTXRAY14, PHANTOM


def collect(config: SourceConfig) -> Collected:
    """Read the images of `config.source`; a zip is unpacked into the step's folder first.

    Raises:
        DataError: No such folder or archive, or no image in it; an unfinished target step.
    """
    if config.source == PHANTOM:
        root, name = config.folder / "phantoms", PHANTOM
        phantom.write_xrays(root, 3 * config.images or PHANTOMS, seed=config.seed)
        table, rejected = sources.read_phantom(root)
    elif config.source == CHESTXRAY14:
        table, rejected = sources.read_chestxray14(config.source_folder / CHESTXRAY14)
        table, left_out = _two_findings(table)
        table, spared = _without_target(table, config.target)
        rejected = pd.concat([rejected, left_out, spared], ignore_index=True)
        root, name = config.source_folder / CHESTXRAY14, CHESTXRAY14
    else:
        place = config.source_folder / Path(config.source).expanduser()
        if not place.exists():
            raise DataError(f"{place}: no such folder or zip; `source` names it")
        name = slug(place.stem)
        root = place if place.is_dir() else unpack(place, config.folder / "unpacked")
        table, rejected = read_class_folders(root, name)
    table = _fewer(table, config)
    return Collected(table, {name: root}, rejected, pd.DataFrame())


def divide(config: SourceConfig, table: pd.DataFrame) -> pd.DataFrame:
    """The manifest with its split: as published, with a tenth of train as val where it has none; else drawn.

    Near duplicates are not looked for: a source task is judged by what it brings to the target task.
    """
    nothing = duplicates(table.iloc[:0])
    if not (table["split"] != "").any():
        return splits.split(table, nothing, test=0.1, val=0.1, seed=config.seed)
    if not (table["split"] == "val").any():
        return splits.add_val(table, nothing, fraction=0.1, seed=config.seed)
    return table


def _two_findings(table: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    words = table["finding"].str.split("|")
    label = np.where(words.map(lambda found: "Pneumonia" in found), "Pneumonia", table["finding"])
    kept = np.isin(label, ("Pneumonia", "No Finding"))
    others = table.loc[~kept, ["source", "path"]].assign(row="", reason="neither No Finding nor Pneumonia")
    return manifest.make(table.assign(label=label)[kept], CHESTXRAY14), others


def _without_target(table: pd.DataFrame, target: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Without the patients on whom the target task is judged, who must be new to the network then."""
    if not target:
        return table, pd.DataFrame()
    path = ROOT / Path(target).expanduser() / "manifest.csv"
    if not path.is_file():
        raise DataError(f"{path}: no such file; `target` must be the folder of a finished data step")
    judged = manifest.read(path)
    judged = set(judged.loc[judged["split"].isin(("val", "test")), "patient_id"])
    spared = table["patient_id"].isin(judged)
    rows = table.loc[spared, ["source", "path"]].assign(row="", reason="patient in the target's val or test")
    return manifest.make(table[~spared], CHESTXRAY14), rows


def _fewer(table: pd.DataFrame, config: SourceConfig) -> pd.DataFrame:
    if not config.images:
        return table
    order = np.random.default_rng([config.seed, 3]).permutation(len(table))
    kept = table.iloc[order].groupby(["split", "label"]).head(config.images)
    return manifest.make(kept.sort_index(), config.source)
