"""Manifest and image files -> prepared data set: one array of equal squares on disk, and its manifest."""

import contextlib
import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import partial
from pathlib import Path

import imagehash
import numpy as np
import pandas as pd
import PIL
import scipy.fftpack  # noqa: F401 - imagehash imports it at its first hash, in the middle of the work
from PIL import Image

from covidtf import manifest as manifests
from covidtf.files import DataError, progress
from covidtf.images import CROPS, GREYS, decode, fit, needed, read_bytes
from covidtf.images.store import Prepared, Store, is_complete, load, opened

__all__ = ["RULES", "Prepared", "load", "prepare"]

RULES = 1  # raised when the same file becomes other pixels than before
_CHUNK = 400_000  # bytes of pixels that a thread makes before it hands them over


def prepare(
    manifest: pd.DataFrame,
    roots: dict[str, Path],
    folder: str | Path,
    size: int = 224,
    crop: str = "center",
    channels: int = 1,
    workers: int | None = None,
    grey: str = "stored",
) -> Prepared:
    """Decode every image of a manifest once, to squares of equal size in one array on disk.

    Each file is read once, hashed, decoded as `images.read_image` says and cut as `images.fit` says. JPEGs
    are decoded at 1/2, 1/4 or 1/8 of their size where that leaves at least `size` px. `phash` is the
    perceptual hash of the prepared image: `imagehash.phash` (256 bits, hexadecimal) of its 32 x 32 area
    means. `sha256` of the file is filled in, or checked where the manifest gives one. A row whose file cannot
    be used is listed in `rejected`, and with it the rows that name it as their original; originals come
    before augmented images.

    An interrupted call goes on where it was when it is repeated, and a finished one is only loaded, as long
    as the settings, the manifest, and the sizes and times of the files are the same. Pixels go to the disk as
    they are made: memory does not grow with them.

    Args:
        manifest: One row per image.
        roots: Folder of each source. Files outside it, reached by a symbolic link, are rejected.
        folder: Folder to write to. A data set in it is replaced once the new one is whole.
        size: Side of the squares in px, 16 to 2048.
        crop: "center" (short side to `size`, the middle cut out), "resize" (the whole image to a square) or
            "lungs" (the box around the lungs to a square).
        channels: 1 (grey) or 3 (RGB).
        workers: Threads; None for one per core.
        grey: "stored" or "equalised".
    Raises:
        ValueError: If an argument is out of range or a source has no root.
        DataError: If the manifest is empty or malformed, a root is absent, no image at all can be used, or
            another process is preparing `folder`.
        OSError: If `folder` cannot be written (read-only, disk full). What it held stays as it was.
    """
    _check(size, crop, channels, workers, grey)
    table = manifests.validate(manifest, "manifest").reset_index(drop=True)
    roots = resolve_roots(roots, table)
    table = table.iloc[np.argsort(table["parent_id"] != "", kind="stable")]
    settings = {
        "made_by": "prepare",
        "rules": RULES,
        "pillow": PIL.__version__,
        "size": size,
        "crop": crop,
        "channels": channels,
        "inputs": fingerprint(table, roots, file_state),
    } | ({} if grey == "stored" else {"grey": grey})
    if not is_complete(folder, settings):
        with opened(folder, settings, (size, size, channels)) as store:
            # Asked again: another process may just have finished, or a crash cut off an earlier last step.
            if not is_complete(folder, settings):
                _fill(store, table, roots, settings, workers or os.cpu_count() or 1)
                store.finish(*_tables(store.records, table))
    return load(folder)


def _check(size: int, crop: str, channels: int, workers: int | None, grey: str) -> None:
    if not 16 <= size <= 2048:
        raise ValueError(f"`size` must be in [16, 2048]. Received: {size!r}")
    if crop not in CROPS:
        raise ValueError(f"`crop` must be one of {CROPS}. Received: {crop!r}")
    if grey not in GREYS:
        raise ValueError(f"`grey` must be one of {GREYS}. Received: {grey!r}")
    if channels not in (1, 3):
        raise ValueError(f"`channels` must be 1 or 3. Received: {channels!r}")
    if workers is not None and workers < 1:
        raise ValueError(f"`workers` must be at least 1, or None. Received: {workers!r}")


def resolve_roots(roots: dict[str, Path], manifest: pd.DataFrame) -> dict[str, Path]:
    """Real folder of each source, or an error if one is wanted that is not given or not there."""
    if len(manifest) == 0:
        raise DataError("manifest: there are no rows to prepare")
    absent = sorted(set(manifest["source"]) - set(roots))
    if absent:
        raise ValueError(f"`roots` must have a folder for {absent}. Received: {sorted(roots)}")
    for source, root in roots.items():
        if not Path(root).is_dir():
            raise DataError(f"{root}: no such folder (source {source!r})")
    return {source: Path(root).resolve() for source, root in roots.items()}


