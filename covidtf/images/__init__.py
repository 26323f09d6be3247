"""One image file of any accepted format -> 8-bit pixels and what the file says about itself."""

import errno
import io
import stat
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps

from covidtf.files import DataError
from covidtf.images.dicom import is_dicom, read_dicom

MAX_PIXELS = 64_000_000
MAX_BYTES = 512 * 2**20
CROPS = ("center", "resize", "lungs")
GREYS = ("stored", "equalised")
_FORMATS = ("JPEG", "PNG", "TIFF", "BMP", "GIF")
_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "YCbCr", "I", "I;16", "I;16B", "I;16L")
_LUNG_MARGIN = 0.05  # of the lungs' height and width
_LOOK_AT = 224  # side in px at which lungs are looked for
# What is wrong with one file; anything else (a lost disk) stops the work instead of losing an image.
_UNREADABLE = {
    getattr(errno, name) for name in ("ENOENT", "ENOTDIR", "EACCES", "EPERM", "ELOOP", "ENAMETOOLONG")
}


@dataclass(frozen=True)
class Decoded:
    """Pixels of one file, and the properties of the file that may tell its source apart.

    Attributes:
        pixels: Pillow image of mode `L` or `RGB`, upright, perhaps reduced while it was decoded.
        box: The image inside `pixels`, (0, 0, right, bottom); fractions where the reduction was uneven.
        properties: width and height in px as stored, mode (Pillow's, or DICOM's PhotometricInterpretation),
            format ("JPEG", "PNG", ..., "DICOM", by content), bits per channel as stored.
    """

    pixels: Image.Image
    box: tuple[float, float, float, float]
    properties: dict[str, int | str]


def read_image(path: str | Path, channels: int = 1, size_hint: int | None = None) -> np.ndarray:
    """Pixels of an image file, upright, black at 0 and white at 255.

    The content decides on the format, not the file's name. Rules:

    - Colour to grey: ITU-R 601 luma, as Pillow's `convert("L")`. ICC profiles and gamma are not applied.
    - Transparent pixels are composited over black, the background of an X-ray.
    - 16-bit grey: scaled from [0, 2^b - 1], b the smallest of 8, 10, 12, 14, 16 that holds the largest value.
      16-bit colour or grey with alpha: the upper 8 bits.
    - EXIF rotation is applied.
    - DICOM: `covidtf.images.dicom.read_dicom`.

    Args:
        path: JPEG, PNG, TIFF, BMP, GIF or DICOM file of one frame.
        channels: 1 (grey) or 3 (RGB).
        size_hint: Shortest side in px that is needed. A JPEG is then decoded at 1/2, 1/4 or 1/8 of its size,
            as long as both sides keep at least `size_hint`.
    Returns:
        uint8 array, shape `(height, width, channels)`.
    Raises:
        DataError: If the file is absent, larger than `MAX_BYTES`, no image, damaged, larger than `MAX_PIXELS`
            by its header, of more than one frame, or of a mode without a grey scale (CMYK, floating point).
        OSError: If reading fails for another reason (an unreachable disk).
    """
    try:
        decoded = decode(read_bytes(path), channels, size_hint)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    pixels = np.array(decoded.pixels)
    return pixels.reshape(*pixels.shape[:2], channels)


def read_bytes(path: str | Path) -> bytes:
    """Content of a regular file of at most `MAX_BYTES`; a `DataError` gives the reason without the path."""
    path = Path(path)
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise DataError("not a regular file")
        if status.st_size > MAX_BYTES:
            raise DataError(f"{status.st_size} bytes; at most {MAX_BYTES} are accepted")
        data = path.read_bytes()
    except OSError as error:
        if error.errno not in _UNREADABLE:
            raise
        raise DataError(f"cannot be opened: {error.strerror}") from error
    if not data:
        raise DataError("empty file")
    return data


def decode(data: bytes, channels: int = 1, size_hint: int | None = None) -> Decoded:
    """As `read_image`, from the bytes of a file; a `DataError` gives the reason without a path."""
    if channels not in (1, 3):
        raise ValueError(f"`channels` must be 1 or 3. Received: {channels!r}")
    mode = "L" if channels == 1 else "RGB"
    try:
        if is_dicom(data):
            pixels, properties = read_dicom(data, MAX_PIXELS)
            image = Image.fromarray(pixels)
            return Decoded(image.convert(mode), (0, 0, *image.size), properties)
        return _decode(data, mode, size_hint)
    except (DataError, MemoryError):
        raise
    except Image.UnidentifiedImageError as error:
        raise DataError(f"no image of a known format ({', '.join(_FORMATS)}, DICOM)") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(f"too large: {error}") from error
    # Damaged files make the decoders raise almost anything: OSError, SyntaxError, struct.error, KeyError...
    except Exception as error:
        text = " ".join(str(error).split())
        raise DataError(f"cannot be decoded: {type(error).__name__}: {text}") from error


