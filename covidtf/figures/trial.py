"""The figure of the audit's trial: which checks failed on which planted shortcut."""

import textwrap

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.patches import Rectangle

from covidtf.audit.trials import ANY, EXPECTED_ONES

# From white to Okabe & Ito's vermilion: grey levels fall all the way, so that a print is read too.
_SHARE = LinearSegmentedColormap.from_list("share", ("#FFFFFF", "#D55E00"))
_DARK = 0.6


def failures(ax: Axes, rates: pd.DataFrame) -> None:
    """Share of the seeds in which each check failed on each condition; "–" where no seed could tell.

    A frame marks the checks of which one had to fail. Of each condition the last rows are of several checks.

    Args:
        ax: Axes; a row needs 0.19 inches of height, a column 0.7 of width beside 1.9 for the names.
        rates: Of `audit.trials.rates`.
    """
    checks, conditions = (list(dict.fromkeys(rates[column])) for column in ("check", "condition"))
    several = [name for name in (EXPECTED_ONES, ANY) if name in checks]
    checks = [check for check in checks if check not in several] + several
    shares = np.full((len(checks), len(conditions)), np.nan)
    for row in rates.itertuples():
        y, x = checks.index(row.check), conditions.index(row.condition)
        told = row.untold < row.seeds
        shares[y, x] = row.share_failed if told else np.nan
        _cell(ax, x, y, row, told)
    ax.imshow(shares, cmap=_SHARE, vmin=0, vmax=1, aspect="auto")
    _grid(ax, len(checks), len(conditions), len(several))
    ax.set_yticks(range(len(checks)), checks)
    names = [textwrap.fill(name, 10) for name in conditions]
    ax.set_xticks(range(len(conditions)), names)
    ax.tick_params(axis="both", which="both", length=0, top=False, labeltop=True, labelbottom=False)
    ax.set_xlabel(f"share that failed, seeds: {rates['seeds'].max()}; framed: one of these must fail")


def _cell(ax: Axes, x: int, y: int, row, told: bool) -> None:
    text = f"{row.share_failed:.2f}" if told else "–"
    colour = "white" if told and row.share_failed > _DARK else "#222222" if told else "#999999"
    ax.text(x, y, text, ha="center", va="center", fontsize=6.5, color=colour)
    if row.expected:
        frame = {"fill": False, "edgecolor": "black", "linewidth": 1.2, "zorder": 3}
        ax.add_patch(Rectangle((x - 0.46, y - 0.44), 0.92, 0.88, **frame))


def _grid(ax: Axes, rows: int, columns: int, several: int) -> None:
    ax.set_xticks(np.arange(columns + 1) - 0.5, minor=True)
    ax.set_yticks(np.arange(rows + 1) - 0.5, minor=True)
    ax.grid(which="minor", color="#DDDDDD", linewidth=0.5)
    ax.axhline(rows - several - 0.5, color="black", linewidth=0.8)
    ax.spines[:].set_visible(False)
