"""How every figure looks: one style sheet, one fixed colour per class and per network, reproducible files."""

from importlib import resources
from pathlib import Path

import matplotlib as mpl
import pandas as pd
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from covidtf.files import atomic

# Okabe & Ito for classes, Tol's "bright" for networks: told apart with any colour vision.
COLOURS = {
    "COVID-19": "#D55E00",
    "non-COVID": "#0072B2",
    "Normal": "#56B4E9",
    "Bacterial Pneumonia": "#009E73",
    "normal": "#56B4E9",
    "other disease": "#0072B2",
    "not stated": "#999999",
    "val": "#D55E00",
    "train": "#444444",
}
# Dashes differ too, so that a print without colour can be read.
NETWORKS = {
    "ResNet18": {"color": "#4477AA", "linestyle": "-", "marker": "o"},
    "SqueezeNet": {"color": "#EE6677", "linestyle": (0, (5, 1.6)), "marker": "s"},
    "ResNet50": {"color": "#228833", "linestyle": (0, (6, 1.5, 1, 1.5)), "marker": "^"},
    "DenseNet121": {"color": "#AA3377", "linestyle": (0, (3, 1, 1, 1, 1, 1)), "marker": "D"},
}
# Trivial baselines are grey: they are what a network is held against.
_BASELINES = {
    "file properties": {"color": "#222222", "linestyle": (0, (1, 1.2)), "marker": "P"},
    "mean and std": {"color": "#555555", "linestyle": (0, (3, 1.5)), "marker": "X"},
    "intensity histogram": {"color": "#777777", "linestyle": (0, (1, 2.4)), "marker": "v"},
    "border strip": {"color": "#999999", "linestyle": (0, (6, 2, 1, 2)), "marker": "<"},
    "16x16 thumbnail": {"color": "#666666", "linestyle": (0, (8, 2.4)), "marker": "p"},
}
# Scores before and after something is done to them.
_STATES = {
    "as they come": {"color": "#777777", "linestyle": (0, (4, 1.5)), "marker": "X"},
    "scaled": {"color": "#0072B2", "linestyle": "-", "marker": "o"},
}
_OTHER = {"color": "#555555", "linestyle": (0, (1, 1.2)), "marker": "X"}
FORMATS = ("pdf", "svg", "png")
_METADATA = {
    "pdf": {"CreationDate": None, "ModDate": None},
    "svg": {"Date": None},
    "png": {"Software": None},
}


def use() -> None:
    """Set the style sheet for all figures made from here on; tables show all of a cell and 200 rows."""
    # By default pandas cuts cells at 50 characters and tables at 60 rows, in a report for good.
    pd.set_option("display.max_colwidth", None, "display.max_rows", 200, "display.min_rows", 200)
    with resources.as_file(resources.files("covidtf.figures").joinpath("style.mplstyle")) as path:
        mpl.style.use(path)


def lines(names: list[str]) -> dict[str, dict]:
    """Colour, dashes and marker of each run, for `ax.plot`.

    A run has the look of the network whose name its own begins with, whatever the case ("resnet18, seed 1");
    of several runs of one network the later ones are paler. The trivial baselines are grey, each with its own
    shade, dashes and marker; whatever else is no network is grey and dotted.

    Args:
        names: Of the runs, in the order of the figure.
    Returns:
        One dict per name.
    """
    found, seen, looks = {}, {}, NETWORKS | _BASELINES | _STATES
    for name in names:
        plain = name.lower().replace("-", "")
        kind = next((key for key in looks if plain.startswith(key.lower())), "")
        repeat = seen[kind] = seen.get(kind, -1) + 1
        look = dict(looks.get(kind, _OTHER))
        strength = (1.0, 0.65, 0.4)[min(repeat, 2)]
        look["color"] = tuple(1 - strength * (1 - part) for part in to_rgb(look["color"]))
        found[name] = look
    return found


def save(figure: Figure, path: str | Path, formats: tuple[str, ...] = FORMATS) -> list[Path]:
    """Write a figure once per format, whole or not at all; the same figure gives the same bytes.

    Args:
        figure: What to write, at its own size.
        path: File without its ending.
        formats: Some of "pdf", "svg" (text kept as text) and "png" (300 dots per inch).
    Returns:
        The files, in the order of `formats`.
    Raises:
        ValueError: If a format is not one of the three.
    """
    unknown = [name for name in formats if name not in FORMATS]
    if unknown:
        raise ValueError(f"`formats` must be some of {FORMATS}. Received: {formats}")
    # The name is extended, not `with_suffix`, because run ids may hold dots.
    paths = [Path(f"{path}.{name}") for name in formats]
    for file, name in zip(paths, formats, strict=True):
        with atomic(file) as temporary:
            figure.savefig(temporary, format=name, metadata=_METADATA[name])
    return paths
