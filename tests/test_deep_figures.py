"""Figures of the CT system: what they show is what the tables say."""

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgba
from test_ablation import baseline, run
from test_multiclass import NAMES, random

from covidtf import metrics
from covidtf.figures import deep, style
from covidtf.files import DataError
from covidtf.metrics import ablation, evaluation, multiclass


@pytest.fixture(autouse=True)
def ax():
    """Axes in the style sheet; nothing is shown, and nothing of it is left behind."""
    with mpl.rc_context({"backend": "agg"}):
        style.use()
        yield plt.subplots()[1]
        plt.close("all")


@pytest.fixture(scope="module")
def result() -> dict:
    return multiclass.evaluate(random(0), draws=50)


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    """Three methods over two seeds at two levels of label noise; the full one is better without noise."""
    runs = [
        run(name, seed, better=better - noise, label_noise=noise)
        for noise in (0.0, 0.2)
        for name, better in (("cross-entropy", 0.3), ("class-balanced", 0.32), ("full", 0.7 - 2 * noise))
        for seed in range(2)
    ]
    return ablation.table(runs, draws=100)


def legend(ax) -> list[str]:
    return [text.get_text() for text in ax.get_legend().get_texts()]


def test_confusion_matrix_has_counts_and_row_percentages(ax):
    """Every cell has its count and its share of the row; a class without rows says so."""
    counts = [[98, 2, 0], [213, 2787, 0], [0, 0, 0]]
    deep.confusion(ax, {"confusion": counts, "classes": list(NAMES), "level": "case"})
    words = [text.get_text() for text in ax.texts]
    first = ["98", "98.0 %", "2", "2.0 %", "0", "0.0 %"]
    assert words == [*first, "213", "7.1 %", "2,787", "92.9 %", "0", "0.0 %", *["0", "no case"] * 3]
    assert [label.get_text() for label in ax.get_yticklabels()] == [
        "COVID-19\nn = 100",
        "Normal\nn = 3,000",
        "Bacterial\nPneumonia\nn = 0",
    ]
    assert ax.get_xlabel() == "Called (cases)"


def test_matrices_of_several_methods_have_their_names_and_seeds(result):
    """A panel each; what is over goes; of several seeds the label says so, and the rule keeps its line."""
    figure, axes = plt.subplots(1, 3)
    panels = {"full\ntop-k 3, mean": result | {"seeds": 2}, "cross-entropy": result | {"seeds": 1}}
    deep.confusions(axes, panels)
    assert [ax.get_title("left") for ax in figure.axes] == list(panels)
    assert [ax.get_xlabel() for ax in figure.axes] == ["Called (slices of 2 seeds)", "Called (slices)"]


def test_roc_has_a_curve_per_class(ax, result):
    """Curves are the points of the tables, the legend has AUROC, interval and n, and the macro average."""
    curves = {name: metrics.roc(random(0), name) for name in NAMES}
    deep.roc_classes(ax, curves, result)
    for line, points in zip(ax.lines[1:], curves.values(), strict=True):
        assert line.get_xdata() == pytest.approx(1 - points["specificity"])
        assert line.get_ydata() == pytest.approx(points["sensitivity"])
    assert legend(ax) == [
        *(f"{name}, n = 80: {evaluation.text(result['per_class'][name]['auroc'])}" for name in NAMES),
        f"Macro: {evaluation.text(result['macro']['auroc'])}",
        "chance",
    ]
    title = ax.get_legend().get_title().get_text()
    assert title == "One-vs-rest AUROC (95 % CI)\nn = 240 slices of 60 patients"
    assert ax.get_box_aspect() == 1


def test_each_class_has_a_colour_of_its_own(ax, result):
    """The colour of a class is that of the style where it has one, and stays when fewer classes are drawn."""
    curves = {name: metrics.roc(random(0), name) for name in NAMES}
    deep.roc_classes(ax, curves, result)
    colours = [line.get_color() for line in ax.lines[1:]]
    assert colours[0] == style.COLOURS["COVID-19"]
    assert len(set(colours)) == 3
    _, alone = plt.subplots()
    deep.roc_classes(alone, {NAMES[2]: curves[NAMES[2]]}, result)
    assert alone.lines[1].get_color() == colours[2]
    assert legend(alone)[1:] == ["chance"]


def history(**weights) -> pd.DataFrame:
    return pd.DataFrame(
        {"epoch": [1, 2, 3], "train_loss": 1.0} | {f"weight_{k}": v for k, v in weights.items()}
    )


