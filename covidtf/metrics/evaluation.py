"""One dict per run: threshold from val, numbers on test and within each source, and their base."""

from importlib import resources

import pandas as pd

from covidtf import metrics
from covidtf.files import DataError
from covidtf.metrics import intervals, thresholds
from covidtf.predictions import validate

METRICS = ("auroc", "average_precision", "sensitivity", "specificity", "ppv", "npv", "accuracy")


def evaluate(
    predictions: pd.DataFrame,
    positive: str = "COVID-19",
    rule: str = "youden",
    draws: int = 2000,
    seed: int = 0,
) -> dict:
    """Judge one run, image by image.

    Args:
        predictions: Rows of val and test; rows of train are refused, because they say nothing.
        positive: Label to detect; every other label is negative.
        rule: How the cut-off threshold is chosen on val, see `thresholds.choose`.
        draws: Number of bootstrap draws of patients.
        seed: Of the draws, a non-negative integer.
    Returns:
        Ready for JSON: `level`, `positive`, `bootstrap`, `threshold` (from val), `test` (`confusion` and one
        metric per name of `METRICS`), `within_source` (the same per source of the test images), `counts` and
        `findings` (lists of rows, see `counts`), `patients_in_val_and_test` (0 unless there is a leak).
    Raises:
        DataError: If the table is not valid, or val or test lacks images of one class.
        ValueError: If an argument is out of its range.
    """
    validate(predictions)
    splits = sorted(set(predictions["split"]))
    if splits != ["test", "val"]:
        raise DataError(f"predictions: rows of val and of test were wanted. Received: {splits}")
    val, test = (predictions[predictions["split"] == split] for split in ("val", "test"))
    threshold = thresholds.choose(val, positive, rule)
    metrics.roc(test, positive)
    return {
        "level": "image",
        "positive": positive,
        "bootstrap": {"unit": "patient", "draws": draws, "seed": seed},
        "threshold": threshold,
        "test": scores(test, threshold["value"], positive, draws, seed),
        "within_source": within_source(test, threshold["value"], positive, draws, seed),
        "counts": counts(predictions).to_dict("records"),
        "findings": counts(predictions, ("split", "label", "finding")).to_dict("records"),
        "patients_in_val_and_test": len(set(val["patient_id"]) & set(test["patient_id"])),
    }


def within_source(
    predictions: pd.DataFrame, threshold: float, positive: str = "COVID-19", draws: int = 2000, seed: int = 0
) -> dict[str, dict]:
    """`scores` of each source alone, by source, where the look of a source as a whole is of no help.

    A source that is itself a collection still has hospitals and publications that go with the label.

    Args:
        predictions: Rows of one split.
        threshold: Operating point in [0, 1], the one of all sources.
        positive: As `evaluate`.
        draws: As `evaluate`.
        seed: As `evaluate`.
    Returns:
        One entry per source, in alphabetical order. Where a source has images of one class only, `auroc` and
        `average_precision` have value None and say "cannot be told".
    """
    groups = predictions.groupby("source", sort=True)
    return {str(source): scores(rows, threshold, positive, draws, seed) for source, rows in groups}


def scores(
    predictions: pd.DataFrame, threshold: float, positive: str = "COVID-19", draws: int = 2000, seed: int = 0
) -> dict[str, dict]:
    """`confusion` and one metric per name of `METRICS`; arguments as `within_source`."""
    is_positive = predictions["label"] == positive
    if is_positive.nunique() == 2:
        areas = {
            "auroc": metrics.auroc(predictions, positive, draws, seed),
            "average_precision": metrics.average_precision(predictions, positive, draws, seed),
        }
    else:
        reason = f"all images are {positive}" if is_positive.all() else f"no image is {positive}"
        untold = intervals.untold(reason, len(predictions), predictions["patient_id"].nunique())
        areas = {"auroc": untold, "average_precision": dict(untold)}
    return areas | thresholds.at_threshold(predictions, threshold, positive, draws, seed)


def counts(table: pd.DataFrame, by: tuple[str, ...] = ("split", "source", "label")) -> pd.DataFrame:
    """Images and patients in each group of `by`; of a predictions table or a manifest."""
    groups = table.groupby(list(by), sort=True, observed=True)
    return groups.agg(images=("image_id", "size"), patients=("patient_id", "nunique")).reset_index()


def comparison(results: dict[str, dict], part: str = "test") -> pd.DataFrame:
    """One row per run, to be read side by side; numbers, not text.

    Args:
        results: `evaluate` of each run, by its name.
        part: "test", or the name of a source for the numbers within it.
    Returns:
        Columns run, n, patients, positives, threshold, and for each of `METRICS` its value, `_low` and
        `_high` (ci95); NaN where it cannot be told.
    Raises:
        DataError: If a run has no such part.
    """
    rows = []
    for run, result in results.items():
        parts = {"test": result["test"]} | result["within_source"]
        if part not in parts:
            raise DataError(f"{run}: no part {part!r}. Received: {list(parts)}")
        found = parts[part]
        confusion = found["confusion"]
        row = {"run": run, "n": found["accuracy"]["n"], "patients": found["accuracy"]["patients"]}
        row |= {"positives": confusion["tp"] + confusion["fn"], "threshold": result["threshold"]["value"]}
        for name in METRICS:
            low, high = found[name]["ci95"] or (None, None)
            row |= {name: found[name]["value"], f"{name}_low": low, f"{name}_high": high}
        rows.append(row)
    return pd.DataFrame(rows).astype({name: float for name in _interval_columns()})


def text(metric: dict, digits: int = 3) -> str:
    """A metric as it is printed in tables and legends.

    >>> text({"value": 0.9871, "ci95": (0.975, 0.9954)})
    '0.987 (0.975 to 0.995)'
    >>> text({"value": 1.0, "ci95": None})
    '1.000 (no interval)'
    >>> text({"value": None, "ci95": None})
    'cannot be told'
    """
    if metric["value"] is None:
        return "cannot be told"
    limits = metric["ci95"]
    interval = "no interval" if limits is None else f"{limits[0]:.{digits}f} to {limits[1]:.{digits}f}"
    return f"{metric['value']:.{digits}f} ({interval})"


def published() -> pd.DataFrame:
    """What the DeepCovid paper and its first version report, as tidy data with the certainty of each number.

    Returns:
        Columns network, version, quantity, condition, value, half_width, n, certainty, reference, note; NaN
        and "" where there is none. Certainty: A read in a primary artefact, B quoted by a third party, C
        inferred from measurement, M from memory and unverified.
    """
    with resources.files("covidtf.published").joinpath("xray_results.csv").open(encoding="utf-8") as file:
        table = pd.read_csv(file, dtype=str, keep_default_na=False)
    for column in ("value", "half_width", "n"):
        table[column] = pd.to_numeric(table[column].replace("", None)).astype(float)
    return table


def _interval_columns() -> list[str]:
    return [f"{name}{ending}" for name in METRICS for ending in ("", "_low", "_high")]
