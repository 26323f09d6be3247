"""From a prepared data set to the batches a network sees: classes, rows of each split, order."""

import hashlib
import zlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from covidtf.files import DataError
from covidtf.predictions import COLUMNS
from covidtf.training.devices import keras

POSITIVE = "COVID-19"


def class_names(labels: pd.Series) -> list[str]:
    """Classes in the order of the logits and of the score columns: COVID-19 first, the others sorted.

    >>> class_names(pd.Series(["non-COVID", "COVID-19", "COVID-19"]))
    ['COVID-19', 'non-COVID']
    """
    return sorted(set(labels), key=lambda name: (name != POSITIVE, name))


@dataclass(frozen=True)
class TrainingData:
    """A prepared data set as training sees it.

    Attributes:
        images: uint8, shape `(n, size, size, channels)`.
        manifest: One row per image.
        classes: As `class_names`.
        labels: Index into `classes` per image, -1 where the image is in no split, shape `(n,)`.
        shown: Rows of train, each as often as one epoch shows it.
        val, test: Rows of val and of test, in manifest order; test may be empty (`read`).
    """

    images: np.ndarray
    manifest: pd.DataFrame
    classes: list[str]
    labels: np.ndarray
    shown: np.ndarray
    val: np.ndarray
    test: np.ndarray

    def sha256(self) -> str:
        """Hex sha256 of the pixels, the rows that training reads and the columns that predictions repeat."""
        digest = hashlib.sha256(repr((self.images.shape, self.classes)).encode())
        digest.update(self.manifest[list(COLUMNS)].to_csv().encode())
        for array in (self.labels, self.shown, self.val, self.test):
            digest.update(np.ascontiguousarray(array, dtype=np.int64))
        for start in range(0, len(self.images), 1000):
            digest.update(np.ascontiguousarray(self.images[start : start + 1000]))
        return digest.hexdigest()


def read(prepared, test: bool = True) -> TrainingData:
    """Check a prepared data set and sort out its rows.

    Args:
        prepared: A `prepare.Prepared`. An integer column `copies` in its manifest says how often each
            epoch shows a train row, 0 leaves it out; without it each is shown once.
        test: Whether there must be a test; some data sets keep theirs elsewhere.
    Raises:
        DataError: Images that do not fit the manifest, no row in train, val or test, fewer than two classes,
            a class that train does not show, `copies` that are not whole numbers from 0.
    """
    name, images, manifest = Path(prepared.folder) / "manifest.csv", prepared.images, prepared.manifest
    _check_images(images, len(manifest), name)
    split = manifest["split"].to_numpy()
    rows = {part: np.flatnonzero(split == part) for part in ("train", "val", "test")}
    for part, found in rows.items():
        if not len(found) and (test or part != "test"):
            needed = "train, val and test" if test else "train and val"
            raise DataError(f"{name}: split {part!r} has no image; training needs {needed}")
    shown = np.repeat(rows["train"], _copies(manifest, name)[rows["train"]])
    classes = class_names(manifest["label"].iloc[np.concatenate(list(rows.values()))])
    if len(classes) < 2:
        raise DataError(f"{name}: two labels or more were wanted. Received: {classes}")
    labels = pd.Categorical(manifest["label"], categories=classes).codes.astype(np.int64)
    labels[~np.isin(split, list(rows))] = -1
    for index, label in enumerate(classes):
        if not (labels[shown] == index).any():
            raise DataError(f"{name}: no image of train has label {label!r}, which other splits have")
    return TrainingData(images, manifest, classes, labels, shown, rows["val"], rows["test"])


def with_label_noise(data: TrainingData, share: float, seed: int) -> tuple[TrainingData, dict[str, object]]:
    """Other labels for some of train's cases, each of the other classes as likely; val and test keep theirs.

    All images of a case get the same new label. Which cases and which labels follows from the seed.

    Args:
        share: Of train's cases, in [0, 1); `round(share * cases)` change. An image without a case is one.
        seed: Not negative.
    Returns:
        The data, and for the record: `cases` of train, how many are `changed`, and `sha256` of their sorted
        ids, one a line.
    Raises:
        ValueError: If `share` is out of range.
        DataError: If a class is left without an image in train.
    """
    if not 0 <= share < 1:
        raise ValueError(f"`label_noise` must be in [0, 1). Received: {share}")
    rows, classes = np.unique(data.shown), len(data.classes)
    table = data.manifest.iloc[rows]
    units = table["case_id"].mask(table["case_id"] == "", table["image_id"]).to_numpy(str)
    cases, unit = np.unique(units, return_inverse=True)
    rng = np.random.default_rng([seed, zlib.crc32(b"label_noise")])
    changed = np.sort(rng.permutation(len(cases))[: round(share * len(cases))])
    steps = np.zeros(len(cases), np.int64)
    steps[changed] = rng.integers(1, classes, len(changed))
    labels = data.labels.copy()
    labels[rows] = (labels[rows] + steps[unit]) % classes
    if len(set(labels[rows])) < classes:
        raise DataError(f"`label_noise` {share} leaves a class of {data.classes} without an image in train")
    digest = hashlib.sha256("".join(f"{case}\n" for case in cases[changed]).encode()).hexdigest()
    record = {"cases": len(cases), "changed": len(changed), "sha256": digest}
    return replace(data, labels=labels), record


