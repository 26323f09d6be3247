"""Figures of notebook 13: AUROC and its differences with two intervals each, and operating points."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from covidtf.figures import style

_RULE = {"color": "#999999", "linewidth": 0.8, "linestyle": (0, (2, 2)), "zorder": 1}
_EDGE = {"markeredgecolor": "white", "markeredgewidth": 0.7}
_NOT_TOLD = "#777777"
_APART = 0.17
_WORDS = {"youden": "Youden's index"}
# Marks of the rules, in the order of the table.
_MARKS = ("o", "s", "^", "D")
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#444444")


def areas(ax: Axes, table: pd.DataFrame) -> None:
    """AUROC of each network: the mean over its seeds, its intervals by bootstrap and DeLong, and the range.

    Args:
        ax: Axes, alone in its figure, whose legend goes below; 7 x (1.1 + 0.26 * rows) inches hold it.
        table: Rows of `metrics.paired.areas` of one part.
    """
    ax.axvline(0.5, **_RULE)
    for y, row in enumerate(table.itertuples()):
        colour = style.lines([row.network])[row.network]["color"]
        if row.seeds > 1:
            ax.plot([row.lowest, row.highest], [y, y], color=colour, linewidth=6, alpha=0.3, zorder=2)
        _pair(ax, y, row, row.auroc, colour)
        if np.isnan(row.auroc):
            ax.text(0.5, y, " cannot be told", va="center", color=_NOT_TOLD)
    _rows(ax, _short(table["network"], ~table["baseline"]))
    lowest = table[["auroc", "bootstrap_low", "delong_low"]].min().min()
    ax.set(xlim=(np.floor(10 * np.nanmin([lowest, 0.5])) / 10, 1.0))
    ax.set_xlabel("AUROC (95 % CI, by patient)")
    ranges = [Line2D([], [], color=_NOT_TOLD, linewidth=6, alpha=0.3, label="lowest to highest seed")]
    _legend(ax, [*_two_intervals(), *(ranges if (table["seeds"] > 1).any() else [])])


def differences(ax: Axes, table: pd.DataFrame) -> None:
    """Differences in AUROC with their two intervals; grey where an interval holds 0, or where there is none.

    Args:
        ax: Axes, alone in its figure, whose legend goes below; 7 x (1.1 + 0.3 * (rows + 2)) inches hold it.
        table: Rows of `metrics.paired.differences` of one part.
    """
    ax.axvline(0, **_RULE)
    networks = pd.Series([*table["one"], *table.loc[table["kind"] == "between networks", "other"]])
    short = dict(zip(networks, _short(networks, np.ones(len(networks), dtype=bool)), strict=True))
    # A row for each heading.
    heads = (table["kind"] != table["kind"].shift()).to_numpy()
    places = np.arange(len(table)) + np.cumsum(heads)
    for y, row in zip(places, table.itertuples(), strict=True):
        told = {row.told_by_bootstrap, row.told_by_delong} <= {"above 0", "below 0"}
        _pair(ax, y, row, row.difference, _COLOURS[0] if told else _NOT_TOLD)
    _rows(ax, [_pair_name(row, short) for row in table.itertuples()], places)
    for y, row in zip(places[heads] - 1, table[heads].itertuples(), strict=True):
        over = row.kind == "over the best baseline"
        words = f"Minus the best baseline,\n{row.other}" if over else "Between networks"
        ax.text(-0.01, y, words, transform=ax.get_yaxis_transform(), va="center", ha="right", weight="bold")
    ax.set_ylim(places[-1] + 0.7, -0.9)
    ax.set_xlabel("Difference in AUROC (95 % CI, by patient)")
    _legend(ax, _two_intervals())


def operating_points(axes: Sequence[Axes], table: pd.DataFrame, names: Sequence[str]) -> None:
    """Sensitivity and specificity by rule: hollow on val, where the threshold was chosen, filled on test.

    Args:
        axes: Two, for sensitivity and specificity; alone in their figure; 7 x (1.2 + 0.34 * runs)
            inches hold them.
        table: Rows of `metrics.use.operating_points` of one part, each run with the same rules.
        names: Of the runs, in the order of the table.
    """
    rules = list(dict.fromkeys(table["rule"]))
    offsets = (np.arange(len(rules)) - (len(rules) - 1) / 2) * 2 * _APART
    for ax, metric in zip(axes, ("sensitivity", "specificity"), strict=True):
        for rule, colour, mark, offset in zip(rules, _COLOURS, _MARKS, offsets, strict=False):
            rows = table[table["rule"] == rule]
            y = np.arange(len(rows)) + offset
            ax.hlines(y, rows[f"{metric}_low"], rows[f"{metric}_high"], color=colour, linewidth=1.1, zorder=2)
            ax.plot(
                rows[f"val_{metric}"], y, mark, mfc="white", mec=colour, ms=4, clip_on=False, zorder=3, ls=""
            )
            ax.plot(rows[metric], y, mark, color=colour, ms=5, clip_on=False, zorder=4, ls="", **_EDGE)
            if metric == "sensitivity" and ">=" in rule:
                ax.axvline(float(rule.partition(">=")[2]), **_RULE | {"color": colour})
        _rows(ax, names)
        ax.set(xlim=(0, 1), xlabel=f"{metric.capitalize()} (95 % CI, by patient)")
    marks = [
        Line2D([], [], ls="", marker="o", mfc="white", mec="#444444", label="on val, where it was chosen")
    ]
    marks += [
        Line2D(
            [],
            [],
            color=colour,
            marker=mark,
            ms=5,
            label=f"on test, {_WORDS.get(rule, rule.replace('>=', ' ≥ '))}",
        )
        for rule, colour, mark in zip(rules, _COLOURS, _MARKS, strict=False)
    ]
    _legend(axes[0], marks)


def grid(count: int, columns: int, height: float) -> tuple[Figure, list[Axes]]:
    """A figure 7.1 inches wide with `count` axes in rows of `columns`, each row `height` inches high.

    Args:
        count: Number of axes, at least 1.
        columns: Of the figure.
        height: Of a row, in inches.
    """
    rows = -(-count // columns)
    size = {"figsize": (7.1, height * rows + 0.3), "squeeze": False}
    figure, axes = plt.subplots(rows, columns, **size)
    for ax in axes.flat[count:]:
        ax.remove()
    return figure, list(axes.flat[:count])


def shared(axes: Sequence[Axes]) -> None:
    """Give axes of `grid` one y axis, and one legend below without what their titles say."""
    handles, labels = axes[0].get_legend_handles_labels()
    title = axes[0].get_title("left")
    kept = [handle for handle, label in zip(handles, labels, strict=True) if label != title]
    limits = np.array([ax.get_ylim() for ax in axes])
    for ax in axes:
        ax.get_legend().remove()
        ax.set_ylim(limits[:, 0].min(), limits[:, 1].max())
        if not ax.get_subplotspec().is_first_col():
            ax.set_ylabel("")
            ax.tick_params(labelleft=False)
    _legend(axes[0], kept)


def _pair(ax: Axes, y: float, row, value: float, colour) -> None:
    """A value with the interval of the bootstrap above and DeLong's below it."""
    ax.plot([row.bootstrap_low, row.bootstrap_high], [y - _APART] * 2, color=colour, linewidth=1.5, zorder=3)
    dashes = {"linewidth": 1.1, "linestyle": (0, (3, 1.2)), "zorder": 3}
    ax.plot([row.delong_low, row.delong_high], [y + _APART] * 2, color=colour, **dashes)
    ax.plot(value, y, "o", color=colour, markersize=5, zorder=4, **_EDGE)


