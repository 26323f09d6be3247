"""Checkpoints: everything a run needs to go on after any interruption, in one file that is replaced whole."""

import contextlib
import fcntl
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from covidtf.files import DataError, atomic
from covidtf.training.devices import keras


def save(path: Path, model: "keras.Model", best: list[np.ndarray], record: dict) -> None:
    """Write model, optimiser, the best epoch's weights and `record` (JSON) to one file, atomically.

    What decides the next epoch is all in it but for the random numbers, which follow from (seed, epoch). A
    process killed while it writes leaves the file of the epoch before.
    """
    arrays = {f"model.{i}": np.asarray(value) for i, value in enumerate(model.weights)}
    arrays |= {f"optimizer.{i}": np.asarray(value) for i, value in enumerate(model.optimizer.variables)}
    arrays |= {f"best.{i}": value for i, value in enumerate(best)}
    with atomic(path) as temporary, temporary.open("wb") as file:
        np.savez(file, record=np.array(json.dumps(record)), **arrays)


def read_record(path: Path) -> dict:
    """The `record` of a checkpoint, without the arrays.

    Raises:
        DataError: If the file is not a whole checkpoint.
    """
    return json.loads(str(_read(path, "record")[0]))


def restore(path: Path, model: "keras.Model") -> list[np.ndarray]:
    """Put model and optimiser back to where `save` saw them; the model is compiled as it was then.

    Returns:
        The best epoch's weights, in the order of `model.weights`.
    Raises:
        DataError: If the file is not a whole checkpoint of such a model.
    """
    for kind, variables in (("model", model.weights), ("optimizer", model.optimizer.variables)):
        values = _read(path, *(f"{kind}.{i}" for i in range(len(variables))))
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)
    return _read(path, *(f"best.{i}" for i in range(len(model.weights))))


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other processes from running in `folder`; the lock goes with its process however that ends.

    Raises:
        DataError: If another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DataError(f"{folder}: another process is training in this folder") from error
        yield


def clean(path: Path) -> None:
    """Remove what killed processes left half-written beside `path`."""
    for left in path.parent.glob(f".{path.name}.*"):
        left.unlink()


def _read(path: Path, *names: str) -> list[np.ndarray]:
    try:
        # NumPy leaves a file of its own open where it turns out to be damaged.
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            return [file[name] for name in names]
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: a damaged checkpoint, delete it to start again: {error}") from error
