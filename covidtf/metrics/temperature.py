"""One number, fitted on val, that makes all scores of a run less extreme, or more: temperature scaling."""

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

from covidtf.files import DataError
from covidtf.predictions import validate

LIMITS = (0.05, 20.0)
# Below what a 32-bit softmax says of an image it is sure of, so that few scores are moved.
LEAST_SCORE = 1e-12


def fit(val: pd.DataFrame) -> float:
    """Temperature T that gives val the least mean log loss with scores softmax(log(score) / T).

    Above 1 the scores were too extreme. Logits are not in a predictions table; the logs of the scores are
    logits up to a constant that softmax does not see. Scores below 1e-12 count as 1e-12.

    Args:
        val: Rows of val, any number of classes.
    Returns:
        T within `LIMITS`; one of its ends where the loss falls beyond, as it does where val is
        called without an error.
    Raises:
        DataError: If the table is not valid or has rows outside val, because on test it would be cheating.
    Reference: Guo et al., ICML 2017, 70:1321-1330.
    """
    validate(val)
    if (val["split"] != "val").any():
        raise DataError(f"predictions: rows of val were wanted. Received: {sorted(set(val['split']))}")
    names, logs = _logs(val)
    label = pd.Index(names).get_indexer("score_" + val["label"])

    def loss(value: float) -> float:
        scaled_logs = log_softmax(logs / value, axis=1)
        return -scaled_logs[np.arange(len(label)), label].mean()

    search = {"bounds": np.log(LIMITS), "method": "bounded", "options": {"xatol": 1e-6}}
    best = np.exp(minimize_scalar(lambda log_value: loss(np.exp(log_value)), **search).x)
    # The search never reaches an end of its bounds.
    return float(min((best, *LIMITS), key=loss))


def scaled(predictions: pd.DataFrame, temperature: float) -> pd.DataFrame:
    """The same rows with scores softmax(log(score) / temperature); of two classes the ranking stays.

    Args:
        predictions: Predictions table of any splits and classes.
        temperature: Above 0, from `fit`.
    Returns:
        Predictions table; scores below 1e-12 count as 1e-12.
    Raises:
        DataError: If the table is not valid.
        ValueError: If `temperature` is not above 0.
    """
    if not temperature > 0:
        raise ValueError(f"`temperature` must be above 0. Received: {temperature}")
    names, logs = _logs(validate(predictions))
    return predictions.assign(**dict(zip(names, softmax(logs / temperature, axis=1).T, strict=True)))


def _logs(predictions: pd.DataFrame) -> tuple[list[str], npt.NDArray[np.float64]]:
    names = [name for name in predictions if name.startswith("score_")]
    return names, np.log(np.maximum(predictions[names].to_numpy(float), LEAST_SCORE))
