"""Trivial baselines: scores from features that show no disease, made into predictions like a network's."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.class_weight import compute_sample_weight

from covidtf import predictions
from covidtf.files import DataError

if TYPE_CHECKING:
    from covidtf.images.prepare import Prepared

BASELINES = {
    "mean-std": "mean and std (no network)",
    "file-properties": "file properties (no network)",
    "histogram": "intensity histogram (no network)",
    "border-strip": "border strip (no network)",
    "thumbnail": "16x16 thumbnail (no network)",
}
# About 40 MB of 224 x 224 x 3 images as 64-bit floats.
_IMAGES_AT_A_TIME = 32
_BINS = 32
_BORDER = 0.1  # of the image's side
_PIECES = 8  # of each side's strip
_THUMBNAIL = 16  # px
_COMMON = 0.05  # share of the images from which a size in px counts as one of its own
# Up to so many features the penalty is the library's default; of more it is chosen.
_FEW = 24
_PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
_FOLDS = 5
_STRONG = 1e-2


def features(slug: str, prepared: "Prepared") -> pd.DataFrame:
    """What one trivial baseline knows of each image.

    Grey values are means of the channels in [0, 1].
    `mean-std`: their mean and standard deviation. `histogram`: share of the pixels in each of 32 equal bins.
    `border-strip`: mean and standard deviation of the outer 10 % at each side in 8 equal pieces from left to
    right or from top to bottom; no pixel further inside. `thumbnail`: means of 16 x 16 equal areas.
    `file-properties`: width, height, width / height and bits of the file, and as 0 or 1 each mode and format
    of it and each size in px that at least 5 % of the images have. No pixel is read. Phantom X-rays are all
    PNG of one size, and phantom CT slices of one matrix, so that this tells nothing; of CT studies width and
    height are the slice's matrix, of CT as pictures those of the picture.

    Args:
        slug: One of `BASELINES`.
        prepared: Images uint8, shape `(n, size, size, channels)`, size at least 16, and their manifest.
    Returns:
        Numbers, shape `(n, features)`, indexed by image_id.
    Raises:
        ValueError: If there is no such baseline.
    """
    if slug not in BASELINES:
        raise ValueError(f"`slug` must be one of {list(BASELINES)}. Received: {slug!r}")
    index = pd.Index(prepared.manifest["image_id"], name="image_id")
    if slug == "file-properties":
        return _file_properties(prepared.manifest).set_axis(index)
    rows = [
        _OF_PIXELS[slug](prepared.images[start : start + _IMAGES_AT_A_TIME].mean(axis=-1, dtype=float) / 255)
        for start in range(0, len(prepared.images), _IMAGES_AT_A_TIME)
    ]
    values = np.concatenate(rows)
    names = ["mean", "std"] if slug == "mean-std" else [f"{slug}_{i}" for i in range(values.shape[1])]
    return pd.DataFrame(values, columns=names, index=index)


def predict(features: pd.DataFrame, manifest: pd.DataFrame) -> pd.DataFrame:
    """Logistic regression on `features`: fitted to the originals of train, scores of val and test.

    Features are standardised by train; classes are weighted to count alike; penalty |w|^2 / (2 C). Up to 24
    features C is 1. Of more it is, of 0.0001, 0.001, 0.01, 0.1 and 1, the one with the smallest log loss, all
    classes weighing alike, in a cross-validation inside train with five folds by patient; 0.01 where a class
    of train has fewer than five patients. Features that do not vary in train give every image the same score.

    A network whose AUROC is not above that of these scores has not shown that it sees more than they do.

    Args:
        features: Numbers indexed by image_id, one row per image of the manifest at least.
        manifest: With splits train, val and test.
    Returns:
        Predictions table of val and test, in the manifest's order.
    Raises:
        DataError: If features of an image are absent or not finite, if train has one label only, or if there
            is no image to score.
    Reference: Maguolo & Nanni, Information Fusion 2021, 76:1-7 (the task without the lungs).
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
    model = _model(_penalty(values[train], manifest[train]))
    model.fit(values[train], manifest.loc[train, "label"].to_numpy(str))
    table = manifest.loc[scored, list(predictions.COLUMNS)].reset_index(drop=True)
    score = model.predict_proba(values[scored])
    for column, label in enumerate(model.classes_):
        table[f"score_{label}"] = score[:, column]
    return predictions.validate(table, "baseline")


