"""What each run is worth in use: everything that is chosen is chosen on val and carried to test.

Tables, one row per run or more, of `scored.of_runs`. What cannot be told stays a row and says why.
"""

from collections.abc import Collection, Sequence

import numpy as np
import pandas as pd

from covidtf.metrics import benefit, intervals, temperature, thresholds
from covidtf.metrics import calibration as calibrated
from covidtf.metrics import subgroups as grouped
from covidtf.metrics.paired import UNTOLD, about, columns
from covidtf.metrics.scored import Scored

RULES = ("youden", "sensitivity>=0.95")
_AT_POINT = ("sensitivity", "specificity", "ppv", "npv")
_LIMITS = ("", "_low", "_high")
_OF_CALIBRATION = (
    *(f"brier{end}" for end in _LIMITS),
    "of_prevalence",
    *(f"brier_change{end}" for end in _LIMITS),
    *("ece", "if_calibrated", "if_calibrated_95"),
    *(f"{name}{end}" for name in ("slope", "intercept") for end in _LIMITS),
    "note",
)
_CHOSEN = ("val_positive_patients", "val_sensitivity", "val_specificity")
_RUN = ("part", "network", "baseline", "seed")


def operating_points(
    scored: Sequence[Scored],
    rules: Sequence[str] = RULES,
    positive: str = "COVID-19",
    draws: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """Thresholds chosen on val, each by two or more rules, and what the score is worth there on test.

    Args:
        scored: Of `scored.of_runs`; of a cross-validation each fold has the threshold of its own val.
        rules: Of `thresholds.choose`.
        positive: Label to detect; every other label is negative.
        draws: Bootstrap draws of patients.
        seed: Of the draws, a non-negative integer.
    Returns:
        One row per run and rule: the columns of `paired.about`, seed, rule, threshold (of each fold,
        separated by spaces), val_positive_patients (of folds the fewest), val_sensitivity, val_specificity
        (where they are optimistic; of folds their means), sensitivity, specificity, ppv, npv with `_low` and
        `_high`, and note: why they cannot be told, or which class has few patients on val or test; else "".
    """
    return pd.DataFrame([_point(one, rule, positive, draws, seed) for one in scored for rule in rules])


def predictive_values(
    points: pd.DataFrame, prevalences: Sequence[float] = benefit.PREVALENCES
) -> pd.DataFrame:
    """PPV and NPV of each operating point at stated prevalences, by `benefit.predictive_values`.

    Args:
        points: Of `operating_points`.
        prevalences: In (0, 1).
    Returns:
        One row per operating point and prevalence: part, network, baseline, seed, rule, n, patients,
        prevalence, ppv, npv with `_low` and `_high`, note.
    """
    kept = [*_RUN, "rule", "n", "patients"]
    tables = []
    for _, row in points.iterrows():
        found = benefit.predictive_values(
            _metric(row, "sensitivity"), _metric(row, "specificity"), prevalences
        )
        tables.append(found.assign(**row[kept].to_dict(), note=row["note"]))
    values = [f"{name}{end}" for name in ("ppv", "npv") for end in _LIMITS]
    return pd.concat(tables, ignore_index=True)[[*kept, "prevalence", *values, "note"]]


def calibration(
    scored: Sequence[Scored], positive: str = "COVID-19", bins: int = 10, draws: int = 2000, seed: int = 0
) -> pd.DataFrame:
    """Brier score, ECE and logistic recalibration as the scores come, and after temperature scaling on val.

    Args:
        scored: As `operating_points`; of a cross-validation each fold has the temperature of its own val.
        positive: As `operating_points`.
        bins: Of `calibration.reliability`, at most.
        draws: As `operating_points`.
        seed: As `operating_points`.
    Returns:
        Two rows per run: the columns of `paired.about`, seed, scores ("as they come", "scaled"), temperature
        (of each fold, separated by spaces), brier with `_low` and `_high`, of_prevalence (Brier score of a
        score that always says the prevalence), brier_change with its limits (in the same draws, of the
        scaled), ece, if_calibrated and if_calibrated_95 (`calibration.ece`), slope and intercept with limits,
        and note.
    """
    rows, options = [], (positive, bins, draws, seed)
    for one in scored:
        first = about(one, positive) | {"seed": one.seed, "temperature": ""}
        rows.append(first | {"scores": "as they come"} | _calibration(one.rows, *options))
        if one.unchosen(positive):
            rows.append(first | {"scores": "scaled", "note": f"cannot be told: {one.unchosen(positive)}"})
            continue
        after, found = one.scaled(positive)
        row = first | {"scores": "scaled", "temperature": _texts(found)} | _calibration(after, *options)
        row |= _change(one.rows, after, positive, draws, seed)
        if np.isclose(np.array(found)[:, None], temperature.LIMITS).any():
            row["note"] = "; ".join(
                filter(None, [row["note"], f"temperature at a limit: {temperature.LIMITS}"])
            )
        rows.append(row)
    own = [name for name in rows[0] if name not in ("scores", "temperature", *_OF_CALIBRATION)]
    return pd.DataFrame(rows).reindex(columns=[*own, "scores", "temperature", *_OF_CALIBRATION])


def reliability(one: Scored, positive: str = "COVID-19", bins: int = 10) -> dict[str, pd.DataFrame]:
    """`calibration.reliability` of the scores "as they come" and, where val can tell, "scaled"."""
    tables = {"as they come": one.rows}
    if not one.unchosen(positive):
        tables["scaled"] = one.scaled(positive)[0]
    return {name: calibrated.reliability(rows, positive, bins) for name, rows in tables.items()}


def decision_curves(
    scored: Sequence[Scored], positive: str = "COVID-19", draws: int = 2000, seed: int = 0
) -> pd.DataFrame:
    """Net benefit of each run, of its scaled scores where val can tell them.

    Args:
        scored: Those whose AUROC can be told, see `paired.first_seeds`.
        positive: As `operating_points`.
        draws: As `operating_points`.
        seed: As `operating_points`.
    Returns:
        One row per run and threshold probability: part, network, baseline, seed, scores ("as they come",
        "scaled"), n, patients, positives, and the columns of `benefit.decision_curve`.
    """
    tables = []
    for one in scored:
        untold = one.unchosen(positive)
        rows = one.rows if untold else one.scaled(positive)[0]
        found = benefit.decision_curve(rows, positive, draws=draws, seed=seed)
        row = about(one, positive) | {"seed": one.seed, "scores": "as they come" if untold else "scaled"}
        kept = (*_RUN, "scores", "n", "patients", "positives")
        tables.append(found.assign(**{name: row[name] for name in kept})[[*kept, *found]])
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def subgroups(
    scored: Sequence[Scored],
    manifest: pd.DataFrame | None,
    rule: str = "youden",
    kinds: Collection[str] = grouped.KINDS,
    positive: str = "COVID-19",
    draws: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """`subgroups.subgroups` of each run, at its threshold from val.

    Args:
        scored: As `operating_points`.
        manifest: Of the data step, for sex and age; without it they are unknown.
        rule: Of `thresholds.choose`.
        kinds: Some of `subgroups.KINDS`.
        positive: As `operating_points`.
        draws: As `operating_points`.
        seed: As `operating_points`.
    Returns:
        part, network, baseline, seed, rule, split, and the columns of `subgroups.subgroups`.
    """
    tables = []
    for one in scored:
        threshold = None if one.unchosen(positive) else one.threshold(rule, positive)[0]
        found = grouped.subgroups(one.rows, manifest, threshold, positive, draws, seed, kinds)
        first = {"part": one.part, "network": one.network, "baseline": one.baseline, "seed": one.seed}
        first |= {"rule": rule, "split": one.rows["split"].iloc[0]}
        tables.append(found.assign(**first)[[*first, *found]])
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def _point(one: Scored, rule: str, positive: str, draws: int, seed: int) -> dict[str, object]:
    row = about(one, positive) | {"seed": one.seed, "rule": rule}
    if one.unchosen(positive):
        row |= {"threshold": "", **dict.fromkeys(_CHOSEN, np.nan)}
        for name in _AT_POINT:
            row |= columns(name, UNTOLD)
        return row | {"note": f"cannot be told: {one.unchosen(positive)}"}
    threshold, chosen = one.threshold(rule, positive)
    means = [float(np.mean([val[name] for val in chosen])) for name in ("sensitivity", "specificity")]
    row |= {"threshold": _texts([val["value"] for val in chosen])}
    row |= dict(zip(_CHOSEN, (one.fewest(positive)[0], *means), strict=True))
    found = thresholds.at_threshold(one.rows, threshold, positive, draws, seed)
    for name in _AT_POINT:
        row |= columns(name, found[name])
    return row | {"note": _note(row, found)}


def _note(row: dict[str, object], found: dict[str, dict]) -> str:
    """Which numbers are absent, and which classes have few patients."""
    absent = [f"{name}: {found[name]['method']}" for name in _AT_POINT if found[name]["ci95"] is None]
    counts = {"positive on val": row["val_positive_patients"], "positive": row["positive_patients"]}
    counts["other"] = row["other_patients"]
    few = [f"{count} {name}" for name, count in counts.items() if count < grouped.FEW_PATIENTS]
    return "; ".join(absent + ([f"few patients: {', '.join(few)}"] if few else []))


def _calibration(rows: pd.DataFrame, positive: str, bins: int, draws: int, seed: int) -> dict[str, object]:
    brier = calibrated.brier(rows, positive, draws, seed)
    ece = calibrated.ece(rows, positive, bins, draws, seed)
    line = calibrated.slope_intercept(rows, positive)
    row = columns("brier", brier) | {"of_prevalence": brier["of_prevalence"], "ece": ece["value"]}
    row |= {name: ece[name] for name in ("if_calibrated", "if_calibrated_95")}
    for name, metric in line.items():
        row |= columns(name, metric)
    absent = [f"{name}: {metric['method']}" for name, metric in line.items() if metric["ci95"] is None]
    return row | {"note": "; ".join(absent)}


def _change(
    before: pd.DataFrame, after: pd.DataFrame, positive: str, draws: int, seed: int
) -> dict[str, float]:
    """Brier score after minus before, with the percentiles of the draws."""
    label = (before["label"] == positive).to_numpy(float)
    losses = [(table[f"score_{positive}"].to_numpy(float) - label) ** 2 for table in (after, before)]
    loss, patient_id = losses[0] - losses[1], before["patient_id"].to_numpy(str)
    values = intervals.bootstrap(
        lambda weights: weights @ loss / weights.sum(axis=1), patient_id, draws, seed
    )
    enough = before["patient_id"].nunique() >= intervals.FEWEST_PATIENTS
    limits = intervals.percentiles(values) if enough else None
    return columns("brier_change", {"value": loss.mean(), "ci95": limits})


def _metric(row: pd.Series, name: str) -> intervals.Metric:
    """The metric that a table's columns are of."""
    value, *limits = (row[f"{name}{end}"] for end in _LIMITS)
    return {"value": None if np.isnan(value) else value, "ci95": None if np.isnan(limits[0]) else limits}


def _texts(values: Sequence[float]) -> str:
    return " ".join(f"{value:.4f}" for value in values)
