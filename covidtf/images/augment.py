"""Augmentation with Augmentor, done once and kept: prepared data set -> the same with more train images."""

import contextlib
import hashlib
import math
import os
import random
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import Augmentor
import numpy as np
import pandas as pd
import PIL
from PIL import Image

from covidtf.files import DataError, progress, read_json
from covidtf.images import store
from covidtf.images.prepare import Prepared, load, perceptual_hash

RULES = 1  # raised when the same settings give other images than before
BATCH = 256  # new images that wait in memory

Job = tuple[int, int, str]  # row of the original, number of the new image, its key
RECIPES: dict[str, tuple[tuple[str, dict[str, float]], ...]] = {
    "none": (),
    "released": (
        ("rotate", {"probability": 0.7, "max_left_rotation": 10, "max_right_rotation": 10}),
        ("zoom", {"probability": 0.5, "min_factor": 1.1, "max_factor": 1.5}),
    ),
    "paper": (
        ("flip_left_right", {"probability": 0.5}),
        ("rotate", {"probability": 0.7, "max_left_rotation": 5, "max_right_rotation": 5}),
        ("random_distortion", {"probability": 0.5, "grid_width": 4, "grid_height": 4, "magnitude": 6}),
    ),
}


def augment(
    prepared: Prepared,
    folder: str | Path,
    recipe: str = "released",
    factor: int = 5,
    label: str = "COVID-19",
    seed: int = 0,
    workers: int | None = None,
) -> Prepared:
    """Enlarge one label's train images: all rows of `prepared`, then `factor - 1` new images of each.

    "released" is what the images of COVID-XRay-5K fit: rotation, then zoom. "paper" is a reconstruction of
    its text, "flipping, small rotation, small distortion", whose parameters are not published. "none" only
    copies. The authors' 336 images of 84 originals were drawn with replacement (`Pipeline.sample(336)`) from
    the files as they are; here each original has the same number, made from its prepared image. As there,
    about one image in seven of "released" comes out unchanged.

    Each new image depends on `seed`, its original's image_id and its number alone, so neither on the other
    rows nor on `workers`. Its `image_id` and `path` are the original's with `#aug<number>` added (there is no
    such file), `parent_id` names the original, `sha256` and `phash` are those of its pixels, the rest is the
    original's. An interrupted call goes on where it was when it is repeated, a finished one is only loaded.

    Where train already holds copies of `label`, as in the released archive of COVID-XRay-5K, they stay as
    they are and nothing is added, whatever the recipe; a line on standard error says so, and in
    `settings.json` the recipe is "none" and `augmented_before` the number of the copies.

    Args:
        prepared: With splits: `prepared.manifest` decides, not the manifest in its folder.
        folder: Folder to write to, other than `prepared.folder`. A data set in it is replaced.
        recipe: One of `RECIPES`.
        factor: How many images there are of each original, itself included, >= 1; 5 makes 420 of 84.
        label: Label to enlarge. Other labels and splits are copied as they are.
        seed: Any integer.
        workers: Processes; None for one per 4,000 new images (to start one takes as long as 2,000 images), at
            most one per core.
    Raises:
        ValueError: If an argument is out of range.
        DataError: If no image of `label` is in train, or another process is writing to `folder`.
    Reference: Minaee et al., Medical Image Analysis 65:101794, 2020; Bloice et al., Augmentor, 2017.
    """
    if recipe not in RECIPES:
        raise ValueError(f"`recipe` must be one of {tuple(RECIPES)}. Received: {recipe!r}")
    if not (isinstance(factor, int) and factor >= 1):
        raise ValueError(f"`factor` must be an integer of at least 1. Received: {factor!r}")
    if workers is not None and workers < 1:
        raise ValueError(f"`workers` must be at least 1, or None. Received: {workers!r}")
    folder = Path(folder)
    if folder.resolve() == prepared.folder.resolve():
        raise ValueError(f"`folder` must not be the folder of `prepared`. Received: {folder}")
    before = _augmented_before(prepared.manifest, label)
    if before and recipe != "none":
        print(
            f"augment: train holds {before} augmented images of {label} already; none is added",
            file=sys.stderr,
        )
        recipe = "none"
    jobs = [] if recipe == "none" else _jobs(prepared.manifest, label, factor, seed)
    settings = _settings(prepared, recipe, factor, label, seed) | {"augmented_before": before}
    if not store.is_complete(folder, settings):
        with store.opened(folder, settings, prepared.images.shape[1:]) as rows:
            # Asked again: a crash may have cut off no more than the last step of an earlier call.
            if not store.is_complete(folder, settings):
                _fill(rows, prepared.images, recipe, jobs, workers)
                rows.finish(_table(prepared.manifest, jobs, rows.records), prepared.rejected)
    return load(folder)


