"""What is kept of the runs of an ablation once their folders are gone: a record of each, and its scores."""

import hashlib
from collections.abc import Sequence

import pandas as pd

from covidtf.metrics import judged
from covidtf.metrics.grouping import differing, is_baseline, method
from covidtf.runs import Run

# Data given under an agreement: what they call a person stays with whoever signed it.
PRIVATE = ("COVID19-Diag",)
_NAMES = ("image_id", "patient_id", "case_id")
_KEPT = ("part", "level", "fold", "image_id", "patient_id", "case_id", "source", "finding", "split", "label")


def records(runs: Sequence[Run]) -> pd.DataFrame:
    """One row per run: what it is, what it started from, and how it was made; NaN where a baseline has none.

    Returns:
        Columns run_id, network, method (of a baseline its name), the settings of `grouping.differing`, seed,
        folds, fold, epochs, seconds, commit, dirty, smoke, started_from_sha256 (of the weights it started
        from; `none`: random), head (`new` or `kept` from there), weights_sha256 (of what it ended with),
        predictions_sha256.
    """
    settings = [name for name in differing(runs) if name != "start"]
    return pd.DataFrame(
        {
            "run_id": run.run_id,
            "network": run.name,
            "method": run.name if is_baseline(run) else method(run.config),
            "start": run.start,
            **{name: None if is_baseline(run) else run.config.get(name) for name in settings},
            "seed": run.config["seed"],
            **{name: run.config.get(name, 0) for name in ("folds", "fold")},
            "epochs": run.config.get("epochs"),
            **{name: run.provenance[name] for name in ("seconds", "commit", "dirty", "smoke")},
            "started_from_sha256": run.provenance.get("started_from", {}).get("weights"),
            "head": run.provenance.get("started_from", {}).get("head"),
            **{f"{name}_sha256": run.provenance["sha256"].get(name) for name in ("weights", "predictions")},
        }
        for run in runs
    )


def scores(runs: Sequence[Run], most: int = 2000) -> pd.DataFrame:
    """Every run's scores: what `ablation.table` rests on, by slice unless these are too many to keep.

    Args:
        runs: As of `ablation.table`.
        most: Of more slices, whose cases are all known, the scores of the cases are kept instead.
    Returns:
        One row per slice or case of val and test, of a cross-validation of each fold's test: part, level
        (what a row is), fold (in whose test it is, 0 without folds), image_id (of a case its case_id),
        patient_id, case_id, source, finding, split, label, and a column `<run_id> <class>` per run and class;
        empty where a run did not judge the row. Cases follow the rule by which the run is judged. Names of
        images, patients and cases of `PRIVATE` sources are the first 16 digits of their sha256.
    Raises:
        DataError: As `judged.of_run` and `cases.case_scores`.
    """
    runs = sorted(runs, key=lambda run: run.config.get("folds", 0))
    slices = {run.run_id: _rows(run) for run in runs}
    total = sum(len(part) for part in _by_part(runs, slices).values())
    by_case = total > most and "case" in judged.levels(runs)
    kept = {run.run_id: _cases(run, slices[run.run_id]) for run in runs} if by_case else slices
    level = "case" if by_case else "slice"
    parts = [table.assign(part=name, level=level) for name, table in _by_part(runs, kept).items()]
    result = pd.concat(parts, ignore_index=True)
    private = result["source"].isin(PRIVATE)
    for name in _NAMES:
        hidden = result.loc[private, name].map(lambda text: hashlib.sha256(text.encode()).hexdigest()[:16])
        result[name] = result[name].mask(private, hidden)
    return result[[*_KEPT, *(name for name in result if name not in _KEPT)]]


def _rows(run: Run) -> pd.DataFrame:
    rows = run.predictions
    return rows[rows["split"] == "test"] if run.config.get("folds", 0) else rows


def _cases(run: Run, rows: pd.DataFrame) -> pd.DataFrame:
    found = judged.Judged([rows]) if run.config.get("folds", 0) else judged.of_run(run)
    return found.pooled(rows)


def _by_part(runs: Sequence[Run], rows: dict[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """One table per part, a row per image that any run of it judged."""
    parts: dict[str, list[pd.DataFrame]] = {}
    for run in runs:
        own = rows[run.run_id].assign(fold=run.config.get("fold", 0))
        own = own.set_index([name for name in _KEPT if name in own])
        columns = [name for name in own if name.startswith("score_")]
        own = own[columns].rename(columns=lambda name, run=run: f"{run.run_id} {name.removeprefix('score_')}")
        parts.setdefault(judged.part(run), []).append(own)
    # Copies, or pandas warns of the hundreds of columns that were put together one by one.
    return {name: pd.concat(tables, axis=1).copy().reset_index().copy() for name, tables in parts.items()}
