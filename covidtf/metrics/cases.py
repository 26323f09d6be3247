"""Slice scores to case scores: one row per case, and the rule for that, chosen on val."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import logsumexp

from covidtf.files import DataError, refuse_rows
from covidtf.metrics import multiclass
from covidtf.predictions import COLUMNS, validate

RULES = ("mean", "max", "top-k", "noisy-or")
_TINY = np.finfo(float).tiny
_Array = npt.NDArray[np.float64]


def case_scores(predictions: pd.DataFrame, rule: str, k: int = 3) -> pd.DataFrame:
    """One row per case, its scores pooled over its slices.

    Of slices i with scores s_ic of class c:

    - `mean`: the mean of s_ic over i;
    - `max`: the largest over i of a class's s_ic;
    - `top-k`: the mean of the k largest s_ic, of all where there are fewer;
    - `noisy-or`: the chance that the class shows on at least one slice, if slices are independent.

    Apart from the mean, these look for the slices that show most of a class. That is sound for a disease,
    which need not be on every slice, and not for "normal": every case has slices without disease. So the
    normal class 0 (the one of `multiclass.NORMAL`, if there is one) is not pooled but gets what remains. With
    q_d pooled from s_id of each disease d, and q from 1 - s_i0 (any disease), `max` and `top-k` give

        p_0 = 1 - q,    p_d = q * q_d / sum of all q_d.

    `noisy-or` also uses that diseases exclude one another, so that a case of d has slices of d or normal:

        p_0 ~ prod_i s_i0,    p_d ~ prod_i (s_id + s_i0) - prod_i s_i0,    divided by their sum.

    With one disease that is p_d = 1 - prod_i (1 - s_id). Without a normal class p_c ~ q_c of each class, with
    q_c = 1 - prod_i (1 - s_ic). A case of one slice keeps the slice's scores under every rule. Products are
    computed as sums of logarithms, so that 50 slices neither underflow nor make two diseases equally certain;
    a score that is 1 to the last bit of a float is still equal to another. Noisy-or counts slices: of 50 with
    a score of 0.05 for a disease it makes 0.92.

    Args:
        predictions: Rows per slice, of one or more splits, every `case_id` known.
        rule: One of `RULES`.
        k: Slices of `top-k`, at least 1; other rules do not use it.
    Returns:
        A predictions table in the order in which cases first occur; `image_id` is the case. Source, view and
        finding are those of its slices, joined by "|" where they differ. Columns that are not of the
        predictions table are left out.
    Raises:
        DataError: The table is not valid, a case is unknown, or its slices differ in split, label or patient.
        ValueError: `rule` is not one of `RULES`, or `k` is below 1.
    Reference: Ilse et al., ICML 2018, arXiv:1802.04712 (pooling of instances); Pearl, Probabilistic
        Reasoning in Intelligent Systems, 1988 (noisy-or). That diseases share q, or exclude one another, is
        our choice.
    """
    if rule not in RULES:
        raise ValueError(f"`rule` must be one of {RULES}. Received: {rule!r}")
    if k < 1:
        raise ValueError(f"`k` must be at least 1. Received: {k}")
    _check_cases(validate(predictions))
    columns = [name for name in predictions if name.startswith("score_")]
    normal = _normal([name.removeprefix("score_") for name in columns])
    groups = predictions.groupby("case_id", sort=False)
    pooled = [_case(rows.to_numpy(float), rule, k, normal) for _, rows in groups[columns]]
    texts = groups[["patient_id", "source", "view", "finding", "split", "label"]].agg(_joined).reset_index()
    texts = texts.assign(image_id=texts["case_id"])[list(COLUMNS)]
    return validate(pd.concat([texts, pd.DataFrame(pooled, columns=columns)], axis="columns"))


def choose_rule(val: pd.DataFrame, ks: Sequence[int] = (3, 5, 10)) -> dict[str, object]:
    """The rule of `case_scores` with the highest macro AUROC of val's cases; of equal ones the simplest.

    From simple to less so: mean, max, top-k by rising k, noisy-or. With few cases the choice is noisy: the
    AUROC of 30 cases has a standard error of about 0.05 to 0.1, more than rules mostly differ by, and the
    chosen value is optimistic, being the best of several. It says what test is judged with, not what is best.

    Args:
        val: Rows per slice of the split val.
        ks: Numbers of slices to try with `top-k`.
    Returns:
        Ready for JSON: `rule`, `k` (None but for `top-k`), `value`, `chosen_on`, `cases`, `patients`, and
        `candidates`, a list of `rule`, `k` and `value` (macro AUROC), from simple to less so.
    Raises:
        DataError: As `case_scores`, or there are rows outside val, or val has not a case of each class.
    """
    if (validate(val)["split"] != "val").any():
        raise DataError(f"predictions: rows of val were wanted. Received: {sorted(set(val['split']))}")
    rules = [("mean", None), ("max", None), *(("top-k", k) for k in sorted(set(ks))), ("noisy-or", None)]
    candidates = []
    for rule, k in rules:
        value = multiclass.macro_auroc(case_scores(val, rule, k or 1))
        candidates.append({"rule": rule, "k": k, "value": value})
    if np.isnan(candidates[0]["value"]):
        labels = val.groupby("label")["case_id"].nunique().to_dict()
        raise DataError(f"predictions: cases of each class were wanted in val. Received: {labels}")
    # Rounded, because sums that are equal as fractions can differ in the last bit.
    best = max(candidates, key=lambda one: round(one["value"], 12))
    counts = {"cases": int(val["case_id"].nunique()), "patients": int(val["patient_id"].nunique())}
    return best | {"chosen_on": "val"} | counts | {"candidates": candidates}


def _check_cases(predictions: pd.DataFrame) -> None:
    refuse_rows(predictions, "predictions", "case_id", predictions["case_id"] == "", "known to pool slices")
    for column in ("split", "label", "patient_id"):
        pairs = predictions[["case_id", column]].drop_duplicates()
        twice = pairs["case_id"].duplicated()
        if twice.any():
            case = pairs.loc[twice, "case_id"].iloc[0]
            values = sorted(pairs.loc[pairs["case_id"] == case, column])
            raise DataError(f"predictions: case {case!r} must have one {column}. Received: {values}")


def _normal(classes: list[str]) -> int | None:
    found = [index for index, name in enumerate(classes) if name in multiclass.NORMAL]
    if len(found) > 1:
        raise DataError(f"predictions: at most one of {multiclass.NORMAL} was wanted. Received: {classes}")
    return found[0] if found else None


def _case(scores: _Array, rule: str, k: int, normal: int | None) -> _Array:
    """Scores of one case, shape (C,), from those of its slices, shape (slices, C)."""
    if rule == "noisy-or":
        logs = _log_noisy_or(scores, normal)
        return np.exp(logs - logsumexp(logs))
    kept = {"mean": len(scores), "max": 1, "top-k": k}[rule]
    if normal is None or rule == "mean":
        pooled = _largest(scores, kept)
        return pooled / pooled.sum()
    any_disease = _largest(1 - scores[:, normal], kept)
    pooled = np.where(np.arange(scores.shape[1]) == normal, 0.0, _largest(scores, kept))
    # Where no slice shows any disease there is nothing to share out.
    shared = any_disease * pooled / max(pooled.sum(), _TINY)
    shared[normal] = 1 - any_disease
    return shared


def _log_noisy_or(scores: _Array, normal: int | None) -> _Array:
    # The logarithm of 0 is -inf, and exp brings it back to 0.
    with np.errstate(divide="ignore"):
        if normal is None:
            return np.log(-np.expm1(np.log1p(-scores).sum(axis=0)))
        # -inf - -inf would be undefined.
        none = np.log(np.maximum(scores[:, [normal]], _TINY))
        absent = none.sum()
        alone = np.log(np.maximum(scores + scores[:, [normal]], _TINY)).sum(axis=0)
        logs = alone + np.log(-np.expm1(absent - alone))
    logs[normal] = absent
    return logs


def _largest(scores: _Array, k: int) -> _Array:
    """Mean of the k largest of each column."""
    return np.sort(scores, axis=0)[-k:].mean(axis=0)


def _joined(values: pd.Series) -> str:
    return "|".join(dict.fromkeys(values))
