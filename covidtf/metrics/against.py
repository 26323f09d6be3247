"""Networks against the best trivial baseline: how much is gained over what needs no network."""

from collections.abc import Collection, Mapping

import numpy as np
import pandas as pd

from covidtf import metrics
from covidtf.files import DataError
from covidtf.metrics import intervals, multiclass
from covidtf.predictions import same_images

COLUMNS = ("best_baseline", "over_baseline", "over_baseline_low", "over_baseline_high", "beats")
_Drawn = tuple[float, np.ndarray]


def best_baseline(values: Mapping[str, float]) -> str:
    """The baseline with the highest value, the first of equal ones; "" where none is told.

    Taking the highest of several on the very images that are judged favours the baselines, and so never
    the network: its gain is, if anything, too small.

    Args:
        values: AUROC, or another number of which more is better, by name; NaN where it cannot be told.
    """
    told = {name: value for name, value in values.items() if not np.isnan(value)}
    return max(told, key=told.__getitem__) if told else ""


def gain(network: _Drawn, baseline: _Drawn) -> dict[str, object]:
    """AUROC of a network minus that of a baseline, with the percentiles of the difference in the draws.

    Args:
        network: AUROC (or another number) of the images, and its values in the draws of patients, shape
            `(draws,)`; of several seeds the means of both.
        baseline: The same of the baseline; draw i must have the same patients.
    Returns:
        `over_baseline`, `over_baseline_low`, `over_baseline_high` and `beats`: "yes" if the lower limit is
        above 0, else "no"; "cannot be told" where there is no value or no interval.
    """
    value, values = network[0] - baseline[0], network[1] - baseline[1]
    # The difference has no interval either where too few patients leave too many draws undefined.
    low, high = intervals.percentiles(values) or (np.nan, np.nan)
    beats = "cannot be told" if np.isnan(low) or np.isnan(value) else "yes" if low > 0 else "no"
    return dict(zip(COLUMNS[1:], (value, low, high, beats), strict=True))


def of_drawn(drawn: Mapping[str, _Drawn], baselines: Collection[str]) -> list[dict[str, object]]:
    """`COLUMNS` of each run, in their order, from a number and its values in the same draws of patients.

    Args:
        drawn: By run, baselines too: as `gain` takes it; NaN where it cannot be told.
        baselines: Which of these runs are trivial baselines.
    """
    best = best_baseline({name: drawn[name][0] for name in drawn if name in baselines})
    return [_row(drawn, name, best, name in baselines) for name in drawn]


def gains(
    tables: Mapping[str, pd.DataFrame],
    baselines: Collection[str],
    positive: str | None = "COVID-19",
    draws: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """Each run against the best baseline on the same images.

    Args:
        tables: Rows of one split by run, of the same images.
        baselines: Which of these runs are trivial baselines.
        positive: Label to detect; None takes macro AUROC, each class against all others.
        draws: Bootstrap draws of patients, the same for all runs.
        seed: Of the draws, a non-negative integer.
    Returns:
        `COLUMNS`, indexed by run. Of a baseline, `best_baseline` and `beats` are "" and the numbers NaN;
        where there is no baseline or AUROC cannot be told, `beats` is "cannot be told".
    Raises:
        DataError: If runs are of different images, or a baseline is not among them.
    """
    absent = sorted(set(baselines) - set(tables))
    if absent:
        raise DataError(f"`baselines` must be some of {list(tables)}. Received: {absent}")
    same_images(tables)
    drawn = {name: _drawn(table, positive, draws, seed) for name, table in tables.items()}
    index = pd.Index(tables, name="run")
    return pd.DataFrame(of_drawn(drawn, baselines), columns=list(COLUMNS), index=index)


def add(
    table: pd.DataFrame,
    predictions: Mapping[str, pd.DataFrame],
    baselines: Collection[str],
    part: str = "test",
    positive: str | None = "COVID-19",
    draws: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """`COLUMNS` beside a table of results with one row per run.

    Args:
        table: As `evaluation.comparison` of the same part, its `run` renamed to `network` or not.
        predictions: By the names in that column; rows of any splits.
        baselines: Which of these names are trivial baselines.
        part: "test", "val", or the name of a source for its images of test.
        positive: As `gains`.
        draws: As `gains`.
        seed: As `gains`.
    Returns:
        `table` with `COLUMNS`, which it may have had before.
    Raises:
        DataError: As `gains`, or if the table has a run without predictions, or a run none of the part.
    """
    names = table["run" if "run" in table else "network"]
    absent = sorted(set(names) - set(predictions))
    if absent:
        raise DataError(f"predictions of {absent} were wanted. Received: {list(predictions)}")
    rows = {name: _part(predictions[name], name, part) for name in predictions}
    found = gains(rows, baselines, positive, draws, seed).reindex(names)
    return table.assign(**{column: found[column].to_numpy() for column in COLUMNS})


def _part(predictions: pd.DataFrame, name: str, part: str) -> pd.DataFrame:
    column, split = ("split", part) if part in ("val", "test") else ("source", "test")
    rows = predictions[(predictions[column] == part) & (predictions["split"] == split)]
    if rows.empty:
        raise DataError(f"{name}: no prediction of {part!r}. Received: {sorted(set(predictions[column]))}")
    return rows


def _drawn(table: pd.DataFrame, positive: str | None, draws: int, seed: int) -> _Drawn:
    """AUROC and its values in the draws; NaN where it cannot be told."""
    if positive is None:
        return multiclass.overall_draws(table, draws, seed)["auroc"]
    if (table["label"] == positive).nunique() < 2:
        return np.nan, np.full(draws, np.nan)
    return metrics.auroc_draws(table, positive, draws, seed)[:2]


def _row(drawn: Mapping[str, _Drawn], name: str, best: str, is_baseline: bool) -> dict[str, object]:
    row = dict.fromkeys(COLUMNS, np.nan) | {"best_baseline": "", "beats": ""}
    if is_baseline:
        return row
    if not best or np.isnan(drawn[name][0]):
        return row | {"beats": "cannot be told"}
    return row | {"best_baseline": best} | gain(drawn[name], drawn[best])