def fingerprint(table: pd.DataFrame, roots: dict[str, Path], state: Callable[[str], str]) -> str:
    """Hash of the manifest and of `state` of the path of each row, its file's size and time."""
    digest = hashlib.sha256()
    for start in progress(range(0, len(table), 1000), "looking for changed files"):
        part = table.iloc[start : start + 1000]
        digest.update(part.to_csv().encode())
        for source, path in zip(part["source"], part["path"], strict=True):
            digest.update(state(f"{roots[source]}/{path}").encode())
    return digest.hexdigest()


def file_state(path: str) -> str:
    """Size and time of a file, for `fingerprint`."""
    try:
        status = os.stat(path)  # noqa: PTH116 - a Path costs more than the call, and there may be 100,000
    except (OSError, ValueError):
        return "absent;"
    return f"{status.st_size} {status.st_mtime_ns};"


def _fill(store: Store, table: pd.DataFrame, roots: dict[str, Path], settings: dict, workers: int) -> None:
    """Add to `store` the rows that it does not have yet."""
    size, crop, channels = (settings[name] for name in ("size", "crop", "channels"))
    look = {"size": size, "crop": crop, "channels": channels, "grey": settings.get("grey", "stored")}
    work = partial(_prepare_row, roots=roots, **look)
    done = len(store.records)
    ids, parents = table["image_id"].tolist(), table["parent_id"].tolist()
    lost = {image_id for image_id, record in zip(ids, store.records, strict=False) if "reason" in record}
    columns = (table[name].tolist()[done:] for name in ("source", "path", "sha256"))
    items = list(zip(*columns, strict=True))
    chunk = max(1, _CHUNK // (size * size * channels))
    with contextlib.closing(in_order(work, items, workers, chunk)) as outcomes:
        for row, (pixels, record) in enumerate(progress(outcomes, "preparing images", len(items)), done):
            if parents[row] in lost:
                pixels, record = None, {"reason": f"its original {parents[row]} is rejected"}
            if "reason" in record:
                lost.add(ids[row])
            store.add(pixels, record)


def in_order(
    work: Callable,
    items: list,
    workers: int,
    chunk: int,
    pool_of: Callable[[int], Executor] = ThreadPoolExecutor,
) -> Iterator:
    """`work(item)` of each item, in order, with no more than a few chunks of results waiting to be used."""
    with pool_of(workers) as pool:
        waiting: deque = deque()
        try:
            for start in range(0, len(items), chunk):
                part = items[start : start + chunk]
                waiting.append(pool.submit(_each, work, part))
                if len(waiting) > 4 * workers:
                    yield from waiting.popleft().result()
            while waiting:
                yield from waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _each(work: Callable, items: list) -> list:
    """A function of the module, because a pool of processes takes no lambda."""
    return [work(item) for item in items]


def _prepare_row(
    item: tuple[str, str, str], roots: dict[str, Path], size: int, crop: str, channels: int, grey: str
) -> tuple[bytes | None, dict]:
    """Pixels and record of one file (its source, path, known sha256), or None and a record with `reason`."""
    source, path, known = item
    try:
        data = read_bytes(inside(roots[source], path))
        sha256 = hashlib.sha256(data).hexdigest()
        if known not in ("", sha256):
            raise DataError(f"sha256 is {sha256}, the manifest says {known}")
        decoded = decode(data, channels, needed(size, crop))
    except DataError as error:
        return None, {"reason": str(error)}
    image = fit(decoded, size, crop, grey)
    return image.tobytes(), {"sha256": sha256, **decoded.properties, "phash": perceptual_hash(image)}


def inside(root: Path, path: str) -> str:
    """Path of a file that no symbolic link below `root` leads out of it."""
    if "\0" in path:
        raise DataError("not a file name")
    file = str(root)
    for part in path.split("/"):
        file = f"{file}/{part}"
        # Resolving every path would cost more than reading the file; a link is the rare case.
        if os.path.islink(file) and not Path(os.path.realpath(file)).is_relative_to(root):  # noqa: PTH114
            raise DataError("a symbolic link leads out of its source's folder")
    return file


def perceptual_hash(image: Image.Image) -> str:
    """256-bit perceptual hash of a prepared image in hexadecimal: `imagehash.phash` of its area means."""
    # Means first, because the library's own filter from full size takes as long as decoding the file.
    grey = image if image.mode == "L" else image.convert("L")
    means = grey.resize((32, 32), Image.Resampling.BOX)
    bits = imagehash.phash(means, hash_size=16, highfreq_factor=2).hash
    return np.packbits(bits).tobytes().hex()


def _tables(records: list[dict], table: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Manifest of the rows that have pixels, and the list of those that have none."""
    extra = pd.DataFrame(records, index=table.index)
    if "reason" not in extra:
        extra["reason"] = None
    lost = extra["reason"].notna()
    rejected = table.loc[lost, ["source", "path"]].assign(
        row=table.index[lost] + 2, reason=extra.loc[lost, "reason"]
    )
    if lost.all():
        first = rejected.iloc[0]
        raise DataError(f"no image can be used; row {first['row']}: {first['path']}: {first['reason']}")
    kept = extra.loc[~lost].drop(columns="reason")
    kept = kept.astype({name: np.int64 for name in ("width", "height", "bits")})
    return table.loc[~lost].assign(**kept), rejected
