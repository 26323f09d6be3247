"""A phantom as a CT shows it: slices of 5 mm with the arms raised, in a kernel's sharpness and noise."""

from dataclasses import dataclass

import numpy as np
from scipy import fft, ndimage

from covidtf.phantom.dicom import Kernel
from covidtf.phantom.thorax.body import Patient
from covidtf.phantom.thorax.shapes import Canvas
from covidtf.phantom.thorax.volume import Volume


@dataclass(frozen=True)
class Slab:
    """A phantom in slices from the head to the feet, on its own grid.

    Args:
        hu: float32, `(slices, y, x)`, y to the back and x to the patient's left.
        lungs, lesion: uint8, the shape of `hu`: in how many of the two planes of a slice the voxel is that.
        heights: Middle of each slice, mm, the head up, `(slices,)`.
        grid: Coordinates along y and x, mm.
    """

    hu: np.ndarray
    lungs: np.ndarray
    lesion: np.ndarray
    heights: np.ndarray
    grid: tuple[np.ndarray, np.ndarray]

    @property
    def step(self) -> float:
        """Side of a voxel along y and x, mm."""
        return float(self.grid[1][1] - self.grid[1][0])


@dataclass(frozen=True)
class View:
    """The reconstructed square.

    Args:
        matrix: Pixels along each side.
        field: Its side, mm.
        middle: Its middle (x, y), mm.
    """

    matrix: int
    field: float
    middle: tuple[float, float]

    @property
    def pixel(self) -> float:
        """Side of a pixel, mm."""
        return self.field / self.matrix

    def axis(self, place: int) -> np.ndarray:
        """Coordinates of the pixels' centres along x (0) or y (1), mm."""
        return self.middle[place] + (np.arange(self.matrix) - (self.matrix - 1) / 2) * self.pixel


def cut(volume: Volume, rng: np.random.Generator) -> Slab:
    """Slices, each the mean of two planes, over the lungs and a few centimetres beyond; the arms are raised.

    Args:
        volume: Its planes are half as thick as the slices, 2.5 mm for the usual 5 mm.
        rng: Draws how far beyond the lungs, and where the first pair of planes begins.
    """
    z, y, x = Canvas.empty(volume.spacing).axes
    lung = np.flatnonzero(volume.lungs.any((1, 2)))
    low = max(0, int(lung[0]) - 2 * int(rng.integers(2, 6)) - int(rng.integers(2)))
    high = min(len(z), int(lung[-1]) + 2 * int(rng.integers(2, 5)))
    upper = np.arange(high - 1, low, -2)
    pairs = [upper, upper - 1]
    lungs, lesion = (np.add(*(mask[planes].astype(np.uint8) for planes in pairs))
                     for mask in (volume.lungs, volume.lesion))  # fmt: skip
    hu = (volume.hu[pairs[0]].astype(np.float32) + volume.hu[pairs[1]]) / 2
    slab = Slab(hu, lungs, lesion, (z[upper] + z[upper - 1]) / 2, (y, x))
    _raise_arms(slab, volume.patient)
    return slab


def aim(patient: Patient, matrix: int, rng: np.random.Generator) -> View:
    """Square of 350 to 375 mm around the patient, who lies a little off its middle; the grid ends at 376 mm.

    Args:
        patient: Whose width it fits.
        matrix: Pixels along each side.
        rng: Draws the air beside the patient and the middle.
    """
    wide = 2 * (patient.width + patient.muscle + patient.fat + rng.uniform(8, 25))
    field = float(np.clip(5 * round(wide / 5), 350, 375))
    return View(matrix, field, (float(rng.normal(0, 4)), float(rng.normal(-2, 5))))


def couch(slab: Slab, view: View, radius: float) -> np.ndarray:
    """The table below the patient: a thin shell around foam, on it a mat; air elsewhere.

    Args:
        slab: Whose back lies on it.
        view: The square it is drawn in.
        radius: Of its curve, mm.
    Returns:
        HU, float32, `(matrix, matrix)`.
    """
    y, _ = slab.grid
    back = y[(slab.hu > -500).any((0, 2))].max()
    across, down = np.abs(view.axis(0)), view.axis(1)[:, None]
    top = back + 10 - np.minimum(across, 210) ** 2 / (2 * radius)
    below, bottom = down - top, back + 55 - across**2 / (8 * radius)
    table = np.where((below > -8) & (below < 0), -880.0, -1000.0)
    table[(below >= 0) & (down < bottom)] = -940
    table[(np.abs(below - 1) < 1.5) | ((np.abs(bottom - down) < 1.5) & (below > 0))] = -250
    table[:, across > 210] = -1000
    return table.astype(np.float32)


