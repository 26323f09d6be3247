"""What a run starts from: nothing, ImageNet's weights, those in the package, a checkpoint file, another run.

Never silently random: whatever is not exactly what was asked for is an error, and every run records the
sha256 of what it started from. Keras is imported where a model is at hand and not before, so that the runner
of notebooks can ask `places` without it.
"""

import json
import sys
from pathlib import Path

import numpy as np

from covidtf.files import DataError, read_json, sha256, write_json
from covidtf.weights import imagenet, places, safetensors_files, torch_files

_FORMAT = {"format": "pt"}


def start(model, weights: str, classes: list[str]) -> dict[str, object]:
    """Take over the weights that a run starts from.

    The head is taken over where it is known to be for the same classes in the same order; otherwise it stays
    new, which is said on standard error.

    Args:
        model: Freshly built by `networks.build` for `classes`.
        weights: `none`; `imagenet`, torchvision's published checkpoint (`imagenet.path`); the name of weights
            in the package (`tiny-imagenet`); a checkpoint file in torchvision's names (.pth or .pt of
            PyTorch, .safetensors); or the folder of a finished run of the same network, whose auxiliary heads
            are left out. Relative paths start at the repository's root.
        classes: The model's classes in their order.
    Returns:
        For the run's record: `weights` (`none`, or the file's sha256), `source` (not for `none`: `imagenet`,
        the name of weights in the package, the file's name without folders, or the run's id), `head` (`new`
        or `kept`), and for a run also `sources`, the data it learnt from, and `started_from`, its own record.
    Raises:
        ValueError: If the weights are of another network.
        DataError: If there is nothing of that name, or it is not what its record or table says, or not
            weights of this network; names the file and the tensor.
    """
    ways = {"imagenet": _from_imagenet, "shipped": _from_shipped, "file": _from_file, "run": _from_run}
    kind = places.kind(weights)
    if kind == "none":
        return {"weights": "none", "head": "new"}
    return ways[kind](model, weights, classes)


def export(model, classes: list[str], path: str | Path, dtype: str = "float32", **metadata: str) -> Path:
    """Write a model's weights for everyone: .safetensors in torchvision's names and PyTorch's layout.

    PyTorch reads it by `network.load_state_dict(safetensors.torch.load_file(path))`, and `start` does.

    Args:
        model: Of `networks.build`.
        classes: The model's classes in their order; they go into the file's metadata.
        path: File to write, in one step.
        dtype: `float32` or `float16`, which halves the size and rounds to 11 bits.
        metadata: More of it, as text.
    Raises:
        ValueError: If `classes` does not fit the model, or a weight is not finite in `dtype`.
    """
    from covidtf.weights import convert

    if len(classes) != model.output_shape[-1]:
        raise ValueError(f"`classes` must be {model.output_shape[-1]}. Received: {len(classes)}")
    with np.errstate(over="ignore"):
        tensors = {name: values.astype(dtype) for name, values in convert.tensors_of(model).items()}
    for name, values in tensors.items():
        if not np.isfinite(values).all():
            raise ValueError(f"`{name}` must be finite in {dtype}, to be written to {path}")
    metadata = _FORMAT | {"network": model.name, "classes": json.dumps(classes)} | metadata
    return safetensors_files.write(tensors, path, metadata)


def write_shipped(model, name: str, record: dict, folder: Path = places.SHIPPED) -> Path:
    """Make weights that ship: `<network>-<name>.safetensors` in float16, and its record as .json beside it.

    Args:
        model: Of `networks.build`, trained.
        name: What `weights` calls them, e.g. `tiny-imagenet`.
        record: How they came about: at least `classes` in the model's order; network, name, bytes, dtype
            and sha256 of the file are added.
        folder: Where.
    Returns:
        The file of the weights.
    """
    stem = folder / f"{model.name}-{name}"
    file = export(model, record["classes"], stem.with_name(f"{stem.name}.safetensors"), "float16", name=name)
    found = {"sha256": sha256(file), "bytes": file.stat().st_size, "dtype": "float16"}
    write_json(record | {"network": model.name, "name": name} | found, stem.with_name(f"{stem.name}.json"))
    return file


def _from_imagenet(model, weights: str, classes: list[str]) -> dict[str, object]:
    file = imagenet.path(model.name)
    return _take(
        model, file, torch_files.read(file), kept=False, source="imagenet", said="ImageNet's classes"
    )


