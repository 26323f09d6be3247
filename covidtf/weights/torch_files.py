"""Checkpoints of PyTorch, in both of its formats, read without PyTorch and without running anything."""

import io
import math
import os
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import numpy as np

from covidtf.files import DataError
from covidtf.weights.pickles import Storage, Tensor, load

_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
_NESTED = ("state_dict", "model", "model_state_dict")
# What the standard library raises on damaged files; a mistake of ours would most likely be something else.
_DAMAGE = (ValueError, TypeError, KeyError, EOFError, zipfile.BadZipFile, RuntimeError, struct.error)
_Fetch = Callable[[Storage], bytes]


def read(path: str | Path) -> dict[str, np.ndarray]:
    """Tensors of a checkpoint that `torch.save` wrote.

    Reads the zip format and the one before it (PyTorch 0.4 to 1.5, and `_use_new_zipfile_serialization=False`
    since). A state dict under `state_dict`, `model` or `model_state_dict` is taken out of what surrounds it,
    and the prefix `module.` of DataParallel is removed. bfloat16 becomes float32.

    Args:
        path: The file; it may come from anywhere, since nothing in it is run.
    Returns:
        Name -> read-only array: float16, float32, float64, int64 or uint8. Arrays that shared a storage
        share memory.
    Raises:
        DataError: If the file is absent, not a checkpoint, cut short or damaged, or its pickle asks for
            anything that tensors do not need; names the file, and the object asked for.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            start = file.read(4)
            file.seek(0)
            if start == b"PK\x03\x04":
                return _read_zip(file)
            if start[:1] == b"\x80":
                # In memory a length that lies is cut at the end; a file would be asked for that much.
                return _read_legacy(io.BytesIO(file.read()))
            raise ValueError("it begins neither as a zip archive nor as a pickle")
    except _DAMAGE as error:
        raise DataError(f"{path}: cannot be read as a checkpoint of PyTorch: {error}") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error


def decode(data: bytes, kind: str) -> np.ndarray:
    """Numbers in `data`, one-dimensional; `bfloat16` becomes float32, other kinds are NumPy's names."""
    if kind != "bfloat16":
        return np.frombuffer(data, kind)
    return (np.frombuffer(data, "<u2").astype("<u4") << 16).view("<f4")


def _read_zip(file: BinaryIO) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(file) as archive:
        entries = {info.filename: info for info in archive.infolist()}
        _check_entries(archive, os.fstat(file.fileno()).st_size)
        pickles = [name for name in entries if name.count("/") == 1 and name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise ValueError(f"one pickle `<name>/data.pkl` was wanted. Received: {len(pickles)}")
        top = pickles[0].removesuffix("/data.pkl")
        if f"{top}/constants.pkl" in entries:
            raise ValueError("it holds a TorchScript program; a state dict was wanted")
        order = archive.read(f"{top}/byteorder") if f"{top}/byteorder" in entries else b"little"
        if order.strip() != b"little":
            raise ValueError("it was written on a big-endian machine, which is not supported")
        content, _ = load(io.BytesIO(archive.read(pickles[0])))
        return _arrays(content, lambda storage: archive.read(f"{top}/data/{storage.key}"))


def _check_entries(archive: zipfile.ZipFile, size: int) -> None:
    entries = archive.infolist()
    if len({info.filename for info in entries}) != len(entries):
        raise ValueError("two entries have the same name")
    if any(info.compress_type != zipfile.ZIP_STORED for info in entries):
        raise ValueError("an entry is compressed, which PyTorch never does")
    # Entries that overlap, or lie about their size, could stand for far more than the file.
    if sum(info.file_size for info in entries) > size:
        raise ValueError("its entries are larger than the file")


def _read_legacy(file: io.BytesIO) -> dict[str, np.ndarray]:
    if load(file)[0] != _MAGIC or load(file)[0] != _PROTOCOL:
        raise ValueError("it is a pickle, but not one of `torch.save`")
    system = load(file)[0]
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise ValueError("it was not written on a little-endian machine, which is not supported")
    content, storages = load(file)
    keys, _ = load(file)
    texts = isinstance(keys, list) and all(type(key) is str for key in keys)
    if not texts or sorted(keys) != sorted(storages):
        raise ValueError("its list of storages is not that of its tensors")
    size, places = len(file.getbuffer()), {}
    for key in keys:
        (count,) = struct.unpack("<q", file.read(8))
        length = storages[key].count * _width(storages[key].kind)
        if count != storages[key].count or file.tell() + length > size:
            raise ValueError(
                f"storage {key:.40} has {count} elements, or fewer; its tensors say {storages[key].count}"
            )
        places[key] = (file.tell(), length)
        file.seek(length, os.SEEK_CUR)

    def fetch(storage: Storage) -> bytes:
        place, length = places[storage.key]
        file.seek(place)
        return file.read(length)

    return _arrays(content, fetch)


def _arrays(content: object, fetch: _Fetch) -> dict[str, np.ndarray]:
    tensors = _state_dict(content)
    storages = {}
    for tensor in tensors.values():
        storage = tensor.storage
        if storage.key not in storages:
            data = fetch(storage)
            if len(data) != storage.count * _width(storage.kind):
                raise ValueError(
                    f"storage {storage.key:.40} has {len(data)} bytes, not {storage.count} elements"
                )
            storages[storage.key] = decode(data, storage.kind)
    return {name: _view(name, tensor, storages[tensor.storage.key]) for name, tensor in tensors.items()}


def _width(kind: str) -> int:
    return 2 if kind == "bfloat16" else np.dtype(kind).itemsize


def _view(name: str, tensor: Tensor, storage: np.ndarray) -> np.ndarray:
    """The tensor without a copy, so that no shape in a file can allocate anything."""
    count = math.prod(tensor.shape)
    if count == 0:
        return np.empty(tensor.shape, storage.dtype)
    last = tensor.offset + sum(
        (size - 1) * stride for size, stride in zip(tensor.shape, tensor.strides, strict=True)
    )
    if last >= len(storage) or count > len(storage):
        raise ValueError(
            f"`{name:.100}` of shape {tensor.shape!s:.100} leaves its storage of {len(storage)} elements"
        )
    width = storage.dtype.itemsize
    strides = tuple(stride * width for stride in tensor.strides)
    view = np.ndarray(tensor.shape, storage.dtype, storage, tensor.offset * width, strides)
    view.flags.writeable = False
    return view


def _state_dict(content: object) -> dict[str, Tensor]:
    """The part of a checkpoint that maps names to tensors, without DataParallel's prefix."""
    if not isinstance(content, dict):
        raise ValueError(f"a state dict was wanted. Received: {type(content).__name__}")
    inner = next((content[name] for name in _NESTED if isinstance(content.get(name), dict)), content)
    other = [name for name, value in inner.items() if type(name) is not str or not isinstance(value, Tensor)]
    if other or not inner:
        came = f"entries {[str(name)[:40] for name in other[:5]]} that are none" if other else "an empty dict"
        raise ValueError(f"tensors by name were wanted. Received: {came}")
    if all(name.startswith("module.") for name in inner):
        inner = {name.removeprefix("module."): tensor for name, tensor in inner.items()}
    return inner
