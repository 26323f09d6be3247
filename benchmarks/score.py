"""Scoring a folder against one image at a time in PyTorch: `python -m benchmarks.score [--run RUN]`.

Needs torch and OpenVINO. Both sides do the whole work over the same files: read, decode, network, a table of
scores; they take turns in processes of their own. Loading is outside of the ratios on both sides (the network
has seen images, an OpenVINO export exists); `first_result_seconds` counts it, from the start of the command
`predict` to the first row on the disk.

Files of the network's size come first: both sides see the same pixels, and scores must agree. Larger JPEGs
are decoded at 1/2, 1/4 or 1/8 here, as in training, which gives slightly other pixels and scores (rows
`score_large_*`). By how much scores differ stands in each row.
"""

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from benchmarks.prepare import describe, find, make
from benchmarks.record import peak_mb, record
from covidtf import scoring
from covidtf.files import sha256, write_json

ROUNDS = 5
NAMES = {"keras": "score_vs_one_by_one", "openvino": "score_engine_vs_one_by_one"}
LIMITS = {"keras": 1e-5, "openvino": 1e-3}


def main() -> None:
    """Measure and append to the table: two ratios, and the time to the first result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", type=Path, help="run folder; without it a ResNet18 with drawn weights")
    parser.add_argument("--data", type=Path, help="folder of images; without it 1024 x 1024 JPEGs are made")
    parser.add_argument("--images", type=int, default=300, help="how many images at most [%(default)s]")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--side", choices=("torch", *NAMES), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        serve(options.side, options.run)
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "made").mkdir()
        paths = find(options.data or make(folder / "made", options.images))[: options.images]
        if options.run:
            copy_run(options.run, folder / "run")
        else:
            draw_run(folder / "run")
        measure(folder, paths, options.rounds)


def copy_run(run: Path, folder: Path) -> None:
    """A copy of a run, to export into."""
    shutil.copytree(run, folder, ignore=shutil.ignore_patterns("openvino-*"))


def draw_run(folder: Path) -> None:
    """What scoring needs of a run, of a ResNet18 that was never trained."""
    from covidtf.training import weights
    from covidtf.training.networks import build

    folder.mkdir()
    weights.save(build("ResNet18", classes=2), folder)
    settings = {"network": "ResNet18", "classes": ["a", "b"], "precision": "float32"}
    settings |= {"shape": [224, 224, 1], "crop": "center"}
    hashes = {"best.weights.h5": sha256(folder / "best.weights.h5")}
    write_json({"settings": settings, "sha256": hashes}, folder / "training.json")


def save_for_torch(run: Path) -> None:
    """The run's weights under torchvision's names, as `torch.npz` beside them."""
    from covidtf.scoring.engines import load_network
    from covidtf.weights.convert import tensors_of

    np.savez(run / "torch.npz", **tensors_of(load_network(scoring.read(run), "float32")))


def measure(folder: Path, paths: list[Path], rounds: int) -> None:
    """Compare and time the sides on files of the network's size, then on the files as they are."""
    run, trained = folder / "run", scoring.read(folder / "run")
    save_for_torch(run)
    (folder / "small").mkdir()
    for path in paths:
        square = Image.open(path).convert("L").resize((trained.size, trained.size))
        square.save(folder / "small" / f"{path.stem}.jpg", quality=90)
    lists = {"small": find(folder / "small"), "large": paths}
    for name, files in lists.items():
        (folder / f"{name}.txt").write_text("\n".join(str(file.absolute()) for file in files))
    # Exports in a process of its own, or TensorFlow's memory would count as the engine's.
    first_result(folder, paths[:64], "openvino")
    sides = {name: Side(name, folder) for name in ("torch", *NAMES)}
    (exported,) = run.glob("openvino-*/model.xml")
    precision = ET.parse(exported).find(".//rt_info/covidtf/precision").get("value")
    for name, files in lists.items():
        compare(sides, name, f"PyTorch, {trained.network}, {describe(files)}", precision, rounds)
    peaks = {name: side.close() for name, side in sides.items()}
    for name in NAMES:
        record(f"score_peak_mb_{name}", peaks[name], "MB", f"PyTorch: {peaks['torch']:.0f} MB")
        record(f"first_result_seconds_{name}", first_result(folder, paths, name), "s", trained.network)


