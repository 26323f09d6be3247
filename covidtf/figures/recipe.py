"""What a recipe does to the dependence on the source."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

# Of each measure: mark, and colour told apart with any colour vision (Okabe & Ito).
_MARKS = {
    "all sources": ("o", "#0072B2"),
    "within source": ("s", "#D55E00"),
    "source left out": ("D", "#009E73"),
    "fall within source": ("v", "#555555"),
}
_STEP = 0.19  # between the measures of one variant


def tried(axes: Sequence[Axes], table: pd.DataFrame) -> None:
    """AUROC of each variant and, beside it, what it gains over the first; lines are 95 % CI over patients.

    The fall from all sources to within one has a place on the right alone; it is better below 0.

    Args:
        axes: Two, which share y.
        table: As `audit.recipe.tried`.
    """
    names = list(dict.fromkeys(table["variant"]))
    for ax, value in zip(axes, ("value", "gain"), strict=True):
        for place, (measure, (mark, colour)) in enumerate(_MARKS.items()):
            rows = table[table["measure"] == measure].dropna(subset=value)
            if len(rows) and (value == "gain" or measure != "fall within source"):
                heights = [names.index(name) + _STEP * (place - 1.5) for name in rows["variant"]]
                _draw(ax, rows, value, heights, {"fmt": mark, "color": colour, "label": measure})
    for ax, nothing in zip(axes, (0.5, 0.0), strict=True):
        ax.axvline(nothing, color="#999999", linewidth=0.8, linestyle=(0, (2, 2)), zorder=1)
    axes[0].set(xlabel="AUROC", ylim=(len(names) - 0.5, -0.5))
    axes[0].set_yticks(range(len(names)), names)
    axes[1].set_xlabel(f"difference to “{names[0]}”")
    for ax in axes:
        ax.tick_params(axis="y", length=0)
    handles, labels = axes[1].get_legend_handles_labels()
    axes[0].figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)


def _draw(ax: Axes, rows: pd.DataFrame, value: str, heights: list[float], how: dict) -> None:
    names = ("low", "high") if value == "value" else ("gain_low", "gain_high")
    middle, low, high = (rows[name].to_numpy(float) for name in (value, *names))
    # Where there is no interval there is no line.
    ends = np.nan_to_num([middle - low, high - middle])
    ax.errorbar(middle, heights, xerr=ends, markersize=4, linewidth=1, zorder=3, **how)
