"""Figures of a CT data set: slices per case, and rows of slices of one case from top to bottom."""

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes

from covidtf.figures import style

PUBLISHED = (2, 54)  # slices per study in COVID19-Diag


def slices_per_case(ax: Axes, manifest: pd.DataFrame) -> None:
    """How many slices each case has: one mark per case, the median as a line, the published range as a band.

    Args:
        ax: Axes.
        manifest: Of slices; columns label and case_id.
    """
    counts = manifest.groupby(["label", "case_id"]).size()
    labels = sorted(set(manifest["label"]), key=list(style.COLOURS).index)
    most = max(counts.max() * 1.1, 8)
    ax.axvspan(PUBLISHED[0], min(PUBLISHED[1], most), color="#EEEEEE", zorder=0)
    for row, label in enumerate(labels):
        found, colour = counts[label].sort_values().to_numpy(), style.COLOURS[label]
        # Cases with equally many slices side by side, so that none hides another.
        place = np.concatenate([np.arange(n) - (n - 1) / 2 for n in np.unique(found, return_counts=True)[1]])
        spread = 0.7 / max(np.ptp(place) + 1, 8)
        ax.plot(found, row + place * spread, "o", color=colour, markersize=2.5, alpha=0.8, clip_on=False)
        ax.plot([np.median(found)] * 2, [row - 0.42, row + 0.42], color="black", linewidth=1)
    names = [f"{label}\n{len(counts[label])} cases" for label in labels]
    ax.set_yticks(range(len(labels)), names)
    ax.set(
        xlabel="Slices per case (grey: as in COVID19-Diag)", xlim=(0, most), ylim=(len(labels) - 0.4, -0.6)
    )
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)


def choose(manifest: pd.DataFrame, columns: int, seed: int = 0) -> npt.NDArray[np.int64]:
    """Positions of slices for `pictures.samples`: a row per label, one case in it, from head to feet.

    Of each label a case is drawn among those with most slices, up to `columns`; its slices are taken evenly.
    Where cases have one slice each, a row shows several cases. A label with fewer than `columns` slices shows
    some of them again.

    Args:
        manifest: Of slices, in their order.
        columns: Slices per row.
        seed: Of the draw, not negative.
    Returns:
        Shape `(labels * columns,)`, labels in the order of `style.COLOURS`.
    """
    generator, chosen = np.random.default_rng([seed, 0xC7]), []
    for label in sorted(set(manifest["label"]), key=list(style.COLOURS).index):
        rows = np.flatnonzero(manifest["label"] == label)
        cases = manifest["case_id"].iloc[rows]
        sizes = cases.value_counts().sort_index().clip(upper=columns)
        case = generator.choice(sizes.index[sizes == sizes.max()])
        own = rows[(cases == case).to_numpy()]
        pool = own if len(own) >= columns else generator.permutation(rows)[:columns]
        chosen.append(pool[np.linspace(0, len(pool) - 1, columns).round().astype(int)])
    return np.concatenate(chosen)
