"""A data set by name: from the folders it needs to one manifest, and from prepared images to its split."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from covidtf import manifest, phantom, sources, splits
from covidtf.config import ROOT, DataConfig
from covidtf.duplicates import duplicates
from covidtf.files import DataError
from covidtf.images import prepare
from covidtf.images.prepare import Prepared
from covidtf.metrics import evaluation
from covidtf.sources import released, xray5k
from covidtf.sources.chexpert import find_chexpert, read_chexpert
from covidtf.sources.metadata import CHESTXRAY14, CHEXPERT, COVID_CHESTXRAY, PHANTOM

PHANTOMS = 250  # patients, where the settings name no number


@dataclass(frozen=True)
class Collected:
    """What the sources hold, before an image is read.

    Attributes:
        manifest: One row per image; `split` as published, empty where we draw it.
        roots: Source name -> folder in which the manifest's paths lie.
        rejected: Columns source, path, row, reason; what `patients` left out is here too.
        report: One row per published file of COVID-XRay-5K v3 with its state; empty for other data sets.
    """

    manifest: pd.DataFrame
    roots: dict[str, Path]
    rejected: pd.DataFrame
    report: pd.DataFrame


@dataclass(frozen=True)
class Division:
    """The split and what was found on the way.

    Attributes:
        manifest: With `split`; rows that `strict` dropped have split `""` and keep their place.
        pairs: Exact and near duplicates, see `duplicates.duplicates`.
        overlaps: Patients, URLs and duplicates in two splits as they came; empty for a split of ours.
        dropped: Rows that `strict` took out, with their former split and the `reason`.
    """

    manifest: pd.DataFrame
    pairs: pd.DataFrame
    overlaps: pd.DataFrame
    dropped: pd.DataFrame


def collect(config: DataConfig) -> Collected:
    """Read the sources of `config.dataset`; phantoms are made first.

    For v3, `tables/v3_files.csv` in the step's folder says in which state every published file is; it is
    written before an error about files is raised.

    Raises:
        DataError: A folder or table is absent or not what was wanted, or nothing is left.
    """
    found = _COLLECT[config.dataset](config)
    if config.dataset == "phantom" or config.patients == 0:
        return found
    return fewer(found, ("split", "label", "source"), config.patients, config.seed, "patients")


def divide(config: DataConfig, table: pd.DataFrame) -> Division:
    """Find duplicates and give every row its split.

    A published split is taken as published, its overlaps are reported, and val is 10 % of train by patient.
    Where none is published, patients are drawn, and an overlap is an error.

    Args:
        table: Prepared manifest.
    Raises:
        DataError: An overlap in a split of ours, or a label too rare to be in every split.
    """
    pairs, nothing = duplicates(table), table.iloc[:0].assign(reason="")
    if not (table["split"] != "").any():
        table = splits.split(table, pairs, test=config.test_fraction, val=0.1, seed=config.seed)
        return Division(table, pairs, splits.check(table, pairs), nothing)
    overlaps, dropped = splits.check(table, pairs, published=True), nothing
    if config.strict:
        table, dropped = splits.strict(table, overlaps)
    if not (table["split"] == "val").any():
        table = splits.add_val(table, pairs, fraction=0.1, seed=config.seed)
    return Division(table, pairs, overlaps, dropped)


def counts(table: pd.DataFrame, report: pd.DataFrame) -> pd.DataFrame:
    """Images and patients per split, source and label; for v3 beside how many files were wanted.

    Args:
        table: Manifest with `split`.
        report: Of `Collected`.
    Returns:
        Columns split, source, label, images, patients. For v3 also the numbers of files
        wanted, present, absent, altered and outside in the published split, whose train includes our val.
    """
    keys = ["split", "source", "label"]
    numbers = evaluation.counts(table, tuple(keys))
    if report.empty:
        return numbers
    states = pd.crosstab([report[key] for key in keys], report["state"])
    states = states.reindex(columns=["present", "absent", "altered", "outside"], fill_value=0)
    states.insert(0, "wanted", states.sum(axis=1))
    merged = numbers.merge(states.reset_index(), on=keys, how="outer").sort_values(keys, ignore_index=True)
    return merged.astype(dict.fromkeys(merged.columns.drop(keys), "Int64")).fillna(
        {"images": 0, "patients": 0}
    )


def load(folder: Path) -> Prepared:
    """The data set that a step wrote: `prepared/`, and beside it `manifest.csv` with what the step decided.

    Args:
        folder: Step folder, as 01_xray_dataset or 03_augmentation.
    Raises:
        DataError: A part is absent, or the two do not list the same images in the same order.
    """
    prepared = prepare.load(folder / "prepared")
    if not (folder / "manifest.csv").is_file():
        raise DataError(f"{folder}: manifest.csv is missing; run the notebook {folder.name} to its end")
    table = manifest.read(folder / "manifest.csv")
    if list(table["image_id"]) != list(prepared.manifest["image_id"]):
        raise DataError(f"{folder / 'manifest.csv'}: must list the images of prepared/ in their order")
    decided = table[[name for name in ("split", "copies") if name in table]]
    if "copies" in decided:
        decided = decided.astype({"copies": int})
    return replace(prepared, manifest=prepared.manifest.assign(**decided))


def fewer(found: Collected, by: tuple[str, ...], number: int, seed: int, parameter: str) -> Collected:
    """At most `number` patients in each group of `by`, drawn with the seed, the other rows as rejected.

    Args:
        parameter: What asked for it, for the reason.
    """
    table = found.manifest
    patients = table[[*by, "patient_id"]].drop_duplicates()
    patients = patients.sort_values(list(patients.columns))
    order = np.random.default_rng([seed, 3]).permutation(len(patients))
    kept = patients.iloc[order].groupby(list(by)).head(number)
    rows = table.merge(kept)
    others = table[~table["image_id"].isin(rows["image_id"])]
    reason = f"left out by `{parameter}`: " + others["split"] + " " + others["label"]
    left_out = others[["source", "path"]].assign(row="", reason=reason.str.replace("  ", " "))
    rejected = pd.concat([found.rejected, left_out], ignore_index=True)
    return replace(found, manifest=manifest.make(rows, parameter), rejected=rejected)


def _phantom(config: DataConfig) -> Collected:
    folder = config.folder / "phantoms"
    phantom.write_xrays(folder, config.patients or PHANTOMS, seed=config.seed, shortcut=config.shortcut)
    table, rejected = sources.read_phantom(folder)
    return Collected(table, {PHANTOM: folder}, rejected, pd.DataFrame())


def _sample(config: DataConfig) -> Collected:
    folder = config.source_folder
    roots = {name: folder / name for name in (COVID_CHESTXRAY, CHESTXRAY14)}
    covid, rejected_covid = sources.read_covid_chestxray(roots[COVID_CHESTXRAY])
    other, rejected_other = sources.read_chestxray14(roots[CHESTXRAY14])
    table = pd.concat([covid, other], ignore_index=True)
    lateral = table["view"] == "L"
    rows = table.loc[lateral, ["source", "path"]].assign(row="", reason="lateral view")
    rejected = pd.concat([rejected_covid, rejected_other, rows], ignore_index=True)
    return Collected(table[~lateral].reset_index(drop=True), roots, rejected, pd.DataFrame())


def _v3(config: DataConfig) -> Collected:
    roots = _xray5k_roots(config)
    table, report = xray5k.rebuild_v3(
        roots[COVID_CHESTXRAY], roots[CHEXPERT], config.missing, config.folder / "tables" / "v3_files.csv"
    )
    lost = report.loc[report["state"] != "present", ["source", "path", "state"]]
    rejected = lost.rename(columns={"state": "reason"}).assign(row="")
    return Collected(table, roots, rejected, report)


def _v1(config: DataConfig) -> Collected:
    roots = _xray5k_roots(config)
    covid, rejected_covid = sources.read_covid_chestxray(roots[COVID_CHESTXRAY])
    chexpert, rejected_chexpert = read_chexpert(roots[CHEXPERT])
    rejected = pd.concat([rejected_covid, rejected_chexpert], ignore_index=True)
    if config.file_list:
        everything = pd.concat([covid, chexpert], ignore_index=True)
        table = xray5k.apply_list(everything, ROOT / Path(config.file_list).expanduser(), roots)
    else:
        numbers = (config.covid_train, config.covid_test)
        table = xray5k.sample_v1(covid, chexpert, numbers, seed=config.seed)
    return Collected(table, roots, rejected, pd.DataFrame())


def _released(config: DataConfig) -> Collected:
    folder = config.source_folder / "COVID-XRay-5K"
    table, rejected = released.read_covid_xray_5k(folder)
    # The archive names no URLs, without which `strict` cannot see one publication in train and test.
    metadata = config.source_folder / COVID_CHESTXRAY / "metadata.csv"
    if metadata.is_file():
        table = xray5k.join_metadata(table, metadata)
    return Collected(table, {COVID_CHESTXRAY: folder, CHEXPERT: folder}, rejected, pd.DataFrame())


_COLLECT = {"phantom": _phantom, "sample": _sample, "v3": _v3, "v1": _v1, "released": _released}


def _xray5k_roots(config: DataConfig) -> dict[str, Path]:
    folder = config.source_folder
    return {COVID_CHESTXRAY: folder / COVID_CHESTXRAY, CHEXPERT: find_chexpert(folder)}
