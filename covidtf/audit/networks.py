"""From scores to verdicts: baselines, controls, seeds and robustness, of predictions tables alone."""

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import pandas as pd

from covidtf.audit.areas import Area, lost, within
from covidtf.audit.checks import CHECKS, judge
from covidtf.files import DataError
from covidtf.metrics import against
from covidtf.metrics.baselines import BASELINES
from covidtf.metrics.grouping import labels, repeated
from covidtf.metrics.intervals import Metric
from covidtf.predictions import same_images
from covidtf.runs import Run

_OF_BASELINE = {
    "mean and std": "mean-std",
    "file properties": "file-properties",
    "histogram": "histogram",
    "border strip": "border-strip",
}
_RETRAINED = ("lungs blacked out", "border only")
_TESTED = ("lungs blacked out", "border only")
_SEVERITY = ("passed", "cannot be told", "failed")


def baselines(tables: Mapping[str, pd.DataFrame], positive: str, draws: int, seed: int) -> list[dict]:
    """How far trivial baselines get; the thumbnail, which shows lungs, has no threshold.

    Args:
        tables: Rows of the judged split by name, of which those named as in `BASELINES` are taken.
        positive: Label to detect.
        draws: Bootstrap draws of patients.
        seed: Of the draws.
    Returns:
        Rows of `checks.judge`.
    """
    rows = []
    for name, slug in _OF_BASELINE.items():
        table = tables.get(BASELINES[slug])
        area = None if table is None else within(table, None, positive, draws, seed)
        reason = "" if area else "no such run" if table is None else "images of one class only"
        rows.append(judge(CHECKS[name], "data", area and area.metric, reason))
    return rows


def aurocs(tables: Mapping[str, pd.DataFrame], positive: str, draws: int, seed: int) -> pd.DataFrame:
    """AUROC of each run: columns name, auroc, auroc_low, auroc_high, n, patients. As `baselines`."""
    rows = []
    for name, area in _areas(tables, positive, draws, seed).items():
        low, high = area.metric["ci95"] or (np.nan, np.nan)
        row = {"name": name, "auroc": area.value, "auroc_low": low, "auroc_high": high}
        rows.append(row | {"n": area.n, "patients": area.patients})
    return pd.DataFrame(rows)


def gains(
    tables: Mapping[str, pd.DataFrame], trivial: Collection[str], positive: str, draws: int, seed: int
) -> list[dict]:
    """Each network against the best baseline on the same images, by `against.gains`.

    Args:
        tables: Rows of the judged split by run, baselines too.
        trivial: Which of these are baselines.
        positive: As `baselines`.
        draws: As `baselines`.
        seed: As `baselines`.
    """
    found, check = (
        against.gains(tables, trivial, positive, draws, seed),
        CHECKS["gain over the best baseline"],
    )
    rows = []
    for name, row in found.drop(index=list(trivial)).iterrows():
        if np.isnan(row["over_baseline"]):
            rows.append(judge(check, str(name), None, "no baseline, or images of one class only"))
            continue
        alone = within(tables[name], None, positive, draws, seed).metric
        told = alone["ci95"] and not np.isnan(row["over_baseline_low"])
        limits = row[["over_baseline_low", "over_baseline_high"]].tolist() if told else None
        metric = alone | {"value": row["over_baseline"], "ci95": limits}
        rows.append(judge(check, str(name), metric, f"best baseline: {row['best_baseline']}"))
    return rows


def controls(
    tables: Mapping[str, pd.DataFrame], name: str, positive: str, draws: int, seed: int
) -> pd.DataFrame:
    """AUROC of every control and what it lost against the original images, of one network or the probe.

    Args:
        tables: Rows of the judged split by control, as `controls.CONTROLS` names them; "original" among them.
        name: Of the network.
        positive: As `baselines`.
        draws: As `baselines`.
        seed: As `baselines`.
    Returns:
        Columns network, control, auroc, auroc_low, auroc_high, loss, loss_low, loss_high, n, patients.
    Raises:
        DataError: Tables of other images.
    """
    areas = _areas(tables, positive, draws, seed)
    rows = []
    for control, area in areas.items():
        numbers = {"auroc": area.metric, "loss": lost(areas["original"], area)}
        row = {"network": name, "control": control}
        for key, metric in numbers.items():
            low, high = metric["ci95"] or (np.nan, np.nan)
            row |= {key: metric["value"], f"{key}_low": low, f"{key}_high": high}
        rows.append(row | {"n": area.n, "patients": area.patients})
    return pd.DataFrame(rows)


