"""Phantom X-rays without a shortcut, and the same with one planted: what the audit is tested on."""

import hashlib
import io
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw, ImageFont, ImageOps
from scipy import ndimage

from covidtf import manifest as manifests
from covidtf.files import progress
from covidtf.images.prepare import perceptual_hash
from covidtf.phantom import mapper
from covidtf.phantom.projection import STYLES, lung_field, project
from covidtf.phantom.thorax.findings import FINDINGS
from covidtf.phantom.thorax.volume import thorax

CONDITIONS = ("clean", "scanner style", "burned-in marker", "border", "histogram", "duplicate patients")
# Share of the images of COVID-19 and of all others that are changed, as in `write_xrays(shortcut=True)`.
STRENGTH = (0.95, 0.03)
# Share of test's patients that are also in train, as another patient.
DUPLICATED = 0.1
# Coarser than for pictures to look at: a quarter of the time, and a pixel at 128 px is 3 mm too.
_SPACING = (3.0, 6.0, 3.0)
# Each image is cut out of a wider one at random, and rotated by at most so many degrees. Without that
# phantoms lie so much alike that some unrelated ones count as near duplicates, and that a thumbnail of
# 16 x 16 px tells the disease better than a network.
_WIDER, _LEAST_KEPT, _ASKEW = 1.1, 0.82, 5.0
_SOURCE = "phantom"


@dataclass(frozen=True)
class Set:
    """Phantom X-rays in memory, one image per patient.

    Attributes:
        images: uint8, shape `(n, size, size, 1)`.
        masks: bool, shape `(n, size, size)`, True in the lungs as drawn.
        manifest: Row i describes `images[i]`; besides the manifest's columns those of a prepared one (width,
            height, mode, format, bits, phash), `style`, and `planted`, whether the image was changed.
    """

    images: np.ndarray
    masks: np.ndarray
    manifest: pd.DataFrame


