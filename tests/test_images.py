"""Reading one image file: accepted formats, the rules of conversion, and every kind of refusal."""

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image, ImageFile
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from covidtf import images, phantom
from covidtf.files import DataError
from covidtf.images import Decoded, decode, fit, read_image
from covidtf.images.lungs import lung_mask

GREY = np.add.outer(np.arange(16) * 10, np.arange(24) * 4).astype(np.uint8)


def encode(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def with_alpha(alpha: int) -> Image.Image:
    return Image.merge("LA", [Image.fromarray(GREY), Image.new("L", GREY.shape[::-1], alpha)])


def grey_palette(transparent: int | None = None) -> bytes:
    image = Image.fromarray(GREY).convert("P")
    image.putpalette([level for level in range(256) for _ in range(3)])
    return encode(image, **({} if transparent is None else {"transparency": transparent}))


def sixteen(values: np.ndarray, kind: str = "PNG", **options) -> bytes:
    return encode(Image.fromarray(values.astype(np.uint16)), kind, **options)


def dicom(values: np.ndarray, **attributes) -> bytes:
    """A DICOM file of `values`, shape ([frames,] rows, columns), with some attributes changed."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.1"
    meta.MediaStorageSOPInstanceUID = generate_uid()
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.Rows, dataset.Columns = values.shape[-2:]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 8 * values.dtype.itemsize
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(values.dtype.kind == "i")
    if values.ndim == 3:
        dataset.NumberOfFrames = len(values)
    dataset.PixelData = values.tobytes()
    for name, value in attributes.items():
        setattr(dataset, name, value)
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def name_of(value) -> str | None:
    return f"{len(value)} bytes" if isinstance(value, bytes) else None


def pixels(data: bytes, channels: int = 1) -> np.ndarray:
    return np.asarray(decode(data, channels).pixels)


@pytest.mark.parametrize(
    ("data", "mode", "kind", "bits"),
    [
        (encode(Image.fromarray(GREY)), "L", "PNG", 8),
        (encode(Image.fromarray(GREY).convert("RGB")), "RGB", "PNG", 8),
        (encode(Image.fromarray(GREY).convert("RGBA")), "RGBA", "PNG", 8),
        (encode(with_alpha(255)), "LA", "PNG", 8),
        (grey_palette(), "P", "PNG", 8),
        (sixteen(GREY), "I;16", "PNG", 16),
        (encode(Image.fromarray(GREY), "BMP"), "L", "BMP", 8),
        (encode(Image.fromarray(GREY), "GIF"), "P", "GIF", 8),
        (encode(Image.fromarray(GREY), "TIFF"), "L", "TIFF", 8),
        (encode(Image.fromarray(GREY), "TIFF", compression="tiff_lzw"), "L", "TIFF", 8),
        (sixteen(GREY, "TIFF"), "I;16", "TIFF", 16),
        (encode(Image.fromarray(GREY.astype(np.int32)), "TIFF"), "I", "TIFF", 32),
        (dicom(GREY, WindowCenter=128, WindowWidth=256), "MONOCHROME2", "DICOM", 8),
    ],
    ids=name_of,
)
def test_formats_give_the_same_pixels_and_their_own_properties(data, mode, kind, bits):
    """A grey image comes out unchanged from every lossless format, with the file's properties beside it."""
    decoded = decode(data)
    np.testing.assert_array_equal(np.asarray(decoded.pixels), GREY)
    assert decoded.properties == {"width": 24, "height": 16, "mode": mode, "format": kind, "bits": bits}
    np.testing.assert_array_equal(pixels(data, 3), np.repeat(GREY[..., None], 3, axis=2))


@pytest.mark.parametrize("name", ["image.jpg", "image.png", "image.dcm", "image"])
def test_the_content_decides_on_the_format(tmp_path, name):
    """A JPEG is read as a JPEG whatever its name says, and comes back within its own loss."""
    path = tmp_path / name
    path.write_bytes(encode(Image.fromarray(GREY), "JPEG", quality=95))
    array = read_image(path)
    assert array.shape == (16, 24, 1) and array.dtype == np.uint8
    assert np.abs(array[..., 0].astype(int) - GREY).mean() < 1


def test_one_bit_images_are_black_and_white():
    """Mode 1 becomes 0 and 255 and says that it had one bit."""
    decoded = decode(encode(Image.fromarray(GREY > 100)))
    np.testing.assert_array_equal(np.asarray(decoded.pixels), np.where(GREY > 100, 255, 0))
    assert decoded.properties["bits"] == 1


def test_colour_becomes_luma():
    """Red, green and blue weigh 0.299, 0.587 and 0.114, and with three channels they stay colours."""
    colours = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255]]], np.uint8)
    data = encode(Image.fromarray(colours))
    np.testing.assert_array_equal(pixels(data), [[76, 150, 29]])
    np.testing.assert_array_equal(pixels(data, 3), colours)