def compare(sides: dict[str, "Side"], files: str, against: str, precision: str, rounds: int) -> None:
    """Let the sides take turns on a list of files; end here if scores differ where pixels are the same."""
    for side in sides.values():
        side.work(files)
    differences = {name: np.abs(sides[name].scores() - sides["torch"].scores()).max() for name in NAMES}
    for name, limit in LIMITS.items():
        if files == "small" and not differences[name] <= limit:
            raise SystemExit(f"{name}: scores within {limit} of torch's are wanted. Got {differences[name]}")
    seconds = {name: [] for name in sides}
    for number in range(rounds):
        for name, side in sides.items():
            seconds[name].append(side.work(files))
        spent = ", ".join(f"{name} {found[-1]:.2f}" for name, found in seconds.items())
        print(f"{files}, round {number + 1}: {spent} s", flush=True)
    for name, row in NAMES.items():
        ratios = [theirs / ours for theirs, ours in zip(seconds["torch"], seconds[name], strict=True)]
        row = row if files == "small" else row.replace("score_", "score_large_")
        differ = f"scores differ by at most {differences[name]:.1e}"
        differ += f", in {precision}" if name == "openvino" else ""
        record(row, statistics.median(ratios), "x", f"{against}; {differ}")


class Side:
    """A process that has loaded a network and scores lists of files when told."""

    def __init__(self, name: str, folder: Path):
        self.name, self.folder, self.out = name, folder, folder / f"{name}.csv"
        command = [sys.executable, "-m", "benchmarks.score", "--side", name, "--run", str(folder / "run")]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        self.process = subprocess.Popen(command, text=True, bufsize=1, **pipes)

    def work(self, files: str) -> float:
        """Seconds to score the files of a list."""
        print(self.folder / f"{files}.txt", self.out, sep="\t", file=self.process.stdin)
        return float(self.process.stdout.readline())

    def scores(self) -> np.ndarray:
        """Scores of the last list."""
        return pd.read_csv(self.out).filter(like="score_").to_numpy()

    def close(self) -> float:
        """End the process; its peak memory in MB."""
        return float(self.process.communicate()[0])


def serve(name: str, run: Path) -> None:
    """Be a `Side`: answer each list with the seconds it took, and the end with the peak memory in MB."""
    score_list = torch_scorer(run) if name == "torch" else our_scorer(run, name)
    for line in sys.stdin:
        files, out = line.rstrip("\n").split("\t")
        paths = [Path(path) for path in Path(files).read_text().splitlines()]
        start = time.perf_counter()
        score_list(paths, Path(out))
        print(time.perf_counter() - start, flush=True)
    print(peak_mb())


def torch_scorer(run: Path):
    """The plain loop, after one image."""
    from benchmarks import torch_score

    trained = scoring.read(run)
    model = torch_score.load(trained.network, len(trained.classes), run / "torch.npz")

    def score_list(paths: list[Path], out: Path) -> None:
        scores = [torch_score.score(model, path, trained.size) for path in paths]
        table = pd.DataFrame(scores, columns=[f"score_{name}" for name in trained.classes])
        table.insert(0, "path", [str(path) for path in paths])
        table.to_csv(out, index=False)

    return score_list


def our_scorer(run: Path, engine: str):
    """`scoring.score_files`; it loads the network with its first batch, which is not timed."""
    scorer = scoring.Scorer(scoring.read(run), engine)
    return lambda paths, out: scoring.score_files(scorer, paths, out)


def first_result(folder: Path, paths: list[Path], engine: str) -> float:
    """Seconds from the start of the command to the first score on the disk; an export exists already."""
    out = folder / f"first_{engine}.csv"
    command = [sys.executable, "-m", "covidtf", "predict", folder / "run", *paths, "--out", out, "--engine"]
    start = time.perf_counter()
    process = subprocess.Popen([*map(str, command), engine], stderr=subprocess.DEVNULL)
    partial = out.with_name(f"{out.name}.partial")
    while process.poll() is None:
        if partial.is_file() and partial.read_bytes().count(b"\n") > 1:
            found = time.perf_counter() - start
            process.wait()
            return found
        time.sleep(0.02)
    raise SystemExit(f"the command ended with {process.returncode} before a score was seen")


if __name__ == "__main__":
    main()
