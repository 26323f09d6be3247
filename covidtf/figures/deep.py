"""Figures of the CT system: several classes, weights of heads, and what each part of the method brings."""

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from textwrap import wrap

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.transforms import ScaledTranslation

from covidtf.figures import style
from covidtf.files import DataError
from covidtf.metrics.ablation import NAMES
from covidtf.metrics.evaluation import text
from covidtf.metrics.grouping import REFERENCE

_RULE = {"color": "#999999", "linewidth": 0.8, "linestyle": (0, (2, 2))}
_POINT = {"markeredgecolor": "white", "markeredgewidth": 0.7, "zorder": 4, "clip_on": False}
# Okabe & Ito, for classes without a colour of their own; dashes for a print without colour.
_SPARE = ("#009E73", "#56B4E9", "#CC79A7", "#E69F00", "#0072B2")
_DASHES = ("-", (0, (5, 1.6)), (0, (6, 1.5, 1, 1.5)), (0, (1, 1.2)), (0, (3, 1, 1, 1, 1, 1)))
# Tol's "bright" as for networks; the main head is black.
_HEADS = ("#4477AA", "#EE6677", "#228833", "#AA3377", "#CCBB44")
_MEAN, _TOLD = "#333333", "#4477AA"


def confusion(ax: Axes, result: dict) -> None:
    """Confusion matrix of any number of classes: counts, and the share of each row in per cent.

    Args:
        ax: Axes; made square.
        result: Of `multiclass.evaluate`; its `confusion` and `classes` are drawn.
    """
    counts, classes = np.array(result["confusion"]), result["classes"]
    rows = counts.sum(axis=1, keepdims=True)
    share = np.divide(counts, rows, out=np.zeros(counts.shape), where=rows > 0)
    ax.imshow(share, cmap="Blues", vmin=0, vmax=1.25)
    for (row, column), count in np.ndenumerate(counts):
        colour = "white" if share[row, column] > 0.6 else "black"
        ax.text(column, row - 0.06, f"{count:,}", ha="center", va="bottom", color=colour, fontsize=10)
        percent = f"{share[row, column]:.1%}".replace("%", " %") if rows[row, 0] else f"no {result['level']}"
        ax.text(column, row + 0.06, percent, ha="center", va="top", color=colour)
    names = [name.replace(" ", "\n") for name in classes]
    ax.set_xticks(range(len(names)), names)
    ax.set_yticks(
        range(len(names)), [f"{name}\nn = {n:,}" for name, n in zip(names, rows[:, 0], strict=True)]
    )
    ax.set(xlabel=f"Called ({result['level']}s)", ylabel="Label")
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)


def confusions(axes: Sequence[Axes], panels: Mapping[str, dict]) -> None:
    """Confusion matrices of several methods side by side, each under its name; axes that are left go.

    Args:
        axes: At least one per panel, row by row, each 1.7 inches or more.
        panels: Of `multiclass.over_seeds`, by name, lines of which are kept; counts are those of all seeds
            together.
    """
    for ax, (name, result) in zip(axes, panels.items(), strict=False):
        confusion(ax, result)
        of = f" of {result['seeds']} seeds" if result["seeds"] > 1 else ""
        lines = [line for part in name.splitlines() for line in wrap(part, 28)]
        ax.set_title("\n".join(lines), fontsize=8)
        ax.set_xlabel(f"Called ({result['level']}s{of})")
    for ax in axes[len(panels) :]:
        ax.remove()


