"""What an audit reads: the data of one experiment, and its networks and baselines of one split."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from covidtf import datasets
from covidtf import manifest as manifests
from covidtf.files import DataError
from covidtf.images.store import Prepared
from covidtf.metrics import grouping
from covidtf.metrics.grouping import described, labels
from covidtf.runs import Run

# Of each data step what its images are, as lung masks want to know.
KINDS = {"01_xray_dataset": "xray", "02_ct_dataset": "ct"}
_COPIES = "03_augmentation"


@dataclass(frozen=True)
class Data:
    """The data of an experiment.

    Attributes:
        prepared: Originals, with `split`.
        trained: Manifest that networks were trained on: of the augmentation where there is one.
        kind: "xray" or "ct".
    """

    prepared: Prepared
    trained: pd.DataFrame
    kind: str


def load(experiment_folder: Path) -> Data:
    """Read the data step and, if it was made, the augmentation's manifest.

    Raises:
        DataError: Not one data step, or one that is not finished.
    """
    steps = [step for step in KINDS if (experiment_folder / step).is_dir()]
    if len(steps) != 1:
        raise DataError(f"{experiment_folder}: one of {list(KINDS)} was wanted. Received: {steps}")
    prepared = datasets.load(experiment_folder / steps[0])
    copies = experiment_folder / _COPIES / "manifest.csv"
    trained = manifests.read(copies) if copies.is_file() else prepared.manifest
    return Data(prepared, trained, KINDS[steps[0]])


def audited(runs: Sequence[Run]) -> tuple[list[Run], pd.DataFrame]:
    """The runs on the data set's own split, networks first; and all runs with why one is left out.

    Returns:
        The runs, and a table: run_id, name, seed, audited ("yes" or the reason), commit, dirty, smoke,
        weights_sha256, predictions_sha256.
    Raises:
        DataError: None is on the split.
    """
    kept = [run for run in runs if not run.config.get("folds", 0)]
    if not kept:
        raise DataError("runs on the data set's own split were wanted. Received: folds alone, or none")
    kept.sort(key=_place)
    names = dict(zip((run.run_id for run in kept), labels(kept), strict=True))
    reason = "no: a fold of a cross-validation, scored on other images"
    rows = [
        {
            "run_id": run.run_id,
            "name": names.get(run.run_id, run.name),
            "seed": run.config["seed"],
            "audited": "yes" if run.run_id in names else reason,
            **{name: run.provenance[name] for name in ("commit", "dirty", "smoke")},
            **{f"{name}_sha256": run.provenance["sha256"].get(name) for name in ("weights", "predictions")},
        }
        for run in runs
    ]
    return kept, pd.DataFrame(rows)


def _place(run: Run) -> tuple:
    """Networks by name, method, start and seed; then baselines as they came."""
    if grouping.is_baseline(run):
        return (True,)
    return (False, run.name, described(run, "method"), run.start, run.config["seed"])
