"""Lung masks of prepared X-rays and CT slices, against the true masks of phantoms."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from covidtf import phantom
from covidtf.images import lung_shapes
from covidtf.images.lungs import lung_mask, masks_and_fits

SIZE = 96


def lung_masks(images):
    return masks_and_fits(images)[0]


@pytest.fixture(scope="module")
def xrays(tmp_path_factory):
    """Images, true masks and properties of phantoms that the shape model was not made from."""
    folder = tmp_path_factory.mktemp("xrays")
    phantom.write_xrays(folder, 18, 1, seed=77, size=SIZE, masks=True, workers=1)
    table = pd.read_csv(folder / "metadata.csv")
    images, masks = (
        np.stack([np.array(Image.open(folder / kind / name).convert("L")) for name in table["filename"]])
        for kind in ("images", "masks")
    )
    return images, masks > 0, table


def slices(kind="lung", size=128):
    """A body in air on a couch, two lungs of different size, a trachea and vessels; and the true lungs."""
    row, column = np.mgrid[:size, :size] / size
    ellipse = lambda y, x, h, w: ((row - y) / h) ** 2 + ((column - x) / w) ** 2 < 1  # noqa: E731
    grey = {"lung": (20, 85, 235), "soft": (0, 0, 120)}[kind]
    image = np.full((size, size), grey[0], np.uint8)
    image[ellipse(0.5, 0.5, 0.36, 0.46)] = grey[2]
    image[int(0.92 * size) :] = grey[2]
    lungs = ellipse(0.5, 0.28, 0.22, 0.13), ellipse(0.52, 0.73, 0.2, 0.11)
    image[lungs[0] | lungs[1]] = grey[1]
    image[ellipse(0.4, 0.5, 0.035, 0.035)] = grey[0]
    image[ellipse(0.5, 0.3, 0.02, 0.02) | ellipse(0.45, 0.7, 0.02, 0.02)] = grey[2]
    return image, lungs[0] | lungs[1]


def dice(one, other):
    return 2 * (one & other).sum((-2, -1)) / (one.sum((-2, -1)) + other.sum((-2, -1)))


def test_masks_of_unseen_phantoms_have_a_dice_of_0_9(xrays):
    images, true, table = xrays
    masks, quality = masks_and_fits(images)
    found = dice(masks, true)
    assert found.mean() >= 0.9
    assert found[(table["finding"] == "No Finding").to_numpy()].min() >= 0.9
    assert not quality["prior"].any()


def test_the_fit_is_worth_more_than_the_prior_alone(xrays):
    images, true, _ = xrays
    prior = lung_mask(np.full((SIZE, SIZE), 90, np.uint8))
    alone = dice(np.broadcast_to(prior, true[:8].shape), true[:8]).mean()
    assert dice(lung_masks(images[:8]), true[:8]).mean() > alone + 0.15


def test_there_is_a_lung_on_either_side_of_the_middle(xrays):
    images, _, _ = xrays
    masks = lung_masks(images[:8])
    for half in (masks[..., : SIZE // 2], masks[..., SIZE // 2 :]):
        assert half.mean((1, 2)).min() > 0.05


def test_the_mask_follows_lungs_that_are_moved_and_shrunk(xrays):
    """In a frame of tissue, at 0.75 of the size and off the middle."""
    images, true, _ = xrays
    side = int(0.75 * SIZE)
    smaller = [np.asarray(Image.fromarray(image).resize((side, side))) for image in images[:8]]
    shapes = [np.asarray(Image.fromarray(mask).resize((side, side))) for mask in true[:8]]
    room = ((6, SIZE - side - 6), (15, SIZE - side - 15))
    moved = np.stack([np.pad(image, room, mode="edge") for image in smaller])
    assert dice(lung_masks(moved), np.stack([np.pad(shape, room) for shape in shapes])).mean() > 0.85


def test_the_same_images_give_the_same_masks_alone_and_together_and_in_colour(xrays):
    images, _, _ = xrays
    together = lung_masks(images[:3])
    np.testing.assert_array_equal(together, lung_masks(np.repeat(images[:3, ..., None], 3, axis=3)))
    np.testing.assert_array_equal(together[2], lung_mask(images[2]))


def test_size_changes_the_grid_of_a_mask_and_hardly_its_place(xrays):
    images, _, _ = xrays
    large = np.stack([np.asarray(Image.fromarray(image).resize((224, 224))) for image in images[:4]])
    masks = lung_masks(large)
    assert masks.shape == large.shape
    smaller = np.stack([np.asarray(Image.fromarray(mask).resize((SIZE, SIZE))) for mask in masks])
    assert dice(smaller, lung_masks(images[:4])).mean() > 0.93


def test_less_contrast_hardly_moves_the_mask_but_a_negative_is_another_picture(xrays):
    images, true, _ = xrays
    paler = (images[:6] * 0.5 + 60).astype(np.uint8)
    assert dice(lung_masks(paler), lung_masks(images[:6])).min() > 0.9
    assert dice(lung_masks(255 - images[:6]), true[:6]).mean() < 0.8


@pytest.mark.parametrize("kind", ["xray", "ct"])
def test_an_image_without_lungs_gets_the_prior_and_says_so(kind):
    images = np.full((2, 64, 80), 7, np.uint8)
    masks, table = masks_and_fits(images, kind)
    assert table["prior"].all() and (table["quality"] == 0).all()
    assert masks.shape == (2, 64, 80)
    np.testing.assert_allclose(table["share"], masks.mean((1, 2)))
    for half in (masks[..., :40], masks[..., 40:]):
        assert 0.04 < half.mean() < 0.5


@pytest.mark.parametrize("kind", ["lung", "soft"])
def test_lungs_of_a_slice_are_the_air_in_the_body_without_trachea_and_holes(kind):
    image, true = slices(kind)
    (mask,), table = masks_and_fits(image[None], "ct")
    assert dice(mask, true) > 0.95
    assert not mask[50:53, 62:66].any()  # the trachea
    assert mask[64, 38] and mask[58, 90]  # vessels
    assert table["quality"][0] > 0.95 and not table["prior"][0]


def test_a_margin_of_paper_around_a_slice_changes_little():
    image, true = slices()
    framed = np.pad(image, 16, constant_values=255)
    assert dice(lung_mask(framed, "ct"), np.pad(true, 16)) > 0.93


def test_a_lung_cut_off_by_the_edge_is_still_lung():
    image, true = slices()
    cut = slice(None), slice(30, 128)
    assert dice(lung_mask(image[cut], "ct"), true[cut]) > 0.93


def test_a_table_of_no_images_has_its_columns():
    masks, table = masks_and_fits(np.zeros((0, 64, 64), np.uint8))
    assert masks.shape == (0, 64, 64)
    assert list(table.columns) == ["quality", "prior", "share"] and table.empty


@pytest.mark.parametrize(
    ("image", "kind", "message"),
    [
        (np.zeros((96, 96)), "xray", "must be uint8. Received: float64"),
        (np.zeros((96, 96), np.uint8), "mri", "must be one of .'xray', 'ct'.. Received: 'mri'"),
        (np.zeros((96, 96, 2), np.uint8), "ct", r"1 or 3 channels.*Received: shape \(96, 96, 2\)"),
        (np.zeros((32, 96), np.uint8), "xray", r"64 to 512 px. Received: shape \(32, 96\)"),
        (np.zeros((96, 600), np.uint8), "xray", r"64 to 512 px. Received: shape \(96, 600\)"),
        (np.zeros(96, np.uint8), "xray", r"Received: shape \(96,\)"),
    ],
)
def test_what_is_no_prepared_image_is_refused(image, kind, message):
    with pytest.raises(ValueError, match=message):
        lung_mask(image, kind)


def test_the_shape_model_is_small_and_its_mean_is_two_lungs():
    assert lung_shapes.TABLE.stat().st_size < 50_000
    lungs = pd.read_csv(lung_shapes.TABLE, index_col="part").loc["mean"].to_numpy().reshape(2, -1, 2)
    assert lungs.shape[1] == lung_shapes.LANDMARKS
    assert lungs[0, :, 0].max() < 0.5 < lungs[1, :, 0].min()
