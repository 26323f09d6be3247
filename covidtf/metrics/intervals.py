"""95 % confidence intervals: of proportions by formula, of anything by bootstrap over patients."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
from scipy.stats import norm, t
from statsmodels.stats.proportion import proportion_confint

Interval = tuple[float, float]
Metric = dict[str, object]
METHODS = ("wilson", "clopper-pearson", "normal")
# About 25 MB of weights at 3,100 images, whatever the number of draws.
_DRAWS_AT_A_TIME = 1000
_VALUES_AT_A_TIME = 3_200_000
# With three patients of a class 5 % of the draws miss it; with two 14 %, which is no base for an interval.
_MOST_LEFT_OUT = 0.1
FEWEST_PATIENTS = 3
_NO_VARIANCE = 1e-12


def proportion(successes: float, trials: float, method: str = "wilson") -> Interval:
    """95 % interval of a proportion p = successes / trials of independent trials.

    `wilson`: the score interval. `clopper-pearson`: exact, conservative. `normal`: p ± r with
    r = z * sqrt(p * (1 - p) / n), z = 1.96, as printed in the DeepCovid paper; it is left as it comes, so it
    can leave [0, 1] and has no width at p = 0 and p = 1.

    Args:
        successes: Number of successes in [0, trials].
        trials: Number of trials, above 0. Neither needs to be whole: an effective number can be given.
        method: One of `METHODS`.
    Returns:
        Lower and upper limit.
    Raises:
        ValueError: If an argument is out of its range.
    Reference: Newcombe, Statistics in Medicine 1998, 17:857-872.

    >>> [round(limit, 4) for limit in proportion(81, 263)]
    [0.2553, 0.3662]
    """
    if trials <= 0 or not 0 <= successes <= trials:
        raise ValueError(f"`successes` must be in [0, trials > 0]. Received: {successes} of {trials}")
    if method == "normal":
        p = successes / trials
        r = 1.96 * np.sqrt(p * (1 - p) / trials)
        return float(p - r), float(p + r)
    names = {"wilson": "wilson", "clopper-pearson": "beta"}
    if method not in names:
        raise ValueError(f"`method` must be one of {METHODS}. Received: {method!r}")
    low, high = proportion_confint(successes, trials, alpha=0.05, method=names[method])
    return float(low), float(high)


def patient_draws(patients: int, draws: int, seed: int) -> Iterator[npt.NDArray[np.int64]]:
    """How often each patient is in each bootstrap draw of `patients` patients with replacement.

    Args:
        patients: Number of patients.
        draws: Number of draws.
        seed: Non-negative integer. Equal patients, draws and seed give equal draws, so two scores of the same
            images are compared draw by draw.
    Returns:
        Chunks of counts, shape `(some draws, patients)`; each row sums to `patients`.
    """
    generator = np.random.default_rng([seed, 0xB007])
    size = max(1, min(_DRAWS_AT_A_TIME, _VALUES_AT_A_TIME // patients))
    for start in range(0, draws, size):
        count = min(size, draws - start)
        drawn = generator.integers(patients, size=(count, patients))
        drawn += np.arange(count)[:, None] * patients
        yield np.bincount(drawn.ravel(), minlength=count * patients).reshape(count, patients)


def bootstrap(
    statistic: Callable[[npt.NDArray], npt.NDArray], patient_id: npt.ArrayLike, draws: int, seed: int
) -> npt.NDArray[np.float64]:
    """Values of `statistic` over draws of patients, each bringing all its images.

    Args:
        statistic: From weights of the images, shape `(some draws, n)`, to values whose first axis is the
            draws; NaN where it is undefined, for instance because a class is absent from the draw.
        patient_id: Patient of each image, shape `(n,)`. The order of the images does not change who is drawn.
        draws: Number of draws, at least 1.
        seed: Non-negative integer.
    Returns:
        Values, shape `(draws, ...)`.
    Reference: Field & Welsh, Journal of the Royal Statistical Society B 2007, 69:369-390 (cluster bootstrap).
    """
    if draws < 1:
        raise ValueError(f"`draws` must be at least 1. Received: {draws}")
    patients, patient = np.unique(np.asarray(patient_id, dtype=str), return_inverse=True)
    chunks = (counts[:, patient].astype(float) for counts in patient_draws(len(patients), draws, seed))
    return np.concatenate([statistic(weights) for weights in chunks])


def percentiles(values: npt.NDArray) -> Interval | None:
    """2.5th and 97.5th percentile of the defined bootstrap values, shape `(draws,)`.

    Draws in which the statistic is undefined are left out. Where they are more than 10 %
    (fewer than three patients of a class), there is no interval: None.
    """
    defined = values[~np.isnan(values)]
    if len(defined) < (1 - _MOST_LEFT_OUT) * len(values):
        return None
    low, high = np.percentile(defined, (2.5, 97.5))
    return float(low), float(high)


def metric(value: float, values: npt.NDArray, n: int, patients: int, smaller: int | None = None) -> Metric:
    """A value with Wilson's interval at the number of independent images that varies as the draws do.

    n_effective = value * (1 - value) / variance * (z / t)^2, at most `n`, where variance is that of the draws
    times m / (m - 1), z = 1.96, and t has m - 1 degrees of freedom, m patients. Where the draws do not vary,
    because the value is 0 or 1, it is m: each patient is taken to bring one independent image. For AUROC m
    is the patients of the smaller class, by the bound variance <= A * (1 - A) / (size of the smaller class).
    Percentiles of the draws, given beside it, cover too seldom at high values of few patients (simulation in
    tests/test_intervals.py).

    Args:
        value: Proportion, AUROC or average precision of the images, in [0, 1].
        values: The same of the bootstrap draws, shape `(draws,)`, NaN where undefined.
        n: Number of images `value` is of.
        patients: Number of patients `value` is of.
        smaller: Number of patients of the smaller class, where `value` needs both; else `patients`.
    Returns:
        `value`, `ci95`, `method`, `n`, `patients`, `n_effective`, `draws_left_out` (undefined ones) and
        `intervals` with `percentile`. `ci95` is None for fewer than three patients or where `percentiles`
        gives None.
    Reference: Korn & Graubard, Survey Methodology 1998, 24:193-201 (effective n); Dean & Pagano, Journal of
        Survey Statistics and Methodology 2015, 3:484-503 (with Wilson's interval); Birnbaum & Klose, Annals
        of Mathematical Statistics 1957, 28:933-945 (bound).
    """
    percentile, independent = percentiles(values), smaller or patients
    left_out = int(np.isnan(values).sum())
    result = {"value": float(value), "n": int(n), "patients": int(patients), "draws_left_out": left_out}
    result["intervals"] = {"percentile": percentile and list(percentile)}
    if percentile is None or independent < FEWEST_PATIENTS:
        method = f"no interval: {independent} patients, {left_out} of {len(values)} draws undefined"
        return result | {"ci95": None, "n_effective": None, "method": method}
    variance = float(np.nanvar(values))
    if variance < _NO_VARIANCE or value in (0, 1):
        trials, method = float(independent), "Wilson, one image per patient, because no draw differs"
    else:
        trials = min(value * (1 - value) / variance * _correction(independent), float(n))
        method = f"Wilson, effective n of the bootstrap over patients, {len(values)} draws"
    result |= {"n_effective": trials, "method": method}
    return result | {"ci95": list(proportion(value * trials, trials))}


def side(limits: Sequence[float] | None) -> str:
    """Where the interval of a difference lies: above 0, below 0, not told from 0; or cannot be told."""
    if limits is None:
        return "cannot be told"
    return "above 0" if limits[0] > 0 else "below 0" if limits[1] < 0 else "not told from 0"


def untold(reason: str, n: int, patients: int) -> Metric:
    """Metric that cannot be told: value and interval None, `reason` as its method."""
    return {
        "value": None,
        "ci95": None,
        "method": f"cannot be told: {reason}",
        "n": n,
        "patients": patients,
        "n_effective": None,
        "draws_left_out": 0,
        "intervals": {},
    }


def _correction(patients: int) -> float:
    """For few patients: the variance of draws is too small, and the normal quantile too."""
    return (patients - 1) / patients * (norm.ppf(0.975) / t.ppf(0.975, patients - 1)) ** 2