def test_transparent_pixels_lie_over_black():
    """Alpha 0 gives black and alpha 128 half the level, also when it is a palette's or a colour key."""
    np.testing.assert_array_equal(pixels(encode(with_alpha(0))), np.zeros_like(GREY))
    half = pixels(encode(with_alpha(128))).astype(int)
    assert np.abs(half - np.round(GREY * (128 / 255))).max() <= 1
    keyed = np.where(GREY == 40, 0, GREY)
    np.testing.assert_array_equal(pixels(grey_palette(transparent=40)), keyed)
    np.testing.assert_array_equal(pixels(encode(Image.fromarray(GREY), transparency=40)), keyed)


@pytest.mark.parametrize(
    ("largest", "top"),
    [(255, 255), (256, 1023), (1023, 1023), (1024, 4095), (4096, 16383), (16384, 65535), (65535, 65535)],
)
def test_sixteen_bit_grey_is_scaled_by_the_depth_it_uses(largest, top):
    """The scale ends at the smallest of 8, 10, 12, 14 and 16 bits that holds the largest value."""
    values = np.array([[0, largest // 2, largest]])
    expected = np.round(values * 255 / top)
    np.testing.assert_array_equal(pixels(sixteen(values)), expected)
    np.testing.assert_array_equal(pixels(sixteen(values, "TIFF")), expected)


def test_white_is_zero_tiff_is_turned_around():
    """A 16-bit TIFF that stores white as 0 comes out with white at 255."""
    black_is_zero = sixteen(np.array([[0, 1000, 4095]]), "TIFF")
    photometric = struct.pack("<HHI", 262, 3, 1)
    assert black_is_zero.count(photometric) == 1
    data = black_is_zero.replace(photometric + b"\1", photometric + b"\0")
    np.testing.assert_array_equal(pixels(data), [[255, 193, 0]])


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_applied(kind, orientation):
    """An image stored in any of the eight EXIF orientations comes out upright."""
    # How to store an upright image so that the orientation tag turns it back.
    store = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.T,
        6: lambda a: np.rot90(a),
        7: lambda a: np.rot90(a.T, 2),
        8: lambda a: np.rot90(a, -1),
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(np.ascontiguousarray(store[orientation](GREY)))
    decoded = decode(encode(stored, kind, exif=exif, **({"quality": 95} if kind == "JPEG" else {})), 1, 8)
    assert (
        np.abs(
            np.asarray(fit(decoded, 16, "resize")).astype(int)
            - np.asarray(Image.fromarray(GREY).resize((16, 16)))
        ).mean()
        < 1.5
    )


def test_size_hint_reduces_jpegs_and_nothing_else():
    """A JPEG is decoded at 1/4 if that holds the wanted side, close to the area means; a PNG stays whole."""
    big = np.asarray(Image.fromarray(GREY).resize((243, 161)))
    reduced = decode(encode(Image.fromarray(big), "JPEG", quality=95), 1, 40)
    assert reduced.pixels.size == (61, 41) and reduced.box == (0, 0, 243 / 4, 161 / 4)
    assert (reduced.properties["width"], reduced.properties["height"]) == (243, 161)
    mean = big[:160, :240].reshape(40, 4, 60, 4).mean((1, 3))
    assert np.abs(np.asarray(reduced.pixels)[:40, :60] - mean).mean() < 1
    assert decode(encode(Image.fromarray(big)), 1, 40).pixels.size == (243, 161)


@pytest.mark.parametrize(
    "shape", [(224, 224), (300, 315), (301, 452), (451, 300), (96, 177), (997, 31), (1, 5)]
)
def test_center_is_resize_and_centre_crop(shape):
    """Cutting by the resampling box equals torchvision's two steps, computed apart, to one grey level."""
    rng = np.random.default_rng(sum(shape))
    image = Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8))
    width, height = image.size
    short, long = min(image.size), max(image.size)
    scaled = int(64 * long / short)
    whole = image.resize((64, scaled) if width <= height else (scaled, 64), Image.Resampling.BILINEAR)
    top, left = round((whole.height - 64) / 2.0), round((whole.width - 64) / 2.0)
    expected = np.asarray(whole)[top : top + 64, left : left + 64].astype(int)
    result = np.asarray(fit(Decoded(image, (0, 0, width, height), {}), 64, "center"))
    assert np.abs(result - expected).max() <= 1


def test_resize_is_pillows_own():
    """The plain resize gives exactly the pixels of `Image.resize` with its default filter."""
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 140), dtype=np.uint8))
    result = fit(Decoded(image, (0, 0, 140, 90), {}), 64, "resize")
    np.testing.assert_array_equal(np.asarray(result), np.asarray(image.resize((64, 64))))


