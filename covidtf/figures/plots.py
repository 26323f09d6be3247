"""One function per figure about scores: each draws tables on the axes it is given and trains nothing.

`scores` is what `evaluation.evaluate` returns under "test", or under "within_source" for one source, by run.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.transforms import ScaledTranslation

from covidtf.figures import style
from covidtf.files import DataError
from covidtf.metrics.evaluation import text

_RULE = {"color": "#999999", "linewidth": 0.8, "linestyle": (0, (2, 2))}
_POINT = {"markeredgecolor": "white", "markeredgewidth": 0.7, "zorder": 4, "clip_on": False}
# Longer names go on a line of their own, so that the legend stays within a column of print.
_LONG_NAME = 26
_ABBREVIATIONS = ("auroc", "ppv", "npv")


def roc(ax: Axes, curves: Mapping[str, pd.DataFrame], scores: Mapping[str, dict]) -> None:
    """ROC curves with the chance line and each run's operating point at the threshold from val.

    Args:
        ax: Axes; made square. The legend goes below: a figure of 3.5 x (4 + 0.16 * runs) inches holds both.
        curves: `metrics.roc` by run.
        scores: By run; gives AUROC, n and the operating point.
    """
    common, own = _sizes(scores)
    ax.plot([0, 1], [0, 1], **_RULE, zorder=1)
    for name, look in style.lines(list(curves)).items():
        marker, label = look.pop("marker"), _label(name + own[name], scores[name]["auroc"])
        x, y = 1 - curves[name]["specificity"], curves[name]["sensitivity"]
        ax.plot(x, y, **look, label=label, clip_on=False)
        x, y = 1 - scores[name]["specificity"]["value"], scores[name]["sensitivity"]["value"]
        ax.plot(x, y, marker=marker, markersize=6, color=look["color"], **_POINT)
    ax.set(xlabel="1 − specificity", ylabel="Sensitivity")
    _unit_square(ax)
    _legend(ax, f"AUROC (95 % CI){common}", "chance")


def top_k(ax: Axes, table: pd.DataFrame) -> None:
    """Share of images whose label is among the k highest scores, with the chance level.

    Args:
        table: As `metrics.classes.top_k`.
    """
    ax.plot(table["k"], table["chance"], **_RULE, zorder=1)
    ax.annotate("chance", (table["k"].iloc[-1], table["chance"].iloc[-1]), ha="right", va="bottom")
    ax.plot(table["k"], table["share"], marker="o", clip_on=False)
    ax.set(xlabel="k highest scores", ylabel="Share of test images", ylim=(0, 1), xticks=table["k"])


def precision_recall(ax: Axes, curves: Mapping[str, pd.DataFrame], scores: Mapping[str, dict]) -> None:
    """PPV against sensitivity, with the prevalence, which is the chance level.

    Args:
        ax: Axes; made square, with the legend below as in `roc`.
        curves: `metrics.precision_recall` by run.
        scores: By run; gives average precision, n, prevalence and the operating point.
    """
    common, own = _sizes(scores)
    prevalences = sorted({scores[name]["average_precision"]["prevalence"] for name in curves})
    for prevalence in prevalences:
        ax.axhline(prevalence, **_RULE, zorder=1)
    for name, look in style.lines(list(curves)).items():
        marker, label = look.pop("marker"), _label(name + own[name], scores[name]["average_precision"])
        x, y = curves[name]["sensitivity"], curves[name]["ppv"]
        ax.plot(x, y, **look, drawstyle="steps-post", label=label, clip_on=False)
        x, y = scores[name]["sensitivity"]["value"], scores[name]["ppv"]["value"]
        if y is not None:
            ax.plot(x, y, marker=marker, markersize=6, color=look["color"], **_POINT)
    ax.set(xlabel="Sensitivity", ylabel="PPV (precision)")
    _unit_square(ax)
    rule = "prevalence " + ", ".join(f"{prevalence:.3f}" for prevalence in prevalences)
    _legend(ax, f"Average precision (95 % CI){common}", rule)


def confusion(ax: Axes, scores: dict, positive: str = "COVID-19", negative: str = "non-COVID") -> None:
    """Confusion matrix of one run: counts, and the share of each row in per cent.

    Args:
        ax: Axes; made square.
        scores: Of one run; its `confusion` is drawn.
        positive: Name of the label that is detected.
        negative: Name of all others.
    """
    cells = scores["confusion"]
    counts = np.array([[cells["tp"], cells["fn"]], [cells["fp"], cells["tn"]]])
    rows = counts.sum(axis=1, keepdims=True)
    share = np.divide(counts, rows, out=np.zeros((2, 2)), where=rows > 0)
    ax.imshow(share, cmap="Blues", vmin=0, vmax=1.25)
    for (row, column), count in np.ndenumerate(counts):
        colour = "white" if share[row, column] > 0.6 else "black"
        ax.text(column, row - 0.06, f"{count:,}", ha="center", va="bottom", color=colour, fontsize=11)
        percent = f"{share[row, column]:.1%}".replace("%", " %") if rows[row, 0] else "no image"
        ax.text(column, row + 0.06, percent, ha="center", va="top", color=colour)
    names = (positive, negative)
    ax.set_xticks([0, 1], [f"{name}" for name in names])
    ax.set_yticks([0, 1], [f"{name}\nn = {n:,}" for name, n in zip(names, rows[:, 0], strict=True)])
    ax.set(xlabel="Called", ylabel="Label")
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)


def histograms(axes: Sequence[Axes], counts: pd.DataFrame, threshold: float | None = None) -> None:
    """Histogram of the score in one panel per group, as the DeepCovid paper shows it.

    Args:
        axes: One per group of `counts`.
        counts: `metrics.histogram`.
        threshold: Cut-off threshold, drawn as a line.
    Raises:
        ValueError: If there are not as many axes as groups.
    """
    groups = list(dict.fromkeys(counts["group"]))
    if len(axes) != len(groups):
        raise ValueError(f"`axes` must be one per group {groups}. Received: {len(axes)}")
    for ax, group in zip(axes, groups, strict=True):
        rows = counts[counts["group"] == group]
        colour = style.COLOURS.get(group, style.COLOURS["COVID-19"])
        place = {"x": rows["low"], "width": rows["high"] - rows["low"], "align": "edge"}
        ax.bar(height=rows["count"], **place, color=colour, edgecolor="white", linewidth=0.3)
        n = int(rows["count"].sum())
        ax.set(xlim=(0, 1), xlabel="Score", title=f"{group[0].upper()}{group[1:]} (n = {n:,})")
        ax.set_ylim(0, max(1, rows["count"].max()) * 1.08)
        ax.yaxis.get_major_locator().set_params(integer=True)
        if threshold is not None:
            ax.axvline(threshold, **(_RULE | {"color": "black"}))
    axes[0].set_ylabel("Images")
    if threshold is not None:
        place = {"xycoords": axes[0].get_xaxis_transform(), "textcoords": "offset points", "va": "top"}
        axes[0].annotate(f"threshold {threshold:.2f}", (threshold, 1), xytext=(2, 0), fontsize=6.5, **place)


def sweep(ax: Axes, table: pd.DataFrame, method: str = "patients", chosen: float | None = None) -> None:
    """Sensitivity and specificity over the cut-off threshold with their 95 % intervals as bands.

    Args:
        ax: Axes.
        table: `thresholds.sweep` of one run.
        method: Intervals to draw: "patients", "wilson" or "normal" (the paper's).
        chosen: Threshold chosen on val, drawn as a line.
    """
    x = table["threshold"]
    for name, label, look in (("sensitivity", "COVID-19", "-o"), ("specificity", "non-COVID", "--s")):
        colour, words = style.COLOURS[label], f"{name.capitalize()} (n = {int(table[f'{name}_n'].iloc[0]):,})"
        low, high = (table[f"{name}_{method}_{end}"].clip(0, 1) for end in ("low", "high"))
        ax.fill_between(x, low, high, color=colour, alpha=0.18, linewidth=0)
        ax.plot(x, table[name], look, color=colour, markersize=3, label=words, clip_on=False)
    if chosen is not None:
        ax.axvline(chosen, **(_RULE | {"color": "black"}), label=f"Chosen on val: {chosen:.2f}")
    names = {"patients": "by patient", "wilson": "Wilson", "normal": "normal approximation"}
    ax.set(xlabel="Cut-off threshold", ylabel=f"Fraction (95 % CI, {names[method]})", ylim=(0, 1.02))
    # All of it, because the chosen threshold may lie outside of those in the table.
    ax.set_xlim(0, 1)
    # Below the axes: inside, it would cover a curve somewhere.
    ax.legend(loc="upper left", bbox_to_anchor=(0, -0.24), borderaxespad=0)


def history(ax: Axes, table: pd.DataFrame, best: int) -> None:
    """Loss on train and val by epoch; marks the kept epoch and where training went on to all layers.

    Args:
        ax: Axes.
        table: `history.csv` of a run: columns epoch, stage, train_loss, val_loss.
        best: Epoch whose weights were kept.
    Raises:
        DataError: If a column is absent.
    """
    absent = [column for column in ("epoch", "stage", "train_loss", "val_loss") if column not in table]
    if absent:
        raise DataError(f"history: columns {absent} are missing. Received: {list(table.columns)}")
    val = style.COLOURS["val"]
    ax.plot(table["epoch"], table["train_loss"], color=style.COLOURS["train"], linestyle="--", label="train")
    ax.plot(table["epoch"], table["val_loss"], color=val, label="val")
    kept = table.loc[table["epoch"] == best, "val_loss"]
    ax.plot([best], kept, "o", markersize=6, color=val, label=f"kept: epoch {best}", **_POINT)
    later = table.loc[table["stage"] != table["stage"].iloc[0], "epoch"]
    if len(later):
        ax.axvline(later.iloc[0] - 0.5, **_RULE, label="all layers from here", zorder=1)
    first, last = table["epoch"].min(), table["epoch"].max()
    ax.set(xlabel="Epoch", ylabel="Loss (cross-entropy)", ylim=(0, None), xlim=(first - 0.5, last + 0.5))
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.legend(loc="best")


def comparison(ax: Axes, table: pd.DataFrame, metric: str = "auroc") -> None:
    """One metric of several runs with its 95 % interval, in the table's order from top to bottom.

    Args:
        ax: Axes.
        table: `evaluation.comparison`; rows whose metric cannot be told say so.
        metric: One of `evaluation.METRICS`.
    """
    for y, look in enumerate(style.lines(list(table["run"])).values()):
        value, low, high = (float(table[f"{metric}{end}"].iloc[y]) for end in ("", "_low", "_high"))
        ax.plot([low, high], [y, y], color=look["color"], linewidth=1.6, solid_capstyle="butt", clip_on=False)
        ax.plot(value, y, marker=look["marker"], markersize=4.5, color=look["color"], **_POINT)
        found = {"value": None if np.isnan(value) else value, "ci95": None if np.isnan(low) else (low, high)}
        ax.text(1.03, y, text(found), transform=ax.get_yaxis_transform(), va="center")
    if metric == "auroc":
        ax.axvline(0.5, **_RULE, zorder=0)
    ax.set_yticks(range(len(table)), table["run"])
    name = metric.upper() if metric in _ABBREVIATIONS else metric.replace("_", " ").capitalize()
    ax.set(ylim=(len(table) - 0.4, -0.6), xlabel=f"{name} (95 % CI, by patient)", xlim=(None, 1))
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)


def _sizes(scores: Mapping[str, dict]) -> tuple[str, dict[str, str]]:
    """What to say of n in the legend's title, where it is the same for all, and else in each run's line."""
    sizes = {}
    for name, found in scores.items():
        positives, (n, patients) = (
            found["sensitivity"]["n"],
            (found["accuracy"][k] for k in ("n", "patients")),
        )
        sizes[name] = (f"n = {n:,}", f"\nn = {n:,} images ({positives:,} positive) of {patients:,} patients")
    if len(set(sizes.values())) == 1:
        return next(iter(sizes.values()))[1], dict.fromkeys(scores, "")
    return ", n images", {name: f", {short}" for name, (short, _) in sizes.items()}


def _label(name: str, metric: dict) -> str:
    return f"{name}:{' ' if len(name) <= _LONG_NAME else chr(10)}{text(metric)}"


def _unit_square(ax: Axes) -> None:
    ax.set(xlim=(0, 1), ylim=(0, 1), xticks=np.linspace(0, 1, 6), yticks=np.linspace(0, 1, 6))
    ax.set_box_aspect(1)


def _legend(ax: Axes, title: str, rule: str) -> None:
    """Below the axes, because no place inside is free of every curve."""
    handles, labels = ax.get_legend_handles_labels()
    grey = {"color": "none", "marker": "o", "markerfacecolor": "#555555", "markeredgecolor": "white"}
    handles += [Line2D([], [], **grey), Line2D([], [], **_RULE)]
    # A distance in points clears the axis label whatever the size of the axes.
    below = ax.transAxes + ScaledTranslation(0, -34 / 72, ax.figure.dpi_scale_trans)
    place = {"loc": "upper left", "bbox_to_anchor": (0, 0), "bbox_transform": below, "borderaxespad": 0}
    labels += ["threshold chosen on val", rule]
    ax.legend(handles, labels, title=title, alignment="left", borderpad=0, **place)
