"""The lungs of a chest X-ray: two outlines of a statistical shape model, fitted to one image."""

from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw
from scipy import ndimage

TABLE = Path(__file__).with_name("lung_shapes.csv")
LANDMARKS = 30  # of each lung
_GRID = 96  # px; the image is looked at on a grid of this side
# Outlines drawn in each round, on the coarse maps and then on the fine ones; the first are spread over all.
_DRAWS = (1200, *[400] * 7), (400,) * 6
_KEPT, _REACH = 40, 2.5  # best outlines of a round; standard deviations that a weight may reach
_SPREADS = (1.0, 0.15)  # at least so wide are the weights drawn when each of the two starts, sd
_BLURS, _RINGS = (1.6, 0.8), (3.84, 1.92)  # px of the grid: of the slopes; from a lung to its surroundings
# Weights of a score's parts, chosen on phantoms and by looking at 40 public X-rays: edge, contrast, size; and
# what an odd shape costs.
_EDGE, _CONTRAST, _SIZE, _ODD = 6.0, 1.0, 1.0, 0.004
_SLOPES = (-0.15, 0.5)  # what one landmark can add; a marker's edge is no better than a lung's
_RISE = 0.02  # slope from which the image counts as rising
_LEAST_QUALITY = 0.7
_SHARES = (0.04, 0.5)  # of the image
_SMALLER = 0.2  # of the other lung


class _Maps(NamedTuple):
    """Slopes of the local contrast to the right and down, grey values, and their sums along the rows."""

    right: np.ndarray
    down: np.ndarray
    grey: np.ndarray
    sums: np.ndarray
    ring: float


class _Drawn(NamedTuple):
    """Outlines on the grid, `(n, 2, landmarks)` each: x, y, the outward normal, and slope along it."""

    x: np.ndarray
    y: np.ndarray
    out_x: np.ndarray
    out_y: np.ndarray
    slope: np.ndarray


def fit(image: np.ndarray) -> tuple[np.ndarray, float, bool]:
    """Outlines of the lungs, fitted by a search that is the same for every image.

    The model is a point distribution model (Cootes et al. 1995): the mean outline of both lungs together,
    position and size included, and the modes by which outlines differ, from masks of phantoms that were
    stretched, turned and shifted more than phantoms differ. A fit is one weight per mode, within 2.5 standard
    deviations. Its score is high where

    - the local contrast (grey less its local mean, over its local spread) rises outward across the outline,
      at each landmark within limits, so that no single edge decides;
    - what lies just outside is brighter than the mean inside, both as ranks of the image's grey values;
    - the lungs are large (else they shrink to the darkest part), and the weights small.

    The score is maximised by the cross-entropy method (Rubinstein 1999): 400 sets of weights are drawn, the
    best 40 kept, and the next drawn with their mean and spread; first on blurred slopes, then on sharp ones.
    The random numbers are the same for every image. If the image rises outward at fewer than 0.7 of the
    landmarks, or the lungs cover less than 4 % or more than 50 % of the image, or one of them less than a
    fifth of what the other does, the mean outline is taken instead.

    Args:
        image: uint8, `(h, w)`.
    Returns:
        Mask, bool `(h, w)`; the share of landmarks of the fit at which the image rises outward; whether the
        mean outline was taken instead of the fit.
    Reference: Cootes et al. 1995, Computer Vision and Image Understanding 61(1):38-59; Rubinstein 1999,
        Methodology and Computing in Applied Probability 1(2):127-190.
    """
    small = Image.fromarray(image).resize((_GRID, _GRID), Image.Resampling.BOX)
    steps = _maps(np.asarray(small, np.float32))
    weights = _search(steps)
    quality = float((_draw(steps[-1], weights[None]).slope > _RISE).mean())
    lungs = _filled(weights, image.shape)
    prior = quality < _LEAST_QUALITY or not _plausible(lungs)
    if prior:
        lungs = _filled(np.zeros_like(weights), image.shape)
    return lungs.any(0), quality, prior


@cache
def _model() -> np.ndarray:
    """Mean outline, then what one standard deviation of each mode adds: `(1 + modes, 2, landmarks, 2)`."""
    table = pd.read_csv(TABLE, index_col="part")
    return table.to_numpy(np.float32).reshape(len(table), 2, LANDMARKS, 2)


