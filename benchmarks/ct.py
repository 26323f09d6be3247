"""Speed and memory of preparing CT studies: `python -m benchmarks.ct`.

The studies are synthetic: this script makes them in a temporary folder (1 GB), uncompressed DICOM of 512 x
512 px, two elliptic lungs in an elliptic body and noise; they are not the phantoms that the project trains
on. The plain loop is what most people write: of each study it reads every file with pydicom, sorts by
InstanceNumber, applies slope and intercept, windows, resizes with PIL, in one process, and keeps all slices
in memory. It does not look at positions, orientation, other series, patients, missing or repeated slices; it
does not look for the lungs, choose slices, hash, or write anything. `prepare_studies` does all of that, and
its time has the start of its processes in it.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pydicom
from PIL import Image
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from benchmarks.record import peak_mb, record
from covidtf import manifest as manifests
from covidtf.ct.prepare import prepare_studies

SIZE, LEVEL, WIDTH = 224, -600.0, 1500.0
ROUNDS = 3
THIN, THICK = "thin", [f"thick{number:02}" for number in range(24)]


def main() -> None:
    """Measure all four numbers and append them to the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--peak", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(*one(arguments.folder))
    elif arguments.peak:
        print(peak(arguments.folder, arguments.peak))
    else:
        with tempfile.TemporaryDirectory() as folder:
            measure(Path(folder))


def measure(folder: Path) -> None:
    """Make the studies, measure, append to the table."""
    make(folder / THIN, slices=173, thickness=2.0, seed=0)
    for number, name in enumerate(THICK):
        make(folder / name, slices=40 + number % 21, thickness=5.0, seed=number)
    answers = [run(folder, "--one") for _ in range(ROUNDS)]
    seconds, peaks = (statistics.median(values) for values in zip(*answers, strict=True))
    what = "one study, 173 DICOM files of 512x512, in a fresh process, imports left out"
    record("ct_study_seconds", seconds, "s", what)
    record("ct_study_peak_mb", peaks, "MB", what.replace("imports left out", "imports included"))
    record("ct_prepare_vs_plain", speed(folder), "x", "pydicom and PIL loop, 48 studies of 40 to 60 slices")
    few, many = (run(folder, "--peak", count)[0] for count in (40, 200))
    print(f"peak memory of all processes {few:.1f} MB with 40 studies, {many:.1f} MB with 200")
    record("ct_prepare_mb_per_100_studies", (many - few) / 1.6, "MB", "40 against 200 studies, all processes")


def make(folder: Path, slices: int, thickness: float, seed: int) -> None:
    """DICOM files of one series, named in no order of theirs; lungs in the middle four fifths."""
    rng = np.random.default_rng(seed)
    folder.mkdir()
    noise = rng.normal(0, 25, (600, 600))
    row, column = np.mgrid[-1:1:512j, -1:1:512j]
    body = (row / 0.62) ** 2 + (column / 0.85) ** 2 < 1
    for number in range(slices):
        width = 0.3 * np.sin(np.pi * np.clip((number / slices - 0.1) / 0.8, 0, 1))
        hu = np.where(body, 40.0, -1000.0)
        for side in (-0.4, 0.4):
            hu[(row / 0.4) ** 2 + ((column - side) / max(width, 1e-6)) ** 2 < 1] = -850
        top, left = rng.integers(0, 88, 2)
        values = np.rint(hu + noise[top : top + 512, left : left + 512] + 1024).clip(0, 4095)
        write(folder / f"{rng.integers(10**8):08}.dcm", values.astype(np.uint16), number, thickness, seed)