def roc_classes(ax: Axes, curves: Mapping[str, pd.DataFrame], results: dict) -> None:
    """ROC curve of each class against all others, with the chance line.

    Args:
        ax: Axes; made square. The legend below fits into a figure of 3.5 x (4.4 + 0.16 * classes) inches.
        curves: `metrics.roc` by class; of two classes one is enough, the other's is its mirror image.
        results: Of `multiclass.evaluate` of the same rows; gives AUROC, its interval and n.
    """
    ax.plot([0, 1], [0, 1], **_RULE, zorder=1)
    for index, (name, points) in enumerate(curves.items()):
        found = results["per_class"][name]
        n = found["sensitivity"]["n"]
        look = {"color": _colour(name, results["classes"]), "linestyle": _DASHES[index % len(_DASHES)]}
        ax.plot(
            1 - points["specificity"],
            points["sensitivity"],
            label=f"{name}, n = {n:,}: {text(found['auroc'])}",
            clip_on=False,
            **look,
        )
    ax.set(xlabel="1 − specificity", ylabel="Sensitivity", xlim=(0, 1), ylim=(0, 1))
    ax.set(xticks=np.linspace(0, 1, 6), yticks=np.linspace(0, 1, 6))
    ax.set_box_aspect(1)
    handles, labels = ax.get_legend_handles_labels()
    if len(curves) > 1:
        handles, labels = (
            [*handles, Line2D([], [], color="none")],
            [*labels, f"Macro: {text(results['macro']['auroc'])}"],
        )
    size = f"n = {results['n']:,} {results['level']}s of {results['patients']:,} patients"
    title = f"One-vs-rest AUROC (95 % CI)\n{size}"
    _below(ax, [*handles, Line2D([], [], **_RULE)], [*labels, "chance"], title)


def head_weights(ax: Axes, history: pd.DataFrame) -> None:
    """Weight of each head's loss by epoch, with its name at the end; the first value is marked.

    Args:
        ax: Axes.
        history: `history.csv` of a run: columns epoch and `weight_<head>`, one per head.
    Raises:
        DataError: If there is no such column, or no epoch.
    """
    columns = [name for name in history if name.startswith("weight_")]
    if "epoch" not in history or not columns:
        raise DataError(
            f"history: columns epoch and weight_<head> were wanted. Received: {list(history.columns)}"
        )
    epoch, top = history["epoch"], float(history[columns].to_numpy().max())
    auxiliary = [name for name in columns if name != "weight_main"]
    ends = _apart(history[columns].iloc[-1].to_numpy(float), 0.07 * top)
    for column, end in zip(columns, ends, strict=True):
        place = -1 if column == "weight_main" else auxiliary.index(column)
        colour = "black" if place < 0 else _HEADS[place % len(_HEADS)]
        ax.plot(
            epoch, history[column], color=colour, linestyle=_DASHES[(place + 1) % len(_DASHES)], clip_on=False
        )
        ax.plot(epoch.iloc[0], history[column].iloc[0], "o", markersize=4.5, color=colour, **_POINT)
        words = re.sub(r"(?<=[a-z])_?(\d+)$", r" \1", column.removeprefix("weight_"))
        ax.annotate(
            words,
            (1, end),
            xycoords=("axes fraction", "data"),
            xytext=(3, 0),
            textcoords="offset points",
            color=colour,
            va="center",
            annotation_clip=False,
        )
    ax.set(xlabel="Epoch", ylabel="Weight of the head's loss", ylim=(0, 1.08 * top))
    ax.set_xlim(epoch.iloc[0], max(epoch.iloc[-1], epoch.iloc[0] + 1))
    ax.xaxis.get_major_locator().set_params(integer=True)


