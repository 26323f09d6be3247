"""Cross-validation: the judged rows of all folds as one table, and what that hides."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from covidtf.files import DataError
from covidtf.metrics import multiclass, tallies


def pooled(folds: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """The judged rows of all folds of a cross-validation as one table.

    The scores come from different models, whose scales need not agree: a model that gives higher scores to
    everything lifts its fold's rows above those of other folds, so that pooled ranks, and with them AUROC,
    compare models as well as cases. `fold_auroc` shows how far the two differ.

    Args:
        folds: Rows of one split per fold, all of the same split.
    Raises:
        DataError: If a case is in two folds (or an image, where cases are unknown), or classes or splits
            differ between folds.
    """
    if not folds:
        raise DataError("folds: at least one was wanted. Received: none")
    names = [list(tallies.scores(fold).columns) for fold in folds]
    for index, other in enumerate(names):
        if other != names[0]:
            raise DataError(
                f"folds: the classes of fold 0, {names[0]}, were wanted. Received: {other} in fold {index}"
            )
    units = [fold["case_id"].where(fold["case_id"] != "", fold["image_id"]).unique() for fold in folds]
    repeated = pd.Series(np.concatenate(units)).duplicated(keep=False).to_numpy()
    if repeated.any():
        case = np.concatenate(units)[repeated][0]
        found = [index for index, of_fold in enumerate(units) if case in of_fold]
        raise DataError(f"folds: case {case!r} must be in one fold. Received: in folds {found}")
    result = pd.concat(folds, ignore_index=True)
    tallies.check(result)
    return result


def fold_auroc(folds: Sequence[pd.DataFrame], draws: int = 2000, seed: int = 0) -> dict:
    """Macro AUROC within each fold, their mean, and the pooled one beside it; see `pooled` for why.

    Within a fold one model's cases are compared with each other alone; a fold has few cases, so its value
    varies more.

    Returns:
        `folds` (values, None where a fold lacks a class), `mean` (None if one of them is), `pooled` (metric).
    Raises:
        DataError: As `pooled`.
    """
    joined = pooled(folds)
    single = [multiclass.macro_auroc(fold) for fold in folds]
    told = [None if np.isnan(value) else value for value in single]
    return {
        "folds": told,
        "mean": None if None in told else float(np.mean(single)),
        "pooled": multiclass.evaluate(joined, "slice", draws, seed)["macro"]["auroc"],
    }
