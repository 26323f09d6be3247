"""What the methods of a comparison do with each class: means over their seeds, and confusion matrices."""

from collections.abc import Sequence

import pandas as pd

from covidtf.metrics import folds, judged, multiclass
from covidtf.metrics.grouping import BY, Group, grouped
from covidtf.runs import Run

_First = dict[str, object]


def evaluated(
    runs: Sequence[Run],
    by: Sequence[str] = BY,
    levels: Sequence[str] | None = None,
    draws: int = 2000,
    seed: int = 0,
) -> list[tuple[_First, dict]]:
    """Judge each group of `ablation.table` class by class.

    Args:
        runs: As `ablation.table`.
        by: As `ablation.table`.
        levels: As `ablation.table`.
        draws: Bootstrap draws of patients.
        seed: Of the draws, a non-negative integer.
    Returns:
        Of each part, level and group: what it is (part, level, method, settings of `by`, rule as of
        `ablation.table`) and what `multiclass.over_seeds` says of it; rows of the folds of a cross-validation
        are pooled.
    Raises:
        DataError: As `grouping.grouped`, `judged.of_run`, `judged.of_folds` and `folds.pooled`. That groups
            were judged on the same rows is for `ablation.table` to see.
    """
    levels = judged.levels(runs) if levels is None else levels
    found = []
    for count in sorted({run.config.get("folds", 0) for run in runs}):
        groups = grouped([run for run in runs if run.config.get("folds", 0) == count], by)
        found += [_judged(group, level, draws, seed) for level in levels for group in groups]
    return found


def table(found: Sequence[tuple[_First, dict]]) -> pd.DataFrame:
    """One row per group and class, and per group a macro average.

    Args:
        found: Of `evaluated`.
    Returns:
        Columns part, level, method, the settings, rule, seeds, and those of `multiclass.table`.
    """
    rows = [
        first | {"seeds": result["seeds"]} | row
        for first, result in found
        for row in multiclass.table(result).to_dict("records")
    ]
    return pd.DataFrame(rows)


def confusion(found: Sequence[tuple[_First, dict]]) -> pd.DataFrame:
    """One row per group, label and called class.

    Args:
        found: Of `evaluated`.
    Returns:
        Columns part, level, method, the settings, rule, seeds, label, called, and count (of rows, all
        seeds together).
    """
    rows = [
        first | {"seeds": result["seeds"], "label": label, "called": called, "count": count}
        for first, result in found
        for label, counts in zip(result["classes"], result["confusion"], strict=True)
        for called, count in zip(result["classes"], counts, strict=True)
    ]
    return pd.DataFrame(rows)


def _judged(group: Group, level: str, draws: int, seed: int) -> tuple[_First, dict]:
    ones = judged.of_group(group.runs, level == "case")
    first = {"part": judged.part(group.runs[0]), "level": level, "method": group.method} | group.settings
    first["rule"] = judged.rules(ones) if level == "case" else ""
    tables = [folds.pooled(one.at(level)) for one in ones]
    return first, multiclass.over_seeds(tables, level, draws, seed)