def ablation(ax: Axes, table: pd.DataFrame, metric: str, level: str = "case") -> None:
    """One metric of each method, in groups of equal label noise, from top to bottom; baselines below.

    A dot is the mean over the seeds and the line its 95 % CI over patients, ticks are the seeds, the dashed
    line is plain cross-entropy of the group. A dot is filled with colour where the interval of the gain over
    that leaves out 0.

    Args:
        ax: Axes; 0.2 inch per row and group, and 0.9 for the legend below, give it room.
        table: Rows of `metrics.ablation.table` of one part, of runs that differ in method and label noise
            alone, and of baselines.
        metric: One of `metrics.ablation.METRICS`.
        level: "slice" or "case".
    Raises:
        ValueError: If the table has no row of the metric and level, or a method twice at equal label noise.
    """
    rows = table[(table["metric"] == metric) & (table["level"] == level)]
    # Baselines have no label noise, and so come last.
    rows = rows.sort_values("label_noise", kind="stable")
    repeated = rows.duplicated(["label_noise", "method"])
    if rows.empty or repeated.any():
        found = rows.loc[repeated, "method"].tolist() or "no row"
        raise ValueError(
            f"`table` must have each method once per label noise, {metric}, {level}. Received: {found}"
        )
    y, ticks, noises = -1.0, [], rows["label_noise"].dropna().nunique()
    for noise, group in rows.groupby("label_noise", dropna=False):
        y += 1
        if noises > 1 and not np.isnan(noise):
            words = f"Label noise {noise:.0%}".replace("%", " %")
            ax.text(0.01, y, words, transform=ax.get_yaxis_transform(), va="center", fontweight="bold")
            y += 1
        places = y + np.arange(len(group))
        _methods(ax, group, places)
        ticks += list(places)
        y = places[-1]
    ax.set_yticks(ticks, rows["method"])
    ax.set(ylim=(y + 0.7, -0.7), xlabel=f"{NAMES[metric]} by {level} (95 % CI)")
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    _below(ax, *_ablation_legend(rows), "")


def _methods(ax: Axes, group: pd.DataFrame, places: np.ndarray) -> None:
    for reference in group.loc[group["method"] == REFERENCE, "value"]:
        ax.plot([reference] * 2, [places[0] - 0.4, places[-1] + 0.4], **_RULE, zorder=1)
    for y, row in zip(places, group.itertuples(), strict=True):
        told = row.gain_is in ("above 0", "below 0")
        colour = _TOLD if told else _MEAN
        ax.plot([row.low, row.high], [y, y], color=colour, linewidth=1.1, zorder=2)
        seeds = [float(value) for value in row.of_seeds.split()]
        ax.plot(seeds, [y] * len(seeds), "|", color=colour, markersize=7, markeredgewidth=0.8, zorder=3)
        fill = colour if told else "white"
        ax.plot(row.value, y, "o", markersize=4.5, color=colour, markerfacecolor=fill, zorder=4)


def _ablation_legend(rows: pd.DataFrame) -> tuple[list[Line2D], list[str]]:
    dot = {"marker": "o", "markersize": 4.5, "linewidth": 1.1}
    tick = {"marker": "|", "markersize": 7, "linestyle": "none", "color": _MEAN}
    handles = [Line2D([], [], color=_MEAN, markerfacecolor="white", **dot), Line2D([], [], **tick)]
    labels = ["mean over seeds", "one seed"]
    if (rows["method"] == REFERENCE).any():
        handles += [Line2D([], [], color=_TOLD, **dot), Line2D([], [], **_RULE)]
        labels += [f"gain over {REFERENCE}: CI leaves out 0", REFERENCE]
    return handles, labels


def _colour(name: str, classes: list[str]) -> str:
    spare = [other for other in classes if other not in style.COLOURS]
    return style.COLOURS.get(name) or _SPARE[spare.index(name) % len(_SPARE)]


def _apart(values: np.ndarray, least: float) -> np.ndarray:
    """Values moved upwards until neighbours are `least` apart, in their own order."""
    result = np.array(values, dtype=float)
    order = np.argsort(result, kind="stable")
    for lower, upper in pairwise(order):
        result[upper] = max(result[upper], result[lower] + least)
    return result


def _below(ax: Axes, handles: list, labels: list[str], title: str) -> None:
    """Legend below the axes, because no place inside is free of every line."""
    # A distance in points clears the axis label whatever the size of the axes.
    below = ax.transAxes + ScaledTranslation(0, -34 / 72, ax.figure.dpi_scale_trans)
    place = {"loc": "upper left", "bbox_to_anchor": (0, 0), "bbox_transform": below, "borderaxespad": 0}
    ax.legend(handles, labels, title=title or None, alignment="left", borderpad=0, **place)
