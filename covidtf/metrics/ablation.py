"""What each part of the deep-supervised method brings: runs of one data set that differ in a few settings."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from covidtf.files import DataError
from covidtf.metrics import against, folds, intervals, judged, multiclass
from covidtf.metrics.grouping import BY, Group, grouped
from covidtf.metrics.judged import LEVELS, Judged
from covidtf.predictions import same_images
from covidtf.runs import Run

NAMES = {"auroc": "Macro AUROC", "f1": "Macro F1", "accuracy": "Accuracy"}
METRICS = tuple(NAMES)
_GAINS = ("gain", "gain_low", "gain_high")
_Drawn = tuple[float, np.ndarray]


def table(
    runs: Sequence[Run],
    by: Sequence[str] = BY,
    levels: Sequence[str] | None = None,
    draws: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """Macro AUROC, macro F1 and accuracy of each method, as the mean over its seeds, and what it gains.

    Judged is test or, where runs have none, val; of a cross-validation the tests of all folds of a seed,
    pooled, as one. `folds.pooled` says why pooling is not innocent; the mean of the AUROC within folds stands
    beside it. Case scores follow the rule that the run's val chooses, or are means of the slices
    (`judged.of_run`, `judged.of_folds`). The interval is that of the mean over these seeds, by
    `intervals.metric`; how far seeds differ stands beside it.

    `gain` is the difference to plain cross-entropy with the other settings of `by` equal, those of the heads
    aside, which cross-entropy has not; `start_gain` is that to random weights with everything else equal.
    Both have the percentiles of the difference in the same draws of patients. The intervals say how far other
    patients would move these means, not other seeds, and are not adjusted for the number of comparisons:
    where nothing is gained, at least one in 20 leaves out 0.

    `ensemble` judges the mean over the seeds of each row's scores instead, one prediction out of all runs.

    Args:
        runs: Of one data set, with and without folds, and baselines; of each group and seed all folds, once.
        by: Settings that tell groups apart, see `grouping.differing`; runs of a group may differ in nothing
            else but seed and fold.
        levels: Some of `LEVELS`; None is what `judged.levels` says.
        draws: Bootstrap draws of patients.
        seed: Of the draws, a non-negative integer.
    Returns:
        One row per part, level, metric and group: part (`judged.part`), level, metric (of `METRICS`), method
        (of a baseline its name), the settings of `by`, seeds (number), rule (case rule of each seed), folds
        (number, 1 without), within_folds (macro AUROC within a fold, mean over folds and seeds; NaN without
        folds, of other metrics and where a fold lacks a class), ensemble, ensemble_low, ensemble_high (NaN of
        one seed), split (the judged one), n, patients, value, low, high, lowest, highest, of_seeds (the
        values by seed, separated by spaces), gain, gain_low,
        gain_high, gain_is ("above 0", "below 0", "not told from 0" by its interval, "" without one),
        start_gain, start_gain_low, start_gain_high, also_differs (settings outside `by` in which the group
        is not like its reference) and those of `metrics.against`, of the metric. Sorted by part, level and
        metric, then as `grouping.grouped`. NaN where untold.
    Raises:
        DataError: No run; as `grouping.grouped`, `judged.of_folds` and `folds.pooled`; or runs of a part were
            judged on different rows.
        ValueError: If `levels` are not some of `LEVELS`.
    """
    if not runs:
        raise DataError("runs: at least one was wanted. Received: none")
    levels = judged.levels(runs) if levels is None else levels
    if not levels or not set(levels) <= set(LEVELS):
        raise ValueError(f"`levels` must be some of {LEVELS}. Received: {tuple(levels)}")
    rows = []
    for count in sorted({run.config.get("folds", 0) for run in runs}):
        groups = grouped([run for run in runs if run.config.get("folds", 0) == count], by)
        found = [judged.of_group(group.runs, choose="case" in levels) for group in groups]
        first = {"part": judged.part(groups[0].runs[0])}
        rows += [first | row for level in levels for row in _rows(groups, found, level, draws, seed)]
    return pd.DataFrame(rows)


def _rows(
    groups: list[Group], found: list[list[Judged]], level: str, draws: int, seed: int
) -> list[dict[str, object]]:
    """Of one part and level."""
    tables = [[one.at(level) for one in of_group] for of_group in found]
    joined = [[folds.pooled(of_seed) for of_seed in of_group] for of_group in tables]
    _refuse_other_rows(groups, joined)
    drawn = [[multiclass.overall_draws(rows, draws, seed) for rows in of_group] for of_group in joined]
    together = [multiclass.overall_draws(_ensemble(of_group), draws, seed) for of_group in joined]
    result = []
    for metric in METRICS:
        numbers = _numbers(groups, [[one[metric] for one in own] for own in drawn], metric, joined[0][0])
        for group, ones, own, all_seeds, more in zip(groups, found, tables, together, numbers, strict=True):
            row = {"level": level, "metric": metric, "method": group.method} | group.settings
            row |= {"seeds": len(ones), "rule": judged.rules(ones) if level == "case" else ""}
            row |= {"folds": len(ones[0].folds), "within_folds": _within(metric, own)}
            row |= _of_ensemble(metric, all_seeds[metric], joined[0][0], len(ones))
            result.append(row | more)
    return result


def _ensemble(tables: list[pd.DataFrame]) -> pd.DataFrame:
    """The rows with the means of their scores over the seeds."""
    ordered = [table.sort_values("image_id", ignore_index=True) for table in tables]
    columns = [name for name in ordered[0] if name.startswith("score_")]
    scores = np.mean([table[columns].to_numpy() for table in ordered], axis=0)
    return ordered[0].assign(**dict(zip(columns, scores.T, strict=True)))


def _of_ensemble(metric: str, drawn: _Drawn, rows: pd.DataFrame, seeds: int) -> dict[str, float]:
    told = (drawn[0], *_limits(metric, *drawn, rows).values()) if seeds > 1 else (np.nan,) * 3
    return dict(zip(("ensemble", "ensemble_low", "ensemble_high"), told, strict=True))


def _refuse_other_rows(groups: list[Group], joined: list[list[pd.DataFrame]]) -> None:
    """Tables by the first run of each seed, which has fold 0."""
    tables = {}
    for group, of_seeds in zip(groups, joined, strict=True):
        first = [run.run_id for run in group.runs if not run.config.get("fold", 0)]
        tables |= dict(zip(first, of_seeds, strict=True))
    same_images(tables)


def _numbers(
    groups: list[Group], values: list[list[_Drawn]], metric: str, rows: pd.DataFrame
) -> list[dict[str, object]]:
    """Columns split to also_differs of each group, from each seed's value and draws of `metric`."""
    means = [
        (np.mean([value for value, _ in own]), np.mean([drawn for _, drawn in own], axis=0)) for own in values
    ]
    drawn = {_name(groups, place): mean for place, mean in enumerate(means)}
    over = against.of_drawn(drawn, [group.method for group in groups if group.baseline])
    result = []
    for group, own, mean, over_baseline in zip(groups, values, means, over, strict=True):
        single = [one for one, _ in own]
        row = {"split": rows["split"].iloc[0], "n": len(rows), "patients": rows["patient_id"].nunique()}
        row |= {"value": mean[0]} | _limits(metric, *mean, rows)
        row |= {"lowest": min(single), "highest": max(single)}
        row |= {"of_seeds": " ".join(f"{one:.9g}" for one in single)}
        plain, scratch = group.plain(groups), group.scratch(groups)
        gain = _gain(mean, None if plain is None else means[plain])
        row |= gain | {"gain_is": _words(gain)}
        gain = _gain(mean, None if scratch is None else means[scratch])
        row |= {f"start_{name}": value for name, value in gain.items()}
        differs = [] if plain is None else group.also_differs(groups[plain])
        result.append(row | {"also_differs": ", ".join(differs)} | over_baseline)
    return result


