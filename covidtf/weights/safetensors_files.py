"""Weights as .safetensors files: numbers and names only, readable wherever the format is known."""

from pathlib import Path

import numpy as np
from safetensors import SafetensorError, deserialize, safe_open
from safetensors.numpy import save_file

from covidtf.files import DataError, atomic
from covidtf.weights.torch_files import decode

_KINDS = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "bfloat16", "I64": "<i8", "U8": "|u1"}


def read(path: str | Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Tensors and metadata of a file; bfloat16 becomes float32.

    Raises:
        DataError: If the file is absent, cut short or not of this format, or holds another type of number;
            names the file.
    """
    path = Path(path)
    try:
        # The reader of the metadata maps the file into memory, the other one takes bytes.
        with safe_open(path, framework="numpy") as file:
            metadata = dict(file.metadata() or {})
        parts = deserialize(path.read_bytes())
    except (SafetensorError, OSError) as error:
        raise DataError(f"{path}: not a safetensors file, or a damaged one: {error}") from error
    tensors = {}
    for name, part in parts:
        if part["dtype"] not in _KINDS:
            raise DataError(f"{path}: `{name}` must be one of {list(_KINDS)}. Received: {part['dtype']}")
        tensors[name] = decode(part["data"], _KINDS[part["dtype"]]).reshape(part["shape"])
    return tensors, metadata


def write(tensors: dict[str, np.ndarray], path: str | Path, metadata: dict[str, str]) -> Path:
    """Write tensors and metadata in one step; the same content gives the same bytes."""
    with atomic(path) as temporary:
        contiguous = {name: np.ascontiguousarray(values) for name, values in tensors.items()}
        save_file(contiguous, temporary, metadata)
    return Path(path)
