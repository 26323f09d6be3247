"""AUROC and differences of AUROC over the seeds of each network, with DeLong's and the bootstrap interval."""

from collections.abc import Sequence
from itertools import combinations, groupby

import numpy as np
import pandas as pd
from statsmodels.stats.multitest import multipletests

from covidtf import metrics
from covidtf.metrics import against, delong, intervals
from covidtf.metrics.intervals import Metric
from covidtf.metrics.scored import Scored
from covidtf.metrics.transfer import mean_auroc

UNTOLD = {"value": None, "ci95": None}
_Group = list[Scored]


def about(one: Scored, positive: str) -> dict[str, object]:
    """Columns part, network, baseline, split, n, patients, positives, positive_patients, other_patients."""
    label = one.rows["label"] == positive
    row = {"part": one.part, "network": one.network, "baseline": one.baseline}
    row |= {"split": one.rows["split"].iloc[0], "n": len(label), "patients": one.rows["patient_id"].nunique()}
    row |= {"positives": int(label.sum())}
    for name, of in (("positive", label), ("other", ~label)):
        row[f"{name}_patients"] = one.rows["patient_id"][of].nunique()
    return row


def areas(
    scored: Sequence[Scored], positive: str = "COVID-19", draws: int = 2000, seed: int = 0
) -> pd.DataFrame:
    """AUROC of each network as the mean over its seeds, with two 95 % intervals of that mean.

    Both are over patients and for these very weights: how far other seeds would lie is told by the lowest and
    the highest seed alone.

    Args:
        scored: Of `scored.of_runs`.
        positive: Label whose score is judged; every other label is negative.
        draws: Bootstrap draws of patients.
        seed: Of the draws, a non-negative integer.
    Returns:
        One row per part and network: the columns of `about`, seeds (number), auroc, bootstrap_low,
        bootstrap_high (`intervals.metric`), delong_low, delong_high (`delong.auroc`), lowest, highest,
        of_seeds (the values by seed, separated by spaces), within_folds (mean AUROC within a fold; NaN
        without folds or where a fold has one class) and note (why a number or an interval is absent, or that
        there is one seed; else ""). NaN where it cannot be told.
    """
    return pd.DataFrame([_area(group, positive, draws, seed) for group in groups(scored)])


def differences(
    scored: Sequence[Scored], positive: str = "COVID-19", draws: int = 2000, seed: int = 0
) -> pd.DataFrame:
    """AUROC of each network minus that of the best baseline, and of networks among themselves.

    Of several seeds their means. The best baseline is that with the highest AUROC on the judged rows, which
    favours it. p is DeLong's; p_holm is corrected by Holm for the comparisons of the part.

    Args:
        scored: Of `scored.of_runs`.
        positive: As `areas`.
        draws: As `areas`.
        seed: As `areas`.
    Returns:
        One row per pair: part, one, other, kind ("over the best baseline", "between networks"), split, n,
        patients, difference, bootstrap_low, bootstrap_high (percentiles in the same draws), delong_low,
        delong_high, p, p_holm, and told_by_bootstrap, told_by_delong ("above 0", "below 0", "not told
        from 0", or "cannot be told" without an interval).
    Reference: Holm, Scandinavian Journal of Statistics 1979, 6:65-70.
    """
    result = []
    for _, own in groupby(groups(scored), key=lambda group: group[0].part):
        told = [group for group in own if not group[0].untold(positive)]
        means = [mean_auroc([one.rows for one in group], draws, seed, positive) for group in told]
        drawn = {
            id(group): (mean["value"], values) for group, (mean, values, _) in zip(told, means, strict=True)
        }
        pairs = _pairs(told, {group[0].network: drawn[id(group)][0] for group in told})
        rows = [_difference(one, other, drawn, positive) for one, other in pairs]
        result += _corrected(rows)
    return pd.DataFrame(result)


def groups(scored: Sequence[Scored]) -> list[_Group]:
    """The seeds of each network of each part."""
    return [list(own) for _, own in groupby(scored, key=lambda one: (one.part, one.network))]


def first_seeds(scored: Sequence[Scored], positive: str = "COVID-19") -> list[Scored]:
    """Of each part the lowest seed of each network and the best baseline, where AUROC can be told."""
    result = []
    for _, own in groupby(groups(scored), key=lambda group: group[0].part):
        told = [group[0] for group in own if not group[0].untold(positive)]
        values = {one.network: _value(one.rows, positive) for one in told if one.baseline}
        best = against.best_baseline(values)
        result += [one for one in told if not one.baseline or one.network == best]
    return result


