"""What of a run, or of the folds of a cross-validation, is judged: its rows, by slice or by case."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from covidtf.files import DataError
from covidtf.metrics import cases
from covidtf.runs import Run

LEVELS = ("slice", "case")


@dataclass(frozen=True)
class Judged:
    """What is judged of one seed.

    Attributes:
        folds: Rows of the one split, or of the test of each fold.
        rule: By which slices become cases, of `cases.RULES`.
        k: Slices of the rule `top-k`; else None.
    """

    folds: list[pd.DataFrame]
    rule: str = "mean"
    k: int | None = None

    def at(self, level: str) -> list[pd.DataFrame]:
        """Rows of each fold by "slice" or by "case"."""
        return self.folds if level == "slice" else [self.pooled(fold) for fold in self.folds]

    def pooled(self, rows: pd.DataFrame) -> pd.DataFrame:
        """One row per case, by the rule."""
        return cases.case_scores(rows, self.rule, self.k or 1)


def part(run: Run) -> str:
    """What the run is judged on: "split", or "cross-validation, 5 folds"."""
    folds = run.config.get("folds", 0)
    return f"cross-validation, {folds} folds" if folds else "split"


def levels(runs: Sequence[Run]) -> tuple[str, ...]:
    """`LEVELS`, or "slice" alone where the case of a slice is unknown."""
    known = all((run.predictions["case_id"] != "").all() for run in runs)
    return LEVELS if known else LEVELS[:1]


def of_run(run: Run, choose: bool = True) -> Judged:
    """The test of a run, or val where it has none.

    Args:
        run: Without folds.
        choose: Take the case rule that `cases.choose_rule` takes on val. Where val itself is judged it is the
            mean all the same, because a rule chosen on what it is judged on would flatter.
    Raises:
        DataError: No rule can be chosen; names the run.
    """
    by_split = dict(list(run.predictions.groupby("split")))
    if not choose or not {"val", "test"} <= set(by_split):
        return Judged([by_split["test" if "test" in by_split else "val"]])
    try:
        chosen = cases.choose_rule(by_split["val"])
    except DataError as error:
        raise DataError(f"{run.run_id}: {error}") from error
    return Judged([by_split["test"]], chosen["rule"], chosen["k"])


def of_group(runs: Sequence[Run], choose: bool = True) -> list[Judged]:
    """Of each seed of runs that differ in seed and fold alone, as `of_folds` or `of_run`."""
    if runs[0].config.get("folds", 0):
        return of_folds(runs)
    return [of_run(run, choose) for run in runs]


def rules(ones: Sequence[Judged]) -> str:
    """The case rule of each, as one text."""
    return ", ".join(one.rule if one.k is None else f"{one.rule} {one.k}" for one in ones)


def of_folds(runs: Sequence[Run]) -> list[Judged]:
    """The tests of all folds of each seed, cases by the mean of their slices.

    Each fold would choose a rule of its own, and scores made by different rules cannot be pooled.

    Args:
        runs: With folds, in the order of seed and fold.
    Raises:
        DataError: A fold is absent, occurs twice or has no test.
    """
    result = []
    for seed in dict.fromkeys(run.config["seed"] for run in runs):
        own = [run for run in runs if run.config["seed"] == seed]
        wanted, found = list(range(own[0].config["folds"])), [run.config["fold"] for run in own]
        if found != wanted:
            raise DataError(f"{own[0].run_id}: folds {wanted} of seed {seed} were wanted. Received: {found}")
        for run in own:
            if "test" not in set(run.predictions["split"]):
                raise DataError(f"{run.run_id}: rows of test were wanted, which its fold is. Received: none")
        result.append(Judged([run.predictions[run.predictions["split"] == "test"] for run in own]))
    return result
