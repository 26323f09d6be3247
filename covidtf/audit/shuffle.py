"""The label-shuffle control: from permuted labels nothing can be learnt, whatever the images show."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.stats import t

from covidtf import metrics
from covidtf.audit import probe
from covidtf.files import DataError
from covidtf.metrics import intervals
from covidtf.metrics.intervals import Metric

SHUFFLES = 20
OTHER = "other"


def permuted(manifest: pd.DataFrame, seed: int | Sequence[int], positive: str = "COVID-19") -> np.ndarray:
    """Labels `positive` and `other`; in train permuted among as many patients with it as without it.

    A patient has one label, the most frequent of the images, and gives all images the label that it gets: two
    images of one patient are too alike to have different ones. Of the label that more patients have, as many
    are drawn as have the other. From unequal classes the AUROC after a permutation is not 0.5 on average: the
    rare label pulls the boundary to where images lie densely (0.45 for the probe on `xray-sample`). With
    equal ones each permutation is as likely as the one that swaps the labels, whose AUROC is 1 - this one's.

    Args:
        manifest: With `split` and `patient_id`.
        seed: One number or several, not negative.
        positive: Label that is told from all others.
    Returns:
        Labels, shape `(n,)`, true ones in val and test; "" without a split or for patients not drawn.
    Raises:
        DataError: If train lacks patients with or without `positive`.
    """
    is_positive = manifest["label"] == positive
    labels = np.where(is_positive, positive, OTHER).astype(object)
    labels[~manifest["split"].isin(("val", "test"))] = ""
    train = (manifest["split"] == "train").to_numpy()
    own = is_positive[train].groupby(manifest.loc[train, "patient_id"], sort=True).mean() > 0.5
    count = min(own.sum(), (~own).sum())
    if count == 0:
        found = f"{own.sum()} and {(~own).sum()}"
        raise DataError(f"train: patients with and without {positive} were wanted. Received: {found}")
    random = np.random.default_rng([*np.atleast_1d(seed).tolist(), 0x5B])
    drawn = np.concatenate([random.permutation(own.index[own == kind])[:count] for kind in (True, False)])
    given = dict(zip(random.permutation(drawn), [positive] * count + [OTHER] * count, strict=True))
    labels[train] = [given.get(patient, "") for patient in manifest.loc[train, "patient_id"]]
    return labels.astype(str)


def shuffled(
    features: np.ndarray,
    manifest: pd.DataFrame,
    shuffles: int = SHUFFLES,
    seed: int = 0,
    positive: str = "COVID-19",
) -> list[pd.DataFrame]:
    """Predictions of the probe after each of several permutations; their labels are the true ones.

    Args:
        features: As `probe.scores`.
        manifest: As `probe.scores`.
        shuffles: How many, at least 1.
        seed: Not negative; permutation k is `permuted(manifest, (seed, k))`.
        positive: Label that is told from all others.
    Raises:
        ValueError, DataError: As `permuted` and `probe.scores`.
    """
    found = []
    for k in range(shuffles):
        labels = permuted(manifest, (seed, k), positive)
        used = labels != ""
        found.append(probe.scores(features[used], manifest[used].reset_index(drop=True), labels[used]))
    return found


def auroc(
    tables: Sequence[pd.DataFrame], positive: str = "COVID-19", draws: int = 2000, seed: int = 0
) -> tuple[Metric, list[Metric]]:
    """Mean AUROC over the shuffles, which must be 0.5, and the AUROC of each.

    The AUROC of one shuffle is away from 0.5 more often than its own interval says, because the direction in
    which images differ most, often that of their sources, gets its sign by chance. So `ci95` of the mean
    comes from how the shuffles differ: mean +- t s / sqrt(K) with K - 1 degrees of freedom. The percentiles
    of the mean in the bootstrap draws, which keep the shuffles as they are, stand beside it in `intervals`.

    Args:
        tables: Predictions of one split after each shuffle, of the same images.
        positive: Label whose score is judged.
        draws: Bootstrap draws of patients.
        seed: Of the draws.
    Returns:
        Metric of the mean, with `shuffles` and `spread` (standard deviation over the shuffles), and one
        metric per shuffle.
    Raises:
        DataError: As `metrics.auroc`; no table.
    """
    if not tables:
        raise DataError("shuffles: one table at least was wanted. Received: none")
    patients, n = tables[0]["patient_id"].nunique(), len(tables[0])
    found = [metrics.auroc_draws(table, positive, draws, seed) for table in tables]
    each = [intervals.metric(value, values, n, patients, smaller) for value, values, smaller in found]
    areas = np.array([value for value, _, _ in found])
    of_draws = intervals.percentiles(np.mean([values for _, values, _ in found], axis=0))
    mean = {
        "value": float(areas.mean()),
        "n": n,
        "patients": patients,
        "shuffles": len(areas),
        "intervals": {"percentile": of_draws and list(of_draws)},
    }
    return mean | _interval(areas), each


def _interval(areas: np.ndarray) -> dict[str, object]:
    count = len(areas)
    if count < 2:
        return {"ci95": None, "spread": None, "method": "no interval: one shuffle"}
    spread = float(areas.std(ddof=1))
    half = t.ppf(0.975, count - 1) * spread / np.sqrt(count)
    limits = [max(0.0, areas.mean() - half), min(1.0, areas.mean() + half)]
    return {
        "ci95": [float(limit) for limit in limits],
        "spread": spread,
        "method": f"t interval of the mean over {count} shuffles",
    }
