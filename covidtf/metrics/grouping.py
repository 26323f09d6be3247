"""Runs that differ in a few settings, in groups: what these are called and what they are held against."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from covidtf.files import DataError
from covidtf.metrics.transfer import SCRATCH
from covidtf.runs import Run

BY = ("loss", "beta", "auxiliary", "label_noise", "start")
METHODS = (
    "cross-entropy",
    "class-balanced",
    "deep supervision",
    "deep supervision, learned weights",
    "class-balanced, deep supervision",
    "full",
)
REFERENCE = METHODS[0]
_OF_METHOD = ("loss", "beta", "auxiliary")
# Without auxiliary heads, as in the reference, these do nothing.
_OF_HEADS = ("auxiliary_weight", "auxiliary_width", "fusion", "stages")
# `start` says in words what `weights` does, which may be another file for each seed.
_FREE = ("seed", "folds", "fold", "experiment", "weights")
# In which runs of one network may differ and still be repetitions of one another.
_OF_A_SEED = ("seed", "fold", "experiment", "weights")


def method(config: dict) -> str:
    """What a run's loss is called: one of `METHODS`, with a loss other than cross-entropy named behind.

    Learned weights with class balance are the full method; a single head with neither is plain cross-entropy.

    >>> method({"loss": "cross_entropy", "beta": 0.0, "auxiliary": "none"})
    'cross-entropy'
    >>> method({"loss": "symmetric", "beta": 0.999, "auxiliary": "learned"})
    'full, symmetric'
    """
    balanced = config["beta"] > 0
    heads = {"none": "", "fixed": "deep supervision", "learned": "deep supervision, learned weights"}
    parts = ["class-balanced"] * balanced + [heads[config["auxiliary"]]] * (config["auxiliary"] != "none")
    name = ", ".join(parts) or REFERENCE
    if balanced and config["auxiliary"] == "learned":
        name = "full"
    return name if config["loss"] == "cross_entropy" else f"{name}, {config['loss']}"


def differing(runs: Sequence[Run]) -> tuple[str, ...]:
    """Settings by which to group these runs: `BY`, then by name what else the networks' runs differ in.

    Seed and fold are not among them, nor the weights' file, which `start` says in words, nor whatever
    baselines have.
    """
    configs = [run.config for run in runs if not is_baseline(run)]
    names = {name for config in configs for name in config} - {*_FREE, *BY}
    return *BY, *sorted(name for name in names if len({config.get(name) for config in configs}) > 1)


def is_baseline(run: Run) -> bool:
    """Whether it is a trivial baseline and no network."""
    return bool(run.config.get("baseline"))


def repeated(runs: Sequence[Run]) -> list[list[int]]:
    """Places of runs that differ in the seed alone, or in the fold; in the order of the first of each."""
    groups: dict[str, list[int]] = {}
    for index, run in enumerate(runs):
        settings = {key: value for key, value in run.config.items() if key not in _OF_A_SEED}
        groups.setdefault(repr((run.name, run.start, sorted(settings.items()))), []).append(index)
    return list(groups.values())


def labels(runs: Sequence[Run], by: Sequence[str] = ("method", "start", "seed", "id")) -> list[str]:
    """What to call each run: its network, and of `by` whatever tells it from others of that name."""
    names = [run.name for run in runs]
    for key in by:
        values = [described(run, key) for run in runs]
        pairs = set(zip(names, values, strict=True))
        several = {name for name in names if sum(one == name for one, _ in pairs) > 1}
        names = [
            f"{name}, {value}" if name in several else name for name, value in zip(names, values, strict=True)
        ]
    return names


def described(run: Run, key: str) -> str:
    """One of "method", "start", "seed" and "id" (end of the run id) of a run, in words."""
    if key == "method":
        return method(run.config) if "auxiliary" in run.config else ""
    words = {"start": f"from {run.start}", "seed": f"seed {run.config['seed']}"}
    return words.get(key, run.run_id.rpartition("-")[2])


@dataclass(frozen=True)
class Group:
    """Runs that differ in seed and fold alone, in the order of both.

    Attributes:
        method: As `method` says; of a baseline its name.
        settings: Those that tell groups apart; of a baseline NaN apart from `start`.
        runs: At least one.
    """

    method: str
    settings: dict[str, object]
    runs: list[Run]

    @property
    def baseline(self) -> bool:
        """Whether these are runs of a trivial baseline."""
        return is_baseline(self.runs[0])

    def plain(self, groups: Sequence["Group"]) -> int | None:
        """Which of `groups` is plain cross-entropy under the same conditions; None of itself."""
        if self.baseline or self.method == REFERENCE:
            return None
        return _first(other.method == REFERENCE and other._conditions == self._conditions for other in groups)

    def scratch(self, groups: Sequence["Group"]) -> int | None:
        """Which of `groups` is the same from random weights; None of itself."""
        if self.baseline or self.settings.get("start", SCRATCH) == SCRATCH:
            return None
        wanted = self.settings | {"start": SCRATCH}
        return _first(not other.baseline and other.settings == wanted for other in groups)

    def also_differs(self, other: "Group") -> list[str]:
        """Settings outside `settings` and the method in which this group is not like `other`."""
        known = (*self.settings, *_OF_METHOD, *_OF_HEADS)
        return _unequal(self.runs[0], other.runs[0], known)

    @property
    def _conditions(self) -> dict[str, object]:
        own = (*_OF_METHOD, *_OF_HEADS)
        return {name: value for name, value in self.settings.items() if name not in own}


def grouped(runs: Sequence[Run], by: Sequence[str]) -> list[Group]:
    """Runs in groups: by the settings that are not the method's, then as `METHODS`; baselines last.

    Args:
        runs: Of one split, or of cross-validations with the same folds.
        by: Settings that tell groups apart.
    Raises:
        DataError: A setting is absent, a seed and fold occurs twice in a group, or runs of a group differ in
            a setting that `by` does not name.
    """
    groups: dict[tuple, Group] = {}
    for run in sorted(runs, key=lambda run: (run.config["seed"], run.config.get("fold", 0))):
        name, settings = _described(run, by)
        key = (name,) if is_baseline(run) else tuple(settings.values())
        groups.setdefault(key, Group(name, settings, [])).runs.append(run)
    for group in groups.values():
        _refuse_mixed(group.runs, by)
    return sorted(groups.values(), key=_place)


def _described(run: Run, by: Sequence[str]) -> tuple[str, dict[str, object]]:
    """Name and settings of the run's group."""
    if is_baseline(run):
        return run.name, {name: run.start if name == "start" else np.nan for name in by}
    settings = {name: _setting(run, name) for name in (*by, *_OF_METHOD)}
    return method(settings), {name: settings[name] for name in by}


