"""The figure of a network: its blocks from the image down to the logits, and the heads beside them."""

import math

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch

# Places across, in inches of a figure 7 inches wide.
_STAGE, _SIZE, _COUNT, _MIDDLE, _SIDE, _BUS = 0.05, 0.62, 2.12, 3.75, 5.42, 6.93
_NARROW, _WIDE, _SIDE_WIDTH, _PITCH, _LOW, _HIGH = 1.85, 2.9, 1.4, 0.43, 0.17, 0.31
# Paler shades of style.py's colours; what a box is also stands in it.
_FILL = {
    "input": "#FFFFFF",
    "stage": "#CFDDEB",
    "pool": "#E8E8E8",
    "head": "#F7D9C6",
    "auxiliary head": "#FBEBCB",
    "fusion": "#CDE9DF",
}
_LINE = {"color": "#444444", "linewidth": 0.8}
_ARROW = {"arrowstyle": "-|>,head_length=0.3,head_width=0.15", "shrinkA": 0, "shrinkB": 0, **_LINE}


def height(table: pd.DataFrame) -> float:
    """Height in inches of a figure 7 inches wide that gives `draw` room."""
    return _PITCH * (_rows(table) + 0.9)


def draw(ax: Axes, table: pd.DataFrame) -> None:
    """Blocks from top to bottom, with the size of what each gives and its number of parameters.

    A box is wider the larger its images are, and higher the more channels they have, both by their logarithm.
    Auxiliary heads stand beside the stage that they read; lines lead from all heads to where they are joined.

    Args:
        ax: Axes of a figure 7 inches wide and `height(table)` high; nothing else is drawn in it.
        table: Of `training.networks.summary.stages`, or its CSV.
    Raises:
        ValueError: If the table has no input or no head.
    """
    if not {"input", "head"} <= set(table["part"]):
        raise ValueError(f"`table` must have an input and a head. Received: {sorted(set(table['part']))}")
    # Out of a CSV whole numbers with gaps are floats, and no heads are NaN.
    table = table.convert_dtypes().assign(
        heads=table["heads"].astype(object).where(table["heads"].notna(), "")
    )
    ax.set(xlim=(0, 7), ylim=(_PITCH * (_rows(table) - 0.4), -_PITCH))
    ax.axis("off")
    _titles(ax)
    bottoms: list[float] = []
    chain = table[table["part"].isin(["input", "stage", "head"])]
    largest = chain["height"].max()
    for index, row in enumerate(chain.itertuples()):
        y = index * _PITCH
        half = _main(ax, row, y, largest)
        if bottoms:
            ax.annotate("", (_MIDDLE, y - half), (_MIDDLE, bottoms[-1]), arrowprops=_ARROW)
        bottoms.append(y + half)
        if row.heads:
            _auxiliary(ax, table, row, y, largest)
    _ends(ax, table, bottoms)


def _rows(table: pd.DataFrame) -> int:
    joined = table["part"].isin(["heads", "fusion"]).any()
    return int(table["part"].isin(["input", "stage", "head"]).sum()) + bool(joined)


def _titles(ax: Axes) -> None:
    look = {"va": "center", "fontweight": "bold"}
    ax.text(_STAGE, -0.75 * _PITCH, "Stage", **look)
    ax.text(_SIZE, -0.75 * _PITCH, "Output", **look)
    ax.text(_COUNT, -0.75 * _PITCH, "Parameters", ha="right", **look)


def _main(ax: Axes, row, y: float, largest: int) -> float:
    """One box of the chain with its numbers; half its height."""
    width, high = _width(row, largest), _height(row)
    pool = "pool" in row.block and row.part == "stage"
    times = f"{row.repeats} × {row.block}" if row.repeats > 1 else row.block
    _box(ax, _MIDDLE, y, width, high, _FILL["pool" if pool else row.part], _wrapped(times, row.part))
    if row.part == "stage":
        ax.text(_STAGE, y, f"{row.stage}", va="center")
    vector = pd.isna(row.height)
    size = f"{row.channels} classes" if vector else f"{row.height} × {row.width} × {row.channels}"
    ax.text(_SIZE, y, size, va="center")
    ax.text(_COUNT, y, f"{row.parameters:,}" if row.parameters else "–", va="center", ha="right")
    return high / 2


def _auxiliary(ax: Axes, table: pd.DataFrame, row, y: float, largest: int) -> None:
    part = table[(table["part"] == "auxiliary head") & (table["stage"] == row.stage)]
    count = int(part["parameters"].sum())
    start = _MIDDLE + _width(row, largest) / 2
    ax.annotate("", (_SIDE, y), (start, y), arrowprops=_ARROW)
    words = f"auxiliary head {row.stage}\n{count:,} parameters"
    _box(ax, _SIDE + _SIDE_WIDTH / 2, y, _SIDE_WIDTH, _HIGH, _FILL["auxiliary head"], words)


def _ends(ax: Axes, table: pd.DataFrame, bottoms: list[float]) -> None:
    """Where the heads come together, if they do, with the way there from each auxiliary one."""
    joins = table[table["part"].isin(["heads", "fusion"])]
    if joins.empty:
        return
    y = len(bottoms) * _PITCH
    words = "\n".join(joins["block"])
    _box(ax, _MIDDLE, y, _WIDE, _HIGH, _FILL["fusion"], words)
    count = int(joins["parameters"].sum())
    ax.text(_COUNT, y, f"{count:,}" if count else "–", va="center", ha="right")
    ax.annotate("", (_MIDDLE, y - _HIGH / 2), (_MIDDLE, bottoms[-1]), arrowprops=_ARROW)
    chain = table[table["part"].isin(["input", "stage", "head"])].reset_index(drop=True)
    places = [index * _PITCH for index in chain.index[chain["heads"] != ""]]
    for place in places:
        ax.plot([_SIDE + _SIDE_WIDTH, _BUS], [place, place], solid_capstyle="butt", **_LINE)
    ax.plot([_BUS, _BUS], [min(places), y], solid_joinstyle="miter", **_LINE)
    ax.annotate("", (_MIDDLE + _WIDE / 2, y), (_BUS, y), arrowprops=_ARROW)


def _box(ax: Axes, x: float, y: float, width: float, high: float, fill: str, words: str) -> None:
    style = "round,pad=0,rounding_size=0.04"
    corner = (x - width / 2, y - high / 2)
    ax.add_patch(FancyBboxPatch(corner, width, high, style, facecolor=fill, edgecolor="#444444", zorder=3))
    ax.text(x, y, words, ha="center", va="center", fontsize=7, linespacing=1.0, zorder=4)


def _wrapped(words: str, part: str) -> str:
    """The head's chain, which is long, on two lines."""
    if part != "head" or len(words) < 32:
        return words
    pieces = words.split(", ")
    return ", ".join(pieces[:2]) + ",\n" + ", ".join(pieces[2:])


def _width(row, largest: int) -> float:
    side = 1 if pd.isna(row.height) else row.height
    return _NARROW + (_WIDE - _NARROW) * math.log(side) / math.log(max(largest, 2))


def _height(row) -> float:
    if row.part == "head":
        return _HIGH
    # From 1 channel to DenseNet's and ResNet50's 2,048.
    return _LOW + (_HIGH - _LOW) * min(math.log2(row.channels) / 11, 1)
