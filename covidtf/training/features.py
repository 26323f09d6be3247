"""Features of a frozen backbone: computed once per image, kept on disk, found again by content."""

import hashlib
import json
import os
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np

from covidtf.files import DataError, atomic, locked, progress, write_json
from covidtf.training.devices import environment, keras
from covidtf.training.networks import split_model

BATCH = 32
CHUNK = 64  # features whose checksums are looked at together
RULES = 1  # to be raised when the same weights and pixels would give other features


class Features:
    """Features by the rows of the images they are of, read from disk when they are asked for.

    `features[rows]` is a float32 array `(m, *shape)`, so that `Batches` takes it where it takes images.

    Attributes:
        shape: `(images, *features)`: `(n, 512)` for ResNet18's, `(n, height, width, 512)` for SqueezeNet's.
        dtype: float32.
    """

    dtype = np.dtype("<f4")

    def __init__(self, files: list[Path], file: np.ndarray, offset: np.ndarray, shape: tuple[int, ...]):
        self.files, self.file, self.offset = files, file, offset
        self.shape = (len(file), *shape)

    def __len__(self) -> int:
        return len(self.file)

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """The features of `rows`, in their order.

        Raises:
            IndexError: If a row was not among those that `features` was called with.
            DataError: If a file has become shorter.
        """
        rows = np.asarray(rows)
        if (self.file[rows] < 0).any():
            raise IndexError(f"no features of image {rows[self.file[rows] < 0][0]} were asked for")
        values = np.empty((len(rows), *self.shape[1:]), self.dtype)
        for index in np.unique(self.file[rows]):
            # Read, not mapped: a mapping would count as memory, and end the process where a file shrinks.
            with self.files[index].open("rb", buffering=0) as opened:
                for place in np.flatnonzero(self.file[rows] == index):
                    got = os.preadv(opened.fileno(), [values[place]], self.offset[rows[place]])
                    if got != values[place].nbytes:
                        raise DataError(f"{self.files[index]}: a feature cache cut short, delete it")
        return values


def features(
    model: "keras.Model", images: np.ndarray, rows: np.ndarray, folder: str | Path, batch_size: int = BATCH
) -> Features:
    """Outputs of the model's backbone in inference mode, each distinct image computed once and then kept.

    An image is known by its pixels, a backbone by everything that decides its output: network, weights as
    numbers, size and channels of the input, precision, backend and its version, graphics card. So augmented
    or repeated images, other orders and other experiments find what is there, and other weights do not.

    In float32 the batch normalisations are folded into the convolutions before them (`fold`), which moves
    features by about 1e-6 of their size. All batches have the same shape, the last is padded.

    Args:
        model: As built by `networks.build`.
        images: uint8, shape `(n, size, size, channels)`.
        rows: Which of them, in any order, repeated or not.
        folder: Of the caches. Each backbone has a folder in it, with `backbone.json`, which says what it is
            of, and one `.npy` file for each call that found images missing: an array of image (hex sha256),
            crc32 and features.
        batch_size: Images computed together; counts among what decides, because it may change rounding.
    Raises:
        DataError: If a cache is cut short or altered, or another process is adding to it; names the file.
        FloatingPointError: If a weight or a feature is not finite.
    """
    backbone = split_model(model)[0]
    about = _about(model.name, backbone, batch_size)
    key = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()
    folder = Path(folder) / f"{model.name}-{key[:16]}"
    rows = np.unique(rows)
    names = [_name(key, images[row]) for row in progress(rows, "hashing images")]
    cache = _Cache(folder, backbone.output.shape[1:])
    if not cache.places.keys() >= set(names):
        with locked(folder, "computing features"):
            for left in folder.glob(".*.npy.*"):
                left.unlink()
            # Another process may have been quicker.
            cache = _Cache(folder, backbone.output.shape[1:])
            missing = {name: row for name, row in zip(names, rows, strict=True) if name not in cache.places}
            if missing:
                write_json(about, folder / "backbone.json")
                cache.add(missing, backbone, images, batch_size)
    return cache.found(names, rows, len(images))


def fold(model: "keras.Model") -> "keras.Model":
    """The same function for inference, each batch normalisation right after a convolution folded into it.

    The convolution's kernel is multiplied by gamma / sqrt(variance + epsilon), its bias takes the rest.
    Layers keep their names; those folded away are missing. Weights are copies.
    """
    source = {id(layer.output): layer for layer in model.layers}
    used = Counter(id(tensor) for layer in model.layers for tensor in keras.tree.flatten(layer.input))
    norms = {}
    for layer in model.layers:
        before = source.get(id(layer.input))
        pair = isinstance(layer, keras.layers.BatchNormalization) and isinstance(before, keras.layers.Conv2D)
        if pair and used[id(layer.input)] == 1:
            norms[before.name] = layer
    gone = {layer.name for layer in norms.values()}

    def clone(layer):
        return type(layer).from_config(
            layer.get_config() | ({"use_bias": True} if layer.name in norms else {})
        )

    def call(layer, *args, **options):
        return args[0] if layer.name in gone else layer(*args, **options)

    folded = keras.models.clone_model(model, clone_function=clone, call_function=call)
    for layer in folded.layers:
        values = model.get_layer(layer.name).get_weights()
        layer.set_weights(_fold(values, norms[layer.name]) if layer.name in norms else values)
    return folded


