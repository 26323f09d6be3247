"""The folder of a prepared data set: written row by row, resumable, visible only when it is whole."""

import contextlib
import fcntl
import io
import json
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from covidtf import manifest as manifests
from covidtf.files import DataError, read_json, write_csv, write_json

# The order of publishing: the settings come last, so that without them the folder is not a data set.
FILES = ("images.npy", "manifest.csv", "rejected.csv", "settings.json")
# Columns that are not text. The second may be empty.
INTEGERS = ("width", "height", "bits", "slice", "slices")
NUMBERS = ("position_mm", "thickness_mm", "lung_share")
CHECKPOINT = 256  # rows between two points from which an interrupted work goes on


@dataclass(frozen=True)
class Prepared:
    """A prepared data set.

    Attributes:
        images: uint8, shape `(n, size, size, channels)`, read from the disk as it is used.
        manifest: Row i describes `images[i]`. Besides the manifest's columns: width, height (px), mode,
            format, bits of the file as stored, and phash.
        rejected: Rows that came in and have no image here; columns source, path, row (in the manifest that
            came in; 2 is the first below the header), reason.
        folder: Where it is stored.
    """

    images: np.memmap
    manifest: pd.DataFrame
    rejected: pd.DataFrame
    folder: Path

    @property
    def crop(self) -> str:
        """How images were cut, see `images.fit`; of augmented ones, how their originals were."""
        return self._settings["crop"]

    @property
    def grey(self) -> str:
        """What was done to their grey values, see `images.fit`."""
        return self._settings.get("grey", "stored")

    @property
    def _settings(self) -> dict:
        settings = read_json(self.folder / FILES[-1])
        return settings.get("prepared", settings)


def load(folder: str | Path) -> Prepared:
    """A finished prepared data set.

    Raises:
        DataError: If `folder` does not hold one, or its parts do not fit together; names the file.
    """
    folder = Path(folder)
    for name in FILES:
        if not (folder / name).is_file():
            raise DataError(f"{folder}: not a finished prepared data set: {name} is missing")
    try:
        images = np.load(folder / FILES[0], mmap_mode="r")
    except (ValueError, EOFError) as error:
        raise DataError(f"{folder / FILES[0]}: not a whole array: {error}") from error
    table = manifests.read(folder / FILES[1])
    if images.dtype != np.uint8 or images.ndim != 4 or len(images) != len(table):
        raise DataError(
            f"{folder / FILES[0]}: one 8-bit image for each of {len(table)} rows of {FILES[1]} is wanted. "
            f"Received: {images.dtype}, shape {images.shape}"
        )
    table = table.astype({name: np.int64 for name in INTEGERS if name in table})
    for name in NUMBERS:
        if name in table:
            table[name] = pd.to_numeric(table[name])
    rejected = pd.read_csv(folder / FILES[2], dtype=str, keep_default_na=False)
    return Prepared(images, table, rejected, folder)


def is_complete(folder: str | Path, settings: dict) -> bool:
    """Whether `folder` holds a finished data set that was made with exactly these settings."""
    folder = Path(folder)
    whole = all((folder / name).is_file() for name in _names(settings))
    return whole and read_json(folder / FILES[-1]) == settings


@contextlib.contextmanager
def opened(folder: str | Path, settings: dict, shape: tuple[int, int, int]) -> Iterator["Store"]:
    """Store in which the rows of one data set are collected; no other process can open it meanwhile.

    The work happens in `<folder>/.partial`. After a crash or a kill it goes on there if `settings` are the
    same, else it starts anew. A data set that `folder` already holds stays as it is until `Store.finish`.

    Args:
        folder: Folder of the data set; made if absent. Other files in it are not touched.
        settings: JSON object that decides on the content: the same settings must give the same rows. Its
            `tables`, where it has them, name further CSV files of the data set.
        shape: Height, width and channels of each row.
    Raises:
        DataError: If another process has it open.
        OSError: If the folder cannot be written; names it.
    """
    folder = Path(folder)
    work = folder / ".partial"
    with _naming(folder):
        work.mkdir(parents=True, exist_ok=True)
    with _locked(work / "lock", folder):
        store = Store(folder, settings, shape)
        try:
            yield store
        except DataError:
            shutil.rmtree(work)
            raise
        finally:
            store.close()
        shutil.rmtree(work)