def write(path: Path, values: np.ndarray, number: int, thickness: float, seed: int) -> None:
    """One slice; number 0 is nearest to the head."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = f"1.2.826.0.1.3680043.8.498.{seed + 1}.1.{number + 1}"
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image = FileDataset(path, {}, file_meta=meta, preamble=b"\0" * 128)
    image.SOPClassUID, image.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
    image.StudyInstanceUID = f"1.2.826.0.1.3680043.8.498.{seed + 1}"
    image.SeriesInstanceUID = f"{image.StudyInstanceUID}.1"
    image.Modality, image.ImageType, image.PatientID = "CT", ["ORIGINAL", "PRIMARY", "AXIAL"], f"p{seed}"
    image.SeriesNumber, image.InstanceNumber = 1, number + 1
    image.ConvolutionKernel, image.SliceThickness = "B70f", thickness
    image.ImagePositionPatient = [-180, -180, -number * thickness]
    image.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    image.PixelSpacing = [0.703125, 0.703125]
    image.RescaleSlope, image.RescaleIntercept = 1, -1024
    image.Rows, image.Columns = values.shape
    image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
    image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 16, 12, 11, 0
    image.PixelData = values.tobytes()
    image.save_as(path, enforce_file_format=True)


def table_of(names: list[str]) -> pd.DataFrame:
    """Manifest of studies; a folder may occur more than once."""
    rows = [
        {
            "image_id": f"{number}",
            "path": name,
            "label": "x",
            "source": "s",
            "patient_id": f"s:{number}",
            "case_id": f"s:{number}",
            "view": "UNKNOWN",
        }
        for number, name in enumerate(names)
    ]
    return manifests.make(rows, "benchmark")


def run(folder: Path, *arguments: str | int) -> list[float]:
    """Numbers that this script prints in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.ct", "--folder", folder, *arguments]
    answer = subprocess.run(list(map(str, command)), stdout=subprocess.PIPE, text=True, check=True)
    return list(map(float, answer.stdout.split()))


def one(folder: Path) -> tuple[float, float]:
    """Seconds for the thin study, and this process's peak memory in MB."""
    with tempfile.TemporaryDirectory() as out:
        start = time.perf_counter()
        prepared = prepare_studies(table_of([THIN]), {"s": folder}, out, SIZE, LEVEL, WIDTH, workers=1)
        seconds = time.perf_counter() - start
        if len(prepared.images) != 54:
            raise SystemExit(f"54 slices were to be chosen. Received: {len(prepared.images)}")
    return seconds, peak_mb()


def plain(study: Path) -> list[np.ndarray]:
    """The loop that is compared with."""
    files = [pydicom.dcmread(path) for path in study.iterdir()]
    files.sort(key=lambda file: int(file.InstanceNumber))
    slices = []
    for file in files:
        hu = file.pixel_array * float(file.RescaleSlope) + float(file.RescaleIntercept)
        grey = ((hu - LEVEL + WIDTH / 2) / WIDTH * 255).clip(0, 255).astype(np.uint8)
        slices.append(np.asarray(Image.fromarray(grey).resize((SIZE, SIZE))))
    return slices


def speed(folder: Path) -> float:
    """Studies per second of `prepare_studies` over those of the plain loop, median of alternating rounds."""
    studies, ratios = THICK * 2, []
    table = table_of(studies)
    for number in range(ROUNDS):
        start = time.perf_counter()
        for name in studies:
            plain(folder / name)
        middle = time.perf_counter()
        with tempfile.TemporaryDirectory() as out:
            prepare_studies(table, {"s": folder}, out, SIZE, LEVEL, WIDTH)
            end = time.perf_counter()
        ratios.append((middle - start) / (end - middle))
        rates = f"{len(studies) / (middle - start):.2f} and {len(studies) / (end - middle):.2f} studies/s"
        print(
            f"round {number + 1}: plain loop and prepare_studies {rates}, ratio {ratios[-1]:.2f}", flush=True
        )
    return statistics.median(ratios)


def peak(folder: Path, count: int) -> float:
    """Largest memory in MB that was seen of this process and its workers together, for `count` studies."""
    largest = [0.0]
    threading.Thread(target=watch, args=(largest,), daemon=True).start()
    names = [THICK[row % len(THICK)] for row in range(count)]
    with tempfile.TemporaryDirectory() as out:
        prepare_studies(table_of(names), {"s": folder}, out, SIZE, LEVEL, WIDTH)
    return largest[0]


def watch(largest: list[float]) -> None:
    """Keep the sum of the memory of this process and those under it."""
    process = psutil.Process()
    while True:
        total = 0
        for each in (process, *process.children(recursive=True)):
            try:
                total += each.memory_info().rss
            except psutil.NoSuchProcess:
                continue
        largest[0] = max(largest[0], total / 2**20)
        time.sleep(0.02)


if __name__ == "__main__":
    main()
