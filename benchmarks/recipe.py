"""The paper's recipe and a grid of heads on features, against plain training: `python -m benchmarks.recipe`.

Needs torch.

`frozen_recipe_vs_torch`: 2,420 prepared images, a tenth of them val, 100 epochs of ResNet18's last layer,
batch 20. Ours is a whole process: Python and Keras start, and `training.train` goes from the prepared array,
without any features, to the finished run folder. The other side is a plain PyTorch loop (`torch_recipe`) over
the same pixels as JPEG files; its epochs are all the same work, so that one is timed, without the start of
its process, and multiplied.

`grid_vs_plain`: `grid.grid` over four networks, 3 seeds, 5 folds and 3 learning rates, without any features,
in one process with its start. A plain run is `Model.fit` of the same frozen network over the images of a fold
and `predict` over its val, in each epoch. All batches are the same work, so that some of each network are
timed, without building and tracing, and multiplied by batches, epochs and runs. `grid_vs_feature_passes`: the
same over what `features` takes of it, hashing and tracing included.
"""

import argparse
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.record import peak_mb, record
from covidtf import manifest as manifests
from covidtf.images.prepare import load, prepare

SIZE, BATCH, VAL = 224, 20, 0.1
NETWORKS = ("ResNet18", "ResNet50", "SqueezeNet1_0", "DenseNet121")
SEEDS, FOLDS, RATES = (0, 1, 2), 5, (1e-4, 1e-3, 1e-2)
TIMED = 5  # batches of a plain run; those of val may be fewer


def main() -> None:
    """Measure and append to the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", nargs="+", choices=("recipe", "grid"), default=("recipe", "grid"))
    parser.add_argument("--images", type=int, default=2420, help="of the recipe [%(default)s]")
    parser.add_argument("--epochs", type=int, default=100, help="of the recipe [%(default)s]")
    parser.add_argument("--torch-epochs", type=float, default=1, help="that are timed [%(default)s]")
    parser.add_argument("--grid-images", type=int, default=400, help="[%(default)s]")
    parser.add_argument("--grid-epochs", type=int, default=20, help="[%(default)s]")
    parser.add_argument("--part", choices=tuple(PARTS), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        PARTS[options.part](options)
        print(f"peak_mb: {peak_mb():.0f}")
        return
    for row in options.rows:
        with tempfile.TemporaryDirectory() as scratch:
            options.folder = Path(scratch)
            (recipe if row == "recipe" else grid)(options)


def recipe(options: argparse.Namespace) -> None:
    """Record `frozen_recipe_vs_torch`."""
    make(options.folder, options.images)
    seconds, ours = run("ours", options)
    _, theirs = run("torch", options)
    record(
        "frozen_recipe_vs_torch",
        options.epochs * theirs["epoch"] / seconds,
        "x",
        f"PyTorch loop, ResNet18, {options.images} JPEG of {SIZE}x{SIZE}, {options.epochs} epochs from "
        f"{options.torch_epochs:g} timed",
    )
    record(
        "frozen_recipe_peak_mb",
        ours["peak_mb"],
        "MB",
        f"PyTorch without its workers: {theirs['peak_mb']:.0f} MB",
    )


def grid(options: argparse.Namespace) -> None:
    """Record `grid_vs_plain`."""
    make(options.folder, options.grid_images)
    seconds, ours = run("grid", options)
    _, theirs = run("plain", options)
    heads = len(SEEDS) * FOLDS * len(RATES)
    record(
        "grid_vs_plain",
        heads * options.grid_epochs * sum(theirs[name] for name in NETWORKS) / seconds,
        "x",
        f"{heads * len(NETWORKS)} plain runs, {options.grid_images} images, {options.grid_epochs} epochs, "
        "from some batches timed per network",
    )
    passes = sum(ours[f"{name}_features"] for name in NETWORKS)
    against = f"a feature pass of each network, {options.grid_images} images, {options.grid_epochs} epochs"
    record("grid_vs_feature_passes", seconds / passes, "x", against)
    record("grid_peak_mb", ours["peak_mb"], "MB", f"plain run: {theirs['peak_mb']:.0f} MB")


def run(part: str, options: argparse.Namespace) -> tuple[float, dict[str, float]]:
    """Seconds of a part in a process of its own, and the numbers that it printed as `name: number`."""
    command = [sys.executable, "-m", "benchmarks.recipe", "--part", part, "--folder", str(options.folder)]
    for name in ("images", "epochs", "torch_epochs", "grid_images", "grid_epochs"):
        command += [f"--{name.replace('_', '-')}", str(getattr(options, name))]
    start = time.perf_counter()
    answer = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    seconds = time.perf_counter() - start
    for line in answer.splitlines():
        print(f"{part}: {line}")
    print(f"{part}: {seconds:.1f} s with the start of its process", flush=True)
    return seconds, {name: float(value) for name, value in re.findall(r"^(\w+): ([\d.]+)", answer, re.M)}


def make(folder: Path, count: int) -> None:
    """Grey JPEGs of the network's size, brighter in one class, and their prepared data set.

    There are `count` of them in train and val, and a batch in test, which a run of ours has to have.
    """
    (folder / "images").mkdir()
    rng, rows = np.random.default_rng(0), []
    for number in range(count + BATCH):
        small = rng.normal(110 + 20 * (number % 2), 45, (28, 28)).clip(0, 255).astype(np.uint8)
        image = Image.fromarray(small).resize((SIZE, SIZE), Image.Resampling.BICUBIC)
        image.save(folder / "images" / f"{number:05}.jpg", quality=90)
        split = "test" if number >= count else "val" if number % BATCH < VAL * BATCH else "train"
        row = {"path": f"{number:05}.jpg", "label": ("COVID-19", "non-COVID")[number % 2], "split": split}
        rows.append(
            row | {"source": "s", "patient_id": f"s:{number}", "case_id": f"s:{number}", "view": "UNKNOWN"}
        )
    prepare(manifests.make(rows, str(folder)), {"s": folder / "images"}, folder / "prepared", SIZE)


def ours(options: argparse.Namespace) -> None:
    """Train as a user does, and say where the seconds went."""
    from covidtf.config import TrainConfig
    from covidtf.training import train

    prepared = load(options.folder / "prepared")
    config = TrainConfig(network="ResNet18", epochs=options.epochs, head_epochs=options.epochs)
    start = time.perf_counter()
    history = train(config, prepared, options.folder / "runs" / "ours")
    print(f"train: {time.perf_counter() - start:.1f} s, of it")
    print(f"epochs: {history['seconds'].sum():.1f} s")


def torch_loop(options: argparse.Namespace) -> None:
    """Time the published script's epoch, with whole images and with its random crops."""
    from benchmarks.torch_recipe import epoch_seconds

    table = load(options.folder / "prepared").manifest
    parts = {}
    for split in ("train", "val"):
        part = table[table["split"] == split]
        paths = [options.folder / "images" / path for path in part["path"]]
        parts[split] = paths, part["label"].ne("COVID-19").astype(int).tolist()
    print(f"epoch: {epoch_seconds(parts, options.torch_epochs):.1f} s")
    share = min(0.1, options.torch_epochs)
    print(f"epoch_of_random_crops: {epoch_seconds(parts, share, random=True):.1f} s")


