"""Where the lungs are in prepared images: classical masks of chest X-rays and of CT slices."""

import numpy as np
import pandas as pd
from PIL import Image
from scipy import ndimage

from covidtf.images import lung_shapes

KINDS = ("xray", "ct")
_SIDES = (64, 512)
_GRID = 128  # px; the side of the grid that slices are looked at on
# Of the way from the grey of air to tissue's. Most ground glass is below the first, which is tried first; in
# a window for soft tissue fat is too, and lungs run together with the air around the body.
_LUNG_TO_TISSUE = (0.72, 0.4, 0.2)
_CUT = 2.2  # length along the edge of the image over the root of the area; of the air in a corner about 2.8
_SHARES = (0.015, 0.65)  # of the image
_PIECE = 0.004  # of the image, the least that a piece of lung is
_MOST = 4  # pieces, more than two because lungs come in several near the diaphragm
_OPENED, _CLOSED = 1, 7  # px of the grid; 7 px of 128 are about 20 mm
_LARGEST_HOLE = 0.02  # of the image
_FRAME = 3  # px of the grid
_PAPER = 12  # grey values that a line differs by, if it is not plain paper or screen


def lung_mask(image: np.ndarray, kind: str = "xray") -> np.ndarray:
    """The lung fields of one image, as `masks_and_fits` finds them.

    Args:
        image: uint8, `(h, w)` or `(h, w, c)`, c 1 or 3; sides of 64 to 512 px.
        kind: "xray" or "ct".
    Returns:
        bool, `(h, w)`, never empty.
    Raises:
        ValueError: Another kind, type or shape.
    """
    return masks_and_fits(np.asarray(image)[None], kind)[0][0]


def masks_and_fits(images: np.ndarray, kind: str = "xray") -> tuple[np.ndarray, pd.DataFrame]:
    """Masks of the lung fields by classical methods, each image by itself, and how far to trust them.

    "xray", a frontal image: a statistical shape model of both lungs, made from phantoms, is fitted to edges
    and contrast (`lung_shapes.fit`). The outline goes on through white lung as the model has it; the part of
    a lung behind the heart, the great vessels or the diaphragm is not in it. Lungs must be darker than what
    is around them, with the patient's head up; a negative (lungs bright) is not fitted. Brightness and
    contrast matter little.

    "ct", an axial slice in a window in which lung is darker than tissue: within a plain margin of paper or
    screen, air is what is darker than 0.72 of the way from air's grey to tissue's (medians of the two sides
    of Otsu's threshold). Of its pieces, those that lie along the edge of the image for more than 2.2 times
    the root of their area are air around the body, and a small round one in the middle is the trachea. The
    largest of the rest, and up to three others of at least a fifth of its size (near the diaphragm lungs come
    in pieces), are lung; each is closed over vessels and lesions of about 20 mm, and its holes of up to 2 %
    of the image filled. If they cover less than 1.5 % or more than 65 % of the image, the same is tried at
    0.4 and 0.2 of the way, for windows for soft tissue. Dense consolidation at the lung's edge is not in the
    mask; gas in the stomach may be.

    Where nothing plausible is found, the prior is the mask: the model's mean outline, or two ellipses. A low
    quality or a prior tells of a failed fit; a high quality does not prove a good one.

    Args:
        images: uint8, `(n, h, w)` or `(n, h, w, c)`, c 1 or 3 (their mean is taken); sides of 64 to 512 px.
        kind: "xray" or "ct".
    Returns:
        bool, `(n, h, w)`, none of them empty; and a table with a row per image: quality (in [0, 1]: the share
        of the outline at which the image gets brighter outward; of an X-ray's fit even where the prior stands
        in for it), prior (bool), share (of the image in the mask).
    Raises:
        ValueError: Another kind, type or shape.
    Reference: Otsu 1979, IEEE Transactions on Systems, Man, and Cybernetics 9(1):62-66; for X-rays see
        `lung_shapes.fit`.
    """
    grey = _grey(images, kind)
    found = [(lung_shapes.fit if kind == "xray" else _air)(image) for image in grey]
    masks = np.array([mask for mask, _, _ in found], bool).reshape(grey.shape)
    table = pd.DataFrame({
        "quality": np.array([quality for _, quality, _ in found], float),
        "prior": np.array([prior for _, _, prior in found], bool),
        "share": masks.mean((1, 2)) if len(masks) else np.zeros(0),
    })  # fmt: skip
    return masks, table


def _grey(images: np.ndarray, kind: str) -> np.ndarray:
    if kind not in KINDS:
        raise ValueError(f"`kind` must be one of {KINDS}. Received: {kind!r}")
    images = np.asarray(images)
    if images.dtype != np.uint8:
        raise ValueError(f"Images must be uint8. Received: {images.dtype}")
    sides = images.shape[1:3]
    channels = images.ndim == 3 or (images.ndim == 4 and images.shape[3] in (1, 3))
    if not channels or not all(_SIDES[0] <= side <= _SIDES[1] for side in sides):
        raise ValueError(
            f"Images must have 1 or 3 channels and sides of {_SIDES[0]} to {_SIDES[1]} px. "
            f"Received: shape {images.shape[1:]}"
        )
    return images if images.ndim == 3 else images.mean(3).round().astype(np.uint8)