def _from_shipped(model, weights: str, classes: list[str]) -> dict[str, object]:
    file, record = places.shipped(weights, model.name)
    tensors, _ = safetensors_files.read(file)
    theirs = record["classes"]
    return _take(model, file, tensors, theirs == classes, weights, _shown(theirs))


def _from_file(model, weights: str, classes: list[str]) -> dict[str, object]:
    file, metadata = places.locate(weights), {}
    if file.suffix == ".safetensors":
        tensors, metadata = safetensors_files.read(file)
    else:
        tensors = torch_files.read(file)
    if metadata.get("network", model.name) != model.name:
        raise ValueError(f"`weights` must be of a {model.name}. Received: {file}, a {metadata['network']}")
    theirs = _classes(metadata.get("classes", "null"), file)
    said = "classes that it does not name" if theirs is None else _shown(theirs)
    return _take(model, file, tensors, theirs == classes, file.name, said)


def _classes(text: str, file: Path) -> list[str] | None:
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(f"{file}: `classes` in its metadata must be JSON: {error}") from error
    if found is not None and not (isinstance(found, list) and all(isinstance(x, str) for x in found)):
        raise DataError(f"{file}: `classes` in its metadata must be a list of names. Received: {text:.200}")
    return found


def _take(model, file: Path, tensors: dict, kept: bool, source: str, said: str) -> dict[str, object]:
    from covidtf.weights import convert

    convert.assign(model, tensors, str(file), head=kept)
    _say_head(source, said, kept)
    return {"weights": sha256(file), "source": source, "head": "kept" if kept else "new"}


def _from_run(model, weights: str, classes: list[str]) -> dict[str, object]:
    from covidtf.training import networks
    from covidtf.training.weights import WEIGHTS

    folder = places.locate(weights)
    places.check_network(folder, model.name)
    record = finished_run(folder)
    theirs = record["settings"]["classes"]
    earlier = load_run(folder, record["settings"])
    kept = theirs == classes
    heads = {layer.name for layer in networks.head_layers(earlier)}
    for layer in earlier.layers:
        # Layers without weights may differ: that run's images may have had another number of channels.
        if layer.weights and (kept or layer.name not in heads):
            model.get_layer(layer.name).set_weights(layer.get_weights())
    _say_head(weights, _shown(theirs), kept)
    found = {"weights": record["sha256"][WEIGHTS], "source": folder.resolve().name}
    told = {
        name: record["settings"][name] for name in ("sources", "started_from") if name in record["settings"]
    }
    return found | {"head": "kept" if kept else "new"} | told


def load_run(folder: Path, settings: dict):
    """The network of a run with its weights: of one with auxiliary heads the network without them.

    Args:
        settings: Of its `training.json`; without `shape` images are taken to be grey.
    Returns:
        A model of `networks.build`.
    Raises:
        DataError: As `training.weights.load`.
    """
    from covidtf.training.networks import supervised
    from covidtf.training.weights import load

    model = supervised.restore({"shape": (224, 224, 1)} | settings)
    load(model, folder)
    return supervised.plain(model) if "auxiliary" in settings else model


def finished_run(folder: Path) -> dict:
    """The record of a finished run whose weights are there and are those of the record.

    Raises:
        DataError: If they are not; names the file.
    """
    from covidtf.training.weights import RECORD, WEIGHTS, changed

    if not (folder / RECORD).is_file():
        raise DataError(f"`weights`: {folder} is not the folder of a finished run, {RECORD} is missing")
    record = read_json(folder / RECORD)
    if not {"network", "classes"} <= set(record.get("settings") or {}):
        raise DataError(f"{folder / RECORD}: not the record of a finished run: no network or classes in it")
    if not (folder / WEIGHTS).is_file():
        raise DataError(f"{folder / WEIGHTS}: no such file; weights are not published, train that run first")
    if WEIGHTS in changed(folder, record):
        raise DataError(f"{folder / WEIGHTS}: not the weights that {RECORD} recorded, sha256 differs")
    return record


def _shown(classes: list[str]) -> str:
    return str(classes) if len(classes) <= 10 else f"{len(classes)} classes"


def _say_head(weights: str, said: str, kept: bool) -> None:
    if not kept:
        print(f"{weights} was trained for {said}: the head is new", file=sys.stderr)