def test_every_head_has_a_line_with_its_name(ax):
    """Lines are the columns, the first value is marked, and names at equal ends do not overlap."""
    weights = {"main": [0.5, 1.0, 1.5], "auxiliary2": [0.5, 0.6, 0.8], "auxiliary3": [0.5, 0.7, 0.8]}
    deep.head_weights(ax, history(**weights))
    for line, mark, values in zip(ax.lines[::2], ax.lines[1::2], weights.values(), strict=True):
        assert line.get_xydata().tolist() == [[epoch + 1, value] for epoch, value in enumerate(values)]
        assert mark.get_xydata().tolist() == [[1, values[0]]]
    assert [text.get_text() for text in ax.texts] == ["main", "auxiliary 2", "auxiliary 3"]
    places = sorted(text.xy[1] for text in ax.texts)
    assert np.diff(places).min() == pytest.approx(0.07 * 1.5)
    assert [text.get_color() for text in ax.texts] == [line.get_color() for line in ax.lines[::2]]


def test_a_history_without_weights_is_refused(ax):
    """A run without deep supervision has none to draw."""
    with pytest.raises(DataError, match=r"weight_<head> were wanted\. Received: \['epoch', 'train_loss'\]"):
        deep.head_weights(ax, history())


@pytest.mark.parametrize(("metric", "level"), [("auroc", "case"), ("f1", "slice")])
def test_ablation_has_a_row_per_method_and_noise(ax, table, metric, level):
    """Limits, seeds and mean of each row are the table's, groups stand below each other."""
    deep.ablation(ax, table, metric, level)
    rows = table[(table["metric"] == metric) & (table["level"] == level)]
    assert [label.get_text() for label in ax.get_yticklabels()] == rows["method"].tolist()
    assert ax.get_yticks().tolist() == [1, 2, 3, 5, 6, 7]
    assert [text.get_text() for text in ax.texts] == ["Label noise 0 %", "Label noise 20 %"]
    # Of each group the reference line, then limits, seeds and mean of each row.
    references = [ax.lines[0], ax.lines[10]]
    assert [line.get_xdata()[0] for line in references] == rows.query("method == 'cross-entropy'")[
        "value"
    ].tolist()
    drawn = [line for line in ax.lines if line not in references]
    for place, row in enumerate(rows.itertuples()):
        limits, seeds, mean = drawn[3 * place : 3 * place + 3]
        np.testing.assert_array_equal(limits.get_xdata(), [row.low, row.high])
        assert list(seeds.get_xdata()) == [float(value) for value in row.of_seeds.split()]
        assert [min(seeds.get_xdata()), max(seeds.get_xdata())] == pytest.approx([row.lowest, row.highest])
        assert list(mean.get_xdata()) == [row.value]
        assert set(mean.get_ydata()) == set(seeds.get_ydata()) == {ax.get_yticks()[place]}
    assert ax.yaxis_inverted()


def test_a_method_that_differs_is_filled(ax, table):
    """Only where the interval of the gain leaves out 0 is the dot filled with its colour."""
    deep.ablation(ax, table, "auroc", "slice")
    rows = table.query("metric == 'auroc' and level == 'slice'")
    filled = [
        to_rgba(line.get_markerfacecolor()) != to_rgba("white")
        for line in ax.lines
        if line.get_marker() == "o"
    ]
    assert filled == rows["gain_is"].isin(["above 0", "below 0"]).tolist()
    assert set(filled) == {True, False}
    assert legend(ax)[-1] == "cross-entropy"


def test_one_level_of_noise_needs_no_heading(ax, table):
    """Without label noise the methods stand alone; without the reference there is no line for it."""
    rows = table.query("label_noise == 0 and method != 'cross-entropy'")
    deep.ablation(ax, rows, "accuracy")
    assert len(ax.texts) == 0
    assert ax.get_yticks().tolist() == [0, 1]
    assert legend(ax) == ["mean over seeds", "one seed"]
    assert ax.get_xlabel() == "Accuracy by case (95 % CI)"


def test_an_ambiguous_or_empty_table_is_refused(ax, table):
    """Two starts would put a method twice in a group; a metric that is not there draws nothing."""
    twice = pd.concat([table, table.assign(start="ImageNet")])
    with pytest.raises(ValueError, match=r"each method once per label noise.*Received: \['cross-entropy'"):
        deep.ablation(ax, twice, "auroc")
    with pytest.raises(ValueError, match="Received: no row"):
        deep.ablation(ax, table, "ppv")


def test_baselines_stand_below_all_groups(ax):
    """Whatever the label noise, a baseline is drawn once, in the last place and without a heading."""
    runs = [run(name, label_noise=noise) for noise in (0.0, 0.2) for name in ("cross-entropy", "full")]
    table = ablation.table([baseline(), *runs], draws=50)
    deep.ablation(ax, table, "auroc")
    assert [label.get_text() for label in ax.get_yticklabels()] == [
        *("cross-entropy", "full") * 2,
        "mean and std (no network)",
    ]
    assert ax.get_yticks().tolist() == [1, 2, 4, 5, 6]
    assert len(ax.texts) == 2
    value = table.query("method == 'mean and std (no network)' and metric == 'auroc' and level == 'case'")
    assert ax.lines[-1].get_xdata() == pytest.approx(value["value"].tolist())
