"""Fields of DICOM files, read so that nothing of what they say about a person gets out.

pydicom quotes values in its warnings, log records and exceptions. They end here: what cannot be read is
absent.
"""

import logging
import math
import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from pydicom import config
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from covidtf.sources.folders import OF_ONE_FILE

_lock = threading.Lock()
_inside: list[object] = []
# Where an enhanced object keeps, per frame or shared, what a classic one has at its top.
_GROUPS = {
    "ImagePositionPatient": "PlanePositionSequence",
    "ImageOrientationPatient": "PlaneOrientationSequence",
    "PixelSpacing": "PixelMeasuresSequence",
    "SliceThickness": "PixelMeasuresSequence",
    "RescaleSlope": "PixelValueTransformationSequence",
    "RescaleIntercept": "PixelValueTransformationSequence",
    "RescaleType": "PixelValueTransformationSequence",
    "ConvolutionKernel": "CTReconstructionSequence",
    "GantryDetectorTilt": "CTAcquisitionDetailsSequence",
    "ImageType": "CTImageFrameTypeSequence",
    "AcquisitionNumber": "FrameContentSequence",
}
_RENAMED = {"ImageType": "FrameType", "AcquisitionNumber": "FrameAcquisitionNumber"}


@contextmanager
def quiet() -> Iterator[None]:
    """No warning, log record or check of values by pydicom or nibabel gets out of the block.

    Python's warning filters belong to the process, not to a thread: the first thread that enters sets them
    and the last one that leaves puts them back, so that no thread lifts the ban under another.
    """
    with _lock:
        if not _inside:
            _inside.append(_ban())
        _inside.append(None)
    try:
        yield
    finally:
        with _lock:
            _inside.pop()
            if len(_inside) == 1:
                _lift(*_inside.pop())


def _ban() -> tuple:
    caught = warnings.catch_warnings()
    caught.__enter__()
    warnings.simplefilter("ignore")
    loggers = [logging.getLogger(name) for name in ("pydicom", "nibabel.global")]
    before = [(logger, logger.propagate, logger.disabled) for logger in loggers]
    for logger in loggers:
        logger.propagate, logger.disabled = False, True
    mode = config.settings.reading_validation_mode
    config.settings.reading_validation_mode = config.IGNORE
    return caught, before, mode


def _lift(caught: warnings.catch_warnings, before: list, mode: int) -> None:
    config.settings.reading_validation_mode = mode
    for logger, propagate, disabled in before:
        logger.propagate, logger.disabled = propagate, disabled
    caught.__exit__(None, None, None)


def fault(error: Exception, what: str) -> str:
    """Reason that a file cannot be used, without the words of the error.

    Args:
        error: As reading or decoding the file raised it. One that is not this file's fault (memory, an
            unreachable disk) is raised again.
        what: Part of the file that was read.
    """
    words = system_words(error)
    if words:
        return f"cannot be read: {words}"
    return f"damaged: its {what} cannot be read ({type(error).__name__})"


def system_words(error: Exception) -> str:
    """What the system says of an error of one file, "" for an error that is not the system's.

    An error that is not one file's fault (memory, an unreachable disk) is raised again.
    """
    number = error.errno if isinstance(error, OSError) else None
    if isinstance(error, MemoryError) or number not in (None, *OF_ONE_FILE):
        raise error
    return os.strerror(number) if number else ""


class Fields:
    """Fields of one image: of a classic object, or of one frame of an enhanced one.

    Args:
        dataset: The object.
        frame: Index of the frame in an enhanced object; None for a classic one.
    """

    def __init__(self, dataset: Dataset, frame: int | None = None) -> None:
        self._dataset = dataset
        self._items = []
        if frame is not None:
            shared = dataset.get("SharedFunctionalGroupsSequence") or []
            self._items = [dataset.PerFrameFunctionalGroupsSequence[frame], *shared[:1]]

    def texts(self, keyword: str) -> list[str]:
        """Values as stripped text; empty where the field is absent, empty or cannot be read."""
        try:
            value = self._find(keyword)
            many = value if isinstance(value, MultiValue | list | tuple) else [value]
            return [] if value is None else [str(one).strip() for one in many]
        # A value that breaks its VR raises whatever the VR's class raises, with the value in its text.
        except Exception:
            return []

    def text(self, keyword: str) -> str:
        """First value as text, `""` where there is none."""
        return next(iter(self.texts(keyword)), "")

    def numbers(self, keyword: str, count: int) -> tuple[float, ...] | None:
        """Exactly `count` finite numbers, or None."""
        try:
            values = tuple(float(text) for text in self.texts(keyword))
        except ValueError:
            return None
        return values if len(values) == count and all(map(math.isfinite, values)) else None

    def number(self, keyword: str) -> float | None:
        """One finite number, or None."""
        values = self.numbers(keyword, 1)
        return values[0] if values else None

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns, 0 where the header does not say."""
        return int(self.number("Rows") or 0), int(self.number("Columns") or 0)

    def _find(self, keyword: str) -> object:
        for item in self._items:
            group = item.get(_GROUPS.get(keyword, ""))
            value = group[0].get(_RENAMED.get(keyword, keyword)) if group else None
            if value is not None:
                return value
        return self._dataset.get(keyword)
