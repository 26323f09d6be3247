"""Where a network's weights come from and where they are kept."""

import sys
import tempfile
import warnings
from pathlib import Path

from covidtf.config import ROOT
from covidtf.files import DataError, read_json, sha256
from covidtf.training.devices import keras
from covidtf.training.networks import NETWORKS, build

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
        DataError: If the file is absent, cut short or of another model; names it.
    """
    try:
        with warnings.catch_warnings():
            # Keras only warns where it leaves a layer as it was.
            warnings.simplefilter("error", UserWarning)
            model.load_weights(folder / WEIGHTS)
    except (OSError, ValueError, KeyError, UserWarning) as error:
        raise DataError(f"{folder / WEIGHTS}: not weights of this {model.name}: {error}") from error


def start(model: "keras.Model", weights: str, classes: list[str]) -> dict[str, str]:
    """Take over the weights that a run starts from.

    Args:
        model: Freshly built for `classes`.
        weights: `none`, or the folder of a finished run of the same network; relative paths start at the
            repository's root. Its head is taken over if it was trained for the same classes; otherwise the
            head stays new, which is said on standard error.
        classes: The model's classes in their order.
    Returns:
        For the run's record: `weights` (`none`, or the file's sha256) and `head` (`new` or `kept`).
    Raises:
        ValueError: If the run is of another network.
        DataError: If there is no finished run, or its weights are not those it recorded; names the file.
    """
    if weights == "none":
        return {"weights": "none", "head": "new"}
    folder = ROOT / Path(weights).expanduser()
    record = _record(folder, model.name)
    earlier_classes = record["settings"]["classes"]
    earlier = build(model.name, len(earlier_classes))
    load(earlier, folder)
    kept = earlier_classes == classes
    for layer in earlier.layers:
        if kept or layer.name != NETWORKS[model.name].head:
            model.get_layer(layer.name).set_weights(layer.get_weights())
    if not kept:
        print(f"{weights} was trained for {earlier_classes}: the head is new", file=sys.stderr)
    return {"weights": record["sha256"][WEIGHTS], "head": "kept" if kept else "new"}


def _record(folder: Path, network: str) -> dict:
    if not (folder / RECORD).is_file():
        raise DataError(f"{folder}: `weights` must be 'none' or a finished run's folder; {RECORD} is missing")
    record = read_json(folder / RECORD)
    found = record["settings"]["network"]
    if found != network:
        raise ValueError(f"`weights` must be of a {network}. Received: {folder}, a {found}")
    if not (folder / WEIGHTS).is_file():
        raise DataError(f"{folder / WEIGHTS}: no such file; weights are not published, train that run first")
    if WEIGHTS in changed(folder, record):
        raise DataError(f"{folder / WEIGHTS}: not the weights that {RECORD} recorded, sha256 differs")
    return record
