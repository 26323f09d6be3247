"""The embedded data set: X-rays and CTs of phantoms, made-up chests that test code and are no evidence."""

import contextlib
import multiprocessing
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from covidtf.files import DataError, atomic, locked, progress, read_json, write_csv, write_json
from covidtf.phantom.projection import STYLES, lung_field, project
from covidtf.phantom.thorax.findings import FINDINGS
from covidtf.phantom.thorax.volume import thorax

# Part of the settings of every written set: raise it when the same seed no longer gives the same pictures.
VERSION = 1


@dataclass(frozen=True)
class _Job:
    folder: Path
    patient: int
    finding: str
    images: int
    seed: int
    shortcut: bool
    size: int
    masks: bool


def write_xrays(folder: str | Path, patients: int = 250, images_per_patient: int = 2, seed: int = 0,
                shortcut: bool = False, size: int = 256, masks: bool = False,
                workers: int | None = None) -> Path:  # fmt: skip
    """Write a set of phantom X-rays: `images/*.png`, `settings.json` and, last of all, `metadata.csv`.

    A third of the patients have COVID-19, a third nothing, a third one of the other findings. The images of a
    patient are visits: position, breath, view, scanner and severity differ. The same arguments give the same
    bytes, however many processes work. A complete folder with the same settings is left as it is; one that
    is half-written or has other settings is made anew as a whole.

    Args:
        folder: Made if absent.
        patients, images_per_patient: Size of the set, at least 1 each.
        seed: Decides everything but `size` and `masks`.
        shortcut: Give nearly all images with COVID-19 scanner style A and nearly none of the others. The
            anatomy, findings and views are the same either way.
        size: Pixels along each side, at least 64.
        masks: Also write `masks/*.png`, 255 where `covidtf.phantom.projection.lung_field` is true.
        workers: Processes; None for one per core.
    Returns:
        Path of `metadata.csv`: filename, patient_id, finding, label, view, style, sex, age, severity.
    Raises:
        ValueError: A number below its least value.
        DataError: `folder` has an `images` folder or a `metadata.csv` that no phantoms were written to, or
            another process is writing to it.
    """
    workers = (os.cpu_count() or 1) if workers is None else workers
    least = {"patients": 1, "images_per_patient": 1, "seed": 0, "size": 64, "workers": 1}
    given = dict(zip(least, (patients, images_per_patient, seed, size, workers), strict=True))
    for name, value in given.items():
        if value < least[name]:
            raise ValueError(f"`{name}` must be at least {least[name]}. Received: {value}")
    folder = Path(folder)
    del given["workers"]
    settings = {**given, "shortcut": shortcut, "masks": masks, "version": VERSION, "kind": "phantom X-rays"}
    jobs = [_Job(folder, patient, finding, images_per_patient, seed, shortcut, size, masks)
            for patient, finding in enumerate(_mix(patients, seed))]  # fmt: skip
    names = ("metadata.csv", "images", "masks")
    fill(folder, settings, names, _has_images, lambda: _write(folder, jobs, min(workers, patients)))
    return folder / "metadata.csv"


def fill(folder: Path, settings: dict, names: tuple[str, ...], whole: Callable[[Path, dict], bool],
         write: Callable[[], None]) -> None:  # fmt: skip
    """Fill `folder` with a set of phantoms, alone and from scratch, unless it holds just that set.

    Args:
        folder: Made if absent.
        settings: Go to `settings.json`; `kind` tells sets apart.
        names: What a set of this kind consists of. The first is its table, written last and removed first.
        whole: Whether all files of the set in a folder with these settings are there.
        write: Writes the set.
    Raises:
        DataError: The folder holds another kind of set or something else of these names, or another process
            is writing to it.
    """
    if not _complete(folder, settings, names[0], whole):
        with locked(folder, "writing phantoms"):
            # Asked again: another process may have finished it just now.
            if not _complete(folder, settings, names[0], whole):
                _clear(folder, names, settings["kind"])
                write_json(settings, folder / "settings.json")
                write()


def _write(folder: Path, jobs: list[_Job], workers: int) -> None:
    with mapper(workers) as apply:
        visits = list(progress(apply(_write_patient, jobs), "phantom X-rays", total=len(jobs)))
    write_csv(pd.DataFrame([row for rows in visits for row in rows]), folder / "metadata.csv")


