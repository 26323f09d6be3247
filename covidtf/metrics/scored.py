"""What of each run is judged, and beside it the val on which its threshold and its temperature are chosen."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pandas as pd

from covidtf.files import DataError
from covidtf.metrics import folds, intervals, judged, temperature, thresholds
from covidtf.metrics.grouping import is_baseline, labels, repeated
from covidtf.runs import Run


@dataclass(frozen=True)
class Scored:
    """One seed of a network, or a trivial baseline.

    Attributes:
        network: What it is called, with its other seeds.
        baseline: Whether it is a trivial baseline and no network.
        part: As `judged.part` says.
        seed: Of the run, or of the runs of all folds.
        judged: Rows of the one split, or of the test of each fold.
        val: Of each of these the val of the same run; none where val itself is judged.
    """

    network: str
    baseline: bool
    part: str
    seed: int
    judged: list[pd.DataFrame]
    val: list[pd.DataFrame]

    @cached_property
    def rows(self) -> pd.DataFrame:
        """The judged rows, those of all folds as one table."""
        return folds.pooled(self.judged)

    def untold(self, positive: str) -> str:
        """Why AUROC cannot be told; "" where it can."""
        found = (self.rows["label"] == positive).nunique()
        return "" if found == 2 else f"images labelled {positive} and others were wanted, one class is there"

    def unchosen(self, positive: str) -> str:
        """Why nothing can be chosen on val; "" where it can."""
        if not self.val:
            return "no test: val itself is judged"
        found = min(self.fewest(positive))
        return "" if found >= intervals.FEWEST_PATIENTS else f"too few patients of a class on val: {found}"

    def fewest(self, positive: str) -> tuple[int, int]:
        """Patients with the label and patients with others on val; of folds the fewest."""
        label = [val["label"] == positive for val in self.val]
        return tuple(
            min(val["patient_id"][of == side].nunique() for val, of in zip(self.val, label, strict=True))
            for side in (True, False)
        )

    def threshold(self, rule: str, positive: str) -> tuple[npt.NDArray[np.float64], list[dict]]:
        """Cut-off threshold of each row of `rows`, and what `thresholds.choose` says of each val.

        Raises:
            DataError: Nothing can be chosen on val, see `unchosen`.
        """
        self._refuse(positive)
        found = [thresholds.choose(val, positive, rule) for val in self.val]
        values = [one["value"] for one in found]
        return np.repeat(values, [len(table) for table in self.judged]), found

    def scaled(self, positive: str) -> tuple[pd.DataFrame, list[float]]:
        """`rows` after temperature scaling, and the temperature that each val gave.

        Raises:
            DataError: Nothing can be chosen on val, see `unchosen`.
        """
        self._refuse(positive)
        found = [temperature.fit(val) for val in self.val]
        tables = [temperature.scaled(table, value) for table, value in zip(self.judged, found, strict=True)]
        return folds.pooled(tables), found

    def _refuse(self, positive: str) -> None:
        if self.unchosen(positive):
            raise DataError(f"{self.network}: {self.unchosen(positive)}")


def of_runs(runs: Sequence[Run]) -> list[Scored]:
    """What of the runs is judged: test, or val where there is none; of folds the tests of all of them.

    Args:
        runs: Of one data set; of each network, seed and fold one.
    Returns:
        The split first, then cross-validations; networks by name and seed, the baselines last.
    Raises:
        DataError: A seed occurs twice; as `judged.of_folds`.
    """
    result = []
    for part in dict.fromkeys(judged.part(run) for run in sorted(runs, key=_folds)):
        own = [run for run in runs if judged.part(run) == part]
        groups = [[own[index] for index in places] for places in repeated(own)]
        names = labels([group[0] for group in groups], ("method", "start", "id"))
        found = [one for name, group in zip(names, groups, strict=True) for one in _seeds(name, part, group)]
        result += sorted(found, key=lambda one: (one.baseline, "" if one.baseline else one.network, one.seed))
    return result


def names(scored: Sequence[Scored]) -> list[str]:
    """What to call each: its network, and its seed where that is not the only one of the part."""
    pairs = [(one.part, one.network) for one in scored]
    return [
        one.network if pairs.count(pair) == 1 else f"{one.network}, seed {one.seed}"
        for one, pair in zip(scored, pairs, strict=True)
    ]


def _seeds(name: str, part: str, runs: list[Run]) -> list[Scored]:
    """Of each seed of one network."""
    ordered = sorted(runs, key=lambda run: (run.config["seed"], run.config.get("fold", 0)))
    seeds = list(dict.fromkeys(run.config["seed"] for run in ordered))
    if _folds(ordered[0]):
        found = judged.of_folds(ordered)
    elif len(seeds) == len(ordered):
        found = [judged.of_run(run, choose=False) for run in ordered]
    else:
        used = [run.config["seed"] for run in ordered]
        raise DataError(f"{ordered[0].run_id}: one run of each seed was wanted. Received: seeds {used}")
    result = []
    for seed, one in zip(seeds, found, strict=True):
        own = [run.predictions for run in ordered if run.config["seed"] == seed]
        val = [table[table["split"] == "val"] for table in own]
        of_val = one.folds[0]["split"].iloc[0] == "val"
        result.append(Scored(name, is_baseline(ordered[0]), part, seed, one.folds, [] if of_val else val))
    return result


def _folds(run: Run) -> int:
    return run.config.get("folds", 0)