def _air(image: np.ndarray) -> tuple[np.ndarray, float, bool]:
    """Mask of a CT slice, its quality, and whether the ellipses stand in for it."""
    small = Image.fromarray(image).resize((_GRID, _GRID), Image.Resampling.BOX)
    small = np.asarray(small, np.float32)
    inside = _within_paper(small)
    smooth, found = ndimage.gaussian_filter(small[inside], 0.7), []
    for part in _LUNG_TO_TISSUE:
        lungs = np.zeros(small.shape, bool)
        lungs[inside] = _lungs(smooth, part)
        if _SHARES[0] <= lungs.mean() <= _SHARES[1]:
            found.append(lungs)
    prior = not found
    lungs = found[0] if found else _ellipses()
    large = Image.fromarray(lungs.astype(np.uint8) * 255).resize(image.shape[::-1], Image.Resampling.BILINEAR)
    return np.asarray(large) > 127, _rising(small, lungs), prior


def _within_paper(image: np.ndarray) -> tuple[slice, slice]:
    """The part of the image inside plain margins."""
    spans = []
    for axis in (1, 0):
        low, high = np.percentile(image, (10, 90), axis=axis)
        drawn = np.flatnonzero(high - low > _PAPER)
        spans.append(slice(drawn[0], drawn[-1] + 1) if len(drawn) > len(image) / 2 else slice(None))
    return tuple(spans)


def _lungs(image: np.ndarray, part: float) -> np.ndarray:
    dark = ndimage.binary_opening(image < _threshold(image, part), _disk(_OPENED))
    labels, _ = ndimage.label(dark)
    sizes = np.bincount(labels.ravel())
    # Also looked at a few px from the edge, because a drawn frame is often left there.
    edges = (_edge(labels), _edge(labels[_FRAME:-_FRAME, _FRAME:-_FRAME]))
    contact = np.max([np.bincount(edge, minlength=len(sizes)) for edge in edges], axis=0)
    # A tight crop may cut a lung off; still less of it lies along the edge than of the air around a body.
    fits = (contact < _CUT * np.sqrt(sizes)) & (sizes >= _PIECE * image.size)
    fits[0] = False
    order = [label for label in np.argsort(-sizes) if fits[label] and not _is_trachea(labels == label)]
    order = order[:_MOST]
    lungs = np.zeros(image.shape, bool)
    for label in order:
        if 5 * sizes[label] >= sizes[order[0]]:
            lungs |= _closed(labels == label)
    return lungs


def _threshold(image: np.ndarray, part: float) -> float:
    """Grey between air and tissue, which are the medians on the two sides of Otsu's threshold."""
    between = _otsu(image)
    if not image.min() < between <= image.max():
        return -1.0  # nothing to part
    air, tissue = np.median(image[image < between]), np.median(image[image >= between])
    return air + part * (tissue - air)


def _otsu(image: np.ndarray) -> float:
    """Otsu's threshold: it parts the grey values into two groups of the least variance."""
    counts = np.bincount(image.astype(np.uint8).ravel(), minlength=256).astype(float)
    below, sums = counts.cumsum()[:-1], (counts * np.arange(256)).cumsum()
    above = image.size - below
    gap = sums[:-1] / np.maximum(below, 1) - (sums[-1] - sums[:-1]) / np.maximum(above, 1)
    return float(np.argmax(below * above * gap**2) + 1)


def _is_trachea(piece: np.ndarray) -> bool:
    """Whether a piece is small, round and near the middle."""
    rows, columns = np.nonzero(piece)
    height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
    central = abs(columns.mean() / piece.shape[1] - 0.5) < 0.08
    return central and len(rows) < 0.015 * piece.size and 0.5 < height / width < 2


def _closed(lung: np.ndarray) -> np.ndarray:
    closed = ndimage.binary_closing(np.pad(lung, _CLOSED + 1), _disk(_CLOSED))
    closed = closed[_CLOSED + 1 : -_CLOSED - 1, _CLOSED + 1 : -_CLOSED - 1]
    labels, _ = ndimage.label(~closed)
    hole = np.bincount(labels.ravel()) <= _LARGEST_HOLE * lung.size
    hole[_edge(labels)] = False
    hole[0] = False
    return closed | hole[labels]


def _edge(image: np.ndarray) -> np.ndarray:
    return np.concatenate([image[0], image[-1], image[1:-1, 0], image[1:-1, -1]])


def _disk(radius: int) -> np.ndarray:
    row, column = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    return row**2 + column**2 <= radius**2 + 1


def _rising(image: np.ndarray, lungs: np.ndarray) -> float:
    """Share of the mask's rim at which the image gets brighter outward."""
    rim = lungs & ~ndimage.binary_erosion(lungs)
    slopes = [ndimage.gaussian_filter(image, 1, order=order) for order in ((0, 1), (1, 0))]
    inward = [ndimage.gaussian_filter(lungs.astype(np.float32), 2, order=order) for order in ((0, 1), (1, 0))]
    rise = -sum(slope[rim] * way[rim] for slope, way in zip(slopes, inward, strict=True))
    return float((rise > 0).mean())


def _ellipses() -> np.ndarray:
    row, column = (np.mgrid[:_GRID, :_GRID] + 0.5) / _GRID - 0.5
    return (row / 0.27) ** 2 + ((np.abs(column) - 0.23) / 0.13) ** 2 < 1
