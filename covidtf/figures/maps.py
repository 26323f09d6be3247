"""Figures of heat maps: images beside overlays, with the lungs drawn in; shares of evidence in the lungs."""

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize

from covidtf.figures import style

CAPTION = (
    "Blue: the lungs as they were found. Evidence: of two classes for COVID-19, of more for the called one;\n"
    "each map goes up to its own maximum, so that weak evidence looks as strong. Largest fall: of that\n"
    "score under the square. Positive: called COVID-19; negative: called anything else."
)
COLOURS = "inferno"  # lightness rises evenly with the value
_LUNGS = "#56B4E9"
# Of methods by their marker: colours are the networks'.
_MARKERS = {"Grad-CAM": "o", "occlusion": "s"}


def example(
    axes: Sequence[Axes], image: npt.NDArray, mask: npt.NDArray, maps: dict[str, npt.NDArray], words: str
) -> None:
    """One image, then the same under each of its maps; the lung outline is drawn in all.

    A map's positive part is drawn, from transparent at 0 to its own maximum.

    Args:
        axes: One for the image and one per map.
        image: uint8, shape `(h, w[, c])`.
        mask: bool, shape `(h, w)`, True in the lungs.
        maps: Method to map, shape `(h, w)`.
        words: What is known of the image, written at its left.
    Raises:
        ValueError: If the axes do not fit the maps.
    """
    if len(axes) != 1 + len(maps):
        raise ValueError(f"`axes` must be {1 + len(maps)}, one more than maps. Received: {len(axes)}")
    shown = image[..., 0] if image.ndim == 3 and image.shape[-1] == 1 else image
    for ax, found in zip(axes, (None, *maps.values()), strict=True):
        ax.imshow(shown, cmap="gray", vmin=0, vmax=255)
        if found is not None:
            ax.imshow(overlay(found))
        if mask.any() and not mask.all():
            ax.contour(mask, levels=[0.5], colors=_LUNGS, linewidths=0.7)
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
    axes[0].set_ylabel(words, rotation=0, ha="right", va="center", fontsize=6.5, labelpad=4)


def words(row, maps: dict[str, npt.NDArray]) -> str:
    """What `example` writes beside an image: kind and how many there are, label, call, score, largest fall.

    Args:
        row: With the attributes kind, of_kind, label, called, score and explained (of `evidence.choose`).
        maps: As in `example`. Grad-CAM's have no unit, and only their absence is told.
    """
    lines = [f"{row.kind} (of {row.of_kind})", f"label: {row.label}", f"called: {row.called}"]
    lines.append(f"{row.explained}: {row.score:.2g}")
    for name, found in maps.items():
        if found.max() <= 0:
            lines.append(f"{name}: nothing")
        elif name == "occlusion":
            lines.append(f"largest fall: {found.max():.2g}")
    return "\n".join(lines)


def overlay(found: npt.NDArray) -> npt.NDArray[np.float64]:
    """Colours of a map's positive part, the more opaque the higher: RGBA in [0, 1], shape `(h, w, 4)`.

    A map without a positive part is transparent.
    """
    part = np.maximum(np.asarray(found, np.float64), 0)
    scaled = part / part.max() if part.max() > 0 else part
    colours = mpl.colormaps[COLOURS](scaled)
    colours[..., 3] = 0.75 * np.sqrt(scaled)
    return colours


def bar(axes: Sequence[Axes]) -> None:
    """Colour bar for the maps on these axes of a figure."""
    figure = axes[0].figure
    scale = ScalarMappable(Normalize(0, 1), COLOURS)
    found = figure.colorbar(scale, ax=list(axes), shrink=0.4, aspect=25, pad=0.02)
    found.set_label("Evidence, as share of each map's maximum")


def shares(ax: Axes, table: pd.DataFrame) -> None:
    """Mean share of evidence in the lungs with its interval, and the lungs' share of the area as a stroke.

    Args:
        ax: Axes.
        table: One row per network, method and group: network, method, group, share, share_low, share_high
            (NaN where there is no interval), area, n. What has no share is written as "cannot be told".
    """
    looks = style.lines(list(dict.fromkeys(table["network"])))
    names = dict(zip(dict.fromkeys(table["network"]), looks.values(), strict=True))
    for place, row in enumerate(table.itertuples()):
        if np.isnan(row.share):
            ax.text(0.02, place, "cannot be told", fontsize=6.5, va="center", color="#555555")
            continue
        colour = names[row.network]["color"]
        ax.plot([row.share_low, row.share_high], [place, place], color=colour, linewidth=1.2)
        ax.plot(row.share, place, _MARKERS[row.method], color=colour, markersize=4.5)
        ax.plot([row.area] * 2, [place - 0.35, place + 0.35], color="black", linewidth=1.4)
    ax.set_yticks(
        range(len(table)), [f"{r.network}, {r.method}, {r.group} (n = {r.n})" for r in table.itertuples()]
    )
    ax.set(xlim=(0, 1), ylim=(len(table) - 0.4, -0.6))
    ax.set_xlabel("Share of evidence in the lungs (stroke: their share of the area)")
    ax.tick_params(axis="y", length=0)