class Batches(keras.utils.PyDataset):
    """Batches of `(images, labels)` in the order of `rows`; the last one may be smaller."""

    def __init__(self, images: np.ndarray, labels: np.ndarray, rows: np.ndarray, batch_size: int):
        super().__init__()
        self.images, self.labels, self.rows, self.batch_size = images, labels, rows, batch_size

    def __len__(self) -> int:
        return -(-len(self.rows) // self.batch_size)

    def enlarged(self, factor: int) -> "Batches":
        """The same rows in batches that are so many times as large; 1 is this itself.

        Raises:
            TypeError: If this is of a subclass, whose batches follow from their number.
        """
        if factor == 1:
            return self
        if type(self) is not Batches:
            raise TypeError(f"only plain batches can be enlarged. Received: {type(self).__name__}")
        return Batches(self.images, self.labels, self.rows, factor * self.batch_size)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        rows = self.rows[index * self.batch_size : (index + 1) * self.batch_size]
        return self.images[rows], self.labels[rows]


class RandomViews(Batches):
    """Batches whose images are cropped, mirrored and made lighter or darker at random, anew for each `seed`.

    Args:
        crop: Smallest share of the area that stays, in (0, 1]; the share is uniform between it and 1, the
            logarithm of the side ratio between 3/4 and 4/3, as torchvision's RandomResizedCrop.
        flip: Whether half of the images are mirrored.
        seed: Whole numbers; with the batch's index they decide all that is random.
        grey: Largest change, as a share, of an image's mean and of each pixel's distance from it, in [0, 1);
            both factors are uniform between `1 - grey` and `1 + grey`. 0 leaves them.
    """

    def __init__(self, *shown, crop: float, flip: bool, seed: list[int], grey: float = 0.0):
        super().__init__(*shown)
        self.crop, self.flip, self.seed, self.grey = crop, flip, seed, grey

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        images, labels = super().__getitem__(index)
        rng = np.random.default_rng([*self.seed, index])
        return np.stack([self._view(image, rng) for image in images]), labels

    def _view(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        view = _random_view(image, self.crop, self.flip, rng)
        # Nothing is drawn for what is not asked for, or the other random numbers would move.
        return _random_grey(view, self.grey, rng) if self.grey else view


def _random_view(image: np.ndarray, crop: float, flip: bool, rng: np.random.Generator) -> np.ndarray:
    size = image.shape[0]
    area, ratio = rng.uniform(crop, 1), np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3)))
    width, height = (min(1.0, np.sqrt(area * part)) * size for part in (ratio, 1 / ratio))
    left, top = rng.uniform(0, size - width), rng.uniform(0, size - height)
    picture = Image.fromarray(image if image.shape[2] == 3 else image[:, :, 0])
    if flip and rng.random() < 0.5:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if crop < 1:
        box = (left, top, left + width, top + height)
        picture = picture.resize((size, size), Image.Resampling.BILINEAR, box=box)
    return np.asarray(picture).reshape(image.shape)


def _random_grey(image: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    brightness, contrast = rng.uniform(1 - share, 1 + share, 2)
    mean = image.mean()
    return np.rint((image - mean) * contrast + mean * brightness).clip(0, 255).astype(np.uint8)


def _check_images(images: np.ndarray, count: int, name: Path) -> None:
    if len(images) != count:
        raise DataError(f"{name}: one row per image was wanted. Received: {count} rows, {len(images)} images")
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1] != images.shape[2]:
        wanted = "square uint8 images of shape (n, size, size, channels)"
        raise DataError(f"{name}: {wanted} were wanted. Received: {images.dtype} {images.shape}")


def _copies(manifest: pd.DataFrame, name: Path) -> np.ndarray:
    if "copies" not in manifest:
        return np.ones(len(manifest), dtype=np.int64)
    copies = pd.to_numeric(manifest["copies"], errors="coerce").to_numpy(dtype=float)
    bad = np.flatnonzero(~(copies >= 0) | (copies % 1 != 0))
    if len(bad):
        value = manifest["copies"].iloc[bad[0]]
        raise DataError(
            f"{name}: row {bad[0] + 2}: `copies` must be a whole number from 0. Received: {value}"
        )
    return copies.astype(np.int64)
