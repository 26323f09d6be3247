"""Figures of the audit: verdicts against their thresholds, and what each control leaves of the AUROC."""

import textwrap

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from covidtf.audit.thresholds import CHANCE, TRIVIAL
from covidtf.figures import style

# Okabe & Ito; the marks differ too.
VERDICTS = {
    "passed": {"color": "#009E73", "marker": "o"},
    "failed": {"color": "#D55E00", "marker": "X"},
    "cannot be told": {"color": "#777777", "marker": "D"},
}
_EDGE = {"markeredgecolor": "white", "markeredgewidth": 0.6, "zorder": 4, "clip_on": False}
_RULE = {"color": "#BBBBBB", "linewidth": 0.8, "linestyle": (0, (2, 2)), "zorder": 0}
_LETTERS = 46  # of a line of a label
PROBE = "probe"
MOST_ROWS = 75  # of a figure that fits a page


def verdicts(ax: Axes, rows: pd.DataFrame) -> None:
    """Numbers of one group of checks with their 95 % CI, the threshold of each, and the verdict in words.

    A vertical stroke is the threshold, the shading the side that is wanted. Counts, which have no scale in
    common with the others, and what cannot be told are given in words alone.

    Args:
        ax: Axes; a row needs 0.24 inches of height, labels and words 4.6 of a width of 7.1.
        rows: Of `checks.table`, of one group.
    """
    drawn = (rows["wanted"] != "none") & rows["value"].notna()
    ends = rows.loc[drawn, ["value", "low", "high", "threshold"]].to_numpy().ravel()
    low, high = (min(0.4, np.nanmin(ends)), max(0.8, np.nanmax(ends))) if drawn.any() else (0, 1)
    margin = 0.04 * (high - low)
    ax.set(xlim=(low - margin, high + margin), ylim=(len(rows) - 0.4, -0.6))
    for y, row in enumerate(rows.itertuples()):
        look = VERDICTS[row.verdict]
        if drawn.iloc[y]:
            _wanted(ax, y, row.wanted, row.threshold)
            ax.plot([row.low, row.high], [y, y], color=look["color"], linewidth=1.6, solid_capstyle="butt")
            ax.plot(row.value, y, look["marker"], color=look["color"], markersize=5, **_EDGE)
        place = {"transform": ax.get_yaxis_transform(), "va": "center", "fontsize": 6.5}
        ax.text(1.03, y, f"{row.verdict}{_number(row)}", color=look["color"], fontweight="bold", **place)
    ax.set_yticks(range(len(rows)), [_label(row) for row in rows.itertuples()], fontsize=6.5)
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    ax.set_title(rows["group"].iloc[0].capitalize(), loc="left")
    _scale(ax, bool(drawn.any()), rows["threshold"].max() < CHANCE)


def controls(ax: Axes, table: pd.DataFrame) -> None:
    """AUROC of each network on images of each control, with its 95 % CI.

    Args:
        ax: Axes.
        table: Columns network, control, auroc, auroc_low, auroc_high; a network called `PROBE` is black.
    """
    names = list(dict.fromkeys(table["network"]))
    looks, kinds = style.lines(names), list(dict.fromkeys(table["control"]))
    shifts = np.linspace(-0.28, 0.28, len(names)) if len(names) > 1 else [0.0]
    for name, shift in zip(names, shifts, strict=True):
        rows = table[table["network"] == name]
        color = "black" if name.startswith(PROBE) else looks[name]["color"]
        y = np.array([kinds.index(kind) for kind in rows["control"]]) + shift
        ax.hlines(y, rows["auroc_low"], rows["auroc_high"], color=color, linewidth=1.2)
        ax.plot(rows["auroc"], y, looks[name]["marker"], color=color, markersize=4.5, label=name, **_EDGE)
    for limit in (CHANCE, TRIVIAL):
        ax.axvline(limit, **_RULE)
    ax.set_yticks(range(len(kinds)), kinds)
    ax.set(ylim=(len(kinds) - 0.4, -0.6), xlabel="AUROC (95 % CI, by patient)")
    ax.tick_params(axis="y", length=0)
    ax.legend(loc="upper left", bbox_to_anchor=(0, -0.2), borderaxespad=0)


def _wanted(ax: Axes, y: int, how: str, threshold: float) -> None:
    left, right = ax.get_xlim()
    side = {"below": (left, threshold), "above": (threshold, right)}.get(how)
    if side:
        ax.fill_between(side, y - 0.42, y + 0.42, color="#EEEEEE", linewidth=0, zorder=0)
    ax.plot([threshold, threshold], [y - 0.42, y + 0.42], color="black", linewidth=1.1, zorder=3)


def _number(row) -> str:
    if np.isnan(row.value):
        return ""
    return f": {row.value:.0f} of {row.n}" if row.wanted == "none" else f": {row.value:.2f}, n = {row.n}"


def _label(row) -> str:
    words = [row.check] + [row.subject] * (row.subject != "data") + [row.part] * (row.part != "")
    return "\n".join(textwrap.wrap(", ".join(words), _LETTERS, break_on_hyphens=False))


def _scale(ax: Axes, drawn: bool, losses: bool) -> None:
    if drawn:
        ax.set_xlabel("Loss of AUROC (95 % CI)" if losses else "AUROC, or gain or loss of it (95 % CI)")
        return
    ax.set_xticks([])
    ax.spines["bottom"].set_visible(False)
