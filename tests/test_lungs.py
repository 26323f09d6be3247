"""The lung mask against phantoms whose lungs are known, and against chests made of boxes."""

import numpy as np
import pytest

from covidtf.ct.lungs import examine, lung_mask, lung_share
from covidtf.ct.volume import Volume
from covidtf.phantom.thorax.volume import thorax


def volume_of(hu: np.ndarray, spacing: tuple[float, float, float]) -> Volume:
    return Volume(hu, spacing, spacing[0], np.arange(len(hu)) * spacing[0], "unknown", ())


def dice(seed: int, finding: str, spacing: tuple[float, float, float]) -> float:
    """Of the mask of a phantom, whose z grows upwards, and its true lungs."""
    phantom = thorax(seed, finding, spacing=spacing)
    mask, true = lung_mask(volume_of(phantom.hu[::-1], spacing)), phantom.lungs[::-1]
    assert mask.dtype == bool and mask.shape == true.shape
    return 2 * (mask & true).sum() / (mask.sum() + true.sum())


@pytest.mark.parametrize(
    ("finding", "least"), [("No Finding", 0.97), ("COVID-19", 0.94), ("Lobar pneumonia", 0.92)]
)
def test_mask_covers_the_lungs_of_phantoms(finding, least):
    """Dice is high for six anatomies; ground glass belongs to the mask, a solid lobe partly."""
    assert min(dice(seed, finding, (5.0, 2.0, 2.0)) for seed in range(6)) > least


def test_finer_slices_are_thinned_and_the_mask_comes_back_at_their_size():
    """At 0.8 mm two or three pixels share one of the mask's, also where their number does not divide."""
    assert dice(1, "COVID-19", (5.0, 0.8, 0.8)) > 0.94


def box_chest() -> np.ndarray:
    """Body of 60 x 100 px of 2 mm with two lungs of 30 x 30 px in ten slices, lying on a thin table."""
    hu = np.full((20, 100, 120), -1000, np.int16)
    hu[:, 20:80, 10:110] = 40
    hu[:, 80:82] = 200
    hu[5:15, 35:65, 20:50] = hu[5:15, 35:65, 70:100] = -850
    return hu


def box_lungs() -> np.ndarray:
    lungs = np.zeros((20, 100, 120), bool)
    lungs[5:15, 35:65, 20:50] = lungs[5:15, 35:65, 70:100] = True
    return lungs


def check(hu: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_array_equal(lung_mask(volume_of(hu, (5.0, 2.0, 2.0))), expected)


def test_airway_bowel_gas_table_and_outside_are_not_lung():
    """A trachea that opens into a lung, gas in the bowel and air around the body are left out."""
    hu = box_chest()
    hu[:9, 42:50, 56:64] = -1000
    hu[7:9, 42:50, 64:70] = -1000
    hu[16:19, 40:50, 30:45] = -900
    expected = box_lungs()
    mask = lung_mask(volume_of(hu, (5.0, 2.0, 2.0)))
    assert not mask[:7, :, 50:70].any() and not mask[15:].any() and not mask[:5].any()
    # The bronchus is part of the lung at most where it leaves it.
    assert (mask & ~expected).sum() <= 2 * 8 * 14 and (expected & ~mask).sum() == 0


def test_vessels_and_small_consolidations_belong_to_the_lung():
    """What is dense and within the lung, or cuts less than 18 mm into it, is in the mask."""
    hu = box_chest()
    hu[8, 45:60, 30:42] = 60
    hu[5:15, 40:43, 20:45] = 30
    hu[10, 57:65, 80:88] = 30
    check(hu, box_lungs())


def test_a_piece_of_less_than_a_fifth_is_no_lung():
    """Of a second lung that is nearly collapsed only gas of the size of bowel gas is left."""
    hu, expected = box_chest(), box_lungs()
    hu[5:15, 35:65, 70:100] = 40
    hu[8:12, 35:50, 70:85] = -850
    expected[:, :, 70:100] = False
    check(hu, expected)


def test_lungs_that_touch_do_not_take_in_what_is_between_them():
    """With a bridge in front and one behind, the mediastinum is a hole, but too large to be a lesion."""
    hu, expected = box_chest(), box_lungs()
    for rows in (slice(35, 38), slice(62, 65)):
        hu[8:10, rows, 50:70] = -850
        expected[8:10, rows, 50:70] = True
    check(hu, expected)


def test_share_is_the_area_of_the_lungs_over_that_of_the_body():
    """1800 of 6000 pixels (the four corners are cut off), and 0 above and below the lungs."""
    share = lung_share(volume_of(box_chest(), (5.0, 2.0, 2.0)))
    assert share[5:15] == pytest.approx([1800 / 6000] * 10, rel=0.04)
    assert not share[:5].any() and not share[15:].any()


@pytest.mark.parametrize("value", [-1000, 40])
def test_a_volume_without_body_or_without_air_has_no_lungs(value):
    """Nothing but air, and nothing but tissue, give an empty mask and shares of 0."""
    volume = volume_of(np.full((5, 40, 50), value, np.int16), (5.0, 2.0, 2.0))
    assert not lung_mask(volume).any() and lung_share(volume).tolist() == [0] * 5


def is_cut(hu: np.ndarray) -> bool:
    return examine(volume_of(np.ascontiguousarray(hu), (5.0, 2.0, 2.0)))[1]


@pytest.mark.parametrize("finding", ["No Finding", "Lobar pneumonia"])
def test_a_narrow_field_of_view_is_noticed_when_it_takes_lung_and_not_before(finding):
    """Of phantoms of 376 mm width, 256 mm lose more than half of their slices and 336 mm lose none."""
    hu = thorax(0, finding, spacing=(5.0, 2.0, 2.0)).hu[::-1]
    slices = [int((lung_share(volume_of(part, (5.0, 2.0, 2.0))) >= 0.005).sum())
              for part in (hu, hu[:, :, 20:-20], hu[:, :, 60:-60])]  # fmt: skip
    assert slices[0] == slices[1] > 2 * slices[2]
    assert not is_cut(hu) and not is_cut(hu[:, :, 20:-20])
    assert is_cut(hu[:, :, 60:-60]) and is_cut(hu[:, :, 60:]) and is_cut(hu[:, 30:-30, 60:-60])


def test_air_that_made_a_cut_image_square_does_not_hide_the_cut():
    """Only the columns that were imaged have an edge."""
    hu = box_chest()
    cut = np.full_like(hu, -1024)
    cut[:, :, 35:] = hu[:, :, 35:]
    assert is_cut(cut) and not is_cut(hu)


def test_a_single_row_or_column_has_no_edge():
    """What is thinner than a pixel of the mask's grid is not looked at."""
    hu = np.full((8, 40, 40), -1024, np.int16)
    hu[:, 17] = 40
    assert not is_cut(hu) and not examine(volume_of(hu.transpose(0, 2, 1), (5.0, 0.7, 0.7)))[1]


def test_air_around_a_wide_patient_is_no_cut_lung():
    """A body from side to side, air between an arm and the chest at the edge, and a cut of one slice."""
    hu = box_chest()
    hu[:, 20:80] = np.where(hu[:, 20:80] == -1000, 40, hu[:, 20:80])
    assert not is_cut(hu)
    arm = hu.copy()
    arm[:, 35:70, :8] = -1000
    assert not is_cut(arm)
    arm[:, 35:70, :8] = 40
    arm[:, 35:70, :6] = -850
    assert not is_cut(arm)  # 8.4 cm2
    arm[9, 30:75, :15] = -850
    assert not is_cut(arm)
    arm[10, 30:75, :15] = -850
    assert is_cut(arm)
