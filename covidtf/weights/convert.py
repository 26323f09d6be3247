"""Weights between models of ours and torchvision's names and layout."""

import re
from collections.abc import Iterator

import numpy as np

from covidtf.files import DataError
from covidtf.training.devices import keras
from covidtf.training.networks import head_layers

_NAMES = {
    "kernel": "weight",
    "gamma": "weight",
    "bias": "bias",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}
# From Keras' axes to torch's and back: convolutions (h, w, in, out) and (out, in, h, w), dense layers.
_TO_TORCH = {4: (3, 2, 0, 1), 2: (1, 0), 1: (0,)}
_FROM_TORCH = {4: (2, 3, 1, 0), 2: (1, 0), 1: (0,)}
# DenseNet's checkpoints are older than the rule that a module's name has no dot.
_OLD = re.compile(r"(.*denselayer\d+\.(?:norm|conv))\.([12]\..*)")


def tensors_of(model: "keras.Model") -> dict[str, np.ndarray]:
    """All weights of a model by torchvision's names, float32, in torch's layout; the inverse of `assign`."""
    return {
        key: np.ascontiguousarray(np.asarray(variable).transpose(_TO_TORCH[len(variable.shape)]))
        for key, variable in _variables(model.layers)
    }


def assign(model: "keras.Model", tensors: dict[str, np.ndarray], name: str, head: bool) -> None:
    """Put weights in torchvision's names and layout into a model; all of them or, on an error, none.

    `num_batches_tracked`, which decides nothing, is left out, and DenseNet's old names are understood.

    Args:
        model: Of `networks.build`; its layers are named as torchvision's modules.
        tensors: Name -> floating point values.
        name: The file, for errors.
        head: Take over the head too; otherwise it stays as it is, and what `tensors` has for it is left out.
    Raises:
        DataError: If a tensor is missing, unknown, of another shape or type, holds NaN, infinity (also after
            the conversion to float32) or a negative variance; names the file and the tensor.
    """
    ends = tuple(f"{layer.name}." for layer in head_layers(model))
    wanted = dict(_variables(model.layers))
    given = _modern(tensors, name)
    if not head:
        wanted = {key: variable for key, variable in wanted.items() if not key.startswith(ends)}
        given = {key: values for key, values in given.items() if not key.startswith(ends)}
    _check_names(model.name, set(wanted), set(given), name)
    values = {key: _value(key, given[key], wanted[key], model.name, name) for key in wanted}
    for key, variable in wanted.items():
        variable.assign(values[key])


def _variables(layers: list) -> Iterator[tuple[str, object]]:
    for layer in layers:
        for variable in layer.weights:
            if variable.name not in _NAMES:
                raise ValueError(
                    f"`{layer.name}` has `{variable.name}`, which torchvision's networks have not"
                )
            yield f"{layer.name}.{_NAMES[variable.name]}", variable


def _modern(tensors: dict[str, np.ndarray], name: str) -> dict[str, np.ndarray]:
    renamed = {}
    for key, values in tensors.items():
        if key.endswith(".num_batches_tracked"):
            continue
        new = _OLD.sub(r"\1\2", key)
        if new in renamed:
            raise DataError(f"{name}: `{new}` is there twice, under its old name and its new one")
        renamed[new] = values
    return renamed


def _check_names(network: str, wanted: set[str], given: set[str], name: str) -> None:
    kinds = {"missing": sorted(wanted - given), "unknown": sorted(given - wanted)}
    found = [
        f"{len(keys)} {kind} ({', '.join(f'`{key:.100}`' for key in keys[:3])}{', ...' * (len(keys) > 3)})"
        for kind, keys in kinds.items()
        if keys
    ]
    if found:
        raise DataError(
            f"{name}: not the weights of a {network}: of {len(wanted)} tensors wanted, {' and '.join(found)}"
        )


def _value(key: str, values: np.ndarray, variable, network: str, name: str) -> np.ndarray:
    axes = len(variable.shape)
    shape = tuple(variable.shape[axis] for axis in _TO_TORCH[axes])
    if values.shape != shape:
        raise DataError(f"{name}: `{key}` of a {network} must have shape {shape}. Received: {values.shape}")
    if not np.issubdtype(values.dtype, np.floating):
        raise DataError(f"{name}: `{key}` must be floating point numbers. Received: {values.dtype}")
    with np.errstate(over="ignore"):
        values = values.astype(np.float32)
    finite = np.isfinite(values)
    if not finite.all():
        raise DataError(
            f"{name}: `{key}` must be finite. Received: NaN or infinity in {np.sum(~finite)} of {values.size}"
        )
    if key.endswith(".running_var") and values.min() < 0:
        raise DataError(f"{name}: `{key}` is a variance and must not be negative. Received: {values.min()}")
    return values.transpose(_FROM_TORCH[axes])
