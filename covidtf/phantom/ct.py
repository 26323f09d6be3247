"""CT studies of phantoms: a set of DICOM folders in the proportions of COVID19-Diag, and its tables."""

import gzip
import os
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd

from covidtf.files import atomic, progress, write_csv
from covidtf.phantom import fill, mapper
from covidtf.phantom.dicom import (
    SCANNERS,
    SYNTAXES,
    Study,
    write_dose_page,
    write_localizer,
    write_slices,
)
from covidtf.phantom.thorax.volume import Volume, thorax
from covidtf.phantom.tomography import Slab, View, aim, couch, cut, reconstruct, resample

# Part of the settings of every written set: raise it when the same seed no longer gives the same files.
VERSION = 1
# The label of COVID19-Diag, our finding for it, and its cases by the publication's table.
CLASSES = {
    "COVID-19": ("COVID-19", 61),
    "Normal": ("No Finding", 95),
    "Bacterial Pneumonia": ("Lobar pneumonia", 69),
}
# A slice shows a lesion from this share of its lung on; less is a few pixels at the lesion's rim.
SHOWN = 0.01
_THICK = 5.0


@dataclass(frozen=True)
class _Job:
    folder: Path
    case: int
    label: str
    seed: int
    shortcut: bool
    matrix: int
    masks: bool


def write_cts(folder: str | Path, cases: int = 225, seed: int = 0, shortcut: bool = False, matrix: int = 512,
              masks: bool = False, workers: int | None = None) -> Path:  # fmt: skip
    """Write a set of phantom CTs: `studies/*/`, `settings.json`, `slices.csv` and, last of all, `cases.csv`.

    Classes are 61 : 95 : 69 (COVID-19, Normal, Bacterial Pneumonia) as in COVID19-Diag's table, one case per
    patient. A study is a folder of DICOM files as a scanner leaves it: 5 mm axial slices with a lung kernel,
    in some cases also a few with a soft kernel, a localizer or a dose page. The same arguments give the same
    bytes, however many processes work. A complete folder with the same settings is left as it is; one that is
    half-written or has other settings is made anew as a whole.

    `cases.csv`: case_id, patient_id, path (of the study, relative to `folder`), finding, label, scanner, sex,
    age, severity, slices (with the lung kernel), lesion_slices (those of them with at least `SHOWN` of their
    lung in lesion), files. `slices.csv`: case_id, position (from the head, from 0), lesion_share.

    Args:
        folder: Made if absent.
        cases: At least 3; every class has one.
        seed: Decides everything but `matrix` and `masks`.
        shortcut: Nearly all COVID-19 cases (0.95) come from the Siemens-like scanner and nearly all others
            (0.97) from the GE-like one; else either does by chance. The anatomy, findings and which series a
            study has are the same either way.
        matrix: Pixels along each side of a slice, at least 32.
        masks: Also write `masks/<case_id>.nii.gz` on the grid of the slices: 1 lung, 2 lesion in it, else 0.
        workers: Processes; None for one per core.
    Returns:
        Path of `cases.csv`.
    Raises:
        ValueError: A number below its least value.
        DataError: `folder` holds something else of these names, or another process is writing to it.
    Reference: Hu et al. 2021, Neurocomputing 458:232-245, for the classes, scanners, slices and matrix.
    """
    workers = (os.cpu_count() or 1) if workers is None else workers
    least = {"cases": 3, "seed": 0, "matrix": 32, "workers": 1}
    given = dict(zip(least, (cases, seed, matrix, workers), strict=True))
    for name, value in given.items():
        if value < least[name]:
            raise ValueError(f"`{name}` must be at least {least[name]}. Received: {value}")
    folder = Path(folder)
    del given["workers"]
    settings = {**given, "shortcut": shortcut, "masks": masks, "version": VERSION, "kind": "phantom CTs"}
    jobs = [_Job(folder, case, label, seed, shortcut, matrix, masks)
            for case, label in enumerate(_mix(cases, seed))]  # fmt: skip
    names = ("cases.csv", "slices.csv", "studies", "masks")
    fill(folder, settings, names, _has_studies, lambda: _write(folder, jobs, min(workers, cases)))
    return folder / "cases.csv"


def _write(folder: Path, jobs: list[_Job], workers: int) -> None:
    with mapper(workers) as apply:
        done = list(progress(apply(_write_case, jobs), "phantom CTs", total=len(jobs)))
    write_csv(pd.DataFrame([row for _, slices in done for row in slices]), folder / "slices.csv")
    write_csv(pd.DataFrame([case for case, _ in done]), folder / "cases.csv")


def _has_studies(folder: Path, settings: dict) -> bool:
    table = pd.read_csv(folder / "cases.csv")
    masks = [folder / "masks" / f"{name}.nii.gz" for name in table["case_id"]] if settings["masks"] else []
    kept = all(len(_files(folder / row.path)) == row.files for row in table.itertuples())
    return kept and (folder / "slices.csv").exists() and all(path.exists() for path in masks)


def _files(study: Path) -> list[Path]:
    return [path for path in study.rglob("*") if path.is_file()]


