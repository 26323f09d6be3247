"""Where the lungs are: a classical mask from Hounsfield units."""

import numpy as np
from PIL import Image
from scipy import ndimage
from scipy.spatial import ConvexHull

from covidtf.ct.volume import AIR, Volume

TISSUE = -400  # HU; above it tissue, below it air or lung
_GRID = 2.0  # mm, in plane; finer costs time and shows nothing that a share of an area needs
_CLOSING = 18.0  # mm; vessels, and consolidations up to about this width, are bridged
_LARGEST_HOLE = 1500.0  # mm2 in a slice; the mediastinum between joined lungs is larger
_AIRWAY = (30.0, 800.0)  # mm2 in a slice, from a child's bronchus to the place where the trachea divides
_MIDLINE = 30.0  # mm to the sides of the body's middle, where the trachea is looked for
_AIRWAY_HU = -800  # mean of what is in the trachea, its edge included
_LUNG_HU = -960  # median of cut lung; of the air between an arm and the chest it is lower
_CUT = 1000.0  # mm2 of cut lung in a slice; folds of skin hold less air
_IN_HULL = 0.3  # of cut lung's area; of the air around a real patient 0.05, of lung 0.4 at the least
# Neighbours within the slice alone.
_IN_PLANE = np.zeros((3, 3, 3), bool)
_IN_PLANE[1] = ndimage.generate_binary_structure(2, 1)


def lung_mask(volume: Volume) -> np.ndarray:
    """Lungs of a volume: the two largest pieces of air in the body, closed over vessels and small lesions.

    On a grid thinned to about 2 mm in plane: tissue is above -400 HU, opened by one pixel so that the table
    comes off; the body is its largest piece, filled in each slice. Air in it is below -400 HU. The trachea
    and main bronchi are followed down from the first round piece of air near the midline, and taken out. Of
    the rest, the largest piece in 3D is lung, and the second if it has at least a fifth of the first's volume
    (lungs may be joined). Each is closed in its slices over 18 mm, and holes of up to 15 cm2 are filled.
    Dense consolidation at a lung's edge, effusion and a collapsed lung are not in the mask; gas in the bowel
    is if it is joined to a lung, and so are the smaller bronchi.

    Args:
        volume: At least the chest; the body may reach the edge of the slices, the lungs may not.
    Returns:
        bool, the shape of `volume.hu`. Its edges have the steps of the thinned grid.
    """
    lungs, _, step = _find(volume)
    full = lungs.repeat(step[0], axis=1).repeat(step[1], axis=2)
    return full[:, : volume.hu.shape[1], : volume.hu.shape[2]]


def lung_share(volume: Volume) -> np.ndarray:
    """Area of `lung_mask` over that of the body, per slice; 0 where there is no body.

    Args:
        volume: As `lung_mask` takes it.
    Returns:
        float64, `(slices,)`, in [0, 1].
    """
    return examine(volume)[0]


def examine(volume: Volume) -> tuple[np.ndarray, bool]:
    """`lung_share`, and whether lungs may be cut off by the edge of the image.

    Lung that reaches the edge is outside the body for `lung_mask`, as the air around a patient is. It is told
    by where it lies: in two or more of the middle half of the slices the body reaches the edge, and a piece
    of what is beside it has 10 cm2 or more, and 0.3 of its area, within the body's convex hull, and a median
    between -960 and -400 HU. Cut lung with severe emphysema is darker and not seen, nor is what is cut in
    the outer slices alone.

    Args:
        volume: As `lung_mask` takes it; here the lungs may reach the edge.
    """
    lungs, body, step = _find(volume)
    shares = lungs.sum((1, 2)) / np.maximum(body.sum((1, 2)), 1)
    quarter = len(shares) // 4
    middle = range(quarter, len(shares) - quarter)
    return shares, sum(_is_cut(volume, body[number], number, step) for number in middle) > 1


def _find(volume: Volume) -> tuple[np.ndarray, np.ndarray, tuple[int, int]]:
    """Lungs and body on the thinned grid, and how many rows and columns one of its pixels stands for."""
    step = tuple(max(1, round(_GRID / side)) for side in volume.spacing[1:])
    hu = np.stack([_thin(image, step) for image in volume.hu])
    pixel = (volume.spacing[1] * step[0], volume.spacing[2] * step[1])
    body = _body(hu)
    air = body & (hu < TISSUE)
    lungs = np.zeros_like(air)
    if air.any():
        air &= ~_airways(air, hu, body, pixel)
        for piece in _largest_pieces(air):
            lungs |= _closed(piece, pixel)
    return lungs & body, body, step


def _thin(image: np.ndarray, step: tuple[int, int]) -> np.ndarray:
    """Means over `step` pixels; of each, because a single pixel is mostly noise under a lung kernel."""
    means = Image.fromarray(image.astype(np.int32)).reduce((step[1], step[0]))
    return np.asarray(means).astype(np.int16)


def _body(hu: np.ndarray) -> np.ndarray:
    tissue = ndimage.binary_opening(hu > TISSUE, _IN_PLANE)
    pieces = _largest_pieces(tissue, most=1)
    return _filled(pieces[0]) if pieces else tissue