class Store:
    """Rows of a data set on their way to the disk.

    Attributes:
        records: One mapping per row so far: what its manifest row gets besides, or the `reason` of its
            rejection. Not empty at first if an interrupted work goes on.
    """

    def __init__(self, folder: Path, settings: dict, shape: tuple[int, int, int]) -> None:
        self.records: list[dict] = []
        self._folder, self._work = folder, folder / ".partial"
        self._settings, self._shape = settings, shape
        self._saved = self._written = 0
        self._disk = ThreadPoolExecutor(1)
        self._syncing: Future | None = None
        with _naming(folder):
            if _read(self._work / "work.json") != _text(settings):
                self._clear()
            elif (self._work / FILES[-1]).exists():
                self._publish()
            self._images, self._journal = (_open(self._work / name) for name in (FILES[0], "rows.jsonl"))
            self._resume()

    def add(self, pixels: bytes | None, record: dict) -> None:
        """Append a row: its pixels and what is known of it, or None and a record with its `reason`."""
        self.records.append(record)
        with _naming(self._folder):
            if pixels is not None:
                self._images.write(pixels)
            if len(self.records) - self._written >= CHECKPOINT:
                self._checkpoint()

    def finish(self, table: pd.DataFrame, rejected: pd.DataFrame, *others: pd.DataFrame) -> None:
        """Publish the data set: `table` has the rows that have pixels, in order; then the other tables."""
        with _naming(self._folder):
            self._images.seek(0)
            self._images.write(_header((len(table), *self._shape)))
            self._checkpoint()
            manifests.write(table, self._work / FILES[1])
            names = (FILES[2], *self._settings.get("tables", ()))
            for name, other in zip(names, (rejected, *others), strict=True):
                write_csv(other, self._work / name)
            self._journalise()
            write_json(self._settings, self._work / FILES[3])
            self._publish()

    def close(self) -> None:
        """Close the files; what a full disk did not take is reported by whoever wrote it."""
        self._disk.shutdown()
        for file in (self._images, self._journal):
            with contextlib.suppress(OSError):
                file.close()

    def _checkpoint(self) -> None:
        """Start to bring what is written to the disk; the disk works while the next rows are prepared."""
        self._journalise()
        self._images.flush()
        self._written = len(self.records)
        self._syncing = self._disk.submit(os.fsync, self._images.fileno())

    def _journalise(self) -> None:
        """Journal the rows whose pixels are on the disk for certain."""
        if self._syncing:
            self._syncing.result()
            self._syncing = None
        lines = (json.dumps(record) + "\n" for record in self.records[self._saved : self._written])
        self._journal.write("".join(lines).encode())
        self._journal.flush()
        self._saved = self._written

    def _resume(self) -> None:
        row = int(np.prod(self._shape))
        end, pixels = 0, len(_header((0, *self._shape)))
        size = os.fstat(self._images.fileno()).st_size
        for line in self._journal:
            record = _parse(line)
            if record is None:
                break
            after = pixels + (0 if "reason" in record else row)
            if after > size:
                break
            self.records.append(record)
            end, pixels = end + len(line), after
        self._saved = self._written = len(self.records)
        for file, length in ((self._journal, end), (self._images, pixels)):
            file.truncate(length)
            file.seek(length)

    def _publish(self) -> None:
        # Its settings tell which tables the data set before had; once they are gone nothing does.
        before = set(_tables(self._folder)) - set(_names(self._settings))
        for path in self._folder.glob("*.csv"):
            if path.name in before:
                path.unlink()
        (self._folder / FILES[-1]).unlink(missing_ok=True)
        for name in _names(self._settings):
            if (self._work / name).exists():
                (self._work / name).replace(self._folder / name)

    def _clear(self) -> None:
        for path in self._work.iterdir():
            if path.name != "lock":
                path.unlink()
        (self._work / "work.json").write_text(_text(self._settings), encoding="utf-8")


@contextlib.contextmanager
def _locked(path: Path, folder: Path) -> Iterator[None]:
    """A lock of the operating system, which goes with its process however that ends."""
    with _naming(folder):
        file = path.open("w")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Whoever held the lock may have finished and removed the file since it was opened here.
            ours = path.exists() and path.stat().st_ino == os.fstat(file.fileno()).st_ino
        except BlockingIOError:
            ours = False
        if not ours:
            raise DataError(f"{folder}: another process is preparing this data set")
        yield


@contextlib.contextmanager
def _naming(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, f"cannot write to {folder}: {error.strerror}") from error


def _names(settings: dict) -> tuple[str, ...]:
    """Files of a data set in the order of publishing."""
    return (*FILES[:-1], *settings.get("tables", ()), FILES[-1])


def _tables(folder: Path) -> list[str]:
    """Further tables of the data set in `folder`; none without a data set or with damaged settings."""
    try:
        tables = read_json(folder / FILES[-1]).get("tables")
    except (FileNotFoundError, DataError):
        return []
    return tables if isinstance(tables, list) else []


def _open(path: Path) -> io.BufferedRandom:
    path.touch()
    # A large buffer spares the threads that decode an interruption per image.
    return path.open("r+b", buffering=2**22)


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.exists() else ""


def _parse(line: bytes) -> dict | None:
    """Record of a line, or None if the line was cut short."""
    try:
        return json.loads(line) if line.endswith(b"\n") else None
    except ValueError:
        return None


def _text(settings: dict) -> str:
    return json.dumps(settings, sort_keys=True)


def _header(shape: tuple[int, ...]) -> bytes:
    """Header of an .npy file; NumPy pads it, so that its length does not depend on the number of rows."""
    buffer = io.BytesIO()
    description = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(buffer, description)
    return buffer.getvalue()
