"""The files that are scored, and the two tables that come out, written row by row."""

import contextlib
import csv
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from covidtf.files import DataError
from covidtf.scoring.trained import Trained


def find(inputs: Sequence[str | Path]) -> list[Path]:
    """The files named, and all files below the folders named, each once, sorted by path.

    A folder that cannot be listed and a link to a folder are in the list too, so that they end among the
    rejected files instead of being passed over; name such a link as an input and it is searched.

    Raises:
        DataError: If an input does not exist.
    """
    found: set[Path] = set()
    for entry in map(Path, inputs):
        if not entry.exists():
            raise DataError(f"{entry}: no such file or folder")
        if not entry.is_dir():
            found.add(entry)
            continue
        unlisted: list[OSError] = []
        for folder, folders, names in os.walk(entry, onerror=unlisted.append):
            links = [name for name in folders if os.path.islink(os.path.join(folder, name))]  # noqa: PTH114, PTH118
            found.update(Path(folder, name) for name in [*names, *links])
        found.update(Path(error.filename) for error in unlisted)
    return sorted(found)


def rejected_path(out: Path) -> Path:
    """`scores.rejected.csv` for `scores.csv`."""
    return out.with_name(f"{out.stem}.rejected{out.suffix}")


def own_files(out: Path) -> set[Path]:
    """Absolute paths of what is written for `out`; none of them is an image to score."""
    finals = [out.absolute(), rejected_path(out).absolute()]
    return {*finals, *map(_partial, finals)}


class Tables:
    """Scores and rejected files on their way to the disk: a context that names them when it ends well.

    Args:
        out: The table of scores; its folder is made if it is absent.
        trained: The run, for the columns.
    Attributes:
        scored, rejected: Rows so far.
    Raises:
        OSError: If a file cannot be written; names it.
    """

    def __init__(self, out: Path, trained: Trained) -> None:
        self.scored = self.rejected = 0
        self._trained, self._finals, self._open = trained, (out, rejected_path(out)), contextlib.ExitStack()

    def __enter__(self) -> "Tables":
        self._finals[0].parent.mkdir(parents=True, exist_ok=True)
        columns = ["path", "sha256", *(f"score_{name}" for name in self._trained.classes)]
        columns += ["above_threshold"] * (self._trained.threshold is not None)
        self._files, self._writers = [], []
        for path, header in zip(self._finals, (columns, ["path", "reason"]), strict=True):
            # File names need not be text; surrogates bring their bytes through unchanged.
            file = _partial(path).open("w", newline="", encoding="utf-8", errors="surrogateescape")
            self._files.append(self._open.enter_context(file))
            self._writers.append(csv.writer(file, lineterminator="\n"))
            self._put(len(self._files) - 1, [header])
        return self

    def __exit__(self, kind, error, trace) -> None:
        self._open.close()
        if kind is None:
            for path in self._finals:
                _partial(path).replace(path)

    def add(self, paths: Sequence[Path], hashes: Sequence[str], scores: np.ndarray) -> None:
        """Append scored files: paths, their sha256, scores `(n, classes)`."""
        rows = []
        for path, sha256, values in zip(paths, hashes, scores, strict=True):
            # Nine digits are enough for float32, and the threshold is compared with what is written.
            row = [path.as_posix(), sha256, *(f"{value:.9g}" for value in values)]
            if self._trained.threshold is not None:
                positive = float(row[2 + self._trained.classes.index(self._trained.positive)])
                row.append(int(positive >= self._trained.threshold))
            rows.append(row)
        self._put(0, rows)
        self.scored += len(rows)

    def reject(self, path: Path, reason: str) -> None:
        """Append a file that cannot be scored."""
        self._put(1, [[path.as_posix(), reason]])
        self.rejected += 1

    def _put(self, table: int, rows: list[list]) -> None:
        try:
            self._writers[table].writerows(rows)
            self._files[table].flush()
        except OSError as error:
            # A full disk raises from `write`, which does not know the file's name.
            raise OSError(error.errno, error.strerror, str(_partial(self._finals[table]))) from error


def _partial(path: Path) -> Path:
    return path.with_name(f"{path.name}.partial")
