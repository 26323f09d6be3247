"""Manifest of studies -> prepared data set of slices: each study read once, in parallel, resumable."""

import contextlib
import multiprocessing
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import PIL

from covidtf import manifest as manifests
from covidtf.ct.slices import COLUMNS, prepare_study
from covidtf.ct.volume import SERIES_COLUMNS
from covidtf.files import DataError, progress, refuse_rows
from covidtf.images.prepare import file_state, fingerprint, in_order, resolve_roots
from covidtf.images.store import Prepared, Store, is_complete, load, opened

RULES = 2  # raised when the same study becomes other slices or pixels than before
LEAST_LUNG = 0.005
TABLES = ("series.csv", "studies.csv")
STUDY_COLUMNS = (
    "case_id", "label", "source", "path", "kind", "files", "slices", "with_lung", "chosen", "thickness_mm",
    "spacing_mm", "kernel", "notes", "state",
)  # fmt: skip


def prepare_studies(
    studies: pd.DataFrame,
    roots: dict[str, Path],
    folder: str | Path,
    size: int = 224,
    level: float = -600.0,
    width: float = 1500.0,
    most: int = 54,
    least: int = 2,
    least_lung: float = LEAST_LUNG,
    workers: int | None = None,
) -> Prepared:
    """Read every CT study of a manifest once, to squares of those of its slices that show lung.

    A study is read as `ct.read_study` says. Slices in which `ct.lungs.lung_mask` has at least `least_lung` of
    the body's area are kept, evenly thinned to `most`; they are windowed and then resized. Slice images have
    no Hounsfield units: all of them are taken as they are, thinned to `most`. A study that cannot be used,
    for whatever reason, is listed in `rejected`, and so is each file of a study that was not used; the rest
    is still prepared.

    The result has one row per slice: the columns of its study, `image_id` with `#<slice>` after it, and
    `ct.slices.COLUMNS`; `sha256` is that of the slice's HU (int16, little-endian), or of the picture's file.
    Beside the manifest lie `series.csv`, what was found in each study, and `studies.csv`, one row per study.

    An interrupted call goes on where it was when it is repeated, and a finished one is only loaded, as long
    as the settings, the manifest, and the names, sizes and times of the studies' files are the same. Of
    finished studies only the rows stay in memory; each process holds one study, up to 0.5 GB at 1 mm slices.

    Args:
        studies: One row per study; `path` is its folder or file.
        roots: Folder of each source. Studies outside it, reached by a symbolic link, are rejected.
        folder: Folder to write to. A data set in it is replaced once the new one is whole.
        size: Side of the squares in px, 16 to 2048.
        level, width: The window in HU, see `ct.slices.window`.
        most, least: How many slices a study gives; one that shows lung in fewer than `least` is rejected.
        least_lung: Least share of the body's area, in [0, 1). 0.005 keeps the first and last slice in which
            more than some 4 cm2 of lung are seen.
        workers: Processes; None for one per core, 1 for this process alone. They are spawned, so a script
            that calls this needs `if __name__ == "__main__"`.
    Raises:
        ValueError: If an argument is out of range or a source has no root.
        DataError: If the manifest is empty or malformed, a root is absent, no study at all can be used, or
            another process is preparing `folder`.
        OSError: If `folder` cannot be written (read-only, disk full), or the studies' disk cannot be
            reached. What `folder` held stays as it was.
    """
    options = {"size": size, "level": level, "width": width, "most": most, "least": least,
               "least_lung": least_lung}  # fmt: skip
    _check(**options, workers=workers)
    table = manifests.validate(studies, "studies").reset_index(drop=True)
    refuse_rows(table, "studies", "parent_id", table["parent_id"] != "", "empty, a study has no original")
    roots = resolve_roots(roots, table)
    settings = {
        "made_by": "prepare_studies",
        "rules": RULES,
        "pillow": PIL.__version__,
        **options,
        "crop": "resize",
        "channels": 1,
        "tables": list(TABLES),
        "inputs": fingerprint(table, roots, study_state),
    }
    if not is_complete(folder, settings):
        with opened(folder, settings, (size, size, 1)) as store:
            # Asked again: another process may just have finished, or a crash cut off an earlier last step.
            if not is_complete(folder, settings):
                _fill(store, table, partial(prepare_study, roots=roots, **options), workers)
                store.finish(*_tables(store.records, table))
    return load(folder)


