"""The figure of what transfer brought."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from covidtf.figures import style
from covidtf.metrics.transfer import SCRATCH

_STRATEGIES = {"last layer": "o", "staged": "D", "all layers": "s", "nothing": "X"}
_EDGE = {"markeredgecolor": "white", "markeredgewidth": 0.7, "zorder": 4}


def transfer(ax: Axes, table: pd.DataFrame, network: str) -> None:
    """AUROC of each start and strategy of one network on one part of test, grouped by start.

    A mark is the mean over the seeds, the thick line the lowest to the highest seed, the thin line the 95 %
    CI over patients. The dotted line is chance, the shaded band the CI of training from random weights.

    Args:
        ax: Axes.
        table: Rows of `metrics.transfer.table` of one part; baselines are drawn too.
        network: Whose rows are drawn.
    Raises:
        ValueError: If there are several parts.
    """
    if len(set(table["part"])) != 1:
        raise ValueError(f"`table` must be of one part. Received: {sorted(set(table['part']))}")
    table = table[(table["network"] == network) | (table["strategy"] == "nothing")]
    colour = style.lines([network])[network]["color"]
    scratch = table[table["start"] == SCRATCH]
    for row in scratch.itertuples():
        ax.axvspan(row.auroc_low, row.auroc_high, color="#DDDDDD", alpha=0.5, linewidth=0, zorder=0)
    ax.axvline(0.5, color="#999999", linewidth=0.8, linestyle=(0, (2, 2)), zorder=1)
    places = _places(table["start"])
    for y, row in zip(places, table.itertuples(), strict=True):
        shade = colour if row.network == network and row.start != SCRATCH else "#555555"
        ax.plot([row.auroc_low, row.auroc_high], [y, y], color=shade, linewidth=0.9, zorder=2)
        ax.plot([row.lowest, row.highest], [y, y], color=shade, linewidth=3.2, alpha=0.5, zorder=3)
        ax.plot(row.auroc, y, _STRATEGIES[row.strategy], color=shade, markersize=5, **_EDGE)
    ax.set_yticks(places, [_name(row) for row in table.itertuples()])
    ax.set(ylim=(places[-1] + 0.7, -0.7), xlabel="AUROC (95 % CI, by patient)")
    ax.tick_params(axis="y", length=0)


def _name(row) -> str:
    return row.network if row.strategy == "nothing" else f"{row.start}: {row.strategy}"


def _places(starts: pd.Series) -> np.ndarray:
    """A row each, with half a row between one start and the next."""
    return np.arange(len(starts)) + 0.5 * np.cumsum(starts != starts.shift()).to_numpy() - 0.5