def draw(patients: int, seed: int, size: int = 128, workers: int = 1) -> Set:
    """Phantoms without a shortcut: every other patient has COVID-19, every fourth nothing, the rest another.

    View, breath, position, crop, rotation and scanner style are drawn alike for all. Severity is at least
    0.6, so that a probe learns the task from a few hundred small images.

    Args:
        patients: How many, at least 2.
        seed: Not negative.
        size: Side in px, at least 64.
        workers: Processes.
    Returns:
        The set, without splits; file hashes are those of the pixels.
    Raises:
        ValueError: A number below its least value.
    """
    for name, value, least in (
        ("patients", patients, 2),
        ("seed", seed, 0),
        ("size", size, 64),
        ("workers", workers, 1),
    ):
        if value < least:
            raise ValueError(f"`{name}` must be at least {least}. Received: {value}")
    jobs = [(seed, patient, finding, size) for patient, finding in enumerate(_findings(patients))]
    with mapper(workers) as apply:
        # In parts, because sending one small image costs a process as much as drawing it.
        parts = apply(_draw_patients, [jobs[start : start + 25] for start in range(0, len(jobs), 25)])
        drawn = [one for part in progress(parts, "phantoms", -(-len(jobs) // 25)) for one in part]
    images, masks, rows = zip(*drawn, strict=True)
    images = np.stack(images)[..., None]
    return Set(images, np.stack(masks), _hashed(manifests.make(list(rows), "phantoms"), images))


def plant(clean: Set, condition: str, seed: int, strength: tuple[float, float] = STRENGTH) -> Set:
    """The same set with a shortcut, and nothing else changed.

    - `clean`: as it was.
    - `scanner style`: darker and softer, gamma 1.3, a blur of 0.7 px, noise of 4 grey values.
    - `burned-in marker`: the letters "CV" near the lower left corner.
    - `border`: the straight black edge of a collimator, 4 to 8 % of the side, left and right.
    - `histogram`: equalised.
    - `duplicate patients`: a tenth of test's patients are also in train under other ids, as copies of another
      gamma and through JPEG. These images are added; no class is changed, so `strength` has no part in it.

    Which images are changed is decided by the patient and `seed` alone, the same for all conditions.

    Args:
        clean: With splits where duplicates are planted.
        condition: One of `CONDITIONS`.
        seed: Not negative.
        strength: Probability that an image of COVID-19, and any other, is changed.
    Raises:
        ValueError: Unknown condition, a probability out of [0, 1], or no test to take duplicates from.
    """
    if condition not in CONDITIONS:
        raise ValueError(f"`condition` must be one of {CONDITIONS}. Received: {condition!r}")
    if not all(0 <= share <= 1 for share in strength):
        raise ValueError(f"`strength` must be two probabilities in [0, 1]. Received: {strength}")
    if condition == "clean":
        return clean
    if condition == "duplicate patients":
        return _with_duplicates(clean, seed)
    positive = (clean.manifest["label"] == "COVID-19").to_numpy()
    # As many draws whatever the strength, so that a weaker shortcut is in a part of the same images.
    changed = np.random.default_rng([seed, 31]).random(len(positive)) < np.where(positive, *strength)
    images = clean.images.copy()
    for row in np.flatnonzero(changed):
        images[row, ..., 0] = _CHANGE[condition](images[row, ..., 0], np.random.default_rng([seed, 32, row]))
    table = clean.manifest.assign(planted=changed)
    return Set(images, clean.masks, _hashed(table, images))


def _findings(patients: int) -> list[str]:
    others = [name for name in FINDINGS if name not in ("COVID-19", "No Finding")]
    pattern = ("COVID-19", "No Finding", "COVID-19", "")
    return [pattern[i % 4] or others[i // 4 % len(others)] for i in range(patients)]


def _draw_patients(jobs: list[tuple[int, int, str, int]]) -> list[tuple[np.ndarray, np.ndarray, dict]]:
    """A function of the module, because a pool of processes takes no lambda."""
    return [_draw_patient(*job) for job in jobs]


def _draw_patient(seed: int, patient: int, finding: str, size: int) -> tuple[np.ndarray, np.ndarray, dict]:
    rng = np.random.default_rng([seed, patient, 30])
    view = "PA" if rng.random() < 0.6 else "AP"
    breath = float(np.clip(rng.beta(6, 1.5) - 0.15 * (view == "AP"), 0, 1))
    severity, style = float(rng.uniform(0.6, 1)), str(rng.choice(list(STYLES)))
    anatomy, visit = (int(value) for value in rng.integers(2**31, size=2))
    volume = thorax(anatomy, finding, severity, breath, _SPACING)
    image = project(volume, visit, view, style, round(size * _WIDER))
    mask = lung_field(volume, visit, view, round(size * _WIDER))
    box = _crop(len(image), np.random.default_rng([seed, patient, 34]))
    degrees = np.random.default_rng([seed, patient, 35]).uniform(-_ASKEW, _ASKEW)
    image, mask = (_cut(values, box, degrees, size) for values in (image, mask.astype(np.uint8) * 255))
    name = f"phantom{patient:05d}"
    row = {
        "path": f"{name}.png",
        "label": "COVID-19" if finding == "COVID-19" else "non-COVID",
        "finding": finding,
        "source": _SOURCE,
        "patient_id": f"{_SOURCE}:{name}",
        "view": view,
        "sex": volume.patient.sex,
        "age": volume.patient.age,
        "style": style,
        "planted": False,
    } | {"width": size, "height": size, "mode": "L", "format": "PNG", "bits": 8}
    return image, mask > 127, row


def _crop(side: int, rng: np.random.Generator) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of a square of 82 to 100 % of the side, somewhere near the middle."""
    kept = side * rng.uniform(_LEAST_KEPT, 1)
    left, top = (side - kept) * rng.uniform(0.2, 0.8, 2)
    return left, top, left + kept, top + kept


def _cut(values: np.ndarray, box: tuple[float, float, float, float], degrees: float, size: int) -> np.ndarray:
    resized = np.asarray(Image.fromarray(values).resize((size, size), Image.Resampling.BILINEAR, box))
    return ndimage.rotate(resized, degrees, reshape=False, order=1, mode="nearest")


def _hashed(table: pd.DataFrame, images: np.ndarray) -> pd.DataFrame:
    """With the hashes that preparing gives files."""
    grey = images[..., 0]
    files = [hashlib.sha256(np.ascontiguousarray(image)).hexdigest() for image in grey]
    return table.assign(sha256=files, phash=[perceptual_hash(Image.fromarray(image)) for image in grey])


def _with_duplicates(clean: Set, seed: int) -> Set:
    test = np.flatnonzero((clean.manifest["split"] == "test").to_numpy())
    if not len(test):
        raise ValueError("`clean` must have images in test, to be copied to train. Received: none")
    rng = np.random.default_rng([seed, 33])
    rows = np.sort(rng.choice(test, max(1, round(DUPLICATED * len(test))), replace=False))
    copies = np.stack([_copy(image, rng) for image in clean.images[rows, ..., 0]])[..., None]
    added = clean.manifest.iloc[rows].reset_index(drop=True)
    # Numbers after the last, so that no id tells of the copy.
    names = [f"phantom{len(clean.images) + place:05d}" for place in range(len(rows))]
    added["path"] = [f"{name}.png" for name in names]
    added["image_id"] = [f"{_SOURCE}/{name}.png" for name in names]
    added["patient_id"] = [f"{_SOURCE}:{name}" for name in names]
    added = _hashed(added.assign(split="train", planted=True), copies)
    table = pd.concat([clean.manifest, added], ignore_index=True)
    return replace(
        clean,
        images=np.concatenate([clean.images, copies]),
        masks=np.concatenate([clean.masks, clean.masks[rows]]),
        manifest=table,
    )


def _curve(image: np.ndarray, gamma: float) -> np.ndarray:
    return 255 * (image / 255) ** gamma


def _eight_bits(image: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def _style(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    soft = ndimage.gaussian_filter(_curve(image, 1.3), 0.7)
    return _eight_bits(soft + rng.normal(0, 4, image.shape))


def _marker(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    picture, size = Image.fromarray(image), len(image)
    x, y = rng.uniform(0.06, 0.08), rng.uniform(0.93, 0.95)
    font = ImageFont.load_default(size * 0.06)
    ImageDraw.Draw(picture).text((x * size, y * size), "CV", fill=250, font=font, anchor="mm")
    return np.asarray(picture)


def _edge(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    result = image.copy()
    left, right = np.rint(rng.uniform(0.04, 0.08, 2) * len(image)).astype(int)
    result[:, :left], result[:, len(image) - right :] = 0, 0
    return result


def _equalised(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.asarray(ImageOps.equalize(Image.fromarray(image)))


def _copy(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """As another archive would hold it: other brightness, once a JPEG file."""
    buffer = io.BytesIO()
    Image.fromarray(_eight_bits(_curve(image, rng.uniform(0.85, 0.95)))).save(buffer, "JPEG", quality=75)
    return np.asarray(Image.open(buffer))


_CHANGE: dict[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]] = {
    "scanner style": _style,
    "burned-in marker": _marker,
    "border": _edge,
    "histogram": _equalised,
}
