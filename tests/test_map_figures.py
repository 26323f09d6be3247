"""Figures of heat maps: what is drawn over an image and said beside it, and shares with their intervals."""

from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from covidtf.config import HeatMapConfig
from covidtf.figures import maps, style

style.use()


@pytest.fixture(autouse=True)
def closed():
    """No figure stays open."""
    yield
    plt.close("all")


def test_only_what_is_positive_is_drawn_and_the_most_is_most_opaque():
    """Falls below 0 and empty maps are transparent."""
    found = maps.overlay(np.array([[-3.0, 0.0, 1.0, 4.0]]))
    assert found.shape == (1, 4, 4)
    np.testing.assert_allclose(found[0, :, 3], [0, 0, 0.375, 0.75])
    assert not maps.overlay(np.full((2, 2), -1.0))[..., 3].any()


def test_example_draws_the_image_once_plain_and_once_under_each_map():
    """With the lung outline in all; an empty mask has no outline, and other numbers of axes are refused."""
    image, mask = np.zeros((8, 8, 1), np.uint8), np.zeros((8, 8), bool)
    mask[2:6, 2:6] = True
    _, axes = plt.subplots(1, 2)
    maps.example(axes, image, mask, {"Grad-CAM": np.ones((8, 8))}, "words")
    assert [len(ax.images) for ax in axes] == [1, 2]
    assert all(len(ax.collections) == 1 for ax in axes) and axes[0].get_ylabel() == "words"
    _, axes = plt.subplots(1, 1, squeeze=False)
    maps.example(axes[0], image, ~mask & mask, {}, "")
    assert not axes[0, 0].collections
    with pytest.raises(ValueError, match="must be 2"):
        maps.example(axes[0], image, mask, {"occlusion": np.ones((8, 8))}, "")


def test_words_tell_the_call_and_how_far_the_score_fell():
    """A map without evidence is said to have none, since its picture would look like a failure to draw."""
    row = SimpleNamespace(
        kind="false negative",
        of_kind=3,
        label="COVID-19",
        called="non-COVID",
        explained="COVID-19",
        score=0.012,
    )
    found = maps.words(row, {"Grad-CAM": np.zeros((2, 2)), "occlusion": np.array([[0.25, -1.0]])})
    assert found.splitlines() == [
        *("false negative (of 3)", "label: COVID-19", "called: non-COVID", "COVID-19: 0.012"),
        *("Grad-CAM: nothing", "largest fall: 0.25"),
    ]


def test_shares_are_drawn_where_they_can_be_told():
    """One mark, one interval and one stroke per row; without a share it says so."""
    row = {"network": "ResNet18", "method": "Grad-CAM", "group": "all", "n": 9, "area": 0.3}
    told = row | {"share": 0.5, "share_low": 0.4, "share_high": 0.6}
    untold = (
        row | {"method": "occlusion", "n": 0} | dict.fromkeys(("share", "share_low", "share_high"), np.nan)
    )
    _, ax = plt.subplots()
    maps.shares(ax, pd.DataFrame([told, untold]))
    drawn = [line.get_xdata() for line in ax.lines]
    assert [list(x) for x in drawn] == [[0.4, 0.6], [0.5], [0.3, 0.3]]
    assert [text.get_text() for text in ax.texts] == ["cannot be told"]
    assert ax.get_yticklabels()[0].get_text() == "ResNet18, Grad-CAM, all (n = 9)"


def test_a_square_must_not_jump_over_pixels():
    """The stride is at most the square's side."""
    with pytest.raises(ValueError, match="at most `window`"):
        HeatMapConfig(window=8, stride=9)
