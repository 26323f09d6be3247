"""X-ray images of phantoms: attenuation, ray sums, detector and the styles of made-up scanners."""

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps
from scipy import ndimage, sparse

from covidtf.phantom.thorax.volume import Volume

_WATER, _BONE = 0.0215, 0.35
# Source to detector, and detector to the nearest voxel, mm.
_DISTANCES = {"PA": (1800.0, 20.0), "AP": (1100.0, 40.0)}


@dataclass(frozen=True)
class Style:
    """How one made-up scanner turns intensities into grey values.

    Args:
        photons: Quanta per mm² that reach the detector beside the patient.
        scatter: Scattered light as a share of the primary.
        blur: Spread of the detector's response, mm.
        flatten: Share of the coarse differences in brightness taken out, in `[0, 1]`.
        sharpen: How much of the fine detail is added again.
        curve: Steepness of the film's shoulder; high values give white bones and a bright heart.
        toe: Exponent of the film's toe; above 1 the lungs are darker.
        border: Largest share of a side that the collimator covers, at random up to this.
        marker: Letters burned in: `"L"` on the patient's left, else on the right; `""` for none.
        equalise: Whether the histogram is equalised, as in CheXpert's JPEG files.
        jpeg: Quality of a JPEG file the image once was, or None.
    """

    photons: float
    scatter: float
    blur: float
    flatten: float
    sharpen: float
    curve: float
    toe: float
    border: float
    marker: str
    equalise: bool = False
    jpeg: int | None = None


STYLES = {
    "A": Style(2e4, 0.35, 1.3, 0.25, 0.4, 1.4, 0.85, 0.00, "L", jpeg=75),
    "B": Style(2e5, 0.10, 0.6, 0.45, 1.2, 2.2, 1.3, 0.04, "R"),
    "C": Style(8e4, 0.15, 0.8, 0.30, 0.8, 2.0, 1.1, 0.02, "L", equalise=True, jpeg=85),
    "D": Style(6e4, 0.15, 1.0, 0.10, 0.4, 2.4, 1.5, 0.06, ""),
}


@dataclass(frozen=True)
class Aim:
    """Where tube and detector stand: turn and tilt of the patient, radians; image centre and side, mm."""

    view: str
    turn: float
    tilt: float
    across: float
    up: float
    field: float


def attenuation(hu: np.ndarray) -> np.ndarray:
    """Linear attenuation at an effective energy of 55 keV, 1/mm.

    `mu = 0.0215 (1 + HU / 1000)`, and above 100 HU, in bone, 0.35 more of each further HU, because calcium
    absorbs relatively more at this energy than at a CT's.

    >>> [round(float(mu), 4) for mu in attenuation(np.array([-1000, 0, 1000]))]
    [0.0, 0.0215, 0.0498]
    """
    hu = np.asarray(hu, np.float32)
    return np.float32(_WATER) * (
        np.maximum(1 + hu / 1000, 0) + np.float32(_BONE / 1000) * np.maximum(hu - 100, 0)
    )


_TABLE = attenuation(np.arange(-1024, 3001))


def aim(volume: Volume, seed: int, view: str = "PA") -> Aim:
    """Set-up for one image as a radiographer would have it: patient nearly straight, lungs in view."""
    if view not in _DISTANCES:
        raise ValueError(f"`view` must be one of {tuple(_DISTANCES)}. Received: {view!r}")
    rng = np.random.default_rng([seed, 11])
    patient = volume.patient
    loose = 1.0 if view == "PA" else 1.6
    field = 1.07 * max(2 * patient.width + 42, 292 * patient.height) * rng.uniform(1, 1.12)
    return Aim(
        view=view,
        turn=float(rng.normal(0, 0.025 * loose)),
        tilt=float(rng.normal(0 if view == "PA" else 0.08, 0.03)),
        across=float(rng.normal(0, 6 * loose)),
        up=float(-2 * patient.height + rng.normal(0, 8)),
        field=float(field),
    )


def ray_sums(density: np.ndarray, spacing: tuple[float, float, float], aim: Aim, size: int) -> np.ndarray:
    """Integral of `density` along the rays of a cone beam from front to back.

    Each coronal plane is magnified by its distance to the source and shifted by turn and tilt; a ray's path
    through a plane is longer than its thickness by `sqrt(1 + (x² + z²) / distance²)`.

    Args:
        density: Per mm, float32, shape (z, y, x).
        spacing: Voxel sides along z, y and x, mm.
        aim: From `aim`.
        size: Pixels along each side of the result.
    Returns:
        float32, shape (size, size), the patient's head up and left side to the right.
    """
    reach, nearest = _DISTANCES[aim.view]
    depths = (np.arange(density.shape[1]) - (density.shape[1] - 1) / 2) * spacing[1]
    gaps = nearest + (depths - depths[0] if aim.view == "PA" else depths[-1] - depths)
    grid = (np.arange(size) - (size - 1) / 2) * (aim.field / size)
    sums = np.zeros((size, size), np.float32)
    for plane in np.flatnonzero(density.any(axis=(0, 2))):
        depth, gap = depths[plane], gaps[plane]
        shrink = (reach - gap) / reach
        columns = _sampler((grid + aim.across) * shrink - aim.turn * depth, density.shape[2], spacing[2])
        rows = _sampler((aim.up - grid) * shrink + aim.tilt * depth, density.shape[0], spacing[0])
        sums += columns @ (rows @ density[:, plane]).T
    slant = np.sqrt(1 + (grid[:, None] ** 2 + grid**2) / reach**2)
    return (sums.T * (slant * spacing[1])).astype(np.float32)


