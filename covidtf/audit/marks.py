"""Marks burned into images, as letters are: where they lie, and what they alone tell of the label."""

import numpy as np
import pandas as pd
from scipy import ndimage

from covidtf.metrics import baselines

CONTRAST = 30  # grey values that a mark rises above what lies beside its strokes
CELLS = 8  # a side; the outer ring of them is looked at


def features(images: np.ndarray) -> np.ndarray:
    """Share of each outer cell that is mark: pixels at least 30 grey values above the image's opening.

    The opening, the largest grey value that holds over a whole square of 2 k + 1 px somewhere around, k being
    a hundredth of the image's side and at least 1, takes away whatever is narrower than that square: strokes
    of letters, and also wires, clips, noise and the edges of ribs. A stroke along the image's edge counts
    as twice as wide, because the image is mirrored there. Solid dark marks go unseen, but for what they
    cover; between dark letters there is bright ground that is seen.

    Args:
        images: uint8, shape `(n, size, size, channels)`, size at least 16; channels are averaged. A memory
            map is read image by image.
    Returns:
        Shares in [0, 1], shape `(n, 28)`: of 8 x 8 cells those at the edge, row by row.
    Raises:
        ValueError: Images of another type or shape.
    """
    if images.dtype != np.uint8 or images.ndim != 4 or min(images.shape[1:3]) < 2 * CELLS:
        wanted = f"uint8 of shape (n, size, size, channels), size at least {2 * CELLS}"
        raise ValueError(f"`images` must be {wanted}. Received: {images.dtype} {images.shape}")
    outer = np.ones((CELLS, CELLS), bool)
    outer[1:-1, 1:-1] = False
    return np.stack([_shares(_marks(image.mean(axis=-1)))[outer] for image in images])


def scores(images: np.ndarray, manifest: pd.DataFrame) -> pd.DataFrame:
    """Logistic regression on `features`, trained and scored like a trivial baseline.

    Args:
        images: As `features`.
        manifest: Row i is of `images[i]`; with `split`.
    Returns:
        Predictions table of val and test.
    Raises:
        ValueError: As `features`.
        DataError: As `baselines.predict`.
    """
    index = pd.Index(manifest["image_id"], name="image_id")
    return baselines.predict(pd.DataFrame(features(images), index=index), manifest)


def _marks(grey: np.ndarray) -> np.ndarray:
    side = 2 * max(1, round(len(grey) / 100)) + 1
    return grey - ndimage.grey_opening(grey, size=(side, side)) >= CONTRAST


def _shares(marks: np.ndarray) -> np.ndarray:
    """Means of 8 x 8 cells, equal to a pixel."""
    edges = [np.arange(CELLS) * side // CELLS for side in marks.shape]
    sums = np.add.reduceat(np.add.reduceat(marks, edges[0], axis=0, dtype=int), edges[1], axis=1)
    sizes = [np.diff(starts, append=side) for starts, side in zip(edges, marks.shape, strict=True)]
    return sums / np.outer(*sizes)
