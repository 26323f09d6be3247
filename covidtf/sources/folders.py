"""Files beside a public data set's table: listed, matched to its rows, nothing dropped unseen."""

import errno
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pandas as pd

from covidtf import manifest
from covidtf.files import DataError, progress
from covidtf.sources.metadata import OUTSIDE, RejectedError, Row, is_outside

REJECTED = ("source", "path", "row", "reason")
# Rows of one file may differ in these only by mistake: they decide what a network is taught.
DECISIVE = ("label", "finding", "view")
# What a file or folder can be to blame for; anything else (an unreachable disk) concerns them all.
OF_ONE_FILE = (errno.EACCES, errno.EPERM, errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG)


@dataclass(frozen=True)
class Files:
    """Files under a folder.

    Args:
        inside: Paths relative to the folder of files that may be read.
        refused: Paths that may not (links out of the folder, for example), each with its reason.
    """

    inside: frozenset[str]
    refused: dict[str, str]

    def check(self, path: str) -> None:
        """Pass if `path` may be read.

        Raises:
            RejectedError: It is absent or refused; says which.
        """
        if path in self.inside:
            return
        parts = PurePosixPath(path)
        if parts.is_absolute() or ".." in parts.parts:
            raise RejectedError("the path leads out of the folder")
        for place in (path, *map(str, parts.parents)):
            if place in self.refused:
                raise RejectedError(f"{place} {self.refused[place]}")
        raise RejectedError("the file is absent")


def list_files(root: str | Path, folders: Iterable[str]) -> Files:
    """Every file under `root/<folder>` for each of `folders`; links out of `root` are refused, not read.

    A folder that cannot be listed is refused as a whole, with the reason.

    Args:
        root: Folder of the data set; it may be a link itself.
        folders: Relative paths with `/`; those that do not exist are left out.
    """
    inside, refused = set(), {}
    for path, reason in progress(_scan(Path(root), list(folders)), f"listing {Path(root).name}"):
        if reason:
            refused[path] = reason
        else:
            inside.add(path)
    return Files(frozenset(inside), refused)


def _scan(root: Path, waiting: list[str]) -> Iterator[tuple[str, str]]:
    for folder in waiting.copy():
        if is_outside(root / folder, root):
            waiting.remove(folder)
            yield folder, OUTSIDE
    waiting = [folder for folder in waiting if (root / folder).is_dir()]
    while waiting:
        folder = waiting.pop()
        try:
            with os.scandir(root / folder) as listing:
                entries = list(listing)
        except OSError as error:
            yield _shown(folder), _fault(error, "listed")
            continue
        for entry in entries:
            path = f"{folder}/{entry.name}"
            if entry.is_dir(follow_symlinks=False):
                waiting.append(path)
            else:
                yield _shown(path), _reason_to_refuse(entry, root)


def _shown(path: str) -> str:
    """Reports are UTF-8, so a name that is not is shown with its bytes escaped."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _fault(error: OSError, what: str) -> str:
    if error.errno not in OF_ONE_FILE:
        raise error
    return f"cannot be {what}: {os.strerror(error.errno)}"


def _reason_to_refuse(entry: os.DirEntry, root: Path) -> str:
    try:
        return _reason_by_kind(entry, root)
    except OSError as error:
        return _fault(error, "read")
    # So Python 3.11 to 3.12 tells of links that go round in circles.
    except RuntimeError:
        return "is a link that leads back to itself"


def _reason_by_kind(entry: os.DirEntry, root: Path) -> str:
    if "\\" in entry.name or not entry.name.isprintable():
        return "has a name with a backslash or bytes that are not text"
    if entry.is_symlink() and is_outside(Path(entry.path), root):
        return OUTSIDE
    if entry.is_file():
        return ""
    # Following links to folders could go round in circles.
    return "is a link that is broken or to a folder" if entry.is_symlink() else "is not a regular file"


def collect(
    source: str,
    name: str | Path,
    table: tuple[list[Row], list[dict]],
    files: Files,
    locate: Callable[[dict[str, str]], str],
    describe: Callable[[dict[str, str]], dict],
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Manifest of the rows that can be used, and the report of all other rows and files.

    A file that several rows name is kept once, by its first row, if they agree on label, finding and view;
    otherwise none of them is kept.

    Args:
        source: Name of the data set.
        name: Its table's path, for error messages.
        table: As `read_rows` returns it.
        files: As `list_files` returns it.
        locate: Fields of a row to the path of its file, relative to the folder.
        describe: Fields of a row to its manifest columns; raises `RejectedError` if it cannot be used.
    Returns:
        The manifest; and the rejected, columns `REJECTED`, with `row` `""` for a file that no row names.
    Raises:
        DataError: No row can be used; names the first reason.
    """
    rows, rejected = table[0], list(table[1])
    kept, named = {}, set()
    for line, fields in progress(rows, f"reading {source}"):
        path = locate(fields)
        named.add(path)
        try:
            row = describe(fields)
            files.check(path)
            kept.setdefault(path, []).append({**row, "source": source, "path": path, "row": line})
        except RejectedError as error:
            rejected.append({"path": path, "row": str(line), "reason": str(error)})
    usable = [row for same in kept.values() for row in _once(same, rejected)]
    return finish(source, name, usable, rejected + _unnamed(files, named))


def _unnamed(files: Files, named: set[str]) -> list[dict]:
    reasons = dict.fromkeys(files.inside, "no row names this file") | files.refused
    return [
        {"path": path, "row": "", "reason": reasons[path]} for path in sorted(reasons) if path not in named
    ]


def finish(
    source: str, name: str | Path, rows: list[dict], rejected: list[dict]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Checked manifest and report from plain rows; `source` fills the report's column where it is absent.

    Raises:
        DataError: There is no row; names the first reason.
    """
    report = pd.DataFrame([{"source": source, **row} for row in rejected], columns=list(REJECTED), dtype=str)
    if not rows:
        first = "it is empty" if report.empty else "row {row}, {path!r}: {reason}".format(**report.iloc[0])
        raise DataError(f"{name}: no image can be used, {len(report)} were rejected; the first: {first}")
    table = pd.DataFrame(rows).drop(columns="row", errors="ignore")
    return manifest.make(table, str(name)), report


def _once(same: list[dict], rejected: list[dict]) -> list[dict]:
    first = same[0]
    if len(same) == 1:
        return same
    differing = [key for key in DECISIVE if len({row[key] for row in same}) > 1]
    lines = ", ".join(str(row["row"]) for row in same)
    for row in same if differing else same[1:]:
        if differing:
            reason = f"rows {lines} name this file and differ in {' and '.join(differing)}"
        else:
            reason = f"row {first['row']} names this file already, as {first['patient_id']}"
            reason += f"; this row says {row['patient_id']}"
        rejected.append({"path": row["path"], "row": str(row["row"]), "reason": reason})
    return [] if differing else [first]
