"""What the settings of all steps have in common: types, choices and limits are checked on construction."""

import hashlib
import json
import os
import re
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import ClassVar, Literal, get_args, get_origin

import pandas as pd

from covidtf.files import DataError

ROOT = Path(__file__).resolve().parents[1]
# Settings that say where things lie on one machine; they decide no result and enter no published file.
# What an experiment may be called.
NAME = r"[A-Za-z0-9][A-Za-z0-9._-]*"
PLACES = ("experiment", "out", "data_folder")


def at_least(default: float, minimum: float) -> float:
    """A number's default and its smallest value."""
    return field(default=default, metadata={"minimum": minimum})


@dataclass(frozen=True, kw_only=True)
class Config:
    """What every step needs: names of the experiment and of the output folder, the seed, the size.

    Args:
        experiment: Name of the experiment, the folder under `out`.
        out: Working folder; relative paths start at the repository's root.
        seed: Seed of everything random in the step.
        smoke: Shrink the step to seconds. Smoke output goes to `<out>/smoke` and is never published.
    Raises:
        ValueError: A value of the wrong type or outside its choices or limits.
    """

    step: ClassVar[str] = ""
    reads: ClassVar[tuple[str, ...]] = ()
    smoke_values: ClassVar[dict[str, object]] = {}

    experiment: str = field(default="phantom-xray", metadata={"pattern": NAME})
    out: str = "runs"
    seed: int = at_least(0, 0)
    smoke: bool = False

    def __post_init__(self) -> None:
        for item in fields(self):
            _check(self.step or "settings", item, getattr(self, item.name))
            if item.type is float:
                # 1 and 1.0 are the same setting and must give the same digest.
                object.__setattr__(self, item.name, float(getattr(self, item.name)))
        if self.smoke:
            for name, value in self.smoke_values.items():
                # A dataclass is frozen for its users; this is still its construction.
                object.__setattr__(self, name, value)

    @property
    def experiment_folder(self) -> Path:
        """`<out>/<experiment>`, or `<out>/smoke/<experiment>`."""
        base = ROOT / Path(self.out).expanduser()
        return (base / "smoke" if self.smoke else base) / self.experiment

    @property
    def folder(self) -> Path:
        """Folder this step writes to."""
        return self.experiment_folder / self.step

    def table(self) -> pd.DataFrame:
        """The settings as a table with one row each, for the notebook's fourth cell."""
        return pd.DataFrame({"value": asdict(self)}).rename_axis("parameter")

    def digest(self) -> str:
        """Hex sha256 of the settings that decide the result; where it is written does not."""
        values = {key: value for key, value in asdict(self).items() if key not in PLACES}
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def data_folder(named: str, user: str) -> Path:
    """Folder of the public data sets: `named`, or else what COVIDTF_DATA says.

    Raises:
        DataError: None is named, or it does not exist; says what `user` needs.
    """
    named = named or os.environ.get("COVIDTF_DATA", "")
    if not named:
        raise DataError(
            f"{user} needs public images: set `data_folder` or COVIDTF_DATA to a folder that holds them: "
            "covid-chestxray-dataset/, CheXpert-v1.0-small/, ChestX-ray14/, COVID-CT/, COVID19-Diag/, ..."
        )
    folder = ROOT / Path(named).expanduser()
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; `data_folder` or COVIDTF_DATA names it")
    return folder


def _check(owner: str, item, value: object) -> None:
    wanted = item.type
    if get_origin(wanted) is Literal:
        if value not in get_args(wanted):
            raise ValueError(f"{owner}: `{item.name}` must be one of {get_args(wanted)}. Received: {value!r}")
        return
    # bool is an int to Python, and papermill's "false" is a true string: neither may pass for the other.
    right = type(value) is wanted or (wanted is float and type(value) is int)
    if not right:
        raise ValueError(
            f"{owner}: `{item.name}` must be {wanted.__name__}. Received: {value!r} ({type(value).__name__})"
        )
    pattern = item.metadata.get("pattern")
    if pattern is not None and not re.fullmatch(pattern, value):
        raise ValueError(f"{owner}: `{item.name}` must match {pattern!r}. Received: {value!r}")
    minimum = item.metadata.get("minimum")
    # `not >=` also refuses NaN.
    if minimum is not None and not value >= minimum:
        raise ValueError(f"{owner}: `{item.name}` must be at least {minimum}. Received: {value!r}")
    maximum = item.metadata.get("maximum")
    if maximum is not None and not value <= maximum:
        raise ValueError(f"{owner}: `{item.name}` must be at most {maximum}. Received: {value!r}")
