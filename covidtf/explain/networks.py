"""A finished run's heat maps of the images that it is judged on."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from covidtf.audit.scorer import RunScorer, check_original, judged, rescored
from covidtf.explain import evidence, occlusion
from covidtf.explain.gradcam import GradCAM, main_only
from covidtf.files import DataError, progress
from covidtf.images.store import Prepared
from covidtf.scoring.engines import load_network
from covidtf.scoring.trained import Trained

__all__ = ["Subject", "drawn", "load", "occluded", "weighed"]

_AT_A_TIME = 64
_POSITIVE = "COVID-19"


@dataclass(frozen=True)
class Subject:
    """A network and the images that it is judged on.

    Attributes:
        trained: The run.
        model: In Keras, from pixels to logits, in float32.
        images: uint8, shape `(n, size, size, channels)`.
        masks: bool, shape `(n, size, size)`, True in the lungs.
        calls: Of `evidence.told`.
        positive: The class that is detected.
    """

    trained: Trained
    model: "keras.Model"  # noqa: F821
    images: npt.NDArray
    masks: npt.NDArray
    calls: pd.DataFrame
    positive: str


def load(folder: str | Path, table: pd.DataFrame, prepared: Prepared, masks: npt.NDArray) -> Subject:
    """Read a run with its weights, and make sure that it is the network that gave these predictions.

    Args:
        folder: The run folder.
        table: The run's predictions; test is judged, or else val.
        prepared: What it was trained on, or the originals of that.
        masks: One per prepared image, bool, shape `(m, size, size)`.
    Raises:
        DataError: No finished run, weights absent or altered, images absent, or scores that are not those of
            `table`; names the run.
    """
    rows, places = judged(table, prepared.manifest)
    images, score = np.asarray(prepared.images[places]), RunScorer(folder)
    check_original(rescored(score, images, rows), rows, folder)
    trained = score.trained
    size = (trained.size, trained.size, trained.channels)
    if images.shape[1:] != size:
        raise DataError(f"{folder}: images of shape {size} were wanted. Received: {images.shape[1:]}")
    positive = trained.positive or (_POSITIVE if _POSITIVE in trained.classes else trained.classes[0])
    calls = evidence.told(rows, trained.classes, positive, trained.threshold)
    model = main_only(load_network(trained, "float32"))
    return Subject(trained, model, images, masks[places], calls, positive)


def weighed(subject: Subject, cam: GradCAM) -> pd.DataFrame:
    """The evidence of Grad-CAM in every image.

    Returns:
        `evidence.of_images` with `peak`, the map's maximum before it was scaled.
    """
    parts = []
    for start in progress(
        range(0, len(subject.images), _AT_A_TIME), f"Grad-CAM of {subject.trained.network}"
    ):
        part = slice(start, start + _AT_A_TIME)
        calls = subject.calls.iloc[part]
        maps, peaks = cam(subject.images[part], calls["class_index"].to_numpy())
        parts.append(evidence.of_images(calls, maps, subject.masks[part], "Grad-CAM").assign(peak=peaks))
    return pd.concat(parts, ignore_index=True)


def occluded(
    subject: Subject, occluder: occlusion.Occluder, index: npt.ArrayLike, of: str = "score"
) -> tuple[npt.NDArray, pd.DataFrame]:
    """Occlusion maps of some images, and their evidence.

    Args:
        subject: The network and its images.
        occluder: Made of its model.
        index: Which images.
        of: As in `occlusion.falls`.
    Returns:
        Maps, shape `(m, size, size)`, in units of the score or log odds; `evidence.of_images` with `peak`,
        the largest fall.
    """
    index, maps = np.asarray(index, int), []
    calls = subject.calls.iloc[index]
    wanted = zip(index, calls["class_index"], strict=True)
    for image, class_index in progress(wanted, f"occlusion of {subject.trained.network}", len(index)):
        whole, logits = occluder(subject.images[image])
        found = occlusion.falls(whole, logits, class_index, of)
        maps.append(occlusion.heat_map(found, occluder.size, occluder.window, occluder.stride))
    maps = np.stack(maps) if maps else np.empty((0, occluder.size, occluder.size))
    table = evidence.of_images(calls, maps, subject.masks[index], "occlusion")
    return maps, table.assign(peak=np.maximum(maps.max(axis=(1, 2), initial=0), 0))


def drawn(images: int, most: int, seed: int = 0) -> npt.NDArray[np.int64]:
    """Which images are drawn for occlusion: the same of every network with the same images.

    Args:
        images: How many there are.
        most: How many are drawn at most.
        seed: Not negative.
    """
    return np.sort(np.random.default_rng([seed, 0x0CC1]).permutation(images)[:most])
