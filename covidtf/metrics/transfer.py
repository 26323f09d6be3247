"""What transfer brought: runs of one data set, grouped by where they started and what was trained."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from covidtf import metrics
from covidtf.files import DataError
from covidtf.metrics import against, intervals
from covidtf.metrics.intervals import Metric
from covidtf.runs import Run

SCRATCH = "random weights"
_PARTS = ("last layer", "staged", "all layers", "nothing")
KEYS = ("network", "start", "strategy")


def strategy(config: dict) -> str:
    """Which part was trained: `last layer`, `all layers`, or `staged`, the last layer and then all.

    >>> strategy({"epochs": 10, "head_epochs": 4})
    'staged'
    >>> strategy({"baseline": True})
    'nothing'
    """
    if "baseline" in config:
        return "nothing"
    if config["head_epochs"] == 0:
        return "all layers"
    return "last layer" if config["head_epochs"] == config["epochs"] else "staged"


def table(runs: Sequence[Run], within: str, draws: int = 2000, seed: int = 0) -> pd.DataFrame:
    """Test AUROC of each network, start and strategy, as the mean over the seeds.

    The interval is that of the mean over these seeds, by the bootstrap over patients that
    `intervals.metric` describes; how far seeds differ is told by the lowest and the highest. `gain` is the
    difference to the same network from random weights, mean over its seeds, with the percentile interval of
    the difference in the same draws of patients.

    Args:
        runs: Runs of the same images, baselines too.
        within: Source whose images are also judged alone (`part` is its name; otherwise `all sources`).
        draws: Bootstrap draws of patients.
        seed: Of the draws, a non-negative integer.
    Returns:
        Columns part, network, start, strategy, seeds (number), n, patients, positives, auroc, auroc_low,
        auroc_high, lowest, highest, gain, gain_low, gain_high and those of `metrics.against`, the best
        baseline being that of the part; random weights first, baselines last.
    Raises:
        DataError: A seed occurs twice in a group, or no image of test is of the source `within`.
    """
    groups = _groups(runs)
    tests = {
        key: [run.predictions[run.predictions["split"] == "test"] for run in found]
        for key, found in groups.items()
    }
    parts = {"all sources": tests, within: {key: _of(within, found) for key, found in tests.items()}}
    return pd.DataFrame([row for part in parts.items() for row in _rows(*part, draws, seed)])


def records(runs: Sequence[Run]) -> pd.DataFrame:
    """One row per run: what it is, what it started from, and how it was made; NaN where a baseline has none.

    Returns:
        Columns run_id, network, start, strategy, seed, epochs, head_epochs, learning_rate, seconds, commit,
        dirty, smoke, started_from_sha256 (of the weights it started from; `none`: random), head (`new` or
            `kept` from there), weights_sha256 (of what it ended with), predictions_sha256.
    """
    return pd.DataFrame(
        {
            "run_id": run.run_id,
            "network": run.name,
            "start": run.start,
            "strategy": strategy(run.config),
            **{name: run.config.get(name) for name in ("seed", "epochs", "head_epochs", "learning_rate")},
            **{name: run.provenance[name] for name in ("seconds", "commit", "dirty", "smoke")},
            "started_from_sha256": run.provenance.get("started_from", {}).get("weights"),
            "head": run.provenance.get("started_from", {}).get("head"),
            **{f"{name}_sha256": run.provenance["sha256"].get(name) for name in ("weights", "predictions")},
        }
        for run in runs
    )


def scores(runs: Sequence[Run]) -> pd.DataFrame:
    """Every run's COVID-19 score of each val and test image, a column per run id: what `table` rests on."""
    first = runs[0].predictions.sort_values("image_id", ignore_index=True)
    columns = {
        run.run_id: run.predictions.sort_values("image_id", ignore_index=True)["score_COVID-19"]
        for run in runs
    }
    kept = ["image_id", "patient_id", "source", "view", "finding", "split", "label"]
    return pd.concat([first[kept], pd.DataFrame(columns)], axis=1)


def mean_auroc(
    predictions: Sequence[pd.DataFrame], draws: int = 2000, seed: int = 0, positive: str = "COVID-19"
) -> tuple[Metric, np.ndarray, list[float]]:
    """Mean AUROC of several scores of the same images.

    Returns:
        The mean with its interval, its values in the draws, and the AUROC of each.
    """
    found = [metrics.auroc_draws(table, positive, draws, seed) for table in predictions]
    single = [value for value, _, _ in found]
    values = np.mean([values for _, values, _ in found], axis=0)
    n, patients = len(predictions[0]), predictions[0]["patient_id"].nunique()
    return intervals.metric(float(np.mean(single)), values, n, patients, found[0][2]), values, single


def _groups(runs: Sequence[Run]) -> dict[tuple[str, str, str], list[Run]]:
    groups: dict[tuple[str, str, str], list[Run]] = {}
    for run in runs:
        groups.setdefault((run.name, run.start, strategy(run.config)), []).append(run)
    for key, found in groups.items():
        seeds = [run.config["seed"] for run in found]
        if len(set(seeds)) < len(seeds):
            raise DataError(f"{', '.join(key)}: one run of each seed was wanted. Received: {sorted(seeds)}")
    return dict(sorted(groups.items(), key=lambda item: _place(*item[0])))


def _place(network: str, start: str, trained: str) -> tuple:
    """Networks by name, random weights first, then shorter chains of source tasks; baselines last."""
    return (
        trained == "nothing",
        network,
        start != SCRATCH,
        len(start.split(" after ")),
        start,
        _PARTS.index(trained),
    )


def _of(source: str, tables: list[pd.DataFrame]) -> list[pd.DataFrame]:
    rows = [table[table["source"] == source] for table in tables]
    if rows[0].empty:
        raise DataError(f"no image of test is of source {source!r}. Received: {set(tables[0]['source'])}")
    return rows


def _rows(part: str, tests: dict[tuple, list[pd.DataFrame]], draws: int, seed: int) -> list[dict]:
    found = {key: mean_auroc(tables, draws, seed) for key, tables in tests.items()}
    drawn = {_name(key): (mean["value"], values) for key, (mean, values, _) in found.items()}
    over = against.of_drawn(drawn, [_name(key) for key in found if key[2] == "nothing"])
    rows = []
    for (key, (mean, values, single)), over_baseline in zip(found.items(), over, strict=True):
        low, high = mean["ci95"] or (np.nan, np.nan)
        row = {"part": part} | dict(zip(KEYS, key, strict=True)) | {"seeds": len(single)}
        row |= {"n": mean["n"], "patients": mean["patients"]}
        row |= {"positives": int((tests[key][0]["label"] == "COVID-19").sum())}
        row |= {"auroc": mean["value"], "auroc_low": low, "auroc_high": high}
        row |= {"lowest": min(single), "highest": max(single)}
        row |= _gain(mean["value"], values, found.get((key[0], SCRATCH, "all layers")), key)
        rows.append(row | over_baseline)
    return rows


def _name(key: tuple[str, str, str]) -> str:
    return key[0] if key[2] == "nothing" else ", ".join(key)


def _gain(value: float, values: np.ndarray, scratch: tuple | None, key: tuple) -> dict[str, float]:
    # Of a baseline there is no scratch.
    if scratch is None or key[1:] == (SCRATCH, "all layers"):
        return dict.fromkeys(("gain", "gain_low", "gain_high"), np.nan)
    low, high = intervals.percentiles(values - scratch[1]) or (np.nan, np.nan)
    return {"gain": value - scratch[0]["value"], "gain_low": low, "gain_high": high}