def _largest_pieces(mask: np.ndarray, most: int = 2) -> list[np.ndarray]:
    """The largest piece, and others of at least a fifth of it; none if the mask is empty."""
    labels, count = ndimage.label(mask)
    if not count:
        return []
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    order = np.argsort(sizes)[::-1][:most]
    return [labels == label for label in order if 5 * sizes[label] >= sizes[order[0]] and sizes[label]]


def _filled(mask: np.ndarray, largest: float = np.inf) -> np.ndarray:
    """`mask` with its holes of up to `largest` pixels, slice by slice."""
    # ndimage.binary_fill_holes takes slices one at a time, and ten times as long.
    labels, _ = ndimage.label(~mask, _IN_PLANE)
    sizes = np.bincount(labels.ravel())
    hole = sizes <= largest
    for edge in (labels[:, 0], labels[:, -1], labels[:, :, 0], labels[:, :, -1]):
        hole[edge] = False
    hole[0] = False
    return mask | hole[labels]


def _closed(lung: np.ndarray, pixel: tuple[float, float]) -> np.ndarray:
    where = ndimage.find_objects(lung.view(np.uint8))[0]
    size = [1, *(2 * round(_CLOSING / side / 2) + 1 for side in pixel)]
    room = [(0, 0), *((side, side) for side in size[1:])]
    part = ndimage.grey_closing(np.pad(lung[where].view(np.uint8), room), size).view(bool)
    part = _filled(part, _LARGEST_HOLE / (pixel[0] * pixel[1]))
    closed = lung.copy()
    closed[where] = part[:, room[1][0] : -room[1][0], room[2][0] : -room[2][0]]
    return closed


def _airways(air: np.ndarray, hu: np.ndarray, body: np.ndarray, pixel: tuple[float, float]) -> np.ndarray:
    """Trachea and main bronchi down to where they open into the lungs."""
    labels, _ = ndimage.label(air, _IN_PLANE)
    here = np.flatnonzero(air)
    pieces = labels.ravel()[here]
    area = np.bincount(pieces) * pixel[0] * pixel[1]
    fits = (area >= _AIRWAY[0]) & (area <= _AIRWAY[1])
    dark = _means(pieces, hu.ravel()[here]) < _AIRWAY_HU
    columns = np.arange(air.shape[2])
    middles = (body.sum(1) @ columns) / np.maximum(body.sum((1, 2)), 1)
    aside = here % air.shape[2] - middles[here // (air.shape[1] * air.shape[2])]
    seed = fits & dark & (np.abs(_means(pieces, aside)) * pixel[1] <= _MIDLINE)
    return _followed(labels, seed, fits)[labels]


def _means(pieces: np.ndarray, values: np.ndarray) -> np.ndarray:
    return np.bincount(pieces, values) / np.maximum(np.bincount(pieces), 1)


def _followed(labels: np.ndarray, seed: np.ndarray, fits: np.ndarray) -> np.ndarray:
    """Which pieces hang together with the first seeds, from slice to slice."""
    chosen = np.zeros(len(fits), bool)
    above: np.ndarray | None = None
    for image in labels:
        # Once it is found it is only followed: what is round and central further down may be lung.
        here = np.unique(image[image > 0] if above is None else image[above & (image > 0)])
        here = here[seed[here] if above is None else fits[here]]
        chosen[here] = True
        if len(here):
            above = np.isin(image, here)
        elif above is not None:
            break
    return chosen


def _is_cut(volume: Volume, body: np.ndarray, number: int, step: tuple[int, int]) -> bool:
    """Whether lung reaches the edge of a slice."""
    image = volume.hu[number]
    # Air that made the image square, or stands for what was not imaged, has no edge of its own.
    imaged = [np.flatnonzero((image > AIR).any(axis)) for axis in (1, 0)]
    if not all(map(len, imaged)):
        return False
    box = tuple(
        slice(-(-places[0] // side), (places[-1] + 1) // side)
        for places, side in zip(imaged, step, strict=True)
    )
    inside = body[box]
    if not inside.size or not (inside[[0, -1]].any() or inside[:, [0, -1]].any()):
        return False
    pixel = volume.spacing[1] * step[0] * volume.spacing[2] * step[1]
    labels, _ = ndimage.label(~inside)
    values, areas = _thin(image, step)[box], np.bincount(labels.ravel()) * pixel
    pieces = [labels == label for label in np.flatnonzero(areas >= _CUT) if label]
    pieces = [piece for piece in pieces if _LUNG_HU < np.median(values[piece]) < TISSUE]
    hull = _hull(body)[box] if pieces else inside
    return any(piece[hull].sum() >= max(_IN_HULL * piece.sum(), _CUT / pixel) for piece in pieces)


def _hull(body: np.ndarray) -> np.ndarray:
    """Convex hull of a slice of the body, as a mask."""
    places = np.argwhere(body & ~ndimage.binary_erosion(body))
    rows, columns = np.indices(body.shape)
    hull = np.ones(body.shape, bool)
    for row, column, offset in ConvexHull(places).equations:
        hull &= row * rows + column * columns + offset <= 1e-9
    return hull
