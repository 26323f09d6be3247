"""What lowers the dependence on the source: AUROC within a source, and where one was left out."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold

from covidtf.audit import probe, sources
from covidtf.audit.areas import Area, lost, within
from covidtf.duplicates import duplicates, groups
from covidtf.files import DataError
from covidtf.metrics import intervals
from covidtf.predictions import same_images
from covidtf.runs import Run

if TYPE_CHECKING:
    from covidtf.images.store import Prepared

ALL, WITHIN, FALL, LEFT_OUT = "all sources", "within source", "fall within source", "source left out"
FOLDS = 5
_COLUMNS = ("variant", "measure", "value", "low", "high", "n", "patients", "gain", "gain_low", "gain_high")


def name(prepared: "Prepared") -> str:
    """How images were prepared, in words: "as stored", "equalised", "lungs", "lungs, equalised"."""
    words = [word for word in (prepared.crop, prepared.grey) if word in ("lungs", "equalised")]
    return ", ".join(words) or "as stored"


def shared(prepared: Sequence["Prepared"]) -> tuple[pd.DataFrame, list[np.ndarray]]:
    """The images that several data sets hold, however they prepared them.

    Args:
        prepared: Data sets whose manifests name images alike.
    Returns:
        Rows of the first manifest, in its order, and for each data set the rows of the same images.
    Raises:
        DataError: No data set, no shared image, or a file that differs (its `sha256`).
    """
    if not prepared:
        raise DataError("data: at least one finished data step was wanted. Received: none")
    files = [one.manifest.set_index("image_id")["sha256"] for one in prepared]
    ids = [image for image in files[0].index if all(image in other.index for other in files)]
    if not ids:
        raise DataError(f"{prepared[-1].folder}: images of {prepared[0].folder} were wanted. Received: none")
    for one, own in zip(prepared, files, strict=True):
        changed = [image for image in ids if own[image] != files[0][image]]
        if changed:
            raise DataError(
                f"{one.folder}: the files of {prepared[0].folder} were wanted. Not so: {len(changed)}, "
                f"first {changed[0]}"
            )
    rows = [one.manifest.set_index("image_id").index.get_indexer(ids) for one in prepared]
    return prepared[0].manifest.iloc[rows[0]].reset_index(drop=True), rows


def variants(names: Sequence[str], features: Sequence[np.ndarray]) -> dict[str, tuple[np.ndarray, str]]:
    """Each way to prepare images with each balance of the probe, for `tried`."""
    return {
        way if balance == "label" else f"{way}, sources balanced": (values, balance)
        for way, values in zip(names, features, strict=True)
        for balance in probe.BALANCES
    }


def tried(
    manifest: pd.DataFrame,
    variants: Mapping[str, tuple[np.ndarray, str]],
    positive: str = "COVID-19",
    folds: int = FOLDS,
    draws: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """The probe, trained on each variant of one set of images, out of fold and on places that it never saw.

    - `all sources`, `within source`: cross-validation over all originals that have a split. Patients,
      pictures and URLs are never divided (`duplicates.groups`); labels and sources are spread over the folds.
      AUROC is pooled within folds, or within folds and sources.
    - `fall within source`: the first minus the second. At 0 nothing is gained by knowing the source.
    - `source left out`: `sources.left_out`, trained on all other places, pooled within those left out.

    No number of a variant chooses anything: the probe has one penalty and no epochs. Which variant to use is
    chosen by who reads the table, and the best of several is too good by chance.

    Args:
        manifest: Of the images.
        variants: By name, features with row i of row i of `manifest`, and the balance of `probe.scores`. The
            first is what the others are compared with.
        positive: Label to detect.
        folds: Number of folds, at least 2.
        draws: Bootstrap draws of patients.
        seed: Of folds and draws, a non-negative integer.
    Returns:
        One row per variant and measure: variant, measure, value, low, high, n, patients, gain, gain_low,
        gain_high (to the first variant, in the same draws of patients; NaN of the first).
    Raises:
        DataError: If a label has fewer groups than there are folds, or as `probe.scores`.
    """
    used = manifest[(manifest["parent_id"] == "") & (manifest["split"] != "")]
    rows, used = manifest.index.get_indexer(used.index), used.reset_index(drop=True)
    fold = _folds(used, folds, seed)
    found = {}
    for name, (features, balance) in variants.items():
        scores = partial(probe.scores, balance=balance)
        found[name] = _areas(features[rows], used, fold, scores, (positive, draws, seed))
    return _compared(found)


def networks(
    pairs: Sequence[tuple[Run, Run]], positive: str = "COVID-19", draws: int = 2000, seed: int = 0
) -> pd.DataFrame:
    """Networks trained without and with the recipe, judged on the same test images.

    Args:
        pairs: Each network before and after.
        positive: Label to detect.
        draws: Bootstrap draws of patients.
        seed: Of the draws, a non-negative integer.
    Returns:
        As `tried`, with `network` first and variant "before" or "after"; `source left out` needs trainings of
        its own and is not there.
    Raises:
        DataError: If a pair was judged on different images.
    """
    tables = []
    for before, after in pairs:
        tests = {
            name: run.predictions[run.predictions["split"] == "test"]
            for name, run in (("before", before), ("after", after))
        }
        same_images(tests)
        areas = {
            name: {
                ALL: within(test, None, positive, draws, seed),
                WITHIN: within(test, test["source"], positive, draws, seed),
            }
            for name, test in tests.items()
        }
        tables.append(_compared(areas).assign(network=after.name))
    if not tables:
        return pd.DataFrame(columns=["network", *_COLUMNS])
    joined = pd.concat(tables, ignore_index=True)
    return joined[["network", *joined.columns.drop("network")]]


def _folds(used: pd.DataFrame, folds: int, seed: int) -> np.ndarray:
    group = groups(used, duplicates(used))
    fewest = group.groupby(used["label"]).nunique().min()
    if fewest < folds:
        raise DataError(f"manifest: {folds} groups of each label were wanted, one a fold. Received: {fewest}")
    fold = np.empty(len(used), int)
    strata = used["label"] + " " + used["source"]
    cut = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    for number, (_, held) in enumerate(cut.split(used, strata, group)):
        fold[held] = number
    return fold


def _areas(
    features: np.ndarray, used: pd.DataFrame, fold: np.ndarray, scores: sources.Scores, judged: tuple
) -> dict[str, Area | None]:
    tables = []
    for number in np.unique(fold):
        table = used.assign(split=np.where(fold == number, "test", "train"))
        tables.append(scores(features, table, table["label"].to_numpy(str)).assign(place=f"fold {number}"))
    joined = pd.concat(tables, ignore_index=True)
    _, held = sources.left_out(features, used, judged[0], draws=1, seed=judged[2], scores=scores)
    return {
        ALL: within(joined, joined["place"], *judged),
        WITHIN: within(joined, joined["source"] + " " + joined["place"], *judged),
        LEFT_OUT: None if held.empty else within(held, held["place"], *judged),
    }


def _compared(found: Mapping[str, Mapping[str, Area | None]]) -> pd.DataFrame:
    """Each variant's areas, and the fall between the first two, beside those of the first variant."""
    rows = []
    first = {measure: _number(area) for measure, area in _with_fall(next(iter(found.values()))).items()}
    for position, (name, areas) in enumerate(found.items()):
        for measure, area in _with_fall(areas).items():
            row = {"variant": name, "measure": measure} | _limits(area)
            values = _number(area)
            gain = values - first[measure] if position else np.full_like(values, np.nan)
            low, high = intervals.percentiles(gain[1:]) or (np.nan, np.nan)
            rows.append(row | {"gain": gain[0], "gain_low": low, "gain_high": high})
    return pd.DataFrame(rows)


def _with_fall(areas: Mapping[str, Area | None]) -> dict[str, Area | tuple[Area, Area] | None]:
    known = areas[ALL] is not None and areas[WITHIN] is not None
    return {**areas, FALL: (areas[ALL], areas[WITHIN]) if known else None}


def _number(area: Area | tuple[Area, Area] | None) -> np.ndarray:
    """The value, and after it those of the draws."""
    if area is None:
        return np.full(2, np.nan)
    if isinstance(area, tuple):
        return _number(area[0]) - _number(area[1])
    return np.append(area.value, area.draws)


def _limits(area: Area | tuple[Area, Area] | None) -> dict[str, float]:
    if area is None:
        return {"value": np.nan, "low": np.nan, "high": np.nan, "n": 0, "patients": 0}
    metric = lost(*area) if isinstance(area, tuple) else area.metric
    low, high = metric["ci95"] or (np.nan, np.nan)
    return {"value": metric["value"], "low": low, "high": high} | {
        name: metric[name] for name in ("n", "patients")
    }