def reconstruct(
    slab: Slab, view: View, kernel: Kernel, table: np.ndarray, part: slice, rng: np.random.Generator
) -> np.ndarray:
    """Slices as a kernel shows them.

    Args:
        slab, view: The phantom and the square.
        kernel: Its `sharpen` acts on what is finer than 0.9 mm, its noise lies over everything.
        table: From `couch`.
        part: Which slices.
        rng: Draws the noise.
    Returns:
        HU from -1024 to 3071, int16, `(slices, matrix, matrix)`.
    """
    spectrum = _spectrum(view, kernel)
    # Fewer quanta cross the middle of the body than its rim.
    middle = np.hypot(view.axis(0), view.axis(1)[:, None] + 8)
    spread = np.float32(kernel.noise) * (0.45 + 0.65 * np.exp(-((middle / 150) ** 2))).astype(np.float32)
    slices = []
    for plane in slab.hu[part]:
        fine = plane - ndimage.gaussian_filter(plane, 0.9 / slab.step, mode="nearest", truncate=3)
        image = np.maximum(resample(plane + kernel.sharpen * fine, slab, view), table)
        image += spread * _noise(spectrum, view.matrix, rng)
        slices.append(np.rint(np.clip(image, -1024, 3071)).astype(np.int16))
    return np.stack(slices)


def resample(plane: np.ndarray, slab: Slab, view: View, outside: float = -1000.0) -> np.ndarray:
    """One plane of a slab's grid, linearly interpolated at the square's pixels; `outside` beyond the grid."""
    (y, x), step = slab.grid, slab.step
    start = [(view.axis(1)[0] - y[0]) / step, (view.axis(0)[0] - x[0]) / step]
    shape = (view.matrix, view.matrix)
    return ndimage.affine_transform(
        plane, [view.pixel / step] * 2, start, shape, order=1, mode="constant", cval=outside
    )


def _spectrum(view: View, kernel: Kernel) -> np.ndarray:
    """Amplitude of the noise by frequency: a ramp, as of filtered back projection, cut off by the kernel."""
    along = fft.fftfreq(view.matrix, view.pixel)
    frequency = np.hypot(along[:, None], along[: view.matrix // 2 + 1])
    amplitude = frequency**0.75 * np.exp(-((frequency / kernel.corner) ** 2))
    return (amplitude / np.sqrt((amplitude**2).mean())).astype(np.float32)


def _noise(spectrum: np.ndarray, matrix: int, rng: np.random.Generator) -> np.ndarray:
    """Noise of unit spread with that spectrum."""
    white = rng.standard_normal((matrix, matrix), np.float32)
    return fft.irfft2(fft.rfft2(white) * spectrum, (matrix, matrix))


def _raise_arms(slab: Slab, patient: Patient) -> None:
    """Cut the arms off along the side of the trunk, which gets its skin and fat back."""
    y, x = slab.grid
    rows = np.flatnonzero(np.abs(y - 6) < 80)
    lift, height = patient.shoulders, slab.heights / patient.height
    for plane, half in enumerate(_half_widths(height, patient)):
        body = y[slab.hu[plane, :, len(x) // 2] > -500]
        middle, deep = (body[0] + body[-1]) / 2, (body[-1] - body[0]) / 2
        side = np.ix_(rows, np.flatnonzero(np.abs(x) > 0.85 * half))
        across, along = x[side[1]], y[side[0]] - middle
        ratio = np.sqrt(np.abs(across / half) ** 2.5 + np.abs(along / deep) ** 2.5)
        inside = np.hypot(across, along) * (1 / ratio - 1)
        # Below the joint, bone this far out is that of the arm.
        old = np.minimum(slab.hu[plane][side], 45 if height[plane] < 64 + lift else 3000)
        wall = np.minimum(old, np.where(inside < 2, -50, -100))
        wall = np.where(inside < 0.75 * patient.fat + 4, wall, old)
        slab.hu[plane][side] = np.where(inside < 0, -1000, wall)


def _half_widths(height: np.ndarray, patient: Patient) -> np.ndarray:
    """Half-width of the trunk with its shoulders at relative heights, mm, as `draw_body` draws it."""
    side, lift = patient.width + patient.muscle + patient.fat, patient.shoulders
    shoulders = ((82, 186), (100, 182), (118, 150), (135, 105), (152, 72))
    knots = [(-60, side), (10, side + 4), (50, side + 22)] + [(z + lift, wide) for z, wide in shoulders]
    return np.interp(height, *zip(*knots, strict=True))
