"""One study -> grey squares of those of its slices that show lung, and what is known of each."""

import hashlib
import json
import os
from pathlib import Path

import numpy as np
from PIL import Image

from covidtf.ct import read_study
from covidtf.ct.fields import system_words
from covidtf.ct.lungs import examine
from covidtf.ct.nifti import ENDINGS
from covidtf.ct.volume import Study, StudyError, Volume
from covidtf.files import DataError, sha256
from covidtf.images import Decoded, decode, fit, read_bytes
from covidtf.images.prepare import inside, perceptual_hash

# What a slice's manifest row has besides its study's columns.
COLUMNS = (
    "slice", "slices", "position_mm", "thickness_mm", "kernel", "lung_share", "chosen",
    "width", "height", "mode", "format", "bits", "phash",
)  # fmt: skip
CUT_OFF = "lungs may be cut off by the edge of the image"
Row = tuple[bytes | None, dict]


def window(hu: np.ndarray, level: float = -600.0, width: float = 1500.0) -> np.ndarray:
    """Grey values of Hounsfield units: 0 at `level - width / 2`, 255 at `level + width / 2`, linear between.

    Args:
        hu: Any shape.
        level, width: HU; the default is the usual lung window, -1350 to 150.
    Returns:
        uint8, clipped and rounded, the shape of `hu`.
    """
    grey = (hu - (level - width / 2)) * 255 / width
    return np.rint(grey.clip(0, 255)).astype(np.uint8)


def square(grey: np.ndarray, size: int) -> Image.Image:
    """A slice at `size` x `size` px, as `images.fit` with crop "resize" makes it of a picture of the slice.

    Pillow's bicubic filter is as wide as the area that a new pixel covers, so nothing is aliased at 512 to
    224, and a slice that is exported as a picture is scored from the same pixels.

    Args:
        grey: uint8, `(rows, columns)`.
        size: px.
    """
    image = Image.fromarray(grey)
    return fit(Decoded(image, (0, 0, *image.size), {}), size, "resize")