def _sampler(places: np.ndarray, count: int, step: float) -> sparse.csr_array:
    """Matrix that interpolates linearly between `count` voxels centred on 0 at `places` in mm."""
    places = np.clip(places / step + (count - 1) / 2, 0, count - 1.001)
    base = places.astype(np.int32)
    part = (places - base).astype(np.float32)
    data = np.stack((1 - part, part), axis=1).ravel()
    columns = np.stack((base, base + 1), axis=1).ravel()
    rows = np.arange(0, 2 * len(places) + 1, 2, dtype=np.int32)
    return sparse.csr_array((data, columns, rows), (len(places), count))


def lung_field(volume: Volume, seed: int, view: str = "PA", size: int = 256) -> np.ndarray:
    """What a radiologist would outline: rays through lung that miss heart, great vessels and abdomen.

    Returns:
        bool, shape (size, size), to the image of `project` with the same arguments.
    """
    place = aim(volume, seed, view)
    solid = ((volume.parts == 6) | (volume.parts == 7)).astype(np.float32)
    lung = ray_sums(volume.lungs.astype(np.float32), volume.spacing, place, size)
    field = (lung > 20) & (ray_sums(solid, volume.spacing, place, size) < 10)
    # Slits between the great vessels are lung by the rays, but nobody outlines them.
    return ndimage.binary_opening(field, iterations=max(1, round(8 / (place.field / size))))


def project(volume: Volume, seed: int, view: str = "PA", style: str = "A", size: int = 256) -> np.ndarray:
    """X-ray image of a phantom.

    `I = exp(-sum mu dx)` along each ray (Beer-Lambert), scattered light, Poisson and electronic noise, the
    logarithm, then the processing of a style.

    Args:
        volume: From `covidtf.phantom.thorax.volume.thorax`.
        seed: Position of the patient and noise.
        view: `"PA"` or `"AP"`: the AP tube is nearer and shines from the front, so the heart looks larger.
        style: A key of `STYLES`.
        size: Pixels along each side.
    Returns:
        uint8, shape (size, size), bone bright, the patient's left side to the right.
    Raises:
        ValueError: Unknown view or style.
    """
    if style not in STYLES:
        raise ValueError(f"`style` must be one of {tuple(STYLES)}. Received: {style!r}")
    place = aim(volume, seed, view)
    rng = np.random.default_rng([seed, 12])
    sums = ray_sums(np.take(_TABLE, volume.hu + 1024), volume.spacing, place, size)
    pixel = place.field / size
    return _develop(_expose(sums, STYLES[style], pixel, rng), STYLES[style], pixel, rng)


def _expose(sums: np.ndarray, style: Style, pixel: float, rng: np.random.Generator) -> np.ndarray:
    """Detected optical path `-ln I`, with scatter, blur and noise."""
    primary = np.exp(-sums)
    # The unattenuated beam beside the patient scatters little: only what went through the body counts.
    scattered = ndimage.gaussian_filter(np.minimum(primary, 0.3), 28 / pixel, truncate=2)
    light = ndimage.gaussian_filter(primary + style.scatter * scattered, style.blur / pixel)
    quanta = style.photons * pixel**2
    counts = rng.poisson(light * quanta) + rng.normal(0, 8, light.shape)
    return -np.log(np.maximum(counts, 1) / quanta).astype(np.float32)


def _develop(path: np.ndarray, style: Style, pixel: float, rng: np.random.Generator) -> np.ndarray:
    """Grey values of an optical path: flatten, sharpen, window on the chest, film curve, border, marker."""
    coarse = ndimage.gaussian_filter(path, 22 / pixel, truncate=2)
    fine = path - ndimage.gaussian_filter(path, 2 / pixel)
    path = path - style.flatten * (coarse - coarse.mean()) + style.sharpen * fine
    size = len(path)
    chest = path[size // 4 : 3 * size // 4, size // 8 : -size // 8]
    low, high = np.percentile(chest, (1, 95))
    relative = np.clip((path - low) / (high - low) + rng.uniform(0.03, 0.1), 0, 2) ** style.toe
    steep = style.curve * rng.uniform(0.9, 1.1)
    grey = 255 * np.clip((1 - np.exp(-steep * relative)) / (1 - np.exp(-1.4 * steep)), 0, 1)
    image = Image.fromarray(grey.astype(np.uint8))
    image = _finish(ImageOps.equalize(image) if style.equalise else image, style, rng)
    return np.asarray(image)


def _finish(image: Image.Image, style: Style, rng: np.random.Generator) -> Image.Image:
    """Collimator's border, marker, and the traces of a JPEG file."""
    size, pen = image.width, ImageDraw.Draw(image)
    left, top, right, bottom = (rng.uniform(0, style.border + 1e-9, 4) * size).astype(int)
    for box in (
        (0, 0, left, size),
        (0, 0, size, top),
        (size - right, 0, size, size),
        (0, size - bottom, size, size),
    ):
        if box[2] > box[0] and box[3] > box[1]:
            pen.rectangle((box[0], box[1], box[2] - 1, box[3] - 1), fill=0)
    x, y = rng.uniform(0.05, 0.11, 2) * size
    if style.marker:
        place = (size - x if style.marker == "L" else x, y)
        pen.text(place, style.marker, fill=250, font=ImageFont.load_default(size * 0.06), anchor="mm")
    if style.jpeg is None:
        return image
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=style.jpeg)
    return Image.open(buffer)
