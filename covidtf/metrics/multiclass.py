"""Two or more classes, of slices or of cases: per class, macro averages, confusion matrix.

Every function takes rows of one split of a predictions table. The called class is the one with the highest
score, of equal ones the first column. A metric is a dict as in `metrics`. Patients are drawn, each with all
its cases and slices; in COVID19-Diag a case is a patient, so there it is a bootstrap over cases as well.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pandas as pd

from covidtf.files import DataError
from covidtf.metrics import intervals
from covidtf.metrics.intervals import Metric
from covidtf.metrics.tallies import METRICS, Tally, check, draw, measure, scores, tally
from covidtf.predictions import same_images

NORMAL = ("Normal", "non-COVID")
_OF_A_SEED = "it cannot be told of one of the seeds"
_Array = npt.NDArray[np.float64]


def evaluate(predictions: pd.DataFrame, level: str = "slice", draws: int = 2000, seed: int = 0) -> dict:
    """Judge the rows of one split.

    Of class c against all others: sensitivity = TP / (TP + FN), specificity = TN / (TN + FP),
    PPV = TP / (TP + FP), F1 = 2 TP / (2 TP + FP + FN), and the AUROC of its score. Macro averages are their
    means over the classes, each class counting alike; balanced accuracy is the macro sensitivity.

    All have the interval of `intervals.metric`, which treats F1 and macro averages like proportions. In
    simulated studies of 30 to 200 patients those of macro AUROC (0.77 to 0.99) and macro F1 (0.59 to 0.93)
    held the truth in 94 to 99 %, the percentiles beside them in 77 to 95 %.

    Args:
        predictions: Rows of one split, for cases as `cases.case_scores` returns them.
        level: What a row is, "slice" or "case".
        draws: Number of bootstrap draws of patients.
        seed: Of the draws, a non-negative integer.
    Returns:
        Ready for JSON: `level`, `split`, `classes` (names, in the order of the score columns), `positive` (of
        two classes the one that is no `NORMAL`; else None), `n` (rows), `patients`, `cases`, `bootstrap`,
        `confusion` (counts, C x C, rows are labels, columns called classes), `per_class` (by class, then by
        `METRICS`), `macro` (by `METRICS`), `accuracy`, `balanced_accuracy`. What rests on a class without
        rows, the macro averages too, has value None and says why; in a draw it is undefined.
    Raises:
        DataError: If the table is not valid, has several splits, or at level "case" a case has several rows.
        ValueError: If `level` is none of the two.
    """
    result = over_seeds([predictions], level, draws, seed)
    return {name: value for name, value in result.items() if name != "seeds"}


def over_seeds(
    tables: Sequence[pd.DataFrame], level: str = "slice", draws: int = 2000, seed: int = 0
) -> dict:
    """Judge several scores of the same rows, such as those of several seeds, as one.

    Each metric is the mean over the tables, and its interval that of this mean in the same draws of patients;
    it says how far other patients would move it, not other seeds.

    Args:
        tables: Each as of `evaluate`, of the same rows in any order.
        level: As `evaluate`.
        draws: As `evaluate`.
        seed: As `evaluate`.
    Returns:
        As `evaluate`, with `seeds` (number of tables), over which `confusion` is the sum.
    Raises:
        DataError: As `evaluate`; or no table, or tables of other rows or classes.
    """
    _same_rows(tables, level)
    tallies = [tally(table) for table in tables]
    drawn_of = [draw(counts, draws, seed) for counts in tallies]
    values, drawn = (np.mean([one[place] for one in drawn_of], axis=0) for place in (0, 1))
    confusion = np.sum([counts.confusion.sum(axis=0) for counts in tallies], axis=0)
    counts = replace(tallies[0], confusion=np.mean([one.confusion for one in tallies], axis=0))
    predictions = tables[0]
    per_class = {
        name: _of_class(counts, index, values[:, index], drawn[:, :, index], _called(tallies, index))
        for index, name in enumerate(counts.classes)
    }
    macro = {name: _macro(counts, name, values[i, -1], drawn[:, i, -1]) for i, name in enumerate(METRICS)}
    return {
        "level": level,
        "split": str(predictions["split"].iloc[0]),
        "seeds": len(tables),
        "classes": list(counts.classes),
        "positive": _positive(counts.classes),
        "n": len(predictions),
        "patients": len(counts.patients),
        "cases": _cases(predictions),
        "bootstrap": {"unit": "patient", "draws": draws, "seed": seed},
        "confusion": confusion.astype(int).tolist(),
        "per_class": per_class,
        "macro": macro,
        "accuracy": intervals.metric(
            values[-1, -1], drawn[:, -1, -1], len(predictions), len(counts.patients)
        ),
        "balanced_accuracy": dict(macro["sensitivity"]),
    }


def table(result: dict) -> pd.DataFrame:
    """What `evaluate` returns as one row per class and one for the macro average; numbers, not text.

    Returns:
        Columns class, n (rows of the label), patients (of these rows), and for each of `METRICS` its value,
        `_low` and `_high`; NaN where it cannot be told.
    """
    total = {"n": result["n"], "patients": result["patients"]}
    rows = []
    for name, found in [*result["per_class"].items(), ("macro average", result["macro"])]:
        own = total if name == "macro average" else found["sensitivity"]
        row = {"class": name, "n": own["n"], "patients": own["patients"]}
        for metric in METRICS:
            low, high = found[metric]["ci95"] or (np.nan, np.nan)
            value = found[metric]["value"]
            row |= {metric: np.nan if value is None else value, f"{metric}_low": low, f"{metric}_high": high}
        rows.append(row)
    return pd.DataFrame(rows)


def macro_auroc(predictions: pd.DataFrame) -> float:
    """Mean one-vs-rest AUROC over the classes of one split; NaN if a class has no row, or all rows."""
    check(predictions)
    counts = tally(predictions)
    return float(measure(np.ones((1, len(counts.patients))), counts)[0, METRICS.index("auroc"), -1])


def overall_draws(
    predictions: pd.DataFrame, draws: int = 2000, seed: int = 0
) -> dict[str, tuple[float, _Array]]:
    """Macro AUROC (`auroc`), macro F1 (`f1`) and `accuracy` with their values in the draws, `(draws,)`.

    Of two scores of the same rows, in any order, draw i has the same patients. NaN is undefined.
    """
    check(predictions)
    values, drawn = draw(tally(predictions), draws, seed)
    places = {"auroc": METRICS.index("auroc"), "f1": METRICS.index("f1"), "accuracy": -1}
    return {name: (float(values[place, -1]), drawn[:, place, -1]) for name, place in places.items()}


def _same_rows(tables: Sequence[pd.DataFrame], level: str) -> None:
    if not tables:
        raise DataError("predictions: at least one table was wanted. Received: none")
    for table in tables:
        check(table, level)
    same_images({f"table {number}": table for number, table in enumerate(tables)})
    classes = list(scores(tables[0]))
    for number, table in enumerate(tables):
        if list(scores(table)) != classes:
            raise DataError(f"table {number}: {classes} were wanted. Received: {list(scores(table))}")


def _called(tallies: Sequence[Tally], index: int) -> int:
    """Patients of whom a row is called the class, mean over the seeds."""
    return round(np.mean([_patients(one.confusion[:, :, index].sum(axis=1)) for one in tallies]))


def _of_class(
    counts: Tally, index: int, values: _Array, drawn: _Array, called_patients: int
) -> dict[str, Metric]:
    per_patient = counts.confusion
    members = per_patient[:, index].sum(axis=1)
    total, called = per_patient.sum(axis=(1, 2)), per_patient[:, :, index].sum(axis=1)
    smaller = _patients(members), _patients(total - members)
    of = {"sensitivity": members, "specificity": total - members, "ppv": called, "f1": total, "auroc": total}
    found = {}
    for place, (name, rows) in enumerate(of.items()):
        # The number of rows called so is a mean over seeds.
        n, patients = round(rows.sum()), called_patients if name == "ppv" else _patients(rows)
        if np.isnan(values[place]):
            found[name] = intervals.untold(_reason(counts, name, index) or _OF_A_SEED, n, patients)
        else:
            least = {"f1": smaller[0], "auroc": min(smaller)}.get(name, patients)
            found[name] = intervals.metric(values[place], drawn[:, place], n, patients, least)
    return found


def _macro(counts: Tally, name: str, value: float, values: _Array) -> Metric:
    per_patient = counts.confusion
    n, patients = round(per_patient.sum()), len(counts.patients)
    if np.isnan(value):
        reasons = dict.fromkeys(_reason(counts, name, index) for index in range(len(counts.classes)))
        told = [reason for reason in reasons if reason]
        return intervals.untold("; ".join(told) or _OF_A_SEED, n, patients)
    smaller = min(_patients(members) for members in per_patient.sum(axis=2).T)
    return intervals.metric(value, values, n, patients, smaller)


def _reason(counts: Tally, name: str, index: int) -> str:
    """Why a metric of a class is undefined; "" where it is defined."""
    cells, own = counts.confusion.sum(axis=0), counts.classes[index]
    if name == "ppv":
        return "" if cells[:, index].any() else f"no row is called {own}"
    if name != "specificity" and not cells[index].any():
        return f"no row is labelled {own}"
    alone = not np.delete(cells, index, axis=0).any()
    return f"all rows are labelled {own}" if alone and name in ("specificity", "auroc") else ""


def _patients(rows: _Array) -> int:
    return int(np.count_nonzero(rows))


def _cases(predictions: pd.DataFrame) -> int | None:
    """Number of cases; None where a row's case is unknown."""
    known = predictions["case_id"] != ""
    return int(predictions["case_id"].nunique()) if known.all() else None


def _positive(classes: tuple[str, ...]) -> str | None:
    if len(classes) != 2:
        return None
    return next((name for name in classes if name not in NORMAL), classes[0])
