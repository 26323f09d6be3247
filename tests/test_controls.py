"""Controls of the audit: what is left of an image, and that nothing else is."""

import numpy as np
import pytest
from PIL import Image, ImageOps

from covidtf.audit import controls

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 100, (5, 28, 28, 1)).astype(np.uint8)
# Upright boxes, so that blacking out takes no more than the lungs.
MASKS = np.zeros((5, 28, 28), bool)
MASKS[:, 5:20, 3:11] = MASKS[:, 6:21, 15:25] = True


@pytest.mark.parametrize("control", controls.CONTROLS)
@pytest.mark.parametrize("channels", [1, 3])
def test_shape_and_type_stay_and_the_input_is_not_changed(control, channels):
    """uint8 of the same shape, in memory of its own."""
    images = np.repeat(IMAGES, channels, axis=3)
    before = images.copy()
    changed = controls.apply(control, images, MASKS)
    assert (changed.dtype, changed.shape) == (np.uint8, images.shape)
    assert not np.shares_memory(changed, images)
    np.testing.assert_array_equal(images, before)


def test_lungs_only_and_blacked_out_share_the_image_between_them():
    """Of upright lungs, each pixel is in one of the two images and grey in the other."""
    only, without = (controls.apply(name, IMAGES, MASKS) for name in ("lungs only", "lungs blacked out"))
    np.testing.assert_array_equal(np.where(MASKS[..., None], only, without), IMAGES)
    assert set(only[~MASKS].ravel()) == set(without[MASKS].ravel()) == {controls.GREY}
    assert controls.removed("lungs blacked out", MASKS) == pytest.approx([270 / 784] * 5)
    assert controls.removed("lungs only", MASKS) == pytest.approx([1 - 270 / 784] * 5)


def test_a_blacked_out_lung_loses_its_outline():
    """Other masks with the same boxes give the same image: the hole does not tell the lung's shape."""
    other = MASKS.copy()
    other[:, 5:9, 3:6] = other[:, 17:21, 22:25] = False
    one, two = (controls.apply("lungs blacked out", IMAGES, masks) for masks in (MASKS, other))
    np.testing.assert_array_equal(one, two)
    assert (controls.apply("lungs only", IMAGES, other) != controls.apply("lungs only", IMAGES, MASKS)).any()


def test_lungs_only_shows_nothing_of_the_rest():
    """Other pixels outside of the lungs change nothing, and the other way round for lungs blacked out."""
    other = np.where(MASKS[..., None], IMAGES, np.uint8(77))
    np.testing.assert_array_equal(*(controls.apply("lungs only", x, MASKS) for x in (IMAGES, other)))
    other = np.where(MASKS[..., None], np.uint8(77), IMAGES)
    np.testing.assert_array_equal(*(controls.apply("lungs blacked out", x, MASKS) for x in (IMAGES, other)))


def test_the_border_is_a_tenth_of_each_side():
    """Of 20 px two are left on each side, unchanged; the 16 x 16 px within are grey."""
    changed = controls.apply("border only", IMAGES[:, :20, :20], None)
    assert (changed[:, 2:18, 2:18] == controls.GREY).all()
    changed[:, 2:18, 2:18] = IMAGES[:, 2:18, 2:18]
    np.testing.assert_array_equal(changed, IMAGES[:, :20, :20])


def test_patches_change_places_and_nothing_else():
    """Of 16 px each of the 49 patches of 2 x 2 is there once, moved; the two px that are left are grey."""
    numbers = np.arange(49, dtype=np.uint8).reshape(7, 7)
    image = np.full((16, 16), 200, np.uint8)
    image[:14, :14] = np.kron(numbers, np.ones((2, 2), np.uint8)) * 4 + np.tile([[0, 1], [2, 3]], (7, 7))
    found = controls.apply("patches shuffled", image[None, :, :, None], None)[0, :, :, 0]
    moved = found[:14:2, :14:2] // 4
    assert sorted(moved.ravel()) == list(range(49))
    assert (moved != numbers).sum() > 40
    again = np.kron(moved, np.ones((2, 2), np.uint8)) * 4 + np.tile([[0, 1], [2, 3]], (7, 7))
    np.testing.assert_array_equal(found[:14, :14], again)
    assert set(found[14:].ravel()) | set(found[:, 14:].ravel()) == {controls.GREY}


def test_an_image_is_shuffled_the_same_wherever_it_stands(monkeypatch):
    """Alone, in another order or in other parts: the same permutation; with another seed another one."""
    together = controls.apply("patches shuffled", IMAGES, None, seed=3)
    alone = [controls.apply("patches shuffled", IMAGES[i : i + 1], None, seed=3)[0] for i in range(5)]
    np.testing.assert_array_equal(together, alone)
    np.testing.assert_array_equal(controls.apply("patches shuffled", IMAGES[::-1], None, 3), together[::-1])
    monkeypatch.setattr(controls, "_AT_A_TIME", 2)
    np.testing.assert_array_equal(controls.apply("patches shuffled", IMAGES, None, 3), together)
    assert (controls.apply("patches shuffled", IMAGES, None, seed=4) != together).any()


def test_equalised_grey_values_are_spread_evenly():
    """Values in [0, 100) come to fill [0, 255], in the same order, as preparing an image does it."""
    changed = controls.apply("equalised", IMAGES, None)
    for image, before in zip(changed, IMAGES, strict=True):
        wanted = ImageOps.equalize(Image.fromarray(before[:, :, 0]))
        np.testing.assert_array_equal(image[:, :, 0], wanted)
        assert abs(image.mean() - 127.5) < 5
        assert (np.diff(image.ravel()[np.argsort(before.ravel(), kind="stable")].astype(int)) >= 0).all()


def test_what_cannot_be_done_is_refused():
    """Unknown controls, masks that are absent, of another shape or without lungs, images too small."""
    with pytest.raises(ValueError, match="`control` must be one of"):
        controls.apply("upside down", IMAGES, MASKS)
    with pytest.raises(ValueError, match=r"`masks` must be bool of shape \(5, 28, 28\). Received: None"):
        controls.apply("lungs only", IMAGES, None)
    with pytest.raises(ValueError, match="Received: bool"):
        controls.apply("lungs only", IMAGES, MASKS[:4])
    empty = MASKS.copy()
    empty[3] = False
    assert list(controls.with_lungs(empty)) == [True, True, True, False, True]
    with pytest.raises(ValueError, match="Received: none in 1, first 3"):
        controls.apply("lungs blacked out", IMAGES, empty)
    with pytest.raises(ValueError, match="at least 7 px"):
        controls.apply("patches shuffled", IMAGES[:, :6, :6], None)
    with pytest.raises(ValueError, match="`images` must be uint8"):
        controls.apply("original", IMAGES / 255, None)
