"""Figures: what they show is what the tables say, and the files are reproducible."""

import re

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb
from test_evaluation import run

from covidtf import metrics
from covidtf.figures import pictures, plots, style
from covidtf.files import DataError
from covidtf.metrics import evaluation, thresholds


@pytest.fixture(autouse=True)
def figures():
    """The style sheet is used, nothing is shown, and nothing of it is left behind."""
    with mpl.rc_context({"backend": "agg"}):
        style.use()
        yield
        plt.close("all")


@pytest.fixture(scope="module")
def results() -> dict[str, dict]:
    return {
        name: evaluation.evaluate(run(seed), draws=50)
        for seed, name in enumerate(("ResNet18", "SqueezeNet", "mean and std"))
    }


@pytest.fixture(scope="module")
def scores(results) -> dict[str, dict]:
    return {name: result["test"] for name, result in results.items()}


def curves(function, names) -> dict[str, pd.DataFrame]:
    return {name: function(run(seed).query("split == 'test'")) for seed, name in enumerate(names)}


def legend(ax) -> list[str]:
    return [text.get_text() for text in [ax.get_legend().get_title(), *ax.get_legend().get_texts()]]


def test_tables_show_long_cells_and_many_rows():
    """A sha256 and the verdicts of 18 networks stand in a report as they are."""
    with pd.option_context("display.max_colwidth", 50, "display.max_rows", 60, "display.min_rows", 10):
        style.use()
        shown = pd.DataFrame({"name": ["x" * 64] * 190 + ["last"] * 10}).to_html()
    assert shown.count("x" * 64) == 190 and shown.count("last") == 10


def test_roc_shows_curves_operating_points_and_numbers(scores):
    """Each run has its curve and its point at the threshold, the legend n, AUROC and interval."""
    _, ax = plt.subplots()
    tables = curves(metrics.roc, scores)
    plots.roc(ax, tables, scores)
    assert ax.get_box_aspect() == 1
    drawn = ax.lines[1::2]
    for line, point, (name, table) in zip(drawn, ax.lines[2::2], tables.items(), strict=True):
        assert line.get_xdata() == pytest.approx(1 - table["specificity"])
        assert line.get_ydata() == pytest.approx(table["sensitivity"])
        assert point.get_xdata()[0] == 1 - scores[name]["specificity"]["value"]
        assert point.get_ydata()[0] == scores[name]["sensitivity"]["value"]
    title, first, *_, chance = legend(ax)
    assert title == "AUROC (95 % CI)\nn = 90 images (30 positive) of 45 patients"
    assert first == f"ResNet18: {evaluation.text(scores['ResNet18']['auroc'])}"
    assert chance == "chance"


def test_legend_gives_each_n_where_runs_differ(results):
    """Runs of different images each have their own n in the legend."""
    parts = {"ResNet18": results["ResNet18"]["test"]}
    parts["ResNet50"] = results["ResNet18"]["within_source"]["mixed"]
    test = run(0).query("split == 'test'")
    tables = {"ResNet18": metrics.roc(test), "ResNet50": metrics.roc(test.query("source == 'mixed'"))}
    _, ax = plt.subplots()
    plots.roc(ax, tables, parts)
    title, first, second, *_ = legend(ax)
    assert title == "AUROC (95 % CI), n images"
    assert first.startswith("ResNet18, n = 90: ")
    assert second.startswith("ResNet50, n = 45: ")


def test_area_of_the_drawn_steps_is_the_average_precision(scores):
    """The precision-recall curve is drawn as the steps whose area the average precision is."""
    _, ax = plt.subplots()
    tables = curves(metrics.precision_recall, scores)
    plots.precision_recall(ax, tables, scores)
    line = next(line for line in ax.lines if line.get_label().startswith("ResNet18"))
    x, y = line.get_xdata(), line.get_ydata()
    assert line.get_drawstyle() == "steps-post"
    assert np.sum(-np.diff(x) * y[:-1]) == pytest.approx(scores["ResNet18"]["average_precision"]["value"])
    assert legend(ax)[-1] == "prevalence 0.333"


def test_confusion_matrix_has_counts_and_row_percentages(scores):
    """Rows are labels; every cell has its count and its share of the row."""
    _, ax = plt.subplots()
    plots.confusion(ax, {"confusion": {"tp": 98, "fn": 2, "fp": 213, "tn": 2787}})
    words = [text.get_text() for text in ax.texts]
    assert words == ["98", "98.0 %", "2", "2.0 %", "213", "7.1 %", "2,787", "92.9 %"]
    assert [label.get_text() for label in ax.get_yticklabels()] == [
        "COVID-19\nn = 100",
        "non-COVID\nn = 3,000",
    ]