def test_equalised_grey_is_flat_and_forgets_contrast():
    """Equalised, a dark and a bright version of one image are the same picture, with a flat histogram."""
    image = np.random.default_rng(0).permutation(64 * 64).reshape(64, 64) * 200 // 64**2
    versions = [Image.fromarray(version.astype(np.uint8)) for version in (image // 2, image + 55)]
    flat = [fit(Decoded(version, (0, 0, 64, 64), {}), 64, "resize", "equalised") for version in versions]
    dark, bright = map(np.asarray, flat)
    assert np.abs(dark.astype(int) - bright).max() <= 3
    quarters = [np.bincount(version.ravel() // 64, minlength=4) / 64**2 for version in (image // 2, dark)]
    assert np.ptp(quarters[0]) > 0.5 > 0.1 > np.ptp(quarters[1])


def test_the_lungs_are_cut_out_with_a_margin(tmp_path):
    """Crop "lungs" is the box of the mask, 5 % wider on each side."""
    phantom.write_xrays(tmp_path, patients=1, images_per_patient=1, seed=3, size=256, workers=1)
    (path,) = (tmp_path / "images").glob("*.png")
    image = Image.open(path).convert("L")
    mask = lung_mask(np.asarray(image.resize((224, 224), Image.Resampling.BICUBIC)))
    box = []
    for axis in (0, 1):
        inside = np.flatnonzero(mask.any(axis=axis))
        margin = 0.05 * (inside[-1] + 1 - inside[0])
        box.append((max(0, inside[0] - margin) * 256 / 224, min(224, inside[-1] + 1 + margin) * 256 / 224))
    (left, right), (top, bottom) = box
    expected = image.resize((64, 64), Image.Resampling.BICUBIC, (left, top, right, bottom))
    result = fit(Decoded(image, (0, 0, 256, 256), {}), 64, "lungs")
    np.testing.assert_array_equal(np.asarray(result), np.asarray(expected))
    assert (right - left) * (bottom - top) < 0.9 * 256**2


def test_dicom_window_rescale_and_polarity():
    """Stored values are rescaled, windowed as in DICOM PS3.3 C.11.2.1.2; MONOCHROME1 is turned around."""
    stored = np.array([[0, 450, 500, 550, 1000]], np.uint16)
    attributes = {"RescaleSlope": 2, "RescaleIntercept": -1000, "WindowCenter": 0.5, "WindowWidth": 201}
    # Rescaled -1000, -100, 0, 100, 1000; centre 0 and width 200 after the standard's half level.
    expected = np.array([[0, 0, 128, 255, 255]])
    np.testing.assert_array_equal(pixels(dicom(stored, **attributes)), expected)
    turned = pixels(dicom(stored, PhotometricInterpretation="MONOCHROME1", **attributes))
    np.testing.assert_array_equal(turned, [[255, 255, 128, 0, 0]])


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({}, [0, 51, 102, 255]),
        ({"WindowCenter": [200, 1], "WindowWidth": [201, 2]}, [0, 0, 128, 255]),
        ({"WindowCenter": 200, "WindowWidth": 200, "VOILUTFunction": "LINEAR_EXACT"}, [0, 0, 128, 255]),
        ({"WindowCenter": 200, "WindowWidth": 400, "VOILUTFunction": "SIGMOID"}, [30, 69, 128, 243]),
    ],
)
def test_dicom_values_of_interest(attributes, expected):
    """Without a window the range of the values is used; else the first window with the file's function."""
    stored = np.array([[0, 100, 200, 500]], np.uint16)
    assert np.abs(pixels(dicom(stored, **attributes))[0].astype(int) - expected).max() <= 1


@pytest.mark.parametrize(
    ("vr", "table"), [("US", [0, 1000, 4095]), ("OW", np.array([0, 1000, 4095], "<u2").tobytes())]
)
def test_dicom_lookup_table(vr, table):
    """A VOI lookup table is preferred to a window; values outside of it take its ends."""
    item = Dataset()
    item.LUTDescriptor = [3, 100, 12]
    item.add_new("LUTData", vr, table)
    stored = np.array([[5, 100, 101, 102, 900]], np.uint16)
    data = dicom(stored, VOILUTSequence=[item], WindowCenter=1, WindowWidth=2)
    np.testing.assert_array_equal(pixels(data), [[0, 0, 62, 255, 255]])


@pytest.mark.parametrize("name", ["MR_small_RLE", "MR_small_jp2klossless", "MR_small_jpeg_ls_lossless"])
def test_compressed_dicom_equals_uncompressed(name):
    """Lossless transfer syntaxes give the pixels of the same image stored without compression."""
    plain, packed = (Path(get_testdata_file(f"{part}.dcm", download=False)) for part in ("MR_small", name))
    np.testing.assert_array_equal(read_image(packed), read_image(plain))
    assert read_image(plain).std() > 20


def png_header(width: int, height: int) -> bytes:
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    end = b"IDAT" + zlib.compress(b"\0" * 1000)
    parts = (
        struct.pack(">I", len(part) - 4) + part + struct.pack(">I", zlib.crc32(part)) for part in (chunk, end)
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def jpeg_header(width: int, height: int) -> bytes:
    data = encode(Image.fromarray(GREY), "JPEG")
    at = data.index(b"\xff\xc0") + 5
    return data[:at] + struct.pack(">HH", height, width) + data[at + 4 :]


FRAMES = [Image.fromarray(np.roll(GREY, shift)) for shift in (0, 3)]
FLOAT = Image.fromarray(np.where(GREY > 100, np.nan, GREY).astype(np.float32))
NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8))
SMALL_TEXT = b"Content moved. <html><body>Sign in to download this image</body></html>"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty file"),
        (SMALL_TEXT, "no image of a known format"),
        (b"\x89PNG\r\n\x1a\n", "no image of a known format"),
        (encode(NOISE, "JPEG")[:-60], "cannot be decoded.*truncated"),
        (encode(NOISE)[:-60], "cannot be decoded.*truncated"),
        (encode(Image.fromarray(GREY), "GIF")[:-100], "cannot be decoded"),
        (encode(Image.fromarray(GREY), "BMP")[:-100], "cannot be decoded"),
        (dicom(GREY)[:-100], "cannot be decoded"),
        (encode(Image.fromarray(GREY).convert("CMYK"), "JPEG"), "mode CMYK"),
        (encode(Image.fromarray(GREY).convert("CMYK"), "TIFF"), "mode CMYK"),
        (encode(FLOAT, "TIFF"), "mode F"),
        (encode(Image.fromarray(GREY.astype(np.int32) - 1), "TIFF"), "values from -1 to 241"),
        (encode(Image.fromarray(GREY.astype(np.int32) * 1000), "TIFF"), "values from 0 to 242000"),
        (encode(FRAMES[0], "GIF", save_all=True, append_images=FRAMES[1:]), "2 frames"),
        (encode(FRAMES[0], "PNG", save_all=True, append_images=FRAMES[1:]), "2 frames"),
        (encode(FRAMES[0], "TIFF", save_all=True, append_images=FRAMES[1:]), "2 frames"),
        (encode(FRAMES[0], "MPO", save_all=True, append_images=FRAMES[1:]), "2 frames"),
        (dicom(np.stack([GREY, GREY])), "2 frames"),
        (dicom(GREY, PhotometricInterpretation="PALETTE COLOR"), "PhotometricInterpretation PALETTE COLOR"),
        (dicom(GREY, WindowCenter=1, WindowWidth=0), "WindowWidth 0"),
        (dicom(GREY, WindowCenter=1, WindowWidth=5, VOILUTFunction="CUBIC"), "VOILUTFunction 'CUBIC'"),
        (dicom(GREY, Rows=50_000, Columns=50_000), "too large: 50000 x 50000"),
        (Path(get_testdata_file("rtplan.dcm", download=False)).read_bytes(), "DICOM without"),
        (Path(get_testdata_file("SC_rgb_small_odd.dcm", download=False)).read_bytes(), "Interpretation RGB"),
    ],
    ids=name_of,
)
def test_unusable_files_are_refused_with_a_reason(tmp_path, data, reason):
    """Each kind of bad file is a DataError that names the file and says what is wrong with it."""
    path = tmp_path / "bad.jpg"
    path.write_bytes(data)
    with pytest.raises(DataError, match=rf"bad\.jpg: .*{reason}"):
        read_image(path)


