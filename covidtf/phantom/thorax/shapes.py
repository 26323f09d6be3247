"""Drawing solids into a volume of Hounsfield units by signed distances, positive inside, in millimetres."""

import itertools
from collections.abc import Sequence

import numpy as np

EXTENT = ((-180.0, 168.0), (-150.0, 134.0), (-188.0, 188.0))


class Canvas:
    """A volume being drawn: `hu` and `parts`, both of shape (z, y, x), and its voxels' coordinates in mm.

    x grows to the patient's left, y to the back, z to the head; the origin is the middle of the chest at the
    height of the sixth thoracic vertebra.

    Args:
        axes: Coordinates of the voxels' centres along z, y and x, evenly spaced.
        spacing: Voxel sides along z, y and x.
    """

    def __init__(self, axes: Sequence[np.ndarray], spacing: tuple[float, float, float]):
        self.z, self.y, self.x = self.axes = tuple(axes)
        self.spacing = spacing
        self.shape = tuple(len(axis) for axis in axes)
        self.mesh = self.z[:, None, None], self.y[None, :, None], self.x[None, None, :]
        self.hu = np.full(self.shape, -1000, np.float32)
        self.parts = np.zeros(self.shape, np.uint8)

    @classmethod
    def empty(cls, spacing: tuple[float, float, float]) -> "Canvas":
        """Air over the whole of `EXTENT`."""
        pairs = zip(EXTENT, spacing, strict=True)
        axes = [np.arange(low + step / 2, high, step).astype(np.float32) for (low, high), step in pairs]
        return cls(axes, spacing)

    def box(self, low: Sequence[float], high: Sequence[float]) -> tuple[tuple, tuple]:
        """Slices of the voxels between two corners given as (x, y, z), and their open mesh (z, y, x)."""
        ends = zip(self.axes, low[::-1], high[::-1], strict=True)
        where = tuple(slice(*np.searchsorted(axis, (start, stop))) for axis, start, stop in ends)
        return where, np.ix_(*(axis[part] for axis, part in zip(self.axes, where, strict=True)))

    def crop(self, low: Sequence[float], high: Sequence[float]) -> tuple["Canvas", tuple]:
        """Copy of the part between two corners (x, y, z), and the slices at which it belongs."""
        where, mesh = self.box(low, high)
        part = Canvas([axis.ravel() for axis in mesh], self.spacing)
        part.hu[...], part.parts[...] = self.hu[where], self.parts[where]
        return part, where

    def coverage(self, inside: np.ndarray, step: float | np.ndarray | None = None) -> np.ndarray:
        """Share of each voxel within a surface at signed distance `inside`; `step` is the voxel's width."""
        share = inside / (step or self.spacing[2])
        share += 0.5
        return np.clip(share, 0, 1, out=share)

    def paint(self, where, coverage: np.ndarray, value: float | np.ndarray) -> None:
        """Mix `value` into `hu` in proportion to `coverage`; `where` is a tuple of slices or flat indices."""
        if isinstance(where, np.ndarray):
            old = self.hu.ravel()[where]
            self.hu.ravel()[where] = old + coverage * (value - old)
        else:
            old = self.hu[where]
            old += coverage * (value - old)


def corners(centre: Sequence[float], radii: Sequence[float], margin: float) -> tuple[list, list]:
    """Lower and upper corner of the box around an ellipsoid."""
    pairs = list(zip(centre, radii, strict=True))
    return [c - r - margin for c, r in pairs], [c + r + margin for c, r in pairs]


def ellipsoid(mesh: Sequence[np.ndarray], centre, radii, axis=(1.0, 0.0, 0.0)) -> np.ndarray:
    """Approximate signed distance `k (1 - k) / |grad k^2 / 2|`, `k` the scaled distance from the centre.

    Args:
        mesh: Coordinates (z, y, x) that broadcast.
        centre: Middle as (x, y, z).
        radii: Along x, y and z; or one along `axis` and one across it.
        axis: Direction of the first of two radii; any length.
    """
    z, y, x = (part - middle for part, middle in zip(mesh, centre[::-1], strict=True))
    if len(radii) == 3:
        squares = [(part / radius) ** 2 for part, radius in zip((x, y, z), radii, strict=True)]
    else:
        unit = np.asarray(axis) / np.linalg.norm(axis)
        along = (x * unit[0] + y * unit[1] + z * unit[2]) ** 2
        squares = [along / radii[0] ** 2, (x**2 + y**2 + z**2 - along) / radii[1] ** 2]
    ratio = np.sqrt(sum(squares))
    steep = sum(square / radius**2 for square, radius in zip(squares, radii, strict=True))
    return (ratio * (1 - ratio) / np.sqrt(steep + 1e-9)).astype(np.float32)


def tube(canvas: Canvas, inside: np.ndarray, points: np.ndarray) -> None:
    """Widen `inside`, of the canvas' shape, by a tube through `points`, rows of (x, y, z, radius)."""
    for start, stop in itertools.pairwise(np.asarray(points, np.float32)):
        reach = max(start[3], stop[3]) + 5
        where, (z, y, x) = canvas.box(
            np.minimum(start, stop)[:3] - reach, np.maximum(start, stop)[:3] + reach
        )
        way = (stop - start)[:3]
        x, y, z = x - start[0], y - start[1], z - start[2]
        share = np.clip((x * way[0] + y * way[1] + z * way[2]) / (way @ way), 0, 1)
        gap = (x - share * way[0]) ** 2 + (y - share * way[1]) ** 2 + (z - share * way[2]) ** 2
        np.maximum(inside[where], start[3] + share * (stop[3] - start[3]) - np.sqrt(gap), out=inside[where])


def union(target: np.ndarray, other: np.ndarray, blend: float) -> None:
    """Smooth union in place of two signed distances; they melt together over `blend` mm."""
    share = np.clip(0.5 + 0.5 * (other - target) / blend, 0, 1)
    target += share * (other - target) + blend * share * (1 - share)


def smooth_noise(canvas: Canvas, grain: float, rng: np.random.Generator) -> np.ndarray:
    """Noise of about unit spread over the whole canvas that varies within `grain` mm."""
    sizes = [int(size * step / grain) + 3 for size, step in zip(canvas.shape, canvas.spacing, strict=True)]
    field = rng.normal(scale=1.7, size=sizes).astype(np.float32)
    for axis in (2, 1, 0):
        place = np.arange(canvas.shape[axis]) * (canvas.spacing[axis] / grain)
        base = place.astype(int)
        part = (place - base).astype(np.float32)
        part = np.expand_dims(part * part * (3 - 2 * part), tuple({0, 1, 2} - {axis}))
        low, high = np.take(field, base, axis), np.take(field, base + 1, axis)
        field = low + part * (high - low)
    return field