def _two_intervals() -> list[Line2D]:
    dashes = {"linewidth": 1.1, "linestyle": (0, (3, 1.2))}
    return [
        Line2D([], [], color="#444444", linewidth=1.5, label="bootstrap over patients"),
        Line2D([], [], color="#444444", label="DeLong, clustered by patient", **dashes),
    ]


def _rows(ax: Axes, names: Sequence[str], places: np.ndarray | None = None) -> None:
    places = np.arange(len(names)) if places is None else places
    ax.set_yticks(places, names)
    ax.set_ylim(places[-1] + 0.6, -0.6)
    ax.tick_params(axis="y", length=0)


def _short(names: pd.Series, networks: Sequence[bool]) -> list[str]:
    """Names without the network that all of them are, where the rest tells them apart."""
    first = {name.partition(", ")[0] for name in names[np.asarray(networks)]}
    alike = len(first) == 1 and all(", " in name for name in names[np.asarray(networks)])
    own = zip(names, networks, strict=True)
    return [name.partition(", ")[2] if alike and is_network else name for name, is_network in own]


def _pair_name(row, short: dict[str, str]) -> str:
    if row.kind == "over the best baseline":
        return short[row.one]
    return f"{short[row.one]}\nminus {short[row.other]}"


def _legend(ax: Axes, handles: list[Line2D]) -> None:
    # Of the figure, because a wide legend of one of two axes would make both narrow.
    ax.figure.legend(handles=handles, loc="outside lower center", ncols=4)