def _complete(folder: Path, settings: dict, table: str, whole: Callable[[Path, dict], bool]) -> bool:
    if not (folder / table).exists() or not (folder / "settings.json").exists():
        return False
    return read_json(folder / "settings.json") == settings and whole(folder, settings)


def _has_images(folder: Path, settings: dict) -> bool:
    kinds = ("images", "masks") if settings["masks"] else ("images",)
    names = pd.read_csv(folder / "metadata.csv")["filename"]
    return all((folder / kind / name).exists() for kind in kinds for name in names)


def _clear(folder: Path, names: tuple[str, ...], kind: str) -> None:
    """Remove an earlier set, its table first; refuse to touch what is not one."""
    written = [folder / name for name in names if (folder / name).exists()]
    if written and not (folder / "settings.json").exists():
        raise DataError(f"{written[0]}: not written by covidtf; choose an empty folder for the phantoms")
    if (folder / "settings.json").exists() and read_json(folder / "settings.json").get("kind") != kind:
        raise DataError(f"{folder / 'settings.json'}: not the settings of {kind}; choose another folder")
    for path in written:
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def _mix(patients: int, seed: int) -> list[str]:
    """Finding of each patient, shuffled."""
    others = [name for name in FINDINGS if name not in ("COVID-19", "No Finding")]
    pattern = (name for other in _endless(others) for name in ("COVID-19", "No Finding", other))
    findings = [next(pattern) for _ in range(patients)]
    return [findings[place] for place in np.random.default_rng([seed, 21]).permutation(patients)]


def _endless(names: list[str]) -> Iterator[str]:
    while True:
        yield from names


@contextlib.contextmanager
def mapper(workers: int) -> Iterator:
    """Builtin `map`, or that of a pool of spawned processes, because TensorFlow does not survive a fork."""
    if workers == 1:
        yield map
        return
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield pool.map


def _write_patient(job: _Job) -> list[dict]:
    """Draw, project and write all visits of one patient; the rows of the table."""
    anatomy, start = np.random.SeedSequence([job.seed, job.patient]).generate_state(2)
    severity = np.clip(np.random.default_rng([start, 1]).beta(2.6, 1.6), 0.15, 1)
    rows = []
    for image in range(job.images):
        rng = np.random.default_rng([job.seed, job.patient, image])
        view = "PA" if rng.random() < 0.6 else "AP"
        breath = float(np.clip(rng.beta(6, 1.5) - 0.15 * (view == "AP"), 0, 1))
        now = round(float(np.clip(severity * (1 if image == 0 else rng.uniform(0.6, 1.3)), 0.1, 1)), 3)
        visit = int(rng.integers(2**31))
        style = _style(job, np.random.default_rng([job.seed, job.patient, image, 1]))
        volume = thorax(int(anatomy), job.finding, now, breath)
        name = f"phantom{job.patient:05d}_{image}.png"
        _save(project(volume, visit, view, style, job.size), job.folder / "images" / name)
        if job.masks:
            _save(
                lung_field(volume, visit, view, job.size).astype(np.uint8) * 255, job.folder / "masks" / name
            )
        rows.append({
            "filename": name,
            "patient_id": f"phantom{job.patient:05d}",
            "finding": job.finding,
            "label": "COVID-19" if job.finding == "COVID-19" else "non-COVID",
            "view": view,
            "style": style,
            "sex": volume.patient.sex,
            "age": volume.patient.age,
            "severity": volume.severity,
        })  # fmt: skip
    return rows


def _style(job: _Job, rng: np.random.Generator) -> str:
    """Scanner of one image; from a generator of its own, so that `shortcut` changes nothing else."""
    styles = list(STYLES)
    if not job.shortcut:
        return str(rng.choice(styles))
    share = 0.95 if job.finding == "COVID-19" else 0.03
    return styles[0] if rng.random() < share else str(rng.choice(styles[1:]))


def _save(pixels: np.ndarray, path: Path) -> None:
    with atomic(path) as temporary:
        Image.fromarray(pixels).save(temporary, "PNG", compress_level=3)