def forward(model: "keras.Model") -> Callable[[np.ndarray], np.ndarray]:
    """The model in inference mode as a function of a batch, folded (`fold`) if all of it is in float32."""
    if all(layer.dtype_policy.name == "float32" for layer in model.layers):
        model = fold(model)
    # XLA halves the speed of TensorFlow's CPU steps.
    model.compile(jit_compile=False if keras.backend.backend() == "tensorflow" else "auto")
    return model.predict_on_batch


def _fold(values: list[np.ndarray], norm: "keras.Layer") -> list[np.ndarray]:
    """Kernel and bias of a convolution with the normalisation after it in them."""
    gamma, beta, mean, variance = (value.astype(np.float64) for value in norm.get_weights())
    scale = gamma / np.sqrt(variance + norm.epsilon)
    bias = values[1] if len(values) > 1 else 0
    return [(values[0] * scale).astype("float32"), ((bias - mean) * scale + beta).astype("float32")]


class _Cache:
    """The `.npy` files of one backbone: records of image, crc32 and features."""

    def __init__(self, folder: Path, shape: tuple[int, ...]):
        self.folder, self.shape = folder, tuple(shape)
        self.record = np.dtype([("image", "S64"), ("crc32", "<u4"), ("features", "<f4", self.shape)])
        self.files, self.places = [], {}
        for path in sorted(folder.glob("*.npy")):
            self._open(path)

    def _open(self, path: Path) -> None:
        try:
            table = np.lib.format.open_memmap(path, mode="r")
        except (ValueError, EOFError) as error:
            raise DataError(f"{path}: a damaged feature cache, delete it: {error}") from error
        if table.dtype != self.record or path.stat().st_size != table.offset + table.nbytes:
            raise DataError(
                f"{path}: a damaged feature cache, delete it: records of {self.record.itemsize} bytes were "
                f"wanted. Received: {table.dtype.itemsize} bytes, a file of {path.stat().st_size}"
            )
        first = table.offset + self.record.fields["features"][1]
        for index, (name, crc) in enumerate(
            zip(table["image"].tolist(), table["crc32"].tolist(), strict=True)
        ):
            self.places[name] = (len(self.files), first + index * self.record.itemsize, crc)
        self.files.append(path)

    def add(self, missing: dict[bytes, int], backbone, images: np.ndarray, batch_size: int) -> None:
        """Compute the features of `missing` (name to row) and keep them, all of them or none."""
        names, rows = list(missing), np.array(list(missing.values()))
        path = self.folder / f"{hashlib.sha256(b''.join(names)).hexdigest()[:16]}.npy"
        header = np.lib.format.header_data_from_array_1_0(np.empty(0, self.record)) | {"shape": (len(rows),)}
        compute = forward(backbone)
        with atomic(path) as temporary, temporary.open("wb") as file:
            np.lib.format.write_array_header_2_0(file, header)
            for start in progress(range(0, len(rows), batch_size), backbone.name):
                part = rows[start : start + batch_size]
                padded = np.pad(part, (0, batch_size - len(part)), mode="edge")
                table = np.empty(len(part), self.record)
                table["features"] = compute(images[padded])[: len(part)]
                finite = np.isfinite(table["features"]).reshape(len(part), -1).all(axis=1)
                if not finite.all():
                    raise FloatingPointError(
                        f"{backbone.name}: the features of image {part[~finite][0]} are not finite"
                    )
                table["image"] = names[start : start + batch_size]
                table["crc32"] = [zlib.crc32(values.tobytes()) for values in table["features"]]
                file.write(table.tobytes())
        self._open(path)

    def found(self, names: list[bytes], rows: np.ndarray, images: int) -> Features:
        """Features of `rows`, whose images have these names, after a look at every checksum."""
        file, offset = np.full(images, -1), np.zeros(images, np.int64)
        file[rows] = [self.places[name][0] for name in names]
        offset[rows] = [self.places[name][1] for name in names]
        values = Features(self.files, file, offset, self.shape)
        for start in range(0, len(rows), CHUNK):
            part = rows[start : start + CHUNK]
            for name, row, found in zip(names[start : start + CHUNK], part, values[part], strict=True):
                if zlib.crc32(found) != self.places[name][2]:
                    raise DataError(
                        f"{self.files[file[row]]}: a damaged feature cache, delete it: checksum differs"
                    )
        return values


def _about(network: str, backbone: "keras.Model", batch_size: int) -> dict[str, object]:
    """All that decides a backbone's outputs."""
    digest = hashlib.sha256()
    for variable, value in zip(backbone.weights, backbone.get_weights(), strict=True):
        # A ReLU may turn NaN into 0, so that no feature would show it.
        if not np.isfinite(value).all():
            raise FloatingPointError(f"{backbone.name}: {variable.path} is not finite")
        digest.update(f"{value.dtype} {value.shape}".encode() + np.ascontiguousarray(value).tobytes())
    made_with = environment()
    return {
        "network": network,
        "weights_sha256": digest.hexdigest(),
        "input": list(backbone.input.shape[1:]),
        "precision": sorted({layer.dtype_policy.name for layer in backbone.layers}),
        "batch_size": batch_size,
        "rules": RULES,
    } | {name: made_with[name] for name in ("backend", "backend_version", "keras", "cards")}


def _name(key: str, image: np.ndarray) -> bytes:
    """An image's name in a cache; with the backbone's key in it, a file of another backbone holds none."""
    return hashlib.sha256(key.encode() + np.ascontiguousarray(image).tobytes()).hexdigest().encode()
