"""Images without the disease, or without all else: what a network still reads there is no disease."""

import zlib
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageOps
from scipy import ndimage

CONTROLS = (
    "original",
    "lungs blacked out",
    "lungs only",
    "border only",
    "patches shuffled",
    "equalised",
)
NEED_MASKS = ("lungs blacked out", "lungs only")
# The same in every image: its own mean or median would tell how bright the image was.
GREY = 128
BORDER = 0.1  # of height and width, on each side
GRID = 7  # patches a side
_AT_A_TIME = 256


def apply(control: str, images: np.ndarray, masks: np.ndarray | None, seed: int = 0) -> np.ndarray:
    """Change images so that one kind of information is left, or one is gone.

    - `original`: unchanged.
    - `lungs blacked out`: the upright box around each connected part of the mask becomes `GREY`. A box, since
      a hole in the shape of the lungs would still show that shape. Its place and size do stay visible.
    - `lungs only`: all outside of the mask becomes `GREY`.
    - `border only`: the middle, 80 % of height and width, becomes `GREY`; 36 % of the area is left.
    - `patches shuffled`: 7 x 7 square patches change places. Pixels that do not fill a patch, at the right
      and the bottom edge, become `GREY`. The permutation follows from `seed` and the image's pixels, not from
      its place among others.
    - `equalised`: each channel's histogram is made flat (`ImageOps.equalize`, as `images.fit` does it).

    Args:
        control: One of `CONTROLS`.
        images: uint8, shape `(n, size, size, channels)`; a memory map is read in parts.
        masks: bool, shape `(n, size, size)`, True in the lungs; None if the control is not in `NEED_MASKS`.
        seed: Not negative; of the permutations.
    Returns:
        New uint8 array of the shape of `images`.
    Raises:
        ValueError: Unknown control, images or masks of another shape or type, or a mask without lungs, which
            would leave the image as it was: `with_lungs` tells these beforehand.
    Reference: Maguolo & Nanni, Information Fusion 2021, 76:1-7 (lungs blacked out); DeGrave et al., Nature
        Machine Intelligence 2021, 3:610-619.
    """
    if control not in CONTROLS:
        raise ValueError(f"`control` must be one of {CONTROLS}. Received: {control!r}")
    _check(control, images, masks)
    result = np.empty(images.shape, np.uint8)
    for start in range(0, len(images), _AT_A_TIME):
        part = slice(start, start + _AT_A_TIME)
        mask = masks[part] if control in NEED_MASKS else None
        result[part] = _CHANGE[control](np.asarray(images[part]), mask, seed)
    return result


def with_lungs(masks: np.ndarray) -> np.ndarray:
    """Whether each mask has a lung pixel, shape `(n,)`."""
    return masks.any(axis=(1, 2))


def removed(control: str, masks: np.ndarray) -> np.ndarray:
    """Share of each image's area that a control of `NEED_MASKS` makes grey, in [0, 1], shape `(n,)`."""
    if control not in NEED_MASKS:
        raise ValueError(f"`control` must be one of {NEED_MASKS}. Received: {control!r}")
    gone = np.stack([_boxes(mask) for mask in masks]) if control == NEED_MASKS[0] else ~masks
    return gone.mean(axis=(1, 2))


def _check(control: str, images: np.ndarray, masks: np.ndarray | None) -> None:
    if images.dtype != np.uint8 or images.ndim != 4:
        wanted = "uint8 of shape (n, size, size, channels)"
        raise ValueError(f"`images` must be {wanted}. Received: {images.dtype} {images.shape}")
    if control == "patches shuffled" and min(images.shape[1:3]) < GRID:
        raise ValueError(f"`images` must have at least {GRID} px a side. Received: {images.shape}")
    if control not in NEED_MASKS:
        return
    if masks is None or masks.dtype != bool or masks.shape != images.shape[:3]:
        found = None if masks is None else f"{masks.dtype} {masks.shape}"
        raise ValueError(f"`masks` must be bool of shape {images.shape[:3]}. Received: {found}")
    empty = np.flatnonzero(~with_lungs(masks))
    if len(empty):
        raise ValueError(f"`masks` must each hold lungs. Received: none in {len(empty)}, first {empty[0]}")


def _blacked_out(images: np.ndarray, masks: np.ndarray, seed: int) -> np.ndarray:
    return _grey(images, np.stack([_boxes(mask) for mask in masks]))


def _lungs_only(images: np.ndarray, masks: np.ndarray, seed: int) -> np.ndarray:
    return _grey(images, ~masks)


def _border_only(images: np.ndarray, masks: None, seed: int) -> np.ndarray:
    height, width = images.shape[1:3]
    top, left = (int(np.ceil(BORDER * side)) for side in (height, width))
    result = images.copy()
    result[:, top : height - top, left : width - left] = GREY
    return result


def _shuffled(images: np.ndarray, masks: None, seed: int) -> np.ndarray:
    count, *sides, channels = images.shape
    height, width = (side // GRID for side in sides)
    inside = images[:, : GRID * height, : GRID * width]
    patches = inside.reshape(count, GRID, height, GRID, width, channels).swapaxes(2, 3)
    patches = patches.reshape(count, GRID**2, height, width, channels)
    keys = [zlib.crc32(np.ascontiguousarray(image)) for image in images]
    orders = np.stack([np.random.default_rng([seed, key]).permutation(GRID**2) for key in keys])
    moved = patches[np.arange(count)[:, None], orders]
    moved = moved.reshape(count, GRID, GRID, height, width, channels).swapaxes(2, 3)
    result = np.full_like(images, GREY)
    result[:, : GRID * height, : GRID * width] = moved.reshape(inside.shape)
    return result


def _equalised(images: np.ndarray, masks: None, seed: int) -> np.ndarray:
    flat = [ImageOps.equalize(Image.fromarray(image.squeeze())) for image in images]
    return np.stack([np.asarray(image) for image in flat]).reshape(images.shape)


def _boxes(mask: np.ndarray) -> np.ndarray:
    """The mask with the upright box around each of its connected parts filled."""
    filled = np.zeros_like(mask)
    for box in ndimage.find_objects(ndimage.label(mask)[0]):
        filled[box] = True
    return filled


def _grey(images: np.ndarray, where: np.ndarray) -> np.ndarray:
    return np.where(where[..., None], np.uint8(GREY), images)


_CHANGE: dict[str, Callable[[np.ndarray, np.ndarray | None, int], np.ndarray]] = {
    "original": lambda images, masks, seed: images,
    "lungs blacked out": _blacked_out,
    "lungs only": _lungs_only,
    "border only": _border_only,
    "patches shuffled": _shuffled,
    "equalised": _equalised,
}