def transform(image: np.ndarray, recipe: str, key: str) -> np.ndarray:
    """One augmented image, the same whenever `key` is the same.

    Operations are drawn as Augmentor draws them when it writes files: each is performed if a uniform number,
    rounded to one decimal, is at most its probability, so that 0.7 is in truth 0.75, and 0.5 is 0.55.

    Args:
        image: uint8, shape `(height, width, channels)`, 1 or 3 channels.
        recipe: One of `RECIPES`.
        key: Seed; `augment` uses "<seed> <image_id of the original> <number>".
    Returns:
        uint8, shape of `image`. The global state of `random`, from which Augmentor draws, is as before.
    """
    picture = _picture(image)
    with _seeded(key):
        for operation in _operations(recipe):
            if round(random.uniform(0, 1), 1) <= operation.probability:
                (picture,) = operation.perform_operation([picture])
    return np.asarray(picture).reshape(image.shape)


def _operations(recipe: str) -> list:
    pipeline = Augmentor.Pipeline()
    for name, parameters in RECIPES[recipe]:
        getattr(pipeline, name)(**parameters)
    return pipeline.operations


@contextlib.contextmanager
def _seeded(key: str) -> Iterator[None]:
    state = random.getstate()
    random.seed(key)
    try:
        yield
    finally:
        random.setstate(state)


def _augmented_before(table: pd.DataFrame, label: str) -> int:
    return int(((table["label"] == label) & (table["split"] == "train") & (table["parent_id"] != "")).sum())


def _jobs(table: pd.DataFrame, label: str, factor: int, seed: int) -> list[Job]:
    train = (table["label"] == label) & (table["split"] == "train")
    if not train.any():
        counts = table.groupby(["split", "label"]).size().to_dict()
        raise DataError(f"only train is augmented, and no image of {label!r} is in it. Received: {counts}")
    ids = table["image_id"].to_list()
    return [(row, k, f"{seed} {ids[row]} {k}") for row in np.flatnonzero(train) for k in range(1, factor)]


def _settings(prepared: Prepared, recipe: str, factor: int, label: str, seed: int) -> dict:
    digest = hashlib.sha256(prepared.manifest.to_csv().encode())
    return {
        "made_by": "augment",
        "rules": RULES,
        "augmentor": Augmentor.__version__,
        "pillow": PIL.__version__,
        "recipe": recipe,
        "operations": [[name, parameters] for name, parameters in RECIPES[recipe]],
        "factor": factor,
        "label": label,
        "seed": seed,
        "manifest": digest.hexdigest(),
        "prepared": read_json(prepared.folder / "settings.json"),
    }


def _fill(rows: store.Store, images: np.ndarray, recipe: str, jobs: list[Job], workers: int | None) -> None:
    done = len(rows.records)
    for image in progress(images[done:], "copying images"):
        rows.add(image.tobytes(), {})
    rest = jobs[max(0, done - len(images)) :]
    for pixels, record in progress(_transformed(images, recipe, rest, workers), "augmenting", len(rest)):
        rows.add(pixels, record)


def _transformed(images: np.ndarray, recipe: str, jobs: list[Job], workers: int | None) -> Iterator[tuple]:
    """Pixels and record of each new image, in order."""
    workers = workers or min(os.cpu_count() or 1, math.ceil(len(jobs) / 4000))
    work = partial(_transform_row, recipe=recipe)
    # Processes, because Augmentor draws from one global state; spawned, because TensorFlow has threads.
    pool = ProcessPoolExecutor(workers, get_context("spawn")) if workers > 1 else contextlib.nullcontext()
    with pool as processes:
        for start in range(0, len(jobs), BATCH):
            batch = [(np.array(images[row]), key) for row, _, key in jobs[start : start + BATCH]]
            yield from processes.map(work, batch, chunksize=16) if processes else map(work, batch)


def _transform_row(item: tuple[np.ndarray, str], recipe: str) -> tuple[bytes, dict]:
    image, key = item
    pixels = transform(image, recipe, key)
    data = pixels.tobytes()
    return data, {"sha256": hashlib.sha256(data).hexdigest(), "phash": perceptual_hash(_picture(pixels))}


def _picture(image: np.ndarray) -> Image.Image:
    return Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)


def _table(table: pd.DataFrame, jobs: list[Job], records: list[dict]) -> pd.DataFrame:
    """Manifest of the copied rows, then the new ones."""
    copies = table.iloc[[row for row, _, _ in jobs]].reset_index(drop=True)
    mark = pd.Series([f"#aug{k}" for _, k, _ in jobs], dtype="str")
    new = {
        "parent_id": copies["image_id"],
        "image_id": copies["image_id"] + mark,
        "path": copies["path"] + mark,
        **pd.DataFrame(records[len(table) :]),
    }
    return pd.concat([table, copies.assign(**new)], ignore_index=True)
