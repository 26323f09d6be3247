"""The audit's rule: from a number with its interval to passed, failed or cannot be told."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from covidtf.audit.thresholds import CHANCE, CHECKS, LOSS, MARGIN, SLACK, Check
from covidtf.metrics.intervals import Metric

__all__ = [
    "CHECKS",
    "COLUMNS",
    "VERDICTS",
    "Check",
    "count",
    "fixed",
    "judge",
    "read",
    "readable",
    "table",
    "wanted",
    "words",
]
VERDICTS = ("passed", "failed", "cannot be told")
COLUMNS = (
    *("group", "check", "subject", "part", "value", "low", "high", "n", "patients"),
    *("threshold", "wanted", "verdict", "reason"),
)


def judge(
    check: Check,
    subject: str,
    metric: Metric | None,
    reason: str = "",
    part: str = "",
    base: Metric | None = None,
) -> dict:
    """The verdict on one number.

    `below` t: passed if the whole 95 % CI is below t, failed if it is above, else it cannot be told; `above`
    likewise; `none`: failed above 0; `holds`: failed if all of the CI is more than 0.05 from t, passed if t
    is in it and all of it is within 0.15 of t, for a wide one holds anything. Without a CI it cannot be
    told, apart from counts.

    Args:
        check: One of `CHECKS`.
        subject: A network, or "data".
        metric: With `value`, `ci95`, `n`, `patients`; None, or value None, where it cannot be told.
        reason: Why it cannot be told, or what the reader must know of the number.
        part: What part of the images it is of, "" for all that are judged.
        base: Metric without which a pass says nothing: unless its CI is above 0.5, passed becomes "cannot be
            told", because a network at chance has nothing to lose.
    Returns:
        Row with the keys `COLUMNS`.
    Raises:
        ValueError: `metric` is None and there is no reason.
    """
    metric = metric or {"value": None, "ci95": None, "method": reason, "n": 0, "patients": 0}
    verdict, why = _verdict(check, metric)
    if verdict == "passed" and base is not None and not (base["ci95"] and base["ci95"][0] > CHANCE):
        verdict, why = "cannot be told", "the score it rests on is not above chance"
    reason = "; ".join(dict.fromkeys(filter(None, (why, reason))))
    if verdict == "cannot be told" and not reason:
        raise ValueError(f"`reason` must say why {check.name!r} cannot be told. Received: ''")
    low, high = metric["ci95"] or (np.nan, np.nan)
    value = np.nan if metric["value"] is None else float(metric["value"])
    row = {"group": check.group, "check": check.name, "subject": subject, "part": part}
    row |= {"value": value, "low": low, "high": high}
    row |= {"n": int(metric["n"]), "patients": int(metric["patients"])}
    row |= {"threshold": check.threshold, "wanted": check.wanted}
    return row | {"verdict": verdict, "reason": reason}


def count(number: int, n: int, patients: int) -> Metric:
    """A number of images as a metric: a fact about these images, without an interval."""
    return {"value": int(number), "ci95": None, "method": "count", "n": n, "patients": patients}


def table(rows: Sequence[dict], missing: str = "not done") -> pd.DataFrame:
    """All verdicts in the order of `CHECKS`; a check without a row is there too, and cannot be told.

    Args:
        rows: As from `judge`.
        missing: Why a check has no row.
    Returns:
        Columns `COLUMNS`.
    """
    done = {row["check"] for row in rows}
    others = [judge(check, "data", None, missing) for name, check in CHECKS.items() if name not in done]
    place = {name: number for number, name in enumerate(CHECKS)}
    ordered = sorted([*rows, *others], key=lambda row: place[row["check"]])
    return pd.DataFrame(ordered, columns=list(COLUMNS))


def fixed() -> pd.DataFrame:
    """The checks as a table: group, check, question, wanted (with the threshold), why."""
    rows = [
        {
            "group": check.group,
            "check": check.name,
            "question": check.question,
            "wanted": wanted(check.wanted, check.threshold),
            "why": check.why,
        }
        for check in CHECKS.values()
    ]
    return pd.DataFrame(rows)


def readable(verdicts: pd.DataFrame) -> pd.DataFrame:
    """The table of verdicts with each number and its interval in one cell, for people."""
    names = ["value", "low", "high", "wanted", "threshold"]
    numbers = [_number(*row) for row in verdicts[names].itertuples(index=False)]
    sizes = [f"{n} ({p})" if n else "" for n, p in zip(verdicts["n"], verdicts["patients"], strict=True)]
    limits = [wanted(*row) for row in verdicts[["wanted", "threshold"]].itertuples(index=False)]
    return pd.DataFrame(
        {
            "Group": verdicts["group"],
            "Check": verdicts["check"],
            "Of": verdicts["subject"].where(
                verdicts["part"] == "", verdicts["subject"] + ", " + verdicts["part"]
            ),
            "Number (95 % CI)": numbers,
            "Images (patients)": sizes,
            "Wanted": limits,
            "Verdict": verdicts["verdict"],
            "Reason": verdicts["reason"],
        }
    )


def read(path: str | Path) -> pd.DataFrame:
    """The table of verdicts as it was written; text that is absent is ""."""
    numbers = ("value", "low", "high", "n", "patients", "threshold")
    text = {name: str for name in COLUMNS if name not in numbers}
    return pd.read_csv(path, dtype=text).fillna(dict.fromkeys(text, ""))


def wanted(how: str, threshold: float) -> str:
    """What is wanted, in words: "below 0.65"."""
    return "none" if how == "none" else f"{how} {threshold:g}"


def words(verdicts: pd.DataFrame) -> str:
    """How many passed, failed and cannot be told, in one sentence."""
    counts = verdicts["verdict"].value_counts()
    passed, failed, untold = (int(counts.get(name, 0)) for name in VERDICTS)
    return f"{len(verdicts)} verdicts: {passed} passed, {failed} failed, {untold} cannot be told."


def _number(value: float, low: float, high: float, how: str, threshold: float) -> str:
    if np.isnan(value):
        return ""
    if how == "none":
        return f"{value:.0f}"
    # A difference has a sign.
    sign = "+" if threshold in (0, LOSS) else ""
    interval = "no interval" if np.isnan(low) else f"{low:{sign}.3f} to {high:{sign}.3f}"
    return f"{value:{sign}.3f} ({interval})"


def _holds(low: float, high: float, threshold: float) -> tuple[str, str]:
    if low - threshold > SLACK or threshold - high > SLACK:
        return "failed", ""
    if not low <= threshold <= high:
        return "cannot be told", f"the interval leaves out the threshold by less than {SLACK:g}"
    if max(high - threshold, threshold - low) > MARGIN:
        return "cannot be told", "the interval is too wide to say so"
    return "passed", ""


def _verdict(check: Check, metric: Metric) -> tuple[str, str]:
    if metric["value"] is None:
        return "cannot be told", str(metric.get("method", "")).removeprefix("cannot be told: ")
    if check.wanted == "none":
        return ("failed" if metric["value"] > 0 else "passed"), ""
    if metric["ci95"] is None:
        return "cannot be told", str(metric.get("method", "no interval"))
    low, high = metric["ci95"]
    if check.wanted == "holds":
        return _holds(low, high, check.threshold)
    # As if the wanted side were always below.
    low, high = (low, high) if check.wanted == "below" else (-high, -low)
    limit = check.threshold if check.wanted == "below" else -check.threshold
    if high < limit:
        return "passed", ""
    return ("failed", "") if low > limit else ("cannot be told", "the interval holds the threshold")
