"""Figures for those who would use a score: calibration, net benefit, predictive values, subgroups."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, NullLocator
from matplotlib.transforms import ScaledTranslation

from covidtf.figures import style
from covidtf.metrics.evaluation import text

_RULE = {"color": "#999999", "linewidth": 0.8, "linestyle": (0, (2, 2)), "zorder": 1}
_POINT = {"markeredgecolor": "white", "markeredgewidth": 0.7, "zorder": 4}
_NOTED = "#777777"
# More of them would hide each other.
_MOST_BANDS = 2
# Points to the right of the axes.
_COLUMNS = (8, 92)
_KINDS = {"view": "View", "sex": "Sex", "age": "Age", "finding": "Finding", "source": "Source"}
_ABBREVIATIONS = ("auroc", "ppv", "npv")


def reliability(
    ax: Axes, tables: Mapping[str, pd.DataFrame], errors: Mapping[str, dict] | None = None
) -> None:
    """Share of positives against the mean score of each bin; on the diagonal a score is a probability.

    Args:
        ax: Axes; made square. The legend goes below: a figure of 3.5 x (3.6 + 0.14 * runs) inches holds both.
        tables: `calibration.reliability` by run (or "before" and "after").
        errors: `calibration.ece` by run, for the legend.
    """
    ax.plot([0, 1], [0, 1], **_RULE, label="calibrated")
    for name, look in style.lines(list(tables)).items():
        table, label = tables[name], name
        if errors:
            found = errors[name]
            label += f": ECE {found['value']:.3f} (if calibrated {found['if_calibrated']:.3f})"
        x, y = table["mean_score"], table["observed"]
        ax.vlines(
            x, table["observed_low"], table["observed_high"], color=look["color"], linewidth=0.8, alpha=0.5
        )
        ax.plot(
            x,
            y,
            **look,
            markersize=4,
            markeredgecolor="white",
            markeredgewidth=0.5,
            label=label,
            clip_on=False,
        )
    ticks = np.linspace(0, 1, 6)
    ax.set(xlim=(0, 1), ylim=(0, 1), xticks=ticks, yticks=ticks)
    ax.set_box_aspect(1)
    ax.set(xlabel="Mean score of the bin", ylabel="Share of positives (95 % CI, Wilson)")
    _legend_below(ax)


def decision_curve(ax: Axes, tables: Mapping[str, pd.DataFrame], prevalence: str = "of the images") -> None:
    """Net benefit over the threshold probability, with that of treating all and none.

    Args:
        ax: Axes; the legend goes below.
        tables: `benefit.decision_curve` by run, of the same images; of one or two the 95 % intervals at
            each threshold are drawn as bands.
        prevalence: What the prevalence was, for the axis.
    """
    first = next(iter(tables.values()))
    ax.axhline(0, color="#444444", linewidth=0.8, label="treat none", zorder=1)
    ax.plot(first["threshold"], first["all"], **_RULE, label="treat all")
    for name, look in style.lines(list(tables)).items():
        table = tables[name]
        look.pop("marker")
        if len(tables) <= _MOST_BANDS:
            limits = table["model_low"], table["model_high"]
            ax.fill_between(table["threshold"], *limits, color=look["color"], alpha=0.14, linewidth=0)
        ax.plot(table["threshold"], table["model"], **look, label=name)
    shown = "model_high" if len(tables) <= _MOST_BANDS else "model"
    highest = max(first["all"].max(), *(table[shown].max() for table in tables.values()))
    # What falls far below 0 says no more than that it does.
    ax.set(xlim=(0, 1), ylim=(-0.5 * highest, 1.08 * highest))
    ax.set(xlabel="Threshold probability", ylabel=f"Net benefit per image\n(prevalence {prevalence})")
    _legend_below(ax)


def predictive_values(ax: Axes, table: pd.DataFrame, measured: float | None = None) -> None:
    """PPV and NPV over the prevalence, which has a log scale, with their 95 % intervals as bands.

    Args:
        ax: Axes.
        table: `benefit.predictive_values` of one run.
        measured: Prevalence among the images, drawn as a line.
    """
    x = table["prevalence"]
    for name, label, look in (("ppv", "COVID-19", "-o"), ("npv", "non-COVID", "--s")):
        colour = style.COLOURS[label]
        ax.fill_between(x, table[f"{name}_low"], table[f"{name}_high"], color=colour, alpha=0.18, linewidth=0)
        ax.plot(x, table[name], look, color=colour, markersize=3.5, label=name.upper(), clip_on=False)
    if measured is not None:
        ax.axvline(measured, **_RULE, label=f"in these images: {measured:.2f}")
    ax.set_xscale("log")
    ax.xaxis.set_major_locator(FixedLocator(x.tolist()))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xticks(x.tolist(), [f"{100 * value:g} %" for value in x])
    ax.set(ylim=(0, 1.02), xlabel="Prevalence", ylabel="Predictive value (95 % CI)")
    _legend_below(ax)


def subgroups(ax: Axes, table: pd.DataFrame, metric: str = "auroc") -> None:
    """Forest plot of one metric by group, with n; groups that cannot be told stay in and say so.

    Grey marks groups with a note, such as few patients; the line down is the value of all images.

    Args:
        ax: Axes; a figure of 7 x (0.6 + 0.18 * (groups + kinds)) inches holds text on both sides.
        table: `metrics.subgroups.subgroups` of one run.
        metric: One of `metrics.subgroups.METRICS`.
    """
    # A row for each heading.
    heads = (table["by"] != table["by"].shift()) & table["by"].isin(_KINDS)
    places = np.arange(len(table)) + np.cumsum(heads).to_numpy()
    outside, columns = ax.get_yaxis_transform(), table[[metric, f"{metric}_low", f"{metric}_high"]]
    ax.axvline(columns.iloc[0, 0], **_RULE)
    for y, row, (value, low, high) in zip(places, table.itertuples(), columns.to_numpy(float), strict=True):
        colour = _NOTED if row.note else style.COLOURS["train"]
        ax.plot([low, high], [y, y], color=colour, linewidth=1.3, solid_capstyle="butt")
        ax.plot(
            value, y, "D" if row.by == "all" else "o", markersize=4.5, color=colour, clip_on=False, **_POINT
        )
        found = {"value": None if np.isnan(value) else value, "ci95": None if np.isnan(low) else (low, high)}
        counts = f"{row.positives} + {row.n - row.positives} ({row.positive_patients} + {row.other_patients})"
        for x, words in zip(_COLUMNS, (text(found, 2), counts), strict=True):
            ax.annotate(words, (1, y), (x, 0), outside, "offset points", va="center", color=colour)
    for y, by in zip(places[heads] - 1, table["by"][heads], strict=True):
        ax.text(-0.01, y, _KINDS[by], transform=outside, va="center", ha="right", fontweight="bold")
    name = metric.upper() if metric in _ABBREVIATIONS else metric.capitalize()
    for x, title in zip(_COLUMNS, (f"{name} (95 % CI)", "Images (patients),\npositive + other"), strict=True):
        ax.annotate(title, (1, -0.8), (x, 0), outside, "offset points", va="bottom")
    ax.set_yticks(places, table["group"])
    ax.set(ylim=(places[-1] + 0.7, -0.7), xlim=(0, 1), xlabel=f"{name} (95 % CI, by patient)")
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)


def _legend_below(ax: Axes) -> None:
    # A distance in points clears the axis label whatever the size of the axes.
    below = ax.transAxes + ScaledTranslation(0, -34 / 72, ax.figure.dpi_scale_trans)
    place = {"loc": "upper left", "bbox_to_anchor": (0, 0), "bbox_transform": below, "borderaxespad": 0}
    ax.legend(alignment="left", borderpad=0, **place)