def _model(penalty: float) -> Pipeline:
    return make_pipeline(
        StandardScaler(), LogisticRegression(C=penalty, class_weight="balanced", max_iter=1000)
    )


def _penalty(values: np.ndarray, train: pd.DataFrame) -> float:
    """C of the logistic regression, chosen by patient inside train where there are many features."""
    if values.shape[1] <= _FEW:
        return 1.0
    label, patient = (train[name].to_numpy(str) for name in ("label", "patient_id"))
    if train.groupby("label")["patient_id"].nunique().min() < _FOLDS:
        return _STRONG
    weights, folds = compute_sample_weight("balanced", label), StratifiedGroupKFold(_FOLDS)
    losses = {}
    for penalty in _PENALTIES:
        score = cross_val_predict(
            _model(penalty), values, label, groups=patient, cv=folds, method="predict_proba"
        )
        losses[penalty] = log_loss(label, score, sample_weight=weights)
    return min(losses, key=losses.get)


def _aligned(features: pd.DataFrame, manifest: pd.DataFrame) -> np.ndarray:
    values = features.reindex(manifest["image_id"]).to_numpy(float)
    bad = manifest["image_id"][~np.isfinite(values).all(axis=1)]
    if len(bad):
        raise DataError(
            f"features: finite numbers for every image were wanted. Not so: {len(bad)}, first {bad.iloc[0]}"
        )
    return values


def _file_properties(manifest: pd.DataFrame) -> pd.DataFrame:
    numbers = manifest[["width", "height", "bits"]].astype(float)
    numbers["aspect"] = numbers["width"] / numbers["height"]
    sizes = manifest["width"].astype(str) + "x" + manifest["height"].astype(str)
    # Rare sizes stay without a column: each would be a name for a few images.
    rare = sizes.map(sizes.value_counts()) < _COMMON * len(sizes)
    words = manifest[["mode", "format"]].assign(size=sizes.mask(rare))
    return pd.concat([numbers, pd.get_dummies(words, dtype=float)], axis=1)


def _mean_std(grey: np.ndarray) -> np.ndarray:
    return np.column_stack([grey.mean(axis=(1, 2)), grey.std(axis=(1, 2))])


def _histogram(grey: np.ndarray) -> np.ndarray:
    n, pixels = len(grey), grey[0].size
    # White, 1, belongs to the last bin.
    bins = np.minimum((grey * 255 / 256 * _BINS + 1e-9).astype(np.int64), _BINS - 1).reshape(n, -1)
    bins += np.arange(n)[:, None] * _BINS
    return np.bincount(bins.ravel(), minlength=n * _BINS).reshape(n, _BINS) / pixels


def _border_strip(grey: np.ndarray) -> np.ndarray:
    width = max(1, round(_BORDER * grey.shape[1]))
    upright = grey.transpose(0, 2, 1)
    strips = [part for image in (grey, upright) for part in (image[:, :width], image[:, -width:])]
    columns = []
    for strip in strips:
        mean = _pieces(strip.mean(axis=1), _PIECES, 1)
        square = _pieces((strip**2).mean(axis=1), _PIECES, 1)
        # Rounding can leave a variance of -1e-17.
        columns += [mean, np.sqrt(np.maximum(square - mean**2, 0))]
    return np.concatenate(columns, axis=1)


def _thumbnail(grey: np.ndarray) -> np.ndarray:
    return _pieces(_pieces(grey, _THUMBNAIL, 1), _THUMBNAIL, 2).reshape(len(grey), -1)


def _pieces(values: np.ndarray, count: int, axis: int) -> np.ndarray:
    """Means of `count` pieces along an axis, equal to a pixel."""
    size = values.shape[axis]
    starts = np.arange(count) * size // count
    shape = [-1 if i == axis else 1 for i in range(values.ndim)]
    return np.add.reduceat(values, starts, axis=axis) / np.diff(starts, append=size).reshape(shape)


_OF_PIXELS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "mean-std": _mean_std,
    "histogram": _histogram,
    "border-strip": _border_strip,
    "thumbnail": _thumbnail,
}
