"""Checkpoints: everything a run needs to go on after any interruption, in one file that is replaced whole.

And whether a run needs to go on at all, or is finished.
"""

import json
import sys
import zipfile
from pathlib import Path

import numpy as np

from covidtf.files import DataError, atomic, read_json
from covidtf.training import weights
from covidtf.training.devices import keras


def save(path: Path, model: "keras.Model", optimizer, best: list[np.ndarray], record: dict) -> None:
    """Write model, optimiser, the best epoch's weights and `record` (JSON) to one file, atomically.

    What decides the next epoch is all in it but for the random numbers, which follow from (seed, epoch). A
    process killed while it writes leaves the file of the epoch before.
    """
    arrays = {f"model.{i}": np.asarray(value) for i, value in enumerate(model.weights)}
    arrays |= {f"optimizer.{i}": np.asarray(value) for i, value in enumerate(optimizer.variables)}
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
    """Put the model back to where `save` saw it.

    Returns:
        The best epoch's weights, in the order of `model.weights`.
    Raises:
        DataError: If the file is not a whole checkpoint of such a model.
    """
    _assign(path, "model", model.weights)
    return _read(path, *(f"best.{i}" for i in range(len(model.weights))))


def restore_optimizer(path: Path, optimizer) -> None:
    """Put an optimiser of the same variables back to where `save` saw it.

    Raises:
        DataError: As `restore`.
    """
    _assign(path, "optimizer", optimizer.variables)


def _assign(path: Path, kind: str, variables: list) -> None:
    values = _read(path, *(f"{kind}.{i}" for i in range(len(variables))))
    for variable, value in zip(variables, values, strict=True):
        if tuple(variable.shape) != value.shape:
            wanted = tuple(variable.shape)
            raise DataError(
                f"{path}: {kind} of shape {wanted} was wanted, delete it. Received: {value.shape}"
            )
        variable.assign(value)


def is_finished(settings: dict, folder: Path) -> bool:
    """Whether `folder` holds a whole run of `settings`; if it is another or an altered one, says so."""
    path = folder / weights.RECORD
    if not path.is_file():
        return False
    record = read_json(path)
    if not is_same(settings, record["settings"], path):
        return False
    changed = weights.changed(folder, record)
    if changed:
        print(f"{folder.name}: {', '.join(changed)} lost or altered: trained anew", file=sys.stderr)
    return not changed


def is_same(settings: dict, found: dict, path: Path) -> bool:
    """Whether the settings `found` in a record are those of this run; if not, says which differ."""
    differs = sorted(key for key in settings if found.get(key) != settings[key])
    if differs:
        # Without the folders above, since what a notebook prints may be published.
        name = f"{path.parent.name}/{path.name}"
        print(f"{name} is of another run, {', '.join(differs)} changed: trained anew", file=sys.stderr)
    return not differs


def continued(origin: dict, earlier: dict) -> dict:
    """Origin of a run that another process goes on with.

    Args:
        origin: What this process computes with (`runs.origin`, and more).
        earlier: What the run was computed with up to its checkpoint.
    Returns:
        `earlier`, if the two differ in time and command alone. Otherwise `origin` with `continues`, the
        earlier one, and `dirty` as soon as one of them is.
    """
    if all(earlier.get(key) == origin[key] for key in origin.keys() - {"time", "command"}):
        return earlier
    return origin | {"dirty": origin["dirty"] or earlier["dirty"], "continues": earlier}


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
