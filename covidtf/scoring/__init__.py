"""Scoring: a finished run and image files in; one row per image out, and no file left out unsaid."""

import contextlib
import hashlib
import time
from functools import partial
from pathlib import Path

import numpy as np
from scipy.special import softmax

from covidtf.files import DataError, progress
from covidtf.images import decode, fit, needed, read_bytes
from covidtf.images.dicom import is_dicom
from covidtf.images.prepare import in_order
from covidtf.scoring.engines import ENGINES
from covidtf.scoring.tables import Tables, find, own_files, rejected_path
from covidtf.scoring.trained import Trained, read

__all__ = ["ENGINES", "Scorer", "find", "read", "rejected_path", "score", "score_files"]

_THREADS = 2  # that decode; they keep ahead of any network on as many cores


def score(
    run: str | Path, inputs: list[str | Path], out: str | Path, engine: str = "keras", batch_size: int = 32
) -> tuple[int, int]:
    """Score image files with a finished run's network, from the pixels that `images.prepare` would make.

    `out` gets the columns path, sha256 (of the file), one `score_<class>` per class and, if the run has a
    `metrics.json`, `above_threshold`: 1 where the score of its positive class is at least its cut-off
    threshold, else 0. `rejected_path(out)` gets path and reason of each file that cannot be scored. Rows are
    in the order of the paths. They are written as they are computed, under names that end in `.partial`;
    both files get their names at the end, and an interruption leaves what was done until then.

    Args:
        run: Run folder.
        inputs: Files, and folders that are searched to any depth (`find`).
        out: CSV file to write; one that exists is replaced at the end.
        engine: A key of `ENGINES`.
        batch_size: Images that go through the network together; changes scores by rounding alone.
    Returns:
        How many files were scored, how many rejected.
    Raises:
        ValueError: If `engine` is unknown or `batch_size` is not positive.
        DataError: No file, no finished run, altered weights or NaN in them, an engine that deviates.
        ImportError: If the engine's package is not installed.
    """
    trained, out = read(run), Path(out)
    paths = [path for path in find(inputs) if path.absolute() not in own_files(out)]
    if not paths:
        raise DataError(f"{', '.join(map(str, inputs))}: no files to score")
    return score_files(Scorer(trained, engine, min(batch_size, len(paths))), paths, out)


def score_files(scorer: "Scorer", paths: list[Path], out: str | Path) -> tuple[int, int]:
    """As `score`, of a list of files, with a network that may be loaded already."""
    tables, waiting = Tables(Path(out), scorer.trained), []
    work = partial(_prepare, trained=scorer.trained)
    # Four times as many chunks per thread are decoded ahead, so two batches.
    outcomes = in_order(work, paths, _THREADS, -(-scorer.batch_size // 4))
    with tables, contextlib.closing(outcomes):
        followed = progress(outcomes, "scoring", len(paths))
        for path, (sha256, outcome) in zip(paths, followed, strict=True):
            if isinstance(outcome, str):
                tables.reject(path, outcome)
            else:
                waiting.append((path, sha256, outcome))
            if len(waiting) == scorer.batch_size:
                _write(tables, scorer, waiting)
                waiting = []
        if waiting:
            _write(tables, scorer, waiting)
    return tables.scored, tables.rejected


class Scorer:
    """A run's network, ready for batches of images; loaded with the first of them.

    Args:
        trained: The run.
        engine: A key of `ENGINES`.
        batch_size: Largest number of images per call.
    Attributes:
        trained, batch_size: As given.
        load_seconds: How long loading took, an engine's export included; None before the first call.
    """

    def __init__(self, trained: Trained, engine: str = "keras", batch_size: int = 32) -> None:
        if engine not in ENGINES:
            raise ValueError(f"`engine` must be one of {list(ENGINES)}. Received: {engine!r}")
        if batch_size < 1:
            raise ValueError(f"`batch_size` must be at least 1. Received: {batch_size}")
        self.load_seconds: float | None = None
        self.trained, self.batch_size, self._engine = trained, batch_size, engine

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Scores of uint8 images `(n, size, size, channels)`: float32 `(n, classes)`, softmax of the logits.

        Raises:
            DataError: If a score is not a number.
        """
        count = len(images)
        # Always the same shape, or the network would be compiled once more for the last, smaller batch.
        padded = np.concatenate([images, np.repeat(images[-1:], self.batch_size - count, axis=0)])
        if self.load_seconds is None:
            start = time.perf_counter()
            self._network = ENGINES[self._engine](self.trained, padded)
            self.load_seconds = time.perf_counter() - start
        scores = softmax(self._network(padded)[:count], axis=1)
        if not np.isfinite(scores).all():
            raise DataError(f"{self.trained.weights}: the network's scores are not finite")
        return scores


def _prepare(path: Path, trained: Trained) -> tuple[str, np.ndarray | str]:
    """sha256 of a file and its pixels, or the reason why there are none."""
    try:
        data = read_bytes(path)
        if trained.deep and is_dicom(data):
            # Shown by the window in its header, it would not look like what the network learnt from.
            raise DataError("a DICOM file; of CT, slices are wanted as images, windowed as in notebook 02")
        decoded = decode(data, trained.channels, needed(trained.size, trained.crop))
    except DataError as error:
        return "", str(error)
    pixels = np.asarray(fit(decoded, trained.size, trained.crop, trained.grey))
    shape = (trained.size, trained.size, trained.channels)
    return hashlib.sha256(data).hexdigest(), pixels.reshape(shape)


def _write(tables: Tables, scorer: Scorer, waiting: list) -> None:
    paths, hashes, images = zip(*waiting, strict=True)
    tables.add(paths, hashes, scorer(np.stack(images)))