def spread(count: int, most: int) -> np.ndarray:
    """At most `most` of `count` places, evenly; first and last stay.

    Returns:
        int64, increasing: all, or `numpy.linspace` rounded to whole places; the middle one if `most` is 1.
    """
    if count <= most:
        return np.arange(count)
    if most == 1:
        return np.array([count // 2])
    return np.rint(np.linspace(0, count - 1, most)).astype(np.int64)


def choose(lung_share: np.ndarray, most: int, least: int, least_share: float) -> np.ndarray:
    """Slices that show lung, thinned to `most` by `spread`.

    Args:
        lung_share: Area of the lungs over that of the body, per slice.
        most, least: How many slices are wanted.
        least_share: Share from which a slice shows lung.
    Returns:
        int64, places in `lung_share`, increasing.
    Raises:
        DataError: Fewer than `least` slices show lung; the reason, without a path.
    """
    showing = np.flatnonzero(lung_share >= least_share)
    if len(showing) < least:
        raise DataError(
            f"{len(showing)} of {len(lung_share)} slices show lung "
            f"(at least {least_share:g} of the body's area); at least {least} are wanted"
        )
    return showing[spread(len(showing), most)]


def prepare_study(
    item: tuple[str, str, str],
    roots: dict[str, Path],
    size: int,
    level: float,
    width: float,
    most: int,
    least: int,
    least_lung: float,
) -> list[Row]:
    """Rows of one study for `images.store.Store`: first the study's own, without pixels, then its slices'.

    Args:
        item: The study's source, path and known sha256, empty where it is not known.
        roots: Real folder of each source.
        size, level, width, most, least, least_lung: As `ct.prepare.prepare_studies` takes them.
    Returns:
        The study's record has `reason` (empty if it is used), `rows` (how many slices follow), `study` (its
        row of studies.csv), `series` (its rows of series.csv) and `files` (path and reason of each file that
        was not used); `slices`, what its slices have in common, if it is used. A slice's record has its own
        columns of the manifest.
    """
    source, path, known = item
    place = roots[source] / path
    record = {"reason": "", "rows": 0, "study": {"chosen": 0}, "series": [], "files": []}
    try:
        inside(roots[source], path)
        _check(place, known)
        names = _names(place)
        record["study"]["files"] = len(names)
        study = _read(place, record)
        record["study"]["kind"] = _kind(study, names)
        if study.volume is None:
            rows = _of_pictures(study.pictures, place, record, size, most, least)
        else:
            rows = _of_volume(study.volume, record, size, (level, width), (most, least, least_lung))
    except DataError as error:
        record["reason"] = str(error).removeprefix(f"{place}: ").replace(f"{roots[source]}/", "")
        return [(None, record)]
    # A fault that nobody foresaw costs one study, not all; its text may quote a header.
    except Exception as error:
        record["reason"] = f"cannot be read: {system_words(error) or type(error).__name__}"
        return [(None, record)]
    record["rows"] = record["study"]["chosen"] = len(rows)
    return [(None, record), *rows]


def _check(place: Path, known: str) -> None:
    if not known:
        return
    if not place.is_file():
        raise DataError("the manifest gives a sha256, which only a study of one file can have")
    found = sha256(place)
    if found != known:
        raise DataError(f"sha256 is {found}, the manifest says {known}")


def _read(place: Path, record: dict) -> Study:
    try:
        study = read_study(place)
    except StudyError as error:
        _report(record, error)
        raise
    _report(record, study)
    return study


def _report(record: dict, study: Study | StudyError) -> None:
    """Add what was found in the study, used or not."""
    record["series"] = json.loads(study.series.to_json(orient="records"))
    record["files"] += study.rejected[["path", "reason"]].to_numpy().tolist()


def _kind(study: Study, names: list[str]) -> str:
    if study.volume is None:
        return "images"
    used = set(names) - set(study.rejected["path"])
    return "NIfTI" if any(name.casefold().endswith(ENDINGS) for name in used) else "DICOM"


def _names(place: Path) -> list[str]:
    if not place.is_dir():
        return [place.name]
    return [
        os.path.relpath(f"{folder}/{name}", place) for folder, _, names in os.walk(place) for name in names
    ]


def _of_volume(
    volume: Volume,
    record: dict,
    size: int,
    grey: tuple[float, float],
    limits: tuple[int, int, float],
) -> list[Row]:
    shares, cut = examine(volume)
    showing = int((shares >= limits[2]).sum())
    study = record["study"] | {
        "slices": len(shares),
        "with_lung": showing,
        "thickness_mm": round(float(volume.thickness), 3),
        "spacing_mm": " x ".join(f"{side:.4g}" for side in volume.spacing),
        "kernel": volume.kernel,
        "notes": "; ".join((*volume.notes, *((CUT_OFF,) if cut else ()))),
    }
    record["study"] = study
    try:
        kept = choose(shares, *limits)
    except DataError as error:
        raise DataError(f"{error}{_untried(record)}") from None
    common = {name: study[name] for name in ("slices", "thickness_mm", "kernel")}
    height, width = volume.hu.shape[1:]
    shape = {"width": width, "height": height, "mode": "HU", "format": study["kind"], "bits": 16}
    record["slices"] = common | shape
    rows = []
    for number in kept.tolist():
        pixels = square(window(volume.hu[number], *grey), size)
        known = {
            "slice": number,
            "position_mm": round(float(volume.positions[number]), 3),
            "lung_share": round(float(shares[number]), 4),
            "chosen": f"lung {shares[number]:.2f} of body{_thinning(showing, len(kept))}",
            "sha256": hashlib.sha256(volume.hu[number].astype("<i2").tobytes()).hexdigest(),
            "phash": perceptual_hash(pixels),
        }
        rows.append((pixels.tobytes(), known))
    return rows


def _untried(record: dict) -> str:
    others = sum(series["state"].startswith("not chosen") for series in record["series"])
    return f"; other series that could be used and were not tried: {others}" if others else ""


def _of_pictures(
    pictures: list[Path], place: Path, record: dict, size: int, most: int, least: int
) -> list[Row]:
    rows = []
    for number, picture in enumerate(pictures):
        name = os.path.relpath(place / picture, place)
        try:
            data = read_bytes(place / picture)
            decoded = decode(data, 1, size)
        except DataError as error:
            record["files"].append([name, str(error)])
            continue
        pixels = fit(decoded, size, "resize")
        known = {"slice": number, "chosen": f"{name}, no HU, lung unknown", **decoded.properties}
        known |= {"sha256": hashlib.sha256(data).hexdigest(), "phash": perceptual_hash(pixels)}
        rows.append((pixels.tobytes(), known))
    record["study"] |= {"slices": len(pictures), "kernel": "unknown"}
    record["slices"] = {"slices": len(pictures), "kernel": "unknown"}
    if len(rows) < least:
        raise DataError(f"{len(rows)} slice images can be used; at least {least} are wanted")
    kept = [rows[number] for number in spread(len(rows), most)]
    for _, known in kept:
        known["chosen"] += _thinning(len(rows), len(kept))
    return kept


def _thinning(count: int, kept: int) -> str:
    return f", 1 of every {count / kept:.3g}" if kept < count else ""
