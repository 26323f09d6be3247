"""Tests of covidtf.metrics.grouping."""

import pytest
from test_ablation import METHODS, baseline, run

from covidtf.files import DataError
from covidtf.metrics import grouping


@pytest.mark.parametrize("name", METHODS)
def test_methods_are_named_by_their_settings(name):
    """Loss, class balance and auxiliary heads together are the name."""
    assert grouping.method(run(name).config) == name


def test_settings_that_differ_are_found():
    """Beyond those that always tell groups apart: neither seed, fold nor file, and nothing of a baseline."""
    runs = [run(seed=0, epochs=5, weights="a"), run(seed=1, epochs=5, weights="b", folds=3, fold=1)]
    assert grouping.differing([*runs, baseline(size=64)]) == grouping.BY
    runs += [run("full", epochs=9, fusion="mean")]
    assert grouping.differing(runs[::-1]) == (*grouping.BY, "epochs", "fusion")


def test_groups_stand_in_the_order_of_methods_and_baselines_last():
    """Label noise and start come before the method, random weights before others."""
    runs = [
        baseline(),
        run("full", label_noise=0.1),
        run("full", start="A after ImageNet"),
        run("full", start="ImageNet"),
        run("full", seed=1),
        run("full", seed=0),
        run("class-balanced"),
    ]
    groups = grouping.grouped(runs, grouping.BY)
    found = [(one.method, one.settings["start"], len(one.runs)) for one in groups]
    assert found == [
        ("class-balanced", "random weights", 1),
        ("full", "random weights", 2),
        ("full", "ImageNet", 1),
        ("full", "A after ImageNet", 1),
        ("full", "random weights", 1),
        ("mean and std (no network)", "no weights", 1),
    ]
    assert [one.config["seed"] for one in groups[1].runs] == [0, 1]


def test_a_baseline_of_one_fold_twice_is_refused():
    """A baseline has one run of each fold too."""
    with pytest.raises(DataError, match="one run of each seed and fold was wanted"):
        grouping.grouped([baseline(), baseline()], grouping.BY)
