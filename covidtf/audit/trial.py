"""One trial of the audit: phantoms, a shortcut planted in them, and what the audit says."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from covidtf import splits
from covidtf.audit import controls, leaks, marks, networks, probe, robustness, shuffle, sources
from covidtf.audit.checks import CHECKS, judge
from covidtf.images.lungs import lung_mask
from covidtf.metrics import baselines
from covidtf.phantom import planted

NETWORK = "probe"
_TEST = 0.4
_POSITIVE = "COVID-19"
_RETRAINED = ("original", "lungs blacked out", "border only")
_TESTED = ("lungs only", "equalised")
_ONE_SEED = "the probe's minimum is unique, so it has no seeds"
Features = Callable[[np.ndarray], np.ndarray]


def draw(seed: int, patients: int = 600, size: int = 128, workers: int = 1) -> planted.Set:
    """A clean set, split by patient: 40 % test, the rest train.

    Duplicates are not looked for, as a naive author would not; so what is planted later changes no split.

    Args:
        seed: Not negative; of phantoms and split.
        patients: As `phantom.planted.draw`.
        size: As `phantom.planted.draw`.
        workers: As `phantom.planted.draw`.
    """
    clean = planted.draw(patients, seed, size, workers)
    no_pairs = pd.DataFrame({"image_id_a": [], "image_id_b": []}, dtype="str")
    return replace(clean, manifest=splits.split(clean.manifest, no_pairs, _TEST, 0.0, seed))


def remembered(folder: str | Path, network: str = probe.NETWORK, weights: str = probe.WEIGHTS) -> Features:
    """`probe.features` as a function of images that computes each distinct image once.

    Conditions have most images in common, so this takes half the time.
    """
    known: dict[bytes, np.ndarray] = {}

    def features(images: np.ndarray) -> np.ndarray:
        keys = [hashlib.sha256(np.ascontiguousarray(image)).digest() for image in images]
        new = {key: row for row, key in enumerate(keys) if key not in known}
        if new:
            found = probe.features(images[list(new.values())], folder, network, weights)
            known.update(zip(new, found, strict=True))
        return np.stack([known[key] for key in keys])

    return features


def trial(
    clean: planted.Set,
    condition: str,
    seed: int,
    features: Features,
    strength: tuple[float, float] = planted.STRENGTH,
    draws: int = 1000,
    shuffles: int = 10,
) -> pd.DataFrame:
    """Plant one shortcut, then audit the data and the probe that was trained on them.

    The probe is both what the controls are retrained with and the network under audit: a linear layer on a
    frozen backbone, trained on whole images, then tested on changed ones. Lungs are found as the audit finds
    them in real images, not taken from the phantoms.

    Args:
        clean: From `draw`.
        condition: One of `planted.CONDITIONS`.
        seed: Of what is planted, the draws and the shuffles.
        features: From uint8 images to vectors, as `remembered` gives it.
        strength: As `planted.plant`.
        draws: Bootstrap draws of patients.
        shuffles: Of the labels.
    Returns:
        Rows of `checks.judge` after columns seed and condition.
    """
    # The many small fits take eight times the CPU with a second thread, which mostly waits.
    with threadpool_limits(1):
        rows = _rows(planted.plant(clean, condition, seed, strength), features, draws, shuffles, seed)
    table = pd.DataFrame(rows)
    table.insert(0, "seed", seed)
    table.insert(1, "condition", condition)
    return table


def _rows(one: planted.Set, features: Features, draws: int, shuffles: int, seed: int) -> list[dict]:
    by = {"positive": _POSITIVE, "draws": draws, "seed": seed}
    values = features(one.images)
    scored = _test(probe.scores(values, one.manifest))
    rows = [*leaks.rows(one.manifest), *_trivial(one, scored, by), *_controls(one, features, by)]
    return [*rows, *_sources(one, values, scored, by), *_stability(one, values, shuffles, by)]


def _trivial(one: planted.Set, scored: pd.DataFrame, by: Mapping) -> list[dict]:
    """Baselines, the probe against the best of them, and burned-in marks."""
    tables = {
        name: _test(baselines.predict(baselines.features(slug, one), one.manifest))
        for slug, name in baselines.BASELINES.items()
    }
    gains = networks.gains(tables | {NETWORK: scored}, list(tables), **by)
    marked = networks.marked(_test(marks.scores(one.images, one.manifest)), **by)
    return [*networks.baselines(tables, **by), *gains, marked]


def _controls(one: planted.Set, features: Features, by: Mapping) -> list[dict]:
    """Verdicts on the probe retrained on each control, and tested only on them and on harmless changes."""
    masks = _lungs(one.images)
    kept = controls.with_lungs(masks)
    images, masks, table = one.images[kept], masks[kept], one.manifest[kept].reset_index(drop=True)
    test = (table["split"] == "test").to_numpy()
    seen, tested = {}, {}
    for name in _RETRAINED:
        seen[name] = features(controls.apply(name, images, masks, by["seed"]))
        tested[name] = seen[name][test]
    for name in _TESTED:
        tested[name] = features(controls.apply(name, images[test], masks[test], by["seed"]))
    for name in robustness.CHANGES:
        tested[name] = features(robustness.change(name, images[test]))
    retrained = {name: _test(probe.scores(values, table)) for name, values in seen.items()}
    tables = _of_network(seen["original"], table, tested)
    original = tables["original"]
    losses = {name: robustness.fall(original, tables.pop(name), **by) for name in robustness.CHANGES}
    rows = [*networks.retrained(retrained, **by), *networks.tested(tables, NETWORK, **by)]
    return [*rows, networks.robust(losses, NETWORK, original, **by)]


def _of_network(
    whole: np.ndarray, table: pd.DataFrame, changed: Mapping[str, np.ndarray]
) -> dict[str, pd.DataFrame]:
    """Scores of changed test images by the probe that was trained on whole ones, in one go."""
    train, test = (table[table["split"] == split] for split in ("train", "test"))
    # One fit for all, so each version of an image needs a name of its own for a while.
    versions = [test.assign(image_id=f"{name}:" + test["image_id"]) for name in changed]
    values = np.concatenate([whole[train.index], *changed.values()])
    scored = probe.scores(values, pd.concat([train, *versions], ignore_index=True))
    parts = (scored[start : start + len(test)] for start in range(0, len(scored), len(test)))
    ids = test["image_id"].to_numpy()
    return {
        name: part.assign(image_id=ids).reset_index(drop=True)
        for name, part in zip(changed, parts, strict=True)
    }


def _sources(one: planted.Set, values: np.ndarray, scored: pd.DataFrame, by: Mapping) -> list[dict]:
    """All phantoms are of one source, so most of this cannot be told; what can is told."""
    table = one.manifest
    known = set(table.loc[table["split"] == "train", "source"])
    rows = sources.told_apart(values, table, by["draws"], by["seed"])
    rows.append(sources.left_out(values, table, **by)[0])
    return rows + sources.of_networks({NETWORK: scored}, known, **by)


def _stability(one: planted.Set, values: np.ndarray, shuffles: int, by: Mapping) -> list[dict]:
    tables = [_test(table) for table in shuffle.shuffled(values, one.manifest, shuffles, by["seed"])]
    none = judge(CHECKS["labels shuffled"], "data", shuffle.auroc(tables, **by)[0])
    return [none, judge(CHECKS["range over seeds"], NETWORK, None, _ONE_SEED)]


def _lungs(images: np.ndarray) -> np.ndarray:
    return np.stack([_lung(image.tobytes(), image.shape) for image in images])


@lru_cache(maxsize=4096)
def _lung(pixels: bytes, shape: tuple[int, ...]) -> np.ndarray:
    """Kept, because conditions have most images in common, and a mask takes longer than a feature."""
    return lung_mask(np.frombuffer(pixels, np.uint8).reshape(shape))


def _test(table: pd.DataFrame) -> pd.DataFrame:
    return table[table["split"] == "test"].reset_index(drop=True)
