"""Figures of a data set: counts, a grid of samples, images before and after augmentation."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes

from covidtf.figures import style
from covidtf.files import DataError


def counts(ax: Axes, table: pd.DataFrame) -> None:
    """Numbers of images as bars, each with its number.

    Args:
        ax: Axes.
        table: Numbers, shape `(groups, labels)`; the index names the groups (splits, before and after
            augmentation), the columns the labels.
    """
    height = 0.8 / len(table.columns)
    for position, label in enumerate(table.columns):
        y = np.arange(len(table)) + (position - (len(table.columns) - 1) / 2) * height
        bars = ax.barh(y, table[label], height * 0.92, color=style.COLOURS.get(label, "#777777"), label=label)
        ax.bar_label(bars, labels=[f"{int(number):,}" for number in table[label]], padding=2, fontsize=6.5)
    ax.set_yticks(range(len(table)), table.index)
    ax.invert_yaxis()
    ax.tick_params(axis="y", length=0)
    ax.set(xlabel="Images", xlim=(0, table.to_numpy().max() * 1.12))
    ax.xaxis.set_major_formatter("{x:,.0f}")
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0, ncols=len(table.columns))


def choose(
    manifest: pd.DataFrame, rows: int, columns: int, seed: int = 0, first: str = "COVID-19"
) -> npt.NDArray[np.int64]:
    """Positions of the images of a sample grid: the first row of label `first`, the others of other labels.

    Only originals are taken, and one image per patient.

    Args:
        manifest: Of the images.
        rows: Of the grid, at least 2.
        columns: Of the grid, at least 1.
        seed: Non-negative integer.
        first: Label of the first row.
    Returns:
        Positions in the manifest, shape `(rows * columns,)`, row by row.
    Raises:
        DataError: If there are not enough patients.
    """
    generator = np.random.default_rng([seed, 0x6D1D])
    originals = (manifest["parent_id"] == "").to_numpy()
    is_first = (manifest["label"] == first).to_numpy()
    chosen = []
    for members, wanted in ((originals & is_first, columns), (originals & ~is_first, columns * (rows - 1))):
        shuffled = generator.permutation(np.flatnonzero(members))
        once = shuffled[~manifest["patient_id"].iloc[shuffled].duplicated().to_numpy()]
        if len(once) < wanted:
            name = first if len(chosen) == 0 else f"labels other than {first}"
            raise DataError(f"manifest: {wanted} patients of {name} were wanted. Received: {len(once)}")
        chosen.append(once[:wanted])
    return np.concatenate(chosen)


def samples(axes: npt.NDArray, images: npt.NDArray, labels: Sequence[str]) -> None:
    """Grid of images in the order given; a row's label is written at its left.

    Args:
        axes: Axes, shape `(rows, columns)`.
        images: uint8, shape `(rows * columns, size, size[, channels])`; as `choose` picks them.
        labels: Of the images. Each row must have one label.
    Raises:
        ValueError: If the number of images does not fit, or a row has several labels.
    """
    rows, columns = axes.shape
    if not len(images) == len(labels) == rows * columns:
        raise ValueError(
            f"`images` and `labels` must be {rows} x {columns}. Received: {len(images)} and {len(labels)}"
        )
    for row, of_row in enumerate(np.reshape(np.asarray(labels, dtype=str), axes.shape)):
        if len(set(of_row)) != 1:
            raise ValueError(
                f"`labels` must be equal in a row. Received: {sorted(set(of_row))} in row {row + 1}"
            )
        axes[row, 0].set_ylabel(of_row[0])
    for ax, image in zip(axes.flat, images, strict=True):
        _show(ax, image)


def families(manifest: pd.DataFrame, rows: int) -> tuple[list[int], list[list[int]]]:
    """Positions of the first originals that have augmented copies, and of their copies.

    Args:
        manifest: Of the images, in their order.
        rows: How many originals at most.
    Returns:
        `originals`, at most `rows` of them, and `copies`, one list per original; all are cut to the length of
        the shortest, because the copies of the released archive were drawn and differ in number.
    """
    names = pd.Index(manifest["image_id"])
    parents = manifest["parent_id"].to_numpy()
    chosen = list(dict.fromkeys(parents[parents != ""]))[:rows]
    copies = [np.flatnonzero(parents == parent).tolist() for parent in chosen]
    shared = min(map(len, copies), default=0)
    return names.get_indexer(chosen).tolist(), [of_it[:shared] for of_it in copies]


def before_after(axes: npt.NDArray, originals: npt.NDArray, copies: npt.NDArray) -> None:
    """Images and what augmentation made of them: one row per original, which stands at the left.

    Args:
        axes: Axes, shape `(rows, 1 + copies)`.
        originals: uint8, shape `(rows, size, size[, channels])`.
        copies: uint8, shape `(rows, copies, size, size[, channels])`.
    Raises:
        ValueError: If the axes do not fit the images.
    """
    wanted = (len(originals), 1 + copies.shape[1])
    if axes.shape != wanted or len(copies) != len(originals):
        raise ValueError(f"`axes` must have shape {wanted}. Received: {axes.shape}")
    for row, (original, of_it) in enumerate(zip(originals, copies, strict=True)):
        for ax, image in zip(axes[row], [original, *of_it], strict=True):
            _show(ax, image)
    axes[0, 0].set_title("Original")
    axes[0, 1].set_title("Augmented")


def _show(ax: Axes, image: npt.NDArray) -> None:
    shown = image[..., 0] if image.ndim == 3 and image.shape[-1] == 1 else image
    ax.imshow(shown, cmap="gray", vmin=0, vmax=255, aspect=1)
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
