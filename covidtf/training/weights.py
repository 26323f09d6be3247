"""The weights that a run of ours keeps: written, compared with their record, read."""

import tempfile
import warnings
from pathlib import Path

import numpy as np

from covidtf.files import DataError, sha256
from covidtf.training.devices import keras

WEIGHTS = "best.weights.h5"
RECORD = "training.json"
KEPT = (WEIGHTS, "history.csv", "predictions.csv")


def save(model: "keras.Model", folder: Path) -> None:
    """Write `best.weights.h5` in one step, for `load` or Keras' `load_weights`."""
    # A model that was never compiled, or Keras would add the optimiser's state, three times the size.
    bare = keras.Model(model.inputs, model.outputs, name=model.name)
    with tempfile.TemporaryDirectory(prefix=".", dir=folder) as scratch:
        # Keras insists on the ending, so the temporary file cannot be named as `files.atomic` does.
        bare.save_weights(Path(scratch, WEIGHTS))
        Path(scratch, WEIGHTS).replace(folder / WEIGHTS)


def changed(folder: Path, record: dict) -> list[str]:
    """Which of a finished run's files (`KEPT`) are lost, or not those whose sha256 `record` holds."""
    recorded = record.get("sha256", {})
    return [
        name for name in KEPT if not (folder / name).is_file() or sha256(folder / name) != recorded.get(name)
    ]


def load(model: "keras.Model", folder: Path) -> None:
    """Read `best.weights.h5` into a model of the same network and classes.

    Raises:
        DataError: If the file is absent, cut short, of another model, or a number in it is not finite; names
            it and the tensor.
    """
    try:
        with warnings.catch_warnings():
            # Keras only warns where it leaves a layer as it was.
            warnings.simplefilter("error", UserWarning)
            model.load_weights(folder / WEIGHTS)
    except (OSError, ValueError, KeyError, UserWarning) as error:
        raise DataError(f"{folder / WEIGHTS}: not weights of this {model.name}: {error}") from error
    for variable, value in zip(model.weights, model.get_weights(), strict=True):
        # Not left to the scores: a ReLU turns NaN into 0.
        if not np.isfinite(value).all():
            raise DataError(f"{folder / WEIGHTS}: {variable.path} is not finite")