@pytest.mark.parametrize(
    "data", [png_header(50_000, 50_000), png_header(9_000, 9_000), jpeg_header(50_000, 50_000)], ids=name_of
)
@pytest.mark.parametrize("pillow_limit", [89_478_485, 50_000_000, None])
def test_huge_headers_are_refused_before_any_decoding(monkeypatch, data, pillow_limit):
    """The pixel limit is checked on the header: nothing is loaded, whatever Pillow's own limit is set to."""

    def load(self):
        raise AssertionError("pixels were loaded")

    monkeypatch.setattr(ImageFile.ImageFile, "load", load)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", pillow_limit)
    with pytest.raises(DataError, match="too large: "):
        decode(data)


def test_what_is_no_regular_file_is_refused(tmp_path, monkeypatch):
    """An absent file, a folder, a pipe, a circular link and an oversized file each give a reason at once."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    (tmp_path / "big").write_bytes(b"12345")
    monkeypatch.setattr(images, "MAX_BYTES", 4)
    reasons = {
        "absent": "No such file",
        ".": "not a regular file",
        "pipe": "not a regular file",
        "circle": "symbolic links",
        "big": "5 bytes; at most 4",
    }
    for name, reason in reasons.items():
        with pytest.raises(DataError, match=reason):
            read_image(tmp_path / name)


def test_a_lost_disk_is_no_property_of_the_file(tmp_path, monkeypatch):
    """An input/output error is passed on instead of being taken for a bad image."""

    def read(self):
        raise OSError(5, "Input/output error")

    (tmp_path / "image.png").write_bytes(encode(Image.fromarray(GREY)))
    monkeypatch.setattr(Path, "read_bytes", read)
    with pytest.raises(OSError, match="Input/output error"):
        read_image(tmp_path / "image.png")


def test_channels_are_one_or_three(tmp_path):
    """Another number of channels is an argument error that says what came."""
    (tmp_path / "image.png").write_bytes(encode(Image.fromarray(GREY)))
    with pytest.raises(ValueError, match=r"`channels` must be 1 or 3. Received: 2"):
        read_image(tmp_path / "image.png", 2)


def test_every_original_is_read(real_data):
    """All untouched files of covid-chestxray-dataset are read, upright, and are no blank images."""
    paths = sorted((real_data / "originals").iterdir())
    shapes = {path.name: read_image(path) for path in paths}
    assert len(shapes) == 28
    for path in paths:
        with Image.open(path) as image:
            assert shapes[path.name].shape == (image.height, image.width, 1)
        assert shapes[path.name].std() > 10


def test_a_real_ct_study_is_read(real_data):
    """Slices of a DICOM series come out windowed: air black, bone white, 512 x 512."""
    paths = sorted((real_data / "ct-study-98.12.21").rglob("*"))
    series = [path for path in paths if path.is_file() and pydicom.dcmread(path).get("SliceThickness") == 5]
    assert len(series) == 79
    slices = np.stack([read_image(path) for path in series[::20]])
    assert slices.shape[1:] == (512, 512, 1)
    assert slices.min() == 0 and slices.max() == 255