def retrained(tables: Mapping[str, pd.DataFrame], positive: str, draws: int, seed: int) -> list[dict]:
    """Verdicts on the probe that was trained and tested on each control; arguments as `controls`."""
    areas = _areas(tables, positive, draws, seed)
    base = areas["original"].metric
    rows = [judge(CHECKS["probe on whole images"], "data", base)]
    for control in _RETRAINED:
        rows.append(judge(CHECKS[f"{control}, retrained"], "data", areas[control].metric, base=base))
    return rows


def marked(table: pd.DataFrame, positive: str, draws: int, seed: int) -> dict:
    """The verdict on burned-in marks.

    Args:
        table: Rows of the judged split, as `marks.scores` gives them.
        positive: As `baselines`.
        draws: As `baselines`.
        seed: As `baselines`.
    Returns:
        The row of `checks.judge`.
    Raises:
        DataError: Images of one class only.
    """
    return judge(CHECKS["burned-in marks"], "data", _areas({"": table}, positive, draws, seed)[""].metric)


def tested(tables: Mapping[str, pd.DataFrame], name: str, positive: str, draws: int, seed: int) -> list[dict]:
    """Verdicts on a network that saw whole images in training and controls in testing; as `controls`."""
    areas = _areas(tables, positive, draws, seed)
    whole = areas["original"]
    rows = [
        judge(CHECKS[f"{control}, tested only"], name, areas[control].metric, base=whole.metric)
        for control in _TESTED
    ]
    only, without = areas["lungs only"], areas["lungs blacked out"]
    pairs = {"lungs over surroundings": (only, without), "loss to equalised": (whole, areas["equalised"])}
    for check, pair in pairs.items():
        rows.append(judge(CHECKS[check], name, lost(*pair), base=whole.metric))
    return rows


def robust(
    losses: Mapping[str, Mapping[str, Metric]],
    name: str,
    table: pd.DataFrame,
    positive: str,
    draws: int,
    seed: int,
) -> dict:
    """The worst verdict over all changes; of equal verdicts that of the change that cost most.

    So it passes only if the network stands every change: one that costs less, but is known less well, may be
    one that it does not stand.

    Args:
        losses: As `robustness.losses`: by change, its `loss`.
        name: Of the network.
        table: Its rows of the judged split, of unchanged images.
        positive: As `baselines`.
        draws: As `baselines`.
        seed: As `baselines`.
    """
    base, check = _areas({name: table}, positive, draws, seed)[name].metric, CHECKS["robustness"]
    rows = [
        judge(check, name, found["loss"], f"worst of {len(losses)}: {change}", base=base)
        for change, found in losses.items()
    ]
    return max(rows, key=lambda row: (_SEVERITY.index(row["verdict"]), row["value"]))


def robustness_table(losses: Mapping[str, Mapping[str, Metric]], name: str) -> pd.DataFrame:
    """Columns network, change, auroc, loss, loss_low, loss_high; one row per change."""
    rows = []
    for change, found in losses.items():
        low, high = found["loss"]["ci95"] or (np.nan, np.nan)
        row = {"network": name, "change": change, "auroc": found["auroc"]["value"]}
        rows.append(row | {"loss": found["loss"]["value"], "loss_low": low, "loss_high": high})
    return pd.DataFrame(rows, columns=["network", "change", "auroc", "loss", "loss_low", "loss_high"])


def seeds(
    runs: Sequence[Run], tables: Sequence[pd.DataFrame], positive: str, draws: int, seed: int
) -> list[dict]:
    """Highest minus lowest AUROC of runs that differ in the seed alone, one verdict per network.

    Args:
        runs: Networks, no baselines.
        tables: Of each its rows of the judged split.
        positive: As `baselines`.
        draws: As `baselines`.
        seed: As `baselines`.
    """
    groups = repeated(runs)
    names = labels([runs[own[0]] for own in groups], ("method", "start", "id"))
    rows = []
    for name, own in zip(names, groups, strict=True):
        used = sorted(runs[index].config["seed"] for index in own)
        areas = [within(tables[index], None, positive, draws, seed) for index in own]
        rows.append(_range(name, used, sorted(areas, key=lambda area: area.value)))
    return rows


def _range(name: str, used: list[int], ordered: list[Area]) -> dict:
    check = CHECKS["range over seeds"]
    if len(ordered) < 2:
        return judge(check, name, None, f"one seed: {used[0]}")
    spread, reason = lost(ordered[-1], ordered[0]), f"seeds {', '.join(map(str, used))}"
    return judge(check, name, spread, reason, base=ordered[0].metric)


def _areas(tables: Mapping[str, pd.DataFrame], positive: str, draws: int, seed: int) -> dict[str, Area]:
    same_images(tables)
    found = {name: within(table, None, positive, draws, seed) for name, table in tables.items()}
    if not all(found.values()):
        raise DataError(
            f"predictions: images labelled {positive} and others were wanted. Received: one class"
        )
    return found