def columns(name: str, metric: Metric) -> dict[str, float]:
    """Value, `_low` and `_high` of a metric; NaN where it cannot be told."""
    low, high = metric["ci95"] or (np.nan, np.nan)
    value = np.nan if metric["value"] is None else metric["value"]
    return {name: value, f"{name}_low": low, f"{name}_high": high}


def _area(group: _Group, positive: str, draws: int, seed: int) -> dict[str, object]:
    row, reason = about(group[0], positive) | {"seeds": len(group)}, group[0].untold(positive)
    if reason:
        missing = ("lowest", "highest", "within_folds")
        row |= _side_by_side("auroc", UNTOLD, UNTOLD) | dict.fromkeys(missing, np.nan)
        return row | {"of_seeds": "", "note": f"cannot be told: {reason}"}
    tables = [one.rows for one in group]
    by_bootstrap, _, values = mean_auroc(tables, draws, seed, positive)
    by_delong = delong.auroc(tables, positive)
    row |= _side_by_side("auroc", by_bootstrap, by_delong)
    row |= {"lowest": min(values), "highest": max(values), "within_folds": _within(group, positive)}
    absent = [one["method"] for one in (by_bootstrap, by_delong) if one["ci95"] is None]
    single = ["one seed: spread over seeds cannot be told"] if len(group) == 1 and not row["baseline"] else []
    return row | {
        "of_seeds": " ".join(f"{value:.4f}" for value in values),
        "note": "; ".join(dict.fromkeys(absent + single)),
    }


def _side_by_side(name: str, by_bootstrap: Metric, by_delong: Metric) -> dict[str, float]:
    found = columns("bootstrap", by_bootstrap) | columns("delong", by_delong)
    return {name: found.pop("bootstrap")} | {key: found[key] for key in found if key != "delong"}


def _within(group: _Group, positive: str) -> float:
    if len(group[0].judged) == 1:
        return np.nan
    return float(np.mean([_value(fold, positive) for one in group for fold in one.judged]))


def _value(rows: pd.DataFrame, positive: str) -> float:
    is_positive, score = metrics.one_split(rows, positive)
    told = is_positive.any() and not is_positive.all()
    return float(delong.areas(score[None], is_positive)[0]) if told else np.nan


def _pairs(told: list[_Group], values: dict[str, float]) -> list[tuple[_Group, _Group]]:
    networks = [group for group in told if not group[0].baseline]
    names = {group[0].network: group for group in told if group[0].baseline}
    best = against.best_baseline({name: values[name] for name in names})
    over = [(group, names[best]) for group in networks] if best else []
    return over + list(combinations(networks, 2))


def _difference(one: _Group, other: _Group, drawn: dict, positive: str) -> dict[str, object]:
    by_delong = delong.difference([own.rows for own in one], [own.rows for own in other], positive)
    (first, first_drawn), (second, second_drawn) = drawn[id(one)], drawn[id(other)]
    enough = not by_delong["method"].endswith("patients of a class")
    limits = intervals.percentiles(first_drawn - second_drawn) if enough else None
    by_bootstrap = {"value": first - second, "ci95": limits}
    row = {"part": one[0].part, "one": one[0].network, "other": other[0].network}
    row |= {"kind": "over the best baseline" if other[0].baseline else "between networks"}
    row |= {"split": one[0].rows["split"].iloc[0], "n": by_delong["n"], "patients": by_delong["patients"]}
    row |= _side_by_side("difference", by_bootstrap, by_delong)
    row |= {"p": np.nan if by_delong["p"] is None else by_delong["p"], "p_holm": np.nan}
    return row | {
        "told_by_bootstrap": intervals.side(limits),
        "told_by_delong": intervals.side(by_delong["ci95"]),
    }


def _corrected(rows: list[dict]) -> list[dict]:
    """With p_holm of those that have a p."""
    told = [row for row in rows if not np.isnan(row["p"])]
    if told:
        values = multipletests([row["p"] for row in told], method="holm")[1]
        for row, value in zip(told, values, strict=True):
            row["p_holm"] = float(value)
    return rows
