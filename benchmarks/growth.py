"""Does cost grow with the number of images alone? `python -m benchmarks.growth`.

1,000, 10,000 and 50,000 different JPEGs of 64 x 64 px are prepared, go through a frozen ResNet18 and teach
its head for some epochs, a tenth of them being val too, each number in a process of its own that does the
same with one batch first. Seconds per image are those of all images less those of the batch (that is: without
start, building and tracing) over the images in between. Memory is the largest that was seen, without mapped
files, which the kernel may take back.
"""

import argparse
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from PIL import Image

from benchmarks.record import record
from covidtf import manifest as manifests
from covidtf.files import progress
from covidtf.images.prepare import prepare

SIZE, BATCH, EPOCHS = 64, 32, 5
COUNTS = (1000, 10_000, 50_000)
PARTS = ("prepare", "features", "head")


def main() -> None:
    """Measure and append to the table: time per image over that of the smallest number, growth of memory."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--counts", type=int, nargs="+", default=COUNTS, help="smallest first %(default)s")
    parser.add_argument("--count", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.count:
        measure(options.folder, options.count)
        return
    with tempfile.TemporaryDirectory() as scratch:
        make(Path(scratch), max(options.counts))
        results = {count: run(Path(scratch), count) for count in options.counts}
    (least, (first, small)), *others = results.items()
    for count, (per_image, _) in others:
        name = f"growth_per_image_{count // 1000}k_over_{least // 1000}k"
        record(name, sum(per_image) / sum(first), "x", "prepare, features and head of ResNet18, 64x64")
    count, (_, large) = others[-1]
    growth = (large - small) / (count - least) * 1000
    record("growth_peak_mb_per_1000", growth, "MB", f"{least} against {count} images, without mapped files")


def make(folder: Path, count: int) -> None:
    """Grey JPEGs, no two the same, brighter in one class, a thousand to a folder."""
    rng = np.random.default_rng(0)
    for number in progress(range(count), "making images"):
        path = folder / name_of(number)
        path.parent.mkdir(exist_ok=True)
        small = rng.normal(110 + 20 * (number % 2), 45, (8, 8)).clip(0, 255).astype(np.uint8)
        Image.fromarray(small).resize((SIZE, SIZE), Image.Resampling.BICUBIC).save(path, quality=90)


def name_of(number: int) -> str:
    """Path of an image below its folder."""
    return f"{number // 1000:03}/{number:06}.jpg"


def run(folder: Path, count: int) -> tuple[list[float], float]:
    """Seconds per image of each part, and the peak memory in MB, of a new process."""
    command = [sys.executable, "-m", "benchmarks.growth", "--folder", str(folder), "--count", str(count)]
    answer = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    *per_image, peak = map(float, answer.split())
    parts = ", ".join(f"{part} {1000 * x:.3f}" for part, x in zip(PARTS, per_image, strict=True))
    print(f"{count} images: {parts} ms per image, peak memory {peak:.0f} MB", flush=True)
    return per_image, peak


def measure(folder: Path, count: int) -> None:
    """Print the seconds per image of each part, beyond a first batch, and the peak memory in MB."""
    from covidtf.training.devices import keep_memory, make_deterministic

    # As training has it.
    make_deterministic()
    keep_memory()
    peak = [0.0]
    threading.Thread(target=watch, args=(peak,), daemon=True).start()
    first, all_images = work(folder, BATCH), work(folder, count)
    print(*((b - a) / (count - BATCH) for a, b in zip(first, all_images, strict=True)), peak[0])


def work(folder: Path, count: int) -> list[float]:
    """Seconds of each part for the first images."""
    from covidtf.training import heads
    from covidtf.training.features import features
    from covidtf.training.networks import build, set_trained_part, split_model
    from covidtf.training.optimizers import compile_model

    table, times = table_of(count), [time.perf_counter()]
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        prepared = prepare(table, {"s": folder}, Path(scratch, "prepared"), SIZE)
        times.append(time.perf_counter())
        model, rows = build("ResNet18", 2, channels=1, size=SIZE), np.arange(count)
        values = features(model, prepared.images, rows, Path(scratch, "features"))
        times.append(time.perf_counter())
        set_trained_part(model, "head")
        head = split_model(model)[1]
        settings = SimpleNamespace(optimizer="adam", learning_rate=1e-4, schedule="constant")
        compile_model(head, settings, EPOCHS, steps=1, at_once=-(-count // BATCH))
        for epoch in range(EPOCHS):
            order = np.random.default_rng([0, epoch]).permutation(rows)
            heads.run_epoch(head, values, rows % 2, order, BATCH)
            heads.logits(head, values, rows[: count // 10], BATCH)
        times.append(time.perf_counter())
    return np.diff(times).tolist()


def table_of(count: int) -> "pd.DataFrame":  # noqa: F821
    """Manifest of the first images, each of a patient of its own."""
    rows = [
        {
            "path": name_of(number),
            "label": ("COVID-19", "non-COVID")[number % 2],
            "source": "s",
            "patient_id": f"s:{number}",
            "view": "UNKNOWN",
        }
        for number in range(count)
    ]
    return manifests.make(rows, "growth")


def watch(peak: list[float]) -> None:
    """Keep the largest anonymous memory of this process in `peak`, in MB."""
    while True:
        # Linux only. Its own peak counts pages of mapped files too.
        for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("RssAnon:"):
                peak[0] = max(peak[0], int(line.split()[1]) / 1024)
        time.sleep(0.05)


if __name__ == "__main__":
    main()
