"""Clinical figures show what their tables say."""

import makers
import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest

from covidtf.figures import clinical, style
from covidtf.metrics import benefit, calibration
from covidtf.metrics.subgroups import subgroups


@pytest.fixture(autouse=True)
def figures():
    """The style sheet is used, nothing is shown, and nothing of it is left behind."""
    with mpl.rc_context({"backend": "agg"}):
        style.use()
        yield
        plt.close("all")


def predictions(seed: int = 0):
    generator = np.random.default_rng(seed)
    positive = np.arange(90) % 3 == 0
    score = np.clip(generator.normal(0.35 + 0.3 * positive, 0.2), 0, 1)
    source = np.where(np.arange(90) % 3 == 1, "b", "a")
    return makers.predictions(score, positive, finding=np.where(positive, "COVID-19", "Edema"), source=source)


def legend(ax) -> list[str]:
    return [text.get_text() for text in ax.get_legend().get_texts()]


def test_reliability_shows_each_bin_with_its_interval_and_the_ece():
    """Points are mean score and share, upright lines Wilson's limits, the legend has the ECE."""
    _, ax = plt.subplots()
    table, error = calibration.reliability(predictions()), calibration.ece(predictions(), draws=20)
    clinical.reliability(ax, {"ResNet18": table}, {"ResNet18": error})
    assert ax.lines[1].get_xdata() == pytest.approx(table["mean_score"])
    assert ax.lines[1].get_ydata() == pytest.approx(table["observed"])
    ends = [segment[:, 1].tolist() for segment in ax.collections[0].get_segments()]
    assert ends == table[["observed_low", "observed_high"]].to_numpy().tolist()
    assert legend(ax)[1].startswith(f"ResNet18: ECE {error['value']:.3f} (if calibrated ")


def test_decision_curve_shows_model_all_and_none():
    """One run has its band; of three the bands would hide each other."""
    curve = benefit.decision_curve(predictions(), thresholds=[0.1, 0.3, 0.5], draws=50)
    _, (ax, other) = plt.subplots(1, 2)
    clinical.decision_curve(ax, {"ResNet18": curve}, "5 %")
    assert legend(ax) == ["treat none", "treat all", "ResNet18"]
    assert ax.lines[1].get_ydata() == pytest.approx(curve["all"])
    assert ax.lines[2].get_ydata() == pytest.approx(curve["model"])
    assert ax.get_ylim()[1] > curve["model_high"].max()
    assert "prevalence 5 %" in ax.get_ylabel()
    clinical.decision_curve(other, dict.fromkeys(("ResNet18", "ResNet50", "SqueezeNet"), curve))
    assert (len(ax.collections), len(other.collections)) == (1, 0)


def test_predictive_values_have_a_tick_per_prevalence():
    """PPV and NPV over the stated prevalences, in per cent."""
    found = {"value": 0.9, "ci95": [0.8, 0.95]}
    table = benefit.predictive_values(found, found, [0.01, 0.1, 0.5])
    _, ax = plt.subplots()
    clinical.predictive_values(ax, table, measured=0.3)
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["1 %", "10 %", "50 %"]
    assert ax.lines[0].get_ydata() == pytest.approx(table["ppv"])
    assert ax.lines[1].get_ydata() == pytest.approx(table["npv"])
    assert legend(ax) == ["PPV", "NPV", "in these images: 0.30"]


def test_subgroups_are_all_there_with_n_and_within_the_figure():
    """A row per group, those that cannot be told too; nothing of the text columns is cut off."""
    table = subgroups(predictions(), None, 0.5, draws=50)
    figure, ax = plt.subplots(figsize=(7, 0.6 + 0.18 * (len(table) + 5)))
    clinical.subgroups(ax, table, "auroc")
    assert [tick.get_text() for tick in ax.get_yticklabels()] == table["group"].tolist()
    words = [text.get_text() for text in ax.texts]
    assert words.count("cannot be told") == table["auroc"].isna().sum() == 1
    assert "30 + 60 (30 + 60)" in words
    assert {"View", "Sex", "Age", "Finding", "Source"} <= set(words)
    figure.canvas.draw()
    right = max(text.get_window_extent().x1 for text in ax.texts)
    assert right <= figure.bbox.x1
    points = [line.get_xdata()[0] for line in ax.lines[2::2]]
    assert points == pytest.approx(table["auroc"].tolist(), nan_ok=True)