def _mix(cases: int, seed: int) -> list[str]:
    """Label of each case, shuffled; largest remainders in the proportions of `CLASSES`."""
    exact = np.array([published for _, published in CLASSES.values()]) * cases
    total = sum(published for _, published in CLASSES.values())
    counts = exact // total
    counts[np.argsort(-(exact % total), kind="stable")[: cases - counts.sum()]] += 1
    labels = np.repeat(list(CLASSES), counts)
    return [str(label) for label in np.random.default_rng([seed, 41]).permutation(labels)]


def _write_case(job: _Job) -> tuple[dict, list[dict]]:
    """Draw, reconstruct and write one case; its row of `cases.csv` and its rows of `slices.csv`."""
    anatomy = int(np.random.SeedSequence([job.seed, job.case, 42]).generate_state(1)[0])
    rng = np.random.default_rng([job.seed, job.case, 43])
    severity = round(float(np.clip(rng.beta(2.6, 1.6), 0.15, 1)), 3)
    breath = float(np.clip(rng.beta(6, 1.5), 0, 1))
    step = max(1.0, min(4.0, 360 / job.matrix))
    volume = thorax(anatomy, CLASSES[job.label][0], severity, breath, (_THICK / 2, step, step))
    slab, view = cut(volume, rng), aim(volume.patient, job.matrix, rng)
    case_id = f"ct{job.case:05d}"
    study = Study(
        folder=job.folder / "studies" / case_id,
        case_id=case_id,
        patient_id=f"phantom{job.case:05d}",
        patient=volume.patient,
        scanner=_scanner(job, np.random.default_rng([job.seed, job.case, 44])),
        syntax=SYNTAXES[rng.choice(len(SYNTAXES), p=(0.2, 0.6, 0.2))],
        nested=bool(rng.random() < 0.5),
        entropy=("covidtf phantom CT", str(job.seed), str(job.matrix)),
    )
    _write_study(study, slab, view, [job.seed, job.case, 45], rng)
    if job.masks:
        _write_mask(slab, view, job.folder / "masks" / f"{case_id}.nii.gz")
    share = slab.lesion.sum((1, 2)) / np.maximum(slab.lungs.sum((1, 2)), 1)
    slices = [{"case_id": case_id, "position": place, "lesion_share": round(float(value), 4)}
              for place, value in enumerate(share)]  # fmt: skip
    return _row(study, volume, job.label, share), slices


def _row(study: Study, volume: Volume, label: str, share: np.ndarray) -> dict:
    return {
        "case_id": study.case_id,
        "patient_id": study.patient_id,
        "path": f"studies/{study.case_id}",
        "finding": volume.finding,
        "label": label,
        "scanner": study.scanner,
        "sex": volume.patient.sex,
        "age": volume.patient.age,
        "severity": volume.severity,
        "slices": len(share),
        "lesion_slices": int((share >= SHOWN).sum()),
        "files": len(_files(study.folder)),
    }


def _scanner(job: _Job, rng: np.random.Generator) -> str:
    """Scanner of one case; from a generator of its own, so that `shortcut` changes nothing else."""
    share = (0.95 if job.label == "COVID-19" else 0.03) if job.shortcut else 0.5
    return "siemens" if rng.random() < share else "ge"


def _write_study(study: Study, slab: Slab, view: View, noise: list[int], rng: np.random.Generator) -> None:
    """Series 1 is the localizer, 2 the lung kernel, 3 the soft one, 501 the dose page."""
    scanner = SCANNERS[study.scanner]
    soft, scout, page = rng.random(3) < (0.3, 0.4, 0.3)
    some = slice(len(slab.heights) // 4, len(slab.heights) // 4 + 10)
    series = [(2, scanner.lung, slice(None))] + [(3, scanner.soft, some)] * bool(soft)
    table = couch(slab, view, scanner.couch)
    for number, kernel, part in series:
        hu = reconstruct(slab, view, kernel, table, part, np.random.default_rng([*noise, number]))
        corners = [(view.axis(0)[0], view.axis(1)[0], height) for height in slab.heights[part]]
        write_slices(study, number, kernel, hu, np.array(corners), view.pixel)
    if scout:
        # Four rows a slice, so that the pixels come out about square.
        picture = np.rint(slab.hu.mean(1)).astype(np.int16).repeat(4, 0)
        corner = (slab.grid[1][0], 0, slab.heights[0] + 1.5 * _THICK / 4)
        write_localizer(study, 1, picture, (_THICK / 4, slab.step), corner)
    if page:
        write_dose_page(study, 501)


def _write_mask(slab: Slab, view: View, path: Path) -> None:
    counts = (slab.lungs.astype(np.float32), slab.lesion.astype(np.float32))
    # A pixel belongs to what fills at least one of the two planes a slice is the mean of.
    lungs, lesion = (np.stack([resample(plane, slab, view, 0.0) for plane in part]) >= 1 for part in counts)
    mask = np.where(lesion, np.uint8(2), lungs.astype(np.uint8))
    # NIfTI's x and y grow to the right and the front, ours to the left and the back.
    affine = np.diag([-view.pixel, -view.pixel, -_THICK, 1])
    affine[:3, 3] = -view.axis(0)[0], -view.axis(1)[0], slab.heights[0]
    image = nib.Nifti1Image(mask.transpose(2, 1, 0), affine)
    with atomic(path) as temporary:
        # Without a time the same mask is the same bytes.
        temporary.write_bytes(gzip.compress(image.to_bytes(), 4, mtime=0))