def grid_of_heads(options: argparse.Namespace) -> None:
    """The grid of all networks, with the seconds of each."""
    from covidtf.training import batches
    from covidtf.training.features import features
    from covidtf.training.grid import grid
    from covidtf.training.networks import build

    data = batches.read(load(options.folder / "prepared"))
    for network in NETWORKS:
        model, start = build(network, 2, channels=1, size=SIZE), time.perf_counter()
        features(model, data.images, np.union1d(data.shown, data.val), options.folder / "features")
        print(f"{network}_features: {time.perf_counter() - start:.1f} s")
        grid([model], data, options.folder / "features", SEEDS, FOLDS, RATES, options.grid_epochs, BATCH)
        print(f"{network}: {time.perf_counter() - start:.1f} s")


def plain_runs(options: argparse.Namespace) -> None:
    """Seconds of one epoch of a plain run per network: all batches of a fold, from `TIMED` of them."""
    from types import SimpleNamespace

    from covidtf.training import batches
    from covidtf.training.devices import feed, keep_memory, make_deterministic
    from covidtf.training.grid import divide
    from covidtf.training.networks import build, set_trained_part
    from covidtf.training.optimizers import compile_model

    # As training has it.
    make_deterministic()
    keep_memory()
    data = batches.read(load(options.folder / "prepared"))
    train, val = divide(data, FOLDS)[0]
    settings = SimpleNamespace(optimizer="adam", learning_rate=1e-4, schedule="constant")
    for network in NETWORKS:
        model = build(network, 2, channels=1, size=SIZE)
        set_trained_part(model, "head")
        compile_model(model, settings, options.grid_epochs, steps=1)
        seconds = {}
        parts = ("fit", model.fit, {"shuffle": False}), ("predict", model.predict, {})
        for name, work, options in parts:
            rows = (train if name == "fit" else val)[: TIMED * BATCH]
            shown = batches.Batches(data.images, data.labels, rows, BATCH)
            feed(work, shown, verbose=0, **options)
            start = time.perf_counter()
            feed(work, shown, verbose=0, **options)
            seconds[name] = (time.perf_counter() - start) / len(rows)
        print(f"{network}: {seconds['fit'] * len(train) + seconds['predict'] * len(val):.1f} s")


PARTS = {"ours": ours, "torch": torch_loop, "grid": grid_of_heads, "plain": plain_runs}

if __name__ == "__main__":
    main()
