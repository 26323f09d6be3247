"""Images in class folders, as people keep them for a source task: a folder, or a zip of one."""

import lzma
import shutil
import zipfile
import zlib
from pathlib import Path, PurePosixPath

import pandas as pd

from covidtf.files import DataError, locked, progress, read_json, sha256, write_json
from covidtf.sources.folders import finish, list_files

ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".dcm")
PARTS = {"train": "train", "val": "test", "test": "test"}
LARGEST = 64 * 2**30  # bytes unpacked


def read_class_folders(folder: str | Path, source: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Images under `<class>/`, or under `train/<class>/` and `val/<class>/`; the folder's name is the label.

    What the folder calls val takes no part in choosing the epoch here and is our test; where it has a test
    of its own, its val is our val. Without such parts the split stays open. Each image counts as a patient
    of its own.

    Args:
        folder: Folder of the class folders or of the parts.
        source: Name of the data set.
    Returns:
        Manifest and rejected, as all readers.
    Raises:
        DataError: There is no image in a class folder.
    """
    root = Path(folder)
    parts = [name for name in PARTS if (root / name).is_dir()] if (root / "train").is_dir() else []
    splits = PARTS | ({"val": "val"} if {"val", "test"} <= set(parts) else {})
    tops = parts or sorted(path.name for path in root.iterdir() if path.is_dir())
    files = list_files(root, tops)
    rows, rejected = [], [{"path": path, "row": "", "reason": why} for path, why in files.refused.items()]
    for path in sorted(files.inside):
        levels = PurePosixPath(path).parts
        if Path(path).suffix.lower() not in ENDINGS:
            rejected.append({"path": path, "row": "", "reason": f"its ending must be one of {ENDINGS}"})
        elif len(levels) != 2 + bool(parts):
            rejected.append({"path": path, "row": "", "reason": "it is not directly in a class folder"})
        else:
            split = splits[levels[0]] if parts else ""
            rows.append(_row(path, source, label=levels[-2], split=split))
    return finish(source, root, rows, rejected)


# RuntimeError: an encrypted member, an unknown compression. OSError: damaged bz2, a full disk.
_UNREADABLE = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError, RuntimeError)


def unpack(archive: str | Path, folder: str | Path) -> Path:
    """Unpack a zip once; a finished folder is used again as long as the archive's sha256 is the same.

    Args:
        folder: Folder to make; what an earlier archive left there is removed.
    Returns:
        `folder`, or the one folder in it if the archive holds nothing else.
    Raises:
        DataError: Not a whole zip, a member that leads out of it, or more than 64 GiB unpacked.
    """
    archive, folder = Path(archive), Path(folder)
    record, digest = folder / "unpacked.json", {"archive_sha256": sha256(archive)}
    with locked(folder.parent, "unpacking"):
        if not (record.is_file() and read_json(record) == digest):
            shutil.rmtree(folder, ignore_errors=True)
            try:
                with zipfile.ZipFile(archive) as opened:
                    _extract(opened, archive, folder)
            except _UNREADABLE as error:
                raise DataError(f"{archive}: cannot be unpacked whole: {error}") from error
            write_json(digest, record)
    inside = [path for path in folder.iterdir() if path != record]
    return inside[0] if len(inside) == 1 and inside[0].is_dir() and inside[0].name != "train" else folder


def _extract(opened: zipfile.ZipFile, archive: Path, folder: Path) -> None:
    members = opened.infolist()
    total = sum(member.file_size for member in members)
    if total > LARGEST:
        raise DataError(f"{archive}: at most {LARGEST} bytes unpacked were wanted. Received: {total}")
    for member in members:
        parts = PurePosixPath(member.filename)
        if parts.is_absolute() or ".." in parts.parts or "\\" in member.filename:
            raise DataError(f"{archive}: {member.filename!r} leads out of the archive")
    for member in progress(members, f"unpacking {archive.name}"):
        opened.extract(member, folder)


def _row(path: str, source: str, label: str, split: str) -> dict:
    own = f"{source}:{path}"
    return {
        "source": source,
        "path": path,
        "label": label,
        "finding": label,
        "patient_id": own,
        "case_id": own,
        "view": "UNKNOWN",
        "split": split,
    }
