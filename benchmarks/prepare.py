"""Speed and memory of preparing images: `python -m benchmarks.prepare [--data DIR]`."""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from benchmarks.record import peak_mb, record
from covidtf import manifest as manifests
from covidtf.images.prepare import prepare

SIZE = 224
ROUNDS = 5


def main() -> None:
    """Measure both numbers and append them to the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="folder of images; without it 1024 x 1024 JPEGs are made")
    parser.add_argument("--images", type=int, default=400, help="how many images at most [%(default)s]")
    parser.add_argument("--peak", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peak:
        print(peak(arguments.data, arguments.peak))
        return
    with tempfile.TemporaryDirectory() as made:
        folder = arguments.data or make(Path(made), arguments.images)
        paths = find(folder)[: arguments.images]
        print(f"on {describe(paths)}{'' if arguments.data else ', made by this script'}")
        record("prepare_vs_pil", speed(folder, paths), "x", f"PIL loop, {describe(paths)}")
        record("prepare_peak_mb_per_1000", growth(folder), "MB", "500 against 2500 rows")


def make(folder: Path, count: int) -> Path:
    """JPEGs of 1024 x 1024 grey pixels: smooth fields of several sizes, fine texture and noise."""
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 3, (1024, 1024))
    for number in range(count):
        image = np.full((1024, 1024), 120.0)
        for cells, depth in ((4, 60), (16, 25), (64, 12), (256, 6)):
            field = Image.fromarray(rng.normal(0, depth, (cells, cells)).astype(np.float32))
            image += np.asarray(field.resize((1024, 1024), Image.Resampling.BICUBIC))
        image += np.roll(noise, number, axis=(0, 1))
        Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(folder / f"{number:04}.jpg", quality=90)
    return folder


def find(folder: Path) -> list[Path]:
    """Image files below `folder`, in order."""
    kinds = {".jpg", ".jpeg", ".png", ".dcm"}
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in kinds)
    if not paths:
        raise SystemExit(f"{folder}: no image files")
    return paths


def describe(paths: list[Path]) -> str:
    """Number, median size and formats of the images."""
    sizes, kinds = [], set()
    for path in paths:
        with Image.open(path) as image:
            sizes.append(image.size)
            kinds.add(image.format)
    width, height = (round(statistics.median(side)) for side in zip(*sizes, strict=True))
    return f"{len(paths)} {'/'.join(sorted(kinds))} of {width}x{height}"


def table_of(folder: Path, paths: list[Path]) -> pd.DataFrame:
    """Manifest of `paths`; a file may occur more than once."""
    rows = [
        {
            "image_id": f"{number}",
            "path": path.relative_to(folder).as_posix(),
            "label": "x",
            "source": "s",
            "patient_id": f"s:{number}",
            "view": "UNKNOWN",
        }
        for number, path in enumerate(paths)
    ]
    return manifests.make(rows, str(folder))


def speed(folder: Path, paths: list[Path]) -> float:
    """Images per second of `prepare` over those of the plain loop, median of alternating rounds."""
    table, ratios = table_of(folder, paths), []
    for number in range(ROUNDS):
        start = time.perf_counter()
        plain = [np.asarray(Image.open(path).convert("RGB").resize((SIZE, SIZE))) for path in paths]
        middle = time.perf_counter()
        with tempfile.TemporaryDirectory() as out:
            prepared = prepare(table, {"s": folder}, out, SIZE, "resize")
            end = time.perf_counter()
            ratios.append((middle - start) / (end - middle))
            difference = [
                np.abs(a.astype(float) - b).mean() / 255 for a, b in zip(plain, prepared.images, strict=True)
            ]
        rates = f"{len(paths) / (middle - start):.0f} and {len(paths) / (end - middle):.0f} images/s"
        print(f"round {number + 1}: PIL and prepare {rates}, ratio {ratios[-1]:.2f}, ", end="")
        print(f"mean absolute difference {np.mean(difference):.5f} (worst image {np.max(difference):.5f})")
    return statistics.median(ratios)


def growth(folder: Path) -> float:
    """Growth of the peak memory in MB per 1000 images, from 500 to 2500 rows in processes of their own."""
    peaks = {}
    for count in (500, 2500):
        command = [sys.executable, "-m", "benchmarks.prepare", "--data", str(folder), "--peak", str(count)]
        answers = [subprocess.run(command, capture_output=True, text=True, check=True) for _ in range(3)]
        peaks[count] = statistics.median(float(answer.stdout) for answer in answers)
    print(f"peak memory {peaks[500]:.1f} MB with 500 rows, {peaks[2500]:.1f} MB with 2500")
    return (peaks[2500] - peaks[500]) / 2


def peak(folder: Path, count: int) -> float:
    """Peak memory in MB of this process after it has prepared `count` rows."""
    paths = find(folder)
    with tempfile.TemporaryDirectory() as out:
        prepare(table_of(folder, [paths[row % len(paths)] for row in range(count)]), {"s": folder}, out, SIZE)
    return peak_mb()


if __name__ == "__main__":
    main()