def _setting(run: Run, name: str) -> object:
    if name == "start":
        return run.start
    if name not in run.config:
        raise DataError(f"{run.run_id}: setting {name!r} is missing. Received: {sorted(run.config)}")
    return run.config[name]


def _refuse_mixed(runs: list[Run], by: Sequence[str]) -> None:
    first, seeds = runs[0], [(run.config["seed"], run.config.get("fold", 0)) for run in runs]
    if len(set(seeds)) < len(seeds):
        raise DataError(f"{first.run_id}: one run of each seed and fold was wanted. Received: {seeds}")
    for run in runs[1:]:
        other = _unequal(first, run, by)
        if other:
            raise DataError(
                f"{run.run_id}: the settings of {first.run_id} were wanted. Received: other {other}"
            )


def _unequal(one: Run, other: Run, known: Sequence[str]) -> list[str]:
    """Settings that two runs do not share, apart from those of `known` and the free ones."""
    names = {name for name in one.config | other.config if one.config.get(name) != other.config.get(name)}
    return sorted(names - {*_FREE, *known})


def _place(group: Group) -> tuple:
    """Conditions first, with random weights and then shorter chains of source tasks; methods as `METHODS`."""
    if group.baseline:
        return (True, group.method)
    places = [
        (value != SCRATCH, value.count(" after "), value) if name == "start" else value
        for name, value in group._conditions.items()
    ]
    loss = group.runs[0].config["loss"]
    rank = METHODS.index(group.method.removesuffix(f", {loss}"))
    heads = [group.settings[name] for name in _OF_HEADS if name in group.settings]
    return (False, *places, rank, loss != "cross_entropy", loss, group.runs[0].config["beta"], *heads)


def _first(wanted: Iterable[bool]) -> int | None:
    return next((index for index, one in enumerate(wanted) if one), None)
