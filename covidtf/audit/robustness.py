"""Changes that no reader of the image would call a change: how much of the AUROC they cost."""

import io
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from PIL import Image
from scipy import ndimage

from covidtf.audit.areas import lost, within
from covidtf.audit.scorer import RunScorer, check_original, judged, rescored
from covidtf.files import DataError
from covidtf.metrics.intervals import Metric
from covidtf.predictions import same_images

if TYPE_CHECKING:
    from covidtf.images.store import Prepared

_BILINEAR = Image.Resampling.BILINEAR


def fall(
    before: pd.DataFrame, after: pd.DataFrame, positive: str = "COVID-19", draws: int = 2000, seed: int = 0
) -> dict[str, Metric]:
    """AUROC after a change of the images, and what was lost by it (`areas.lost`).

    Args:
        before: Predictions of one split.
        after: Other scores of the same images, in any order.
        positive: Label whose score is judged.
        draws: Bootstrap draws of patients.
        seed: Of the draws.
    Returns:
        `auroc`, of `after`, and `loss`, in [-1, 1], above 0 where AUROC fell.
    Raises:
        DataError: If the tables are of other images or labels, or of one class only.
    """
    same_images({"before": before, "after": after})
    areas = [within(table, None, positive, draws, seed) for table in (before, after)]
    if areas[0] is None or areas[1] is None:
        raise DataError(
            f"predictions: images labelled {positive} and others were wanted. Received: one class"
        )
    return {"auroc": areas[1].metric, "loss": lost(*areas)}


def change(name: str, images: np.ndarray) -> np.ndarray:
    """Images after one of `CHANGES`.

    Args:
        name: A key of `CHANGES`.
        images: uint8, shape `(n, size, size, channels)`.
    Returns:
        New uint8 array of the same shape.
    Raises:
        ValueError: If the change is unknown or the images are of another type or shape.
    """
    if name not in CHANGES:
        raise ValueError(f"`name` must be one of {list(CHANGES)}. Received: {name!r}")
    if images.dtype != np.uint8 or images.ndim != 4:
        wanted = "uint8 of shape (n, size, size, channels)"
        raise ValueError(f"`images` must be {wanted}. Received: {images.dtype} {images.shape}")
    result = np.empty(images.shape, np.uint8)
    for index, image in enumerate(images):
        result[index] = CHANGES[name](image).reshape(image.shape)
    return result


def losses(
    score: RunScorer,
    prepared: "Prepared",
    table: pd.DataFrame,
    positive: str = "COVID-19",
    changes: Sequence[str] | None = None,
    draws: int = 2000,
    seed: int = 0,
) -> dict[str, dict[str, Metric]]:
    """AUROC of a run on changed images of the split it is judged on, and how much was lost.

    Args:
        score: The run, of `scorer.RunScorer`.
        prepared: Images uint8, shape `(n, size, size, channels)`, and their manifest, as in `scorer.judged`.
        table: The run's own predictions.
        positive: Label whose score is judged.
        changes: Keys of `CHANGES`; all of them without it.
        draws: Bootstrap draws of patients.
        seed: Of the draws.
    Returns:
        What `fall` says of each change.
    Raises:
        ValueError: If a change is unknown.
        DataError: If the run's scores of unchanged images are not those of `table`, or as `fall`.
    """
    rows, places = judged(table, prepared.manifest)
    images = np.asarray(prepared.images[places])
    original = rescored(score, images, rows)
    check_original(original, rows, score.trained.folder)
    found = {}
    for name in CHANGES if changes is None else changes:
        after = rescored(score, change(name, images), rows)
        found[name] = fall(original, after, positive, draws, seed)
    return found


def _picture(image: np.ndarray) -> Image.Image:
    return Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image)


def _jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    file = io.BytesIO()
    _picture(image).save(file, "JPEG", quality=quality)
    with Image.open(file) as opened:
        return np.asarray(opened)


def _half(image: np.ndarray) -> np.ndarray:
    height, width = image.shape[:2]
    small = _picture(image).resize((max(1, width // 2), max(1, height // 2)), _BILINEAR)
    return np.asarray(small.resize((width, height), _BILINEAR))


def _gamma(image: np.ndarray, exponent: float) -> np.ndarray:
    table = np.rint(255 * (np.arange(256) / 255) ** exponent).astype(np.uint8)
    return table[image]


def _rotated(image: np.ndarray, degrees: float) -> np.ndarray:
    # Corners repeat the edge: black ones would be a mark that few images have.
    return ndimage.rotate(image, degrees, reshape=False, order=1, mode="nearest")


def _cropped(image: np.ndarray, share: float) -> np.ndarray:
    height, width = image.shape[:2]
    left, top = (1 - share) / 2 * width, (1 - share) / 2 * height
    box = (left, top, width - left, height - top)
    return np.asarray(_picture(image).resize((width, height), _BILINEAR, box))


# `half size` and back by area-weighted bilinear interpolation; grey values v become 255 (v / 255) ^ gamma;
# rotations counter-clockwise in degrees; the middle of the crop, of height and width, stretched to the whole.
CHANGES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "JPEG quality 75": partial(_jpeg, quality=75),
    "JPEG quality 50": partial(_jpeg, quality=50),
    "JPEG quality 25": partial(_jpeg, quality=25),
    "half size": _half,
    "gamma 0.8": partial(_gamma, exponent=0.8),
    "gamma 1.25": partial(_gamma, exponent=1.25),
    "rotated by 5 degrees": partial(_rotated, degrees=5),
    "rotated by -5 degrees": partial(_rotated, degrees=-5),
    "crop of 95 %": partial(_cropped, share=0.95),
}
