"""Files: written whole or not at all, hashed, and progress shown while they are read."""

import contextlib
import fcntl
import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm


class DataError(ValueError):
    """Bad input data. The message names the file and, where there is one, the row."""


def refuse_rows(table: pd.DataFrame, name: str | Path, column: str, bad: pd.Series, wanted: str) -> None:
    """Raise a `DataError` if any row is bad.

    Args:
        table: Table as read from a file with a header line.
        name: The file.
        column: Column that is wrong.
        bad: True where it is, one per row.
        wanted: What the column must be, for the message, which names the first bad row (2 is the first).
    """
    if bad.any():
        position = int(np.flatnonzero(bad.to_numpy())[0])
        value = table[column].iloc[position]
        value = value.item() if isinstance(value, np.generic) else value
        raise DataError(
            f"{name}: row {position + 2}: `{column}` must be {wanted}. Received: {value!r} "
            f"({int(bad.sum())} such rows)"
        )


@contextlib.contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Temporary path beside `path`, renamed onto it when the block ends without an error.

    Args:
        path: File to write. Its folder is made if it is absent.
    Yields:
        Path of the temporary file; on an error it is removed and `path` stays as it was.
    Raises:
        OSError: If the folder cannot be written (read-only, disk full); names `path`.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        # mkstemp makes files private to the user; results are meant to be read by others.
        temporary.chmod(0o644)
        temporary.replace(path)
    except OSError as error:
        # A full disk raises from `write`, which does not know the file's name.
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def locked(folder: Path, work: str) -> Iterator[None]:
    """Keep other processes from the same work in `folder`; the lock goes with its process however that ends.

    Args:
        folder: Made if absent; the lock is the file `.lock` in it.
        work: What is being done, for the error.
    Raises:
        DataError: If another process holds the lock.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DataError(f"{folder}: another process is {work} in this folder") from error
        yield


def write_csv(table: pd.DataFrame, path: str | Path) -> Path:
    """Write `table` without its index, floats with nine digits, enough for float32."""
    with atomic(path) as temporary:
        table.to_csv(temporary, index=False, float_format="%.9g", lineterminator="\n")
    return Path(path)


def write_json(value: object, path: str | Path) -> Path:
    """Write `value` as indented JSON with sorted keys; NaN is refused because JSON has none."""
    with atomic(path) as temporary:
        text = json.dumps(value, indent=2, sort_keys=True, allow_nan=False)
        temporary.write_text(text + "\n", encoding="utf-8")
    return Path(path)


def read_json(path: str | Path) -> dict:
    """Read a JSON object; a `DataError` names the file when it is not one."""
    try:
        value = json.loads(Path(path).read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DataError(f"{path}: not JSON: {error}") from error
    if not isinstance(value, dict):
        raise DataError(f"{path}: a JSON object was wanted. Received: {type(value).__name__}")
    return value


def sha256(path: str | Path) -> str:
    """Hex sha256 of a file's bytes."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def git_blob_sha1(path: str | Path) -> str:
    """Hex sha1 by which git names a file's content: `sha1(b"blob <size>\\0" + bytes)`.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder, "empty")
    ...     _ = file.write_bytes(b"")
    ...     git_blob_sha1(file)
    'e69de29bb2d1d6434b8b29ae775ad8c2e48c5391'
    """
    data = Path(path).read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def progress(items: Iterable, what: str, total: int | None = None) -> Iterable:
    """`items` behind a progress bar on standard error, which appears after one second."""
    return tqdm(items, desc=what, total=total, delay=1.0, file=sys.stderr, dynamic_ncols=True)
