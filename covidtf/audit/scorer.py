"""A finished run as a function of images, and what it says of images that were changed."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from covidtf import predictions, scoring
from covidtf.audit import controls
from covidtf.files import DataError, progress
from covidtf.scoring.trained import Trained

if TYPE_CHECKING:
    from covidtf.images.store import Prepared

# By which scores of unchanged images may differ from the run's own: rounding, not another network.
TOLERANCE = 1e-4


class RunScorer:
    """Scores of any number of images by a run's network.

    Args:
        run_folder: Folder of a finished run, with its weights; deeply supervised ones too.
        engine: A key of `scoring.ENGINES`.
        batch_size: Images that go through the network together.
    Attributes:
        trained: What is known of the run, `scoring.read`.
    Raises:
        ValueError: If `engine` is unknown.
        DataError: If it is no finished run, or its weights are absent or altered; names the file.
    """

    def __init__(self, run_folder: str | Path, engine: str = "keras", batch_size: int = 32) -> None:
        self.trained: Trained = scoring.read(run_folder)
        self._score = scoring.Scorer(self.trained, engine, batch_size)

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Scores of uint8 images `(n, size, size, channels)`: float32 `(n, classes)`."""
        size = self._score.batch_size
        starts = progress(range(0, len(images), size), f"scoring with {self.trained.network}")
        parts = [self._score(np.asarray(images[start : start + size])) for start in starts]
        return np.concatenate([np.empty((0, len(self.trained.classes)), np.float32), *parts])


def judged(table: pd.DataFrame, manifest: pd.DataFrame) -> tuple[pd.DataFrame, np.ndarray]:
    """Rows of a run's predictions that are judged, test or else val, and the rows of their images.

    Args:
        table: The run's predictions.
        manifest: Of the prepared images: those that it was trained with, or that these were made from.
    Returns:
        Predictions of one split, their index from 0; for each its row in `manifest`.
    Raises:
        DataError: If an image is not in `manifest`.
    """
    split = "test" if "test" in set(table["split"]) else "val"
    rows = table[table["split"] == split].reset_index(drop=True)
    places = pd.Index(manifest["image_id"]).get_indexer(rows["image_id"])
    if (places < 0).any():
        absent = rows["image_id"][places < 0]
        raise DataError(
            f"manifest: all images that the run scored were wanted. Not in it: {len(absent)}, first "
            f"{absent.iloc[0]}"
        )
    return rows, places


def rescored(score: RunScorer, images: np.ndarray, rows: pd.DataFrame) -> pd.DataFrame:
    """`rows` of a predictions table with the scores of these images, one per row."""
    table = rows[list(predictions.COLUMNS)].reset_index(drop=True)
    values = score(images).astype(float)
    columns = [f"score_{label}" for label in score.trained.classes]
    return pd.concat([table, pd.DataFrame(values, columns=columns)], axis=1)


def check_original(found: pd.DataFrame, rows: pd.DataFrame, name: str | Path) -> None:
    """Make sure that unchanged images get the scores that the run gave them.

    Raises:
        DataError: If a score differs by more than `TOLERANCE`; names the run.
    """
    columns = [column for column in found if column.startswith("score_")]
    difference = np.abs(found[columns].to_numpy() - rows[columns].to_numpy()).max()
    if not difference <= TOLERANCE:
        raise DataError(
            f"{name}: scores of unchanged images must be those of predictions.csv to {TOLERANCE}. "
            f"Received: a difference of {difference:.2g}; these are other images, or another network"
        )


def tested_only(
    score: RunScorer,
    prepared: "Prepared",
    masks: np.ndarray,
    table: pd.DataFrame,
    tried: Sequence[str] = controls.CONTROLS,
    seed: int = 0,
) -> dict[str, pd.DataFrame]:
    """What the run, as it was trained, says of the images it is judged on when they are changed.

    Images whose mask has no lungs are left out of every control, so that all tables are of the same images.

    Args:
        score: The run.
        prepared: Images uint8, shape `(n, size, size, channels)`, and their manifest, as in `judged`.
        masks: bool, shape `(n, size, size)`, one per prepared image, True in the lungs.
        table: The run's own predictions.
        tried: Of `controls.CONTROLS`.
        seed: Of the permutations of patches.
    Returns:
        Predictions table of the judged split (test, or else val) for each control.
    Raises:
        DataError: If the run's scores of the original images are not those of `table` (`check_original`),
            an image of it is absent, or no mask has lungs.
    """
    rows, places = judged(table, prepared.manifest)
    kept = controls.with_lungs(masks[places])
    if not kept.any():
        raise DataError(f"masks: lungs in one image at least were wanted. Received: none in {len(kept)}")
    rows, places = rows[kept].reset_index(drop=True), places[kept]
    same = np.asarray(prepared.images[places])
    original = rescored(score, same, rows)
    check_original(original, rows, score.trained.folder)
    found = {}
    for control in tried:
        changed = controls.apply(control, same, masks[places], seed)
        found[control] = original if control == "original" else rescored(score, changed, rows)
    return found