def needed(size: int, crop: str) -> int:
    """The `size_hint` at which a file must be decoded, so that the crop has `size` px."""
    return 2 * size if crop == "lungs" else size


def fit(decoded: Decoded, size: int, crop: str, grey: str = "stored") -> Image.Image:
    """Square of `size` x `size` px.

    Args:
        decoded: From `decode`.
        size: Side in px.
        crop: "center": short side to `size`, long side to `int(size * long / short)`, bilinear, the middle
            cut out, which is torchvision's `Resize(size)` and `CenterCrop(size)`. "resize": the whole image
            to the square, bicubic, which is Pillow's `resize((size, size))`. "lungs": the same of the box
            around `lungs.lung_mask`, 5 % wider on each side, of chest X-rays.
        grey: "stored", or "equalised": each channel's histogram made flat (`ImageOps.equalize`).
    Returns:
        Pillow image of the same mode.
    """
    image = _square(decoded, size, crop)
    return ImageOps.equalize(image) if grey == "equalised" else image


def _square(decoded: Decoded, size: int, crop: str) -> Image.Image:
    if crop != "center":
        box = _lung_box(decoded) if crop == "lungs" else decoded.box
        return decoded.pixels.resize((size, size), Image.Resampling.BICUBIC, box)
    spans = []
    width, height = decoded.box[2:]
    for side in (width, height):
        scaled = int(size * side / min(width, height))
        start = round((scaled - size) / 2.0)
        spans.append((start * side / scaled, min((start + size) * side / scaled, side)))
    (left, right), (top, bottom) = spans
    return decoded.pixels.resize((size, size), Image.Resampling.BILINEAR, (left, top, right, bottom))


def _lung_box(decoded: Decoded) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of the lungs with their margin, in the coordinates of `decoded.pixels`."""
    # Imported here: the rare crop alone needs it.
    from covidtf.images.lungs import lung_mask

    shape = (_LOOK_AT, _LOOK_AT)
    looked_at = decoded.pixels.convert("L").resize(shape, Image.Resampling.BICUBIC, decoded.box)
    mask = lung_mask(np.asarray(looked_at))
    spans = []
    for axis, side in ((0, decoded.box[2]), (1, decoded.box[3])):
        inside = np.flatnonzero(mask.any(axis=axis))
        first, last = inside[0], inside[-1] + 1
        margin = _LUNG_MARGIN * (last - first)
        ends = max(first - margin, 0), min(last + margin, _LOOK_AT)
        spans.append(tuple(end * side / _LOOK_AT for end in ends))
    (left, right), (top, bottom) = spans
    return left, top, right, bottom


def _decode(data: bytes, mode: str, size_hint: int | None) -> Decoded:
    with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
        width, height = image.size
        _check(image)
        properties = {
            "width": width,
            "height": height,
            "mode": image.mode,
            "format": image.format,
            "bits": _bits(image, data),
        }
        if image.format == "JPEG" and image.getexif().get(ExifTags.Base.Orientation, 1) == 1:
            # An 8x8 block is decoded to fewer pixels, and colour is dropped: most of the work is never done.
            _, box = image.draft(mode, (size_hint, size_hint) if size_hint else None)
        else:
            ImageOps.exif_transpose(image, in_place=True)
            box = (0, 0, *image.size)
        image.load()
        return Decoded(_to_8_bit(image, mode), box, properties)


def _check(image: Image.Image) -> None:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise DataError(f"too large: {width} x {height} px by its header; at most {MAX_PIXELS} are accepted")
    if image.mode not in _MODES:
        raise DataError(f"mode {image.mode} has no defined grey scale; accepted are {', '.join(_MODES)}")
    frames = getattr(image, "n_frames", 1)
    if frames > 1:
        raise DataError(f"{frames} frames; one image per file is wanted")


def _bits(image: Image.Image, data: bytes) -> int:
    if image.format == "PNG":
        return data[24]  # IHDR holds the depth at a fixed place; Pillow does not give it
    if image.format == "TIFF":
        return max(image.tag_v2.get(258, (1,)))
    return 1 if image.mode == "1" else 8


def _to_8_bit(image: Image.Image, mode: str) -> Image.Image:
    if image.mode.startswith("I"):
        return Image.fromarray(_scale(image)).convert(mode)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "black"), image)
    return image if image.mode == mode else image.convert(mode)


def _scale(image: Image.Image) -> np.ndarray:
    values = np.asarray(image)
    low, high = int(values.min()), int(values.max())
    if low < 0 or high >= 2**16:
        raise DataError(f"values from {low} to {high}; 16-bit grey must be in [0, 65535]")
    top = next(2**bits - 1 for bits in (8, 10, 12, 14, 16) if high < 2**bits)
    table = np.round(np.arange(top + 1) * (255 / top)).astype(np.uint8)
    # Pillow turns WhiteIsZero TIFFs around only when they have 8 bits.
    if image.format == "TIFF" and image.tag_v2.get(262) == 0:
        table = table[::-1]
    return table[values]