def test_histogram_panels_have_the_counts_of_their_group():
    """Three panels of 24 bars with the counts of the table; too few axes are refused."""
    counts = metrics.histogram(run().query("split == 'test'").assign(finding="No Finding"))
    _, axes = plt.subplots(1, 3)
    plots.histograms(axes, counts, threshold=0.2)
    for ax, (group, rows) in zip(axes, counts.groupby("group", sort=False), strict=True):
        assert [bar.get_height() for bar in ax.patches] == rows["count"].tolist()
        assert ax.get_title(loc="left").lower() == f"{group.lower()} (n = {rows['count'].sum()})"
    with pytest.raises(ValueError, match=r"`axes` must be one per group .* Received: 2"):
        plots.histograms(axes[:2], counts)


@pytest.mark.parametrize("method", ["patients", "wilson", "normal"])
def test_sweep_draws_the_intervals_that_were_asked_for(method):
    """Lines are the fractions; bands are the named intervals, cut to what a fraction can be."""
    table = thresholds.sweep(run().query("split == 'test'"), draws=50)
    _, ax = plt.subplots()
    plots.sweep(ax, table, method, chosen=0.03)
    assert ax.get_xlim()[0] < 0.03
    assert ax.lines[0].get_ydata() == pytest.approx(table["sensitivity"])
    band = ax.collections[0].get_paths()[0].vertices[:, 1]
    assert band.min() == pytest.approx(max(0, table[f"sensitivity_{method}_low"].min()))
    assert band.max() == pytest.approx(min(1, table[f"sensitivity_{method}_high"].max()))


def test_history_marks_the_kept_epoch_and_the_change_of_stage():
    """The kept epoch is marked, and where all layers begin to train."""
    table = pd.DataFrame(
        {
            "epoch": [1, 2, 3, 4],
            "stage": ["head", "all", "all", "all"],
            "train_loss": [4.0, 3.0, 2.0, 1.0],
            "val_loss": [4.0, 2.0, 3.0, 2.0],
        }
    )
    _, ax = plt.subplots()
    plots.history(ax, table, best=2)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == [
        "train",
        "val",
        "kept: epoch 2",
        "all layers from here",
    ]
    assert ax.lines[2].get_xydata().tolist() == [[2, 2.0]]
    assert list(ax.lines[3].get_xdata()) == [1.5, 1.5]
    with pytest.raises(DataError, match=r"history: columns \['val_loss'\] are missing"):
        plots.history(ax, table.drop(columns="val_loss"), best=2)


def test_comparison_has_a_line_per_run(results):
    """Runs stand from top to bottom with interval, point and number; what cannot be told says so."""
    _, (ax, within) = plt.subplots(2)
    table = evaluation.comparison(results)
    plots.comparison(ax, table)
    assert [text.get_text() for text in ax.texts] == [
        evaluation.text(result["test"]["auroc"]) for result in results.values()
    ]
    assert ax.lines[2].get_xdata().tolist() == table.loc[1, ["auroc_low", "auroc_high"]].tolist()
    assert ax.yaxis_inverted()
    plots.comparison(within, evaluation.comparison(results, "negative only"))
    assert {text.get_text() for text in within.texts} == {"cannot be told"}


def test_each_network_has_one_look():
    """A network keeps colour and dashes in any company; later runs are paler, others grey."""
    alone = style.lines(["SqueezeNet"])["SqueezeNet"]
    among = style.lines(["resnet18, seed 0", "squeezenet", "ResNet-18, seed 1", "mean and std"])
    assert among["squeezenet"] == alone
    assert among["resnet18, seed 0"]["color"] == pytest.approx(to_rgb("#4477AA"))
    assert sum(among["ResNet-18, seed 1"]["color"]) > sum(among["resnet18, seed 0"]["color"])
    assert len(set(among["mean and std"]["color"])) == 1
    dashes = {str(look["linestyle"]) for look in style.NETWORKS.values()}
    assert len(dashes) == len({look["color"] for look in style.NETWORKS.values()}) == len(style.NETWORKS)


def figure(scores) -> plt.Figure:
    made, ax = plt.subplots()
    plots.roc(ax, curves(metrics.roc, scores), scores)
    return made


def test_saved_figures_are_the_same_bytes_twice(scores, tmp_path):
    """Two figures of the same table give byte-identical files without a date in them."""
    first = style.save(figure(scores), tmp_path / "a.b" / "roc")
    second = style.save(figure(scores), tmp_path / "again" / "roc")
    assert [path.name for path in first] == ["roc.pdf", "roc.svg", "roc.png"]
    for one, other in zip(first, second, strict=True):
        assert one.read_bytes() == other.read_bytes()
    assert not re.search(rb"CreationDate|ModDate|dc:date", b"".join(path.read_bytes() for path in first))


