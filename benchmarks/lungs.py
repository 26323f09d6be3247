"""Dice of the lung masks against the true ones of phantoms: `python -m benchmarks.lungs`.

Prints tables, and appends the means at 224 px to the table of benchmarks: X-rays of 240 patients at three
sizes, by style, finding and view, and the lung slices of 24 CT cases by label. Neither the shape model nor
any constant was chosen on them. `--shapes` makes the shape model instead, from the outlines of
150 other phantoms, and writes it over `covidtf/images/lung_shapes.csv`.
"""

import argparse
import tempfile
import time
from pathlib import Path

import contourpy
import nibabel as nib
import numpy as np
import pandas as pd
from PIL import Image

from benchmarks.record import record
from covidtf.ct import read_study
from covidtf.ct.slices import square, window
from covidtf.files import atomic
from covidtf.images.lung_shapes import LANDMARKS, TABLE
from covidtf.images.lungs import masks_and_fits
from covidtf.phantom import write_xrays
from covidtf.phantom.ct import write_cts

FIT_SEED, TEST_SEED = 501, 2024
SIZES = (64, 96, 224)
MODES, COPIES = 18, 40
_LEAST_LUNG = 0.05  # of a slice
_SEGMENTS = (12, 6, LANDMARKS - 18)  # landmarks of the outer side, the base and the inner side of a lung


def main() -> None:
    """Measure, or make the shape model."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shapes", action="store_true", help="write the shape model")
    shapes = parser.parse_args().shapes
    with tempfile.TemporaryDirectory() as folder:
        if shapes:
            write_shapes(Path(folder))
        else:
            xrays = measure_xrays(Path(folder) / "xrays").query(f"size == {max(SIZES)}")
            for kind, table in (("xray", xrays), ("ct", measure_cts(Path(folder) / "cts"))):
                lowest = f"lowest {table['dice'].min():.3f}"
                what = f"true masks of {len(table)} phantom images of {max(SIZES)} px; {lowest}"
                record(f"lung_dice_{kind}", table["dice"].mean(), "Dice", what)


def measure_xrays(folder: Path) -> pd.DataFrame:
    """Print and return a row per X-ray and size: dice, quality, prior, and the phantom's properties."""
    write_xrays(folder, patients=240, images_per_patient=1, seed=TEST_SEED, size=max(SIZES), masks=True)
    table = pd.read_csv(folder / "metadata.csv")
    parts = []
    for size in SIZES:
        images, masks = (
            np.stack([_read(folder / kind / name, size) for name in table["filename"]])
            for kind in ("images", "masks")
        )
        parts.append(_measured(images, masks > 127, "xray", table[["style", "finding", "view"]]))
    whole = pd.concat(parts, ignore_index=True)
    show(whole, ["size"])
    for column in ("style", "finding", "view"):
        show(whole[whole["size"] == max(SIZES)], [column])
    return whole


def measure_cts(folder: Path, size: int = 224) -> pd.DataFrame:
    """Print and return a row per slice with at least 5 % lung: dice, quality, prior, label."""
    table = pd.read_csv(write_cts(folder, cases=24, seed=TEST_SEED, matrix=size, masks=True))
    images, masks, labels = [], [], []
    for row in table.itertuples():
        volume = read_study(folder / row.path).volume
        true = nib.load(folder / "masks" / f"{row.case_id}.nii.gz").get_fdata().transpose(2, 1, 0) > 0
        shown = np.flatnonzero(true.mean((1, 2)) >= _LEAST_LUNG)
        images += [np.asarray(square(window(volume.hu[number]), size)) for number in shown]
        masks += [true[number] for number in shown]
        labels += [row.label] * len(shown)
    whole = _measured(np.stack(images), np.stack(masks), "ct", pd.DataFrame({"label": labels}))
    show(whole, ["size"])
    show(whole, ["label"])
    return whole