def _maps(image: np.ndarray) -> list[_Maps]:
    """The image as the search sees it, coarse and fine."""
    image = np.clip(image, *np.percentile(image, (1, 99)))
    wide = 0.12 * _GRID
    rest = image - ndimage.gaussian_filter(image, wide)
    # A floor under the spread, so that noise in even areas does not become contrast.
    local = rest / (np.sqrt(ndimage.gaussian_filter(rest**2, wide)) + 0.25 * image.std() + 1)
    ranks = np.searchsorted(np.sort(image.ravel()), image, "right").astype(np.float32) / image.size
    grey, sums = ndimage.gaussian_filter(ranks, 1), ranks.cumsum(1)
    slopes = [
        [ndimage.gaussian_filter(local, blur, order=order) for order in ((0, 1), (1, 0))] for blur in _BLURS
    ]
    return [_Maps(*slope, grey, sums, ring) for slope, ring in zip(slopes, _RINGS, strict=True)]


def _search(steps: list[_Maps]) -> np.ndarray:
    """Weights of the best outline that the cross-entropy method finds."""
    rng = np.random.default_rng(0)
    count = len(_model()) - 1
    centre, spread = np.zeros(count), np.zeros(count)
    for maps, rounds, least in zip(steps, _DRAWS, _SPREADS, strict=True):
        spread, best = np.maximum(spread, least), (-np.inf, centre)
        for number in rounds:
            draws = centre + spread * rng.normal(size=(number, count))
            draws = np.clip(draws, -_REACH, _REACH).astype(np.float32)
            scores = _score(maps, draws)
            kept = np.argpartition(-scores, _KEPT)[:_KEPT]
            first = kept[scores[kept].argmax()]
            best = max(best, (scores[first], draws[first]), key=lambda pair: pair[0])
            centre = 0.2 * centre + 0.8 * draws[kept].mean(0)
            spread = 0.2 * spread + 0.8 * draws[kept].std(0)
    return best[1].astype(np.float32)


def _outlines(weights: np.ndarray) -> np.ndarray:
    model = _model()
    # Not `@`: at this size its threads cost more than they bring.
    added = np.einsum("nk,kd->nd", weights, model[1:].reshape(len(model) - 1, -1))
    return model[0] + added.reshape(-1, *model.shape[1:])


def _draw(maps: _Maps, weights: np.ndarray) -> _Drawn:
    places = _outlines(weights) * np.float32(_GRID)
    x, y = places[..., 0], places[..., 1]
    along_x, along_y = (_next(side, 1) - _next(side, -1) for side in (x, y))
    length = np.hypot(along_x, along_y) + np.float32(1e-6)
    # Landmarks go round the two lungs in opposite directions.
    turn = np.array([[-1], [1]], np.float32)
    out_x, out_y = along_y / length * turn, -along_x / length * turn
    slope = _at(maps.right, x, y) * out_x + _at(maps.down, x, y) * out_y
    return _Drawn(x, y, out_x, out_y, slope)


def _score(maps: _Maps, weights: np.ndarray) -> np.ndarray:
    """How well each row of weights fits; the terms are in `fit`."""
    drawn = _draw(maps, weights)
    # Green's theorem: an integral over the inside is one along the outline.
    turn = np.array([[-1], [1]], np.float32)
    step = (_next(drawn.y, 1) - drawn.y) * turn
    middle_x, middle_y = ((side + _next(side, 1)) / 2 for side in (drawn.x, drawn.y))
    area = (middle_x * step).sum(2)
    inside = (_at(maps.sums, middle_x - 0.5, middle_y) * step).sum(2) / np.maximum(area, 1)
    around = _at(maps.grey, drawn.x + maps.ring * drawn.out_x, drawn.y + maps.ring * drawn.out_y).mean(2)
    edge = np.clip(drawn.slope, *_SLOPES).mean((1, 2))
    contrast = np.clip(around - inside, -1, 1).mean(1)
    size = np.sqrt(np.maximum(area, 0)).sum(1) / _GRID
    return _EDGE * edge + _CONTRAST * contrast + _SIZE * size - _ODD * (weights**2).sum(1)


def _next(values: np.ndarray, places: int) -> np.ndarray:
    return np.roll(values, -places, axis=2)


def _at(values: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    column, row = (np.clip(side, 0, _GRID - 1).astype(np.int32) for side in (x, y))
    return values[row, column]


def _filled(weights: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Masks of the two lungs, `(2, h, w)`."""
    lungs = []
    for outline in _outlines(weights[None])[0]:
        picture = Image.new("1", shape[::-1])
        ImageDraw.Draw(picture).polygon([tuple(place) for place in outline * shape[::-1] - 0.5], fill=1)
        lungs.append(np.asarray(picture))
    return np.stack(lungs)


def _plausible(lungs: np.ndarray) -> bool:
    areas = lungs.mean((1, 2))
    return _SHARES[0] <= areas.sum() <= _SHARES[1] and areas.min() >= _SMALLER * areas.max()