def _name(groups: list[Group], place: int) -> str:
    """Of a baseline its own; methods occur more than once, from other starts."""
    return groups[place].method if groups[place].baseline else f"group {place}"


def _limits(metric: str, value: float, drawn: np.ndarray, rows: pd.DataFrame) -> dict[str, float]:
    low = high = np.nan
    if not np.isnan(value):
        of_label = rows.groupby("label")["patient_id"].nunique()
        smaller = None if metric == "accuracy" else int(of_label.min())
        told = intervals.metric(value, drawn, len(rows), rows["patient_id"].nunique(), smaller)
        low, high = told["ci95"] or (np.nan, np.nan)
    return {"low": low, "high": high}


def _gain(mean: _Drawn, other: _Drawn | None) -> dict[str, float]:
    if other is None:
        return dict.fromkeys(_GAINS, np.nan)
    low, high = intervals.percentiles(mean[1] - other[1]) or (np.nan, np.nan)
    return dict(zip(_GAINS, (mean[0] - other[0], low, high), strict=True))


def _words(gain: dict[str, float]) -> str:
    if np.isnan(gain["gain_low"]):
        return ""
    return intervals.side((gain["gain_low"], gain["gain_high"]))


def _within(metric: str, tables: list[list[pd.DataFrame]]) -> float:
    if metric != "auroc" or len(tables[0]) == 1:
        return np.nan
    return float(np.mean([multiclass.macro_auroc(fold) for of_seed in tables for fold in of_seed]))