def dice(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Twice the common area over the sum of the areas, of each pair of masks `(n, h, w)`."""
    return 2 * (one & other).sum((1, 2)) / (one.sum((1, 2)) + other.sum((1, 2)))


def show(table: pd.DataFrame, by: list[str]) -> None:
    """Print Dice by some columns."""
    groups = table.groupby(by)
    shown = groups["dice"].agg(images="count", mean="mean", lowest="min").round(3)
    print(shown.assign(prior=groups["prior"].sum(), ms=groups["ms"].mean().round(1)).to_string(), "\n")


def _measured(images: np.ndarray, masks: np.ndarray, kind: str, about: pd.DataFrame) -> pd.DataFrame:
    start = time.perf_counter()
    found, fits = masks_and_fits(images, kind)
    ms = (time.perf_counter() - start) * 1000 / len(images)
    return pd.concat([about, fits], axis=1).assign(dice=dice(found, masks), size=images.shape[1], ms=ms)


def _read(path: Path, size: int) -> np.ndarray:
    return np.asarray(Image.open(path).convert("L").resize((size, size), Image.Resampling.BICUBIC))


def outline(mask: np.ndarray, outward: int) -> np.ndarray:
    """Landmarks of one lung: from the apex down the outer side, along the base, up the inner side.

    The corners are where the outline reaches furthest down and outward, and down and inward. Between them the
    landmarks are evenly spaced.

    Args:
        mask: bool, of one lung.
        outward: -1 if the lung's outer side is left in the image, else 1.
    Returns:
        `(30, 2)`, x and y as shares of the side.
    """
    lines = contourpy.contour_generator(z=np.pad(mask.astype(float), 1)).lines(0.5)
    line = (max(lines, key=len)[:-1] - 0.5) / len(mask)
    apex = line[:, 1].argmin()
    outer = (line @ [0.7 * outward, 1.0]).argmax()
    inner = (line @ [-1.0 * outward, 1.0]).argmax()
    line = np.roll(line, -apex, axis=0)
    outer, inner = (outer - apex) % len(line), (inner - apex) % len(line)
    if outer > inner:
        line = np.roll(line[::-1], 1, axis=0)
        outer, inner = len(line) - outer, len(line) - inner
    ends = (0, outer, inner, len(line))
    closed = np.vstack([line, line[:1]])
    parts = zip(ends[:-1], ends[1:], _SEGMENTS, strict=True)
    return np.vstack([_spaced(closed[start : end + 1], count) for start, end, count in parts])


def _spaced(line: np.ndarray, count: int) -> np.ndarray:
    """`count` places evenly along a line, its end left out."""
    along = np.concatenate([[0], np.hypot(*np.diff(line, axis=0).T).cumsum()])
    places = np.linspace(0, along[-1], count, endpoint=False)
    return np.stack([np.interp(places, along, line[:, axis]) for axis in (0, 1)], axis=1)


def varied(shape: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A pair of lungs as other patients and other croppings have it: larger spread than the phantoms have.

    Args:
        shape: `(2, 30, 2)`, the lung on the left of the image first.
    """
    shape = shape.copy()
    for number, lung in enumerate(shape):
        top, height = lung[:, 1].min(), np.ptp(lung[:, 1])
        down = (lung[:, 1] - top) / height
        # A raised diaphragm, a narrower lung, an apex nearer to the middle, a rounder side.
        lung[:, 1] = top + (lung[:, 1] - top) * rng.uniform(0.72, 1.08) + rng.normal(0, 0.015)
        side = lung[:, 0].max() if number == 0 else lung[:, 0].min()
        lung[:, 0] = side + (lung[:, 0] - side) * rng.uniform(0.75, 1.05)
        lung[:, 0] += (1 if number else -1) * (rng.normal(0, 0.02) + rng.normal(0, 0.03) * down)
    centre = shape.mean((0, 1))
    scale = rng.uniform(0.6, 1.03) * np.array([rng.uniform(0.85, 1.05), rng.uniform(0.92, 1.15)])
    turn = rng.normal(0, 0.06)
    matrix = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]) * scale[:, None]
    shift = rng.normal(0, 1, 2) * [0.03, 0.05] + rng.uniform(-0.3, 0.1) * (1.03 - scale) * [0, 1]
    return (shape - centre) @ matrix.T + centre + shift


def shape_model(masks: list[np.ndarray], modes: int = MODES) -> tuple[np.ndarray, np.ndarray]:
    """Mean `(120,)` and modes `(modes, 120)`, each times its standard deviation, of varied outlines."""
    rng = np.random.default_rng(0)
    rows = []
    for mask in masks:
        middle = mask.shape[1] // 2
        halves = [np.where(np.arange(mask.shape[1]) < middle, mask, False)]
        halves.append(mask & ~halves[0])
        shape = np.stack([outline(half, outward) for half, outward in zip(halves, (-1, 1), strict=True)])
        rows += [varied(shape, rng).ravel() for _ in range(COPIES)]
    rows = np.array(rows)
    mean = rows.mean(0)
    _, sizes, directions = np.linalg.svd(rows - mean, full_matrices=False)
    share = (sizes**2).cumsum() / (sizes**2).sum()
    print(f"{len(rows)} shapes; {modes} modes hold {share[modes - 1]:.3f} of their variance")
    return mean, directions[:modes] * (sizes[:modes, None] / np.sqrt(len(rows) - 1))


def write_shapes(folder: Path) -> None:
    """Draw phantoms and write the shape model."""
    write_xrays(folder, patients=150, images_per_patient=1, seed=FIT_SEED, size=224, masks=True)
    table = pd.read_csv(folder / "metadata.csv")
    # The lung beside a pneumothorax is no shape that a lung has otherwise.
    table = table[table["finding"] != "Pneumothorax"]
    masks = [np.asarray(Image.open(folder / "masks" / name)) > 0 for name in table["filename"]]
    mean, modes = shape_model(masks)
    names = ["mean", *(f"mode {number}" for number in range(1, len(modes) + 1))]
    columns = [f"{axis}{place}" for place in range(len(mean) // 2) for axis in "xy"]
    table = pd.DataFrame(np.vstack([mean, modes]), pd.Index(names, name="part"), columns)
    with atomic(TABLE) as temporary:
        table.to_csv(temporary, float_format="%.4f", lineterminator="\n")


if __name__ == "__main__":
    main()