def study_state(path: str) -> str:
    """Names, sizes and times of a study's files, for `images.prepare.fingerprint`."""
    found = [
        f"{os.path.relpath(folder, path)!a} {name!a} {file_state(f'{folder}/{name}')}"
        for folder, _, names in os.walk(path)
        for name in names
    ]
    return "".join(sorted(found)) or file_state(path)


def _check(
    size: int, level: float, width: float, most: int, least: int, least_lung: float, workers: int | None
) -> None:
    rules = (
        (16 <= size <= 2048, "size", "in [16, 2048]", size),
        (np.isfinite(level), "level", "a finite number of HU", level),
        (0 < width < np.inf, "width", "above 0", width),
        (least >= 1, "least", "at least 1", least),
        (most >= least, "most", f"at least `least`, {least}", most),
        (0 <= least_lung < 1, "least_lung", "in [0, 1)", least_lung),
        (workers is None or workers >= 1, "workers", "at least 1, or None", workers),
    )
    for kept, name, wanted, value in rules:
        if not kept:
            raise ValueError(f"`{name}` must be {wanted}. Received: {value!r}")


def _fill(store: Store, table: pd.DataFrame, work: partial, workers: int | None) -> None:
    """Add to `store` the rows that it does not have yet; a study that is there in part is read again."""
    whole = list(_by_study(store.records))
    done, partly = len(whole), len(store.records) - sum(1 + len(slices) for _, slices in whole)
    items = list(zip(*(table[name].tolist()[done:] for name in ("source", "path", "sha256")), strict=True))
    workers = min(workers or os.cpu_count() or 1, max(1, len(items)))
    with contextlib.closing(_results(work, items, workers)) as results:
        for rows in progress(results, "preparing studies", len(items)):
            for pixels, record in rows[partly:]:
                store.add(pixels, record)
            partly = 0


def _results(work: partial, items: list, workers: int) -> Iterator:
    if workers == 1:
        return (work(item) for item in items)
    return in_order(work, items, workers, 1, _processes)


def _processes(workers: int) -> ProcessPoolExecutor:
    """Spawned, because TensorFlow does not survive a fork."""
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(workers, mp_context=context, initializer=_leave_with_parent)


def _leave_with_parent() -> None:
    """End this process when its parent is killed; the pool's queue alone would keep it waiting for ever."""

    def watch() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _by_study(records: list[dict]) -> Iterator[tuple[dict, list[dict]]]:
    """Each study's own record and those of its slices; without a last study that is not whole."""
    place = 0
    while place < len(records):
        end = place + 1 + records[place]["rows"]
        if end > len(records):
            return
        yield records[place], records[place + 1 : end]
        place = end


def _tables(records: list[dict], table: pd.DataFrame) -> tuple[pd.DataFrame, ...]:
    """Manifest of slices, rejected studies and files, series, studies."""
    rejected, series, studies, slices, places = [], [], [], [], []
    for place, (study, kept) in enumerate(_by_study(records)):
        row = table.iloc[place][["case_id", "label", "source", "path"]].to_dict()
        rejected += _rejected(study, row, place + 2)
        series += [{**row, **found} for found in study["series"]]
        studies.append({**row, **study["study"], "state": study["reason"] or "prepared"})
        slices += [{**study["slices"], **record} for record in kept]
        places += [place] * len(kept)
    if not slices:
        raise DataError(f"no study can be used; row 2: {table['path'].iloc[0]}: {records[0]['reason']}")
    extra = pd.DataFrame(slices, columns=[*COLUMNS, "sha256"])
    manifest = table.iloc[places].reset_index(drop=True)
    ids = manifest["image_id"] + "#" + extra["slice"].map("{:03}".format)
    return (
        manifest.assign(image_id=ids, **extra),
        pd.DataFrame(rejected, columns=["source", "path", "row", "reason"]),
        pd.DataFrame(series, columns=["case_id", "source", "path", *SERIES_COLUMNS]),
        pd.DataFrame(studies, columns=STUDY_COLUMNS),
    )


def _rejected(study: dict, row: dict, number: int) -> list[dict]:
    whole = [("", study["reason"])] if study["reason"] else []
    files = [(f"/{path}", reason) for path, reason in study["files"]]
    return [
        {"source": row["source"], "path": row["path"] + path, "row": number, "reason": reason}
        for path, reason in whole + files
    ]
