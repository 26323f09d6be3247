"""The audit on trial: does it fail where a shortcut was planted, on the right check, and pass elsewhere?"""

import hashlib
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd

from covidtf.audit import trial
from covidtf.audit.checks import CHECKS
from covidtf.audit.thresholds import ANY, CLEAN, EXPECTED_ONES
from covidtf.files import progress, read_json, write_csv, write_json
from covidtf.metrics import intervals
from covidtf.phantom import planted

# Which checks must fail, at least one of them, where a shortcut was planted: stated before any result, but
# for `burned-in marks`, a check that the second trial called for.
EXPECTED: dict[str, tuple[str, ...]] = {
    CLEAN: (),
    "scanner style": (
        *("mean and std", "histogram"),
        *("lungs blacked out, retrained", "border only, retrained"),
    ),
    "burned-in marker": (
        *("border strip", "lungs blacked out, retrained", "border only, retrained"),
        "burned-in marks",
    ),
    "border": ("border strip", "lungs blacked out, retrained", "border only, retrained"),
    "histogram": ("mean and std", "histogram"),
    "duplicate patients": ("exact duplicate", "near duplicate"),
}
RATES = (
    *("condition", "check", "expected", "seeds", "passed", "failed", "untold"),
    *("share_failed", "low", "high"),
)
_PACKAGE = Path(__file__).parents[1]


@dataclass(frozen=True)
class Design:
    """What all trials have in common; arguments as `trial.draw`, `trial.trial` and `probe.features`.

    `smoke` changes nothing; it marks what is never published.
    """

    patients: int = 600
    size: int = 128
    strength: tuple[float, float] = planted.STRENGTH
    network: str = "SqueezeNet1_0"
    weights: str = "tiny-imagenet"
    draws: int = 1000
    shuffles: int = 10
    smoke: bool = False


def run(
    folder: str | Path, seeds: Sequence[int], conditions: Sequence[str], design: Design, workers: int = 1
) -> pd.DataFrame:
    """Every seed with every condition, written to `trial.csv` as it goes on.

    The phantoms of a seed are drawn once for all its conditions. Trials that the file has already are not
    done again if they are of the same design and code (`trial.json`); else it is begun anew.

    Args:
        folder: Made if absent.
        seeds: Not negative.
        conditions: Of `EXPECTED`.
        design: Of all trials.
        workers: Processes that draw phantoms.
    Returns:
        Rows of `trial.trial` of these seeds and conditions.
    Raises:
        ValueError: Unknown condition, or a number out of its range.
    """
    unknown = sorted(set(conditions) - set(EXPECTED))
    if unknown:
        raise ValueError(f"`conditions` must be some of {list(EXPECTED)}. Received: {unknown}")
    folder = Path(folder)
    done = _done(folder, design)
    for seed in progress(seeds, "seeds"):
        missing = [name for name in conditions if not _has(done, seed, name)]
        if missing:
            done = pd.concat([done, _of_seed(seed, missing, design, workers)], ignore_index=True)
            write_csv(done, folder / "trial.csv")
    wanted = done["seed"].isin(seeds) & done["condition"].isin(conditions)
    order = {name: place for place, name in enumerate(EXPECTED)}
    places = done["condition"].map(order)
    ordered = done.assign(place=places)[wanted].sort_values(["seed", "place"], kind="stable")
    return ordered.drop(columns="place").reset_index(drop=True)


def rates(rows: pd.DataFrame) -> pd.DataFrame:
    """How often each check failed on each condition, over the seeds.

    A check with several rows, of parts, failed if one did, and passed if all did. Two more rows per condition
    are of several checks: `one of the expected` failed (the detection rate), and `any check` failed (on the
    clean sets the false-alarm rate of the whole audit); they passed if none failed and one passed.

    Args:
        rows: From `trial`, of any seeds and conditions.
    Returns:
        Columns `RATES`: seeds and the number of them with each verdict, the share that failed and its
        Clopper-Pearson 95 % interval. Ordered as `EXPECTED` and `CHECKS`.
    """
    found = []
    for condition in [name for name in EXPECTED if name in set(rows["condition"])]:
        own = rows[rows["condition"] == condition]
        expected = EXPECTED[condition]
        for check in [name for name in CHECKS if name in set(own["check"])]:
            found.append(_rate(condition, check, check in expected, own[own["check"] == check]))
        if expected:
            found.append(_rate(condition, EXPECTED_ONES, True, own[own["check"].isin(expected)]))
        found.append(_rate(condition, ANY, False, own))
    return pd.DataFrame(found, columns=list(RATES))


def expected() -> pd.DataFrame:
    """What is planted, and the checks of which one must fail, as a table: condition, expected."""
    rows = [{"condition": name, "expected": "; ".join(checks) or "none"} for name, checks in EXPECTED.items()]
    return pd.DataFrame(rows)


def _rate(condition: str, check: str, expected: bool, rows: pd.DataFrame) -> dict:
    by_seed = rows.groupby("seed")["verdict"]
    failed = by_seed.agg(lambda verdicts: (verdicts == "failed").any())
    enough = pd.Series.any if check in (EXPECTED_ONES, ANY) else pd.Series.all
    passed = by_seed.agg(lambda verdicts: enough(verdicts == "passed")) & ~failed
    low, high = intervals.proportion(failed.sum(), len(failed), "clopper-pearson")
    row = {"condition": condition, "check": check, "expected": expected, "seeds": len(failed)}
    row |= {"passed": int(passed.sum()), "failed": int(failed.sum())}
    row |= {"untold": int((~failed & ~passed).sum()), "share_failed": failed.mean()}
    return row | {"low": low, "high": high}


def _of_seed(seed: int, conditions: Sequence[str], design: Design, workers: int) -> pd.DataFrame:
    clean = trial.draw(seed, design.patients, design.size, workers)
    options = {"strength": design.strength, "draws": design.draws, "shuffles": design.shuffles}
    with tempfile.TemporaryDirectory() as scratch:
        features = trial.remembered(scratch, design.network, design.weights)
        tables = [trial.trial(clean, condition, seed, features, **options) for condition in conditions]
    return pd.concat(tables, ignore_index=True)


def _done(folder: Path, design: Design) -> pd.DataFrame:
    """Trials that are in the folder and may stay there; the record of what they are of is written."""
    about = {**asdict(design), "strength": list(design.strength), "code": _code()}
    record, table = folder / "trial.json", folder / "trial.csv"
    if record.is_file() and table.is_file() and read_json(record) == about:
        return pd.read_csv(
            table, keep_default_na=False, na_values=dict.fromkeys(("value", "low", "high"), "")
        )
    table.unlink(missing_ok=True)
    write_json(about, record)
    return pd.DataFrame({"seed": [], "condition": []})


def _has(done: pd.DataFrame, seed: int, condition: str) -> bool:
    return bool(((done["seed"] == seed) & (done["condition"] == condition)).any())


def _code() -> str:
    """Sha256 of the modules that decide what a trial gives."""
    digest = hashlib.sha256()
    for name in ("audit", "images", "metrics", "phantom"):
        for path in sorted((_PACKAGE / name).rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()
