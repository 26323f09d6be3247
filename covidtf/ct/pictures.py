"""A folder of slice images: which files are images, in natural order of their names."""

import re
from collections.abc import Iterable
from pathlib import Path

from PIL import Image

from covidtf.ct.fields import fault
from covidtf.ct.headers import NO_PREAMBLE

FORMATS = ("PNG", "JPEG", "TIFF", "BMP")


def find_pictures(root: Path, names: Iterable[str]) -> tuple[list[Path], dict[str, str]]:
    """Slice images among the files, by their content, and name to reason of the others.

    Args:
        root: Folder that `names` are relative to.
        names: Files to look at.
    Returns:
        Paths in natural order of their names (`2.png` before `10.png`); their pixels are not read.
    """
    rejected = {name: _reason(root / name) for name in names}
    pictures = sorted((name for name, reason in rejected.items() if not reason), key=_natural)
    return [root / name for name in pictures], {name: reason for name, reason in rejected.items() if reason}


def _natural(name: str) -> tuple:
    # Even places hold text and odd ones numbers, so that equal places always compare.
    parts = re.split(r"(\d+)", name.casefold())
    return tuple(int(part) if i % 2 else part for i, part in enumerate(parts)), name


def _reason(path: Path) -> str:
    try:
        with Image.open(path, formats=FORMATS) as image:
            frames = getattr(image, "n_frames", 1)
            return f"{frames} images in one file; one is wanted" if frames > 1 else ""
    except Image.UnidentifiedImageError:
        return f"neither DICOM ({NO_PREAMBLE}) nor NIfTI nor an image ({', '.join(FORMATS)})"
    # Damaged files make Pillow raise almost anything.
    except Exception as error:
        return fault(error, "image")
