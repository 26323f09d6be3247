"""Trivial baselines: scores from features that show no disease, made into predictions like a network's."""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from covidtf import predictions
from covidtf.files import DataError

if TYPE_CHECKING:
    from covidtf.images.prepare import Prepared

# About 40 MB of 224 x 224 x 3 images as 64-bit floats.
_IMAGES_AT_A_TIME = 32


def mean_std_baseline(prepared: "Prepared") -> pd.DataFrame:
    """Predictions from the mean and the standard deviation of the grey values, and nothing else.

    A network whose AUROC is not above this one's has not shown that it sees more than the brightness and
    contrast by which sources differ.

    Args:
        prepared: Prepared images and their manifest with splits train, val, test.
    Returns:
        Predictions table of val and test, in the manifest's order.
    Raises:
        DataError: As `predict`.
    Reference: Maguolo & Nanni, Information Fusion 2021, 76:1-7 (the task without the lungs).
    """
    return predict(grey_features(prepared), prepared.manifest)


def grey_features(prepared: "Prepared") -> pd.DataFrame:
    """Mean and standard deviation of each image's grey values (mean of its channels) in [0, 1].

    Args:
        prepared: Images uint8, shape `(n, size, size, channels)`, and their manifest.
    Returns:
        Columns mean, std; indexed by image_id, shape `(n, 2)`.
    """
    rows = []
    for start in range(0, len(prepared.images), _IMAGES_AT_A_TIME):
        grey = prepared.images[start : start + _IMAGES_AT_A_TIME].mean(axis=-1, dtype=float) / 255
        rows.append(np.column_stack([grey.mean(axis=(1, 2)), grey.std(axis=(1, 2))]))
    index = pd.Index(prepared.manifest["image_id"], name="image_id")
    return pd.DataFrame(np.concatenate(rows), columns=["mean", "std"], index=index)


def predict(features: pd.DataFrame, manifest: pd.DataFrame) -> pd.DataFrame:
    """Logistic regression on `features`: fitted to the originals of train, scores of val and test.

    Features are standardised by train; classes are weighted to count alike; penalty 1/2 |w|^2, C = 1.

    Args:
        features: Numbers indexed by image_id, one row per image of the manifest at least.
        manifest: With splits train, val and test.
    Returns:
        Predictions table of val and test, in the manifest's order.
    Raises:
        DataError: If features of an image are absent or not finite, if train has one label only, or if there
            is no image to score.
    """
    values = _aligned(features, manifest)
    train = ((manifest["split"] == "train") & (manifest["parent_id"] == "")).to_numpy()
    scored = manifest["split"].isin(("val", "test")).to_numpy()
    labels = sorted(set(manifest.loc[train, "label"]))
    if len(labels) < 2 or not scored.any():
        raise DataError(
            "manifest: two labels in train and images in val or test were wanted. "
            f"Received: labels {labels}, {int(scored.sum())} images in val and test"
        )
    model = make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=1000))
    model.fit(values[train], manifest.loc[train, "label"].to_numpy(str))
    table = manifest.loc[scored, list(predictions.COLUMNS)].reset_index(drop=True)
    score = model.predict_proba(values[scored])
    for column, label in enumerate(model.classes_):
        table[f"score_{label}"] = score[:, column]
    return predictions.validate(table, "baseline")


def _aligned(features: pd.DataFrame, manifest: pd.DataFrame) -> np.ndarray:
    values = features.reindex(manifest["image_id"]).to_numpy(float)
    bad = manifest["image_id"][~np.isfinite(values).all(axis=1)]
    if len(bad):
        raise DataError(
            f"features: finite numbers for every image were wanted. Not so: {len(bad)}, first {bad.iloc[0]}"
        )
    return values
