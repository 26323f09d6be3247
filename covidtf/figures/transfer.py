"""The figure of what transfer brought."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from covidtf.figures import style
from covidtf.metrics.transfer import SCRATCH

_STRATEGIES = {"last layer": "o", "staged": "D", "all layers": "s"}
_EDGE = {"markeredgecolor": "white", "markeredgewidth": 0.7, "zorder": 4}


def transfer(ax: Axes, table: pd.DataFrame) -> None:
    """AUROC of each start and strategy of one network on one part of test, grouped by start.

    A mark is the mean over the seeds, the thick line the lowest to the highest seed, the thin line the 95 %
    CI over patients. The dotted line is chance, the shaded band the CI of training from random weights.

    Args:
        ax: Axes.
        table: Rows of `metrics.transfer.table` of one network and one part.
    Raises:
        ValueError: If there are several networks or parts.
    """
    for name in ("network", "part"):
        if len(set(table[name])) != 1:
            raise ValueError(f"`table` must be of one {name}. Received: {sorted(set(table[name]))}")
    network = table["network"].iloc[0]
    colour = style.lines([network])[network]["color"]
    scratch = table[table["start"] == SCRATCH]
    for row in scratch.itertuples():
        ax.axvspan(row.auroc_low, row.auroc_high, color="#DDDDDD", alpha=0.5, linewidth=0, zorder=0)
    ax.axvline(0.5, color="#999999", linewidth=0.8, linestyle=(0, (2, 2)), zorder=1)
    places = _places(table["start"])
    for y, row in zip(places, table.itertuples(), strict=True):
        shade = "#555555" if row.start == SCRATCH else colour
        ax.plot([row.auroc_low, row.auroc_high], [y, y], color=shade, linewidth=0.9, zorder=2)
        ax.plot([row.lowest, row.highest], [y, y], color=shade, linewidth=3.2, alpha=0.5, zorder=3)
        ax.plot(row.auroc, y, _STRATEGIES[row.strategy], color=shade, markersize=5, **_EDGE)
    ax.set_yticks(places, [f"{row.start}: {row.strategy}" for row in table.itertuples()])
    ax.set(ylim=(places[-1] + 0.7, -0.7), xlabel="AUROC (95 % CI, by patient)")
    ax.tick_params(axis="y", length=0)


def _places(starts: pd.Series) -> np.ndarray:
    """A row each, with half a row between one start and the next."""
    return np.arange(len(starts)) + 0.5 * np.cumsum(starts != starts.shift()).to_numpy() - 0.5