def test_text_stays_text(scores, tmp_path):
    """SVG holds words as text; PDF embeds a TrueType font instead of shapes."""
    pdf, svg = style.save(figure(scores), tmp_path / "roc", ("pdf", "svg"))
    assert "1 − specificity</text>" in svg.read_text(encoding="utf-8")
    assert b"/FontFile2" in pdf.read_bytes()


def test_unknown_format_is_refused_before_anything_is_written(tmp_path):
    """A format that is not one of the three leaves no file."""
    with pytest.raises(ValueError, match=r"`formats` must be some of .* Received: \('png', 'gif'\)"):
        style.save(plt.figure(), tmp_path / "a", ("png", "gif"))
    assert not list(tmp_path.iterdir())


def manifest() -> pd.DataFrame:
    """Six COVID-19 images of three patients, one augmented copy, ten other images of ten patients."""
    return pd.DataFrame(
        {
            "image_id": [f"i{index}" for index in range(17)],
            "patient_id": ["a", "a", "b", "b", "c", "c", "a"] + [f"n{index}" for index in range(10)],
            "label": ["COVID-19"] * 7 + ["non-COVID"] * 10,
            "parent_id": [""] * 6 + ["i0"] + [""] * 10,
        }
    )


def test_sample_grid_has_covid_first_and_each_patient_once():
    """The first row is COVID-19, the others are not; originals only, no patient twice, seeded."""
    table = manifest()
    chosen = pictures.choose(table, rows=3, columns=3, seed=1)
    assert table["label"].iloc[chosen].tolist() == ["COVID-19"] * 3 + ["non-COVID"] * 6
    assert not table["patient_id"].iloc[chosen].duplicated().any()
    assert (table["parent_id"].iloc[chosen] == "").all()
    assert (pictures.choose(table, 3, 3, seed=1) == chosen).all()
    with pytest.raises(DataError, match=r"4 patients of COVID-19 were wanted\. Received: 3"):
        pictures.choose(table, 3, 4)
    with pytest.raises(DataError, match=r"12 patients of labels other .* were wanted\. Received: 10"):
        pictures.choose(table, 5, 3)


def test_samples_are_shown_in_grey_and_unstretched():
    """Every image is drawn as it is, 0 black and 255 white, with the row's label at its left."""
    images = np.random.default_rng(0).integers(50, 99, (4, 8, 8, 1)).astype(np.uint8)
    _, axes = plt.subplots(2, 2)
    pictures.samples(axes, images, ["COVID-19", "COVID-19", "non-COVID", "non-COVID"])
    for ax, image in zip(axes.flat, images, strict=True):
        shown = ax.images[0]
        assert (shown.get_array() == image[..., 0]).all()
        assert (shown.get_cmap().name, shown.get_clim()) == ("gray", (0, 255))
        assert ax.get_aspect() == 1
    assert [ax.get_ylabel() for ax in axes[:, 0]] == ["COVID-19", "non-COVID"]
    with pytest.raises(ValueError, match="`labels` must be equal in a row"):
        pictures.samples(axes, images, ["COVID-19", "non-COVID"] * 2)
    with pytest.raises(ValueError, match=r"must be 2 x 2\. Received: 3 and 4"):
        pictures.samples(axes, images[:3], ["COVID-19"] * 4)


def test_families_of_different_size_are_cut_to_the_smallest():
    """Copies that were drawn differ in number; the grid takes as many of each original as all have."""
    table = pd.DataFrame({"image_id": list("abcdefgh"), "parent_id": ["", "", "", "b", "a", "b", "b", "a"]})
    assert pictures.families(table, 2) == ([1, 0], [[3, 5], [4, 7]])
    assert pictures.families(table, 1) == ([1], [[3, 5, 6]])
    assert pictures.families(table[:3], 2) == ([], [])


def test_before_and_after_stand_in_one_row():
    """An original stands left of its copies; axes that do not fit are refused."""
    images = np.arange(6, dtype=np.uint8)[:, None, None] * np.ones((1, 4, 4), np.uint8)
    _, axes = plt.subplots(2, 3)
    pictures.before_after(axes, images[:2], images[2:].reshape(2, 2, 4, 4))
    assert [int(ax.images[0].get_array()[0, 0]) for ax in axes.flat] == [0, 2, 3, 1, 4, 5]
    with pytest.raises(ValueError, match=r"`axes` must have shape \(2, 3\). Received: \(2, 2\)"):
        pictures.before_after(axes[:, :2], images[:2], images[2:].reshape(2, 2, 4, 4))


def test_count_bars_carry_their_numbers():
    """Every bar has the length and the number of its count."""
    table = pd.DataFrame({"COVID-19": [84, 420], "non-COVID": [2000, 2000]}, index=["before", "after"])
    _, ax = plt.subplots()
    pictures.counts(ax, table)
    assert [bar.get_width() for bar in ax.patches] == [84, 420, 2000, 2000]
    assert [text.get_text() for text in ax.texts] == ["84", "420", "2,000", "2,000"]
