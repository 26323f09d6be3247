"""Run folders: what a run used, what came out, and how both are read back and published."""

import os
import re
import subprocess
import time
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pandas as pd

from covidtf import predictions
from covidtf.config import PLACES, ROOT, Config
from covidtf.files import DataError, read_json, sha256, write_json

PACKAGES = ("numpy", "pandas", "pillow", "scikit-learn", "scipy", "Augmentor", "pydicom", "papermill")


@dataclass(frozen=True)
class Run:
    """One run read from its folder.

    Attributes:
        run_id: Name of the folder.
        folder: The folder, below the experiment's.
        config: Settings, as written.
        provenance: Where it came from: code, data, weights, versions, machine.
        predictions: One row per val and test image, one score column per class.
    """

    run_id: str
    folder: str
    config: dict
    provenance: dict
    predictions: pd.DataFrame

    @property
    def name(self) -> str:
        """The network as it is written in text ("SqueezeNet 1.0"), or what the run calls itself."""
        return re.sub(r"(?<=[a-z])(\d)_(\d)$", r" \1.\2", self.config["network"])

    @property
    def start(self) -> str:
        """What the weights were before training, as results tables say it."""
        if "start" in self.config:
            return self.config["start"]
        # Runs did not always say it in words; a baseline has none.
        return {"none": "random weights"}.get(self.config.get("weights"), "no weights")


def start_name(started_from: dict) -> str:
    """What a run started from, as results say it, with what that had started from.

    Args:
        started_from: As `weights.start` returns it.

    >>> start_name({"weights": "none"})
    'random weights'
    >>> first = {"weights": "0a", "source": "tiny-imagenet"}
    >>> start_name({"weights": "1b", "source": "run", "sources": ["ChestX-ray14"], "started_from": first})
    'ChestX-ray14 after Tiny ImageNet'
    """
    if started_from["weights"] == "none":
        return "random weights"
    learnt = started_from.get("sources", [started_from["source"]])
    words = {"imagenet": "ImageNet", "tiny-imagenet": "Tiny ImageNet", "tiny-imagenet-160": "Tiny ImageNet"}
    name, earlier = " and ".join(words.get(word, word) for word in learnt), started_from.get("started_from")
    if earlier is None or earlier["weights"] == "none":
        return name
    return f"{name} after {start_name(earlier)}"


def origin() -> dict:
    """What this process computes with: to be recorded with a result when it is computed, not later.

    Returns:
        `time` (UTC), `command`, `commit`, `dirty`, `versions`. `commit` is `unknown` without git or outside
        of a repository. `dirty` is False if the code is the commit's, True if a tracked file differs or the
        package holds Python files that git does not track, `unknown` where git cannot tell.
    """
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "command": os.environ.get("COVIDTF_COMMAND", "notebook"),
        "commit": _git("rev-parse", "HEAD"),
        "dirty": _dirty(),
        "versions": {name: _version(name) for name in ("covidtf", *PACKAGES)},
    }


def provenance(
    config: Config, inputs: dict[str, Path], seconds: float, recorded: dict | None = None, **more: object
) -> dict:
    """Everything needed to say later where a result came from.

    Args:
        config: Settings of the step.
        inputs: Name -> file that the result depends on or that it kept (manifest, weights); hashed.
        seconds: Duration; of a training, the sum over its epochs, however often it was interrupted.
        recorded: The `origin` of a result that was computed earlier, with whatever was added to it; without
            it the result is taken to be of this process.
        more: Anything else JSON can hold.
    """
    return {
        **(origin() if recorded is None else recorded),
        "seconds": round(seconds, 1),
        "seed": config.seed,
        "smoke": config.smoke,
        "sha256": {"config": config.digest()} | {name: sha256(path) for name, path in inputs.items()},
        **more,
    }


def write(config: Config, folder: Path, record: dict, **more: object) -> Path:
    """Write `config.json` and, last, `provenance.json`, which marks the run as complete.

    Args:
        more: Added to the settings; a baseline says `network="..."` and `baseline=True` here.
    """
    settings = {key: value for key, value in asdict(config).items() if key not in PLACES}
    write_json({"experiment": config.experiment, **settings, **more}, folder / "config.json")
    return write_json(record, folder / "provenance.json")


def read(folder: str | Path, experiment_folder: str | Path | None = None) -> Run:
    """Read a complete run.

    Args:
        folder: Run folder.
        experiment_folder: The experiment's; by default the run folder's parent.

    Raises:
        DataError: A file is absent or malformed, or `predictions.csv` is not the one that was recorded.
    """
    folder = Path(folder)
    for name in ("config.json", "provenance.json", "predictions.csv"):
        if not (folder / name).is_file():
            raise DataError(f"{folder}: not a complete run, {name} is missing")
    record = read_json(folder / "provenance.json")
    recorded, found = record["sha256"].get("predictions"), sha256(folder / "predictions.csv")
    if recorded != found:
        raise DataError(f"{folder / 'predictions.csv'}: sha256 must be {recorded}. Received: {found}")
    table = predictions.read(folder / "predictions.csv")
    below = str(folder.relative_to(experiment_folder or folder.parent))
    return Run(folder.name, below, read_json(folder / "config.json"), record, table)


def find(experiment_folder: Path, names: str = "*", folds: bool = False) -> list[Run]:
    """Runs of an experiment, the trivial baselines last.

    Args:
        experiment_folder: Folder with one folder per run.
        names: Folder names separated by spaces; `*` takes every folder with a `provenance.json`.
        folds: Allow runs of the folds of a cross-validation, which are scored on different images.
    Raises:
        DataError: A run is absent or not whole, there is none at all, or two were scored on other images, so
            that they cannot be compared.
    """
    if names == "*":
        folders = sorted(path.parent for path in experiment_folder.rglob("provenance.json"))
    else:
        folders = [experiment_folder / name for name in names.split()]
    runs = [read(folder, experiment_folder) for folder in folders]
    if not runs:
        raise DataError(f"{experiment_folder}: no complete run. Run notebook 04 first")
    first: dict[tuple, Run] = {}
    for run in runs:
        part = tuple(run.config.get(name, 0) for name in ("folds", "fold")) if folds else ()
        _refuse_other_images(first.setdefault(part, run), run)
    return sorted(runs, key=lambda run: "baseline" in run.config)


def _refuse_other_images(one: Run, other: Run) -> None:
    columns = ["image_id", "split", "label"]
    first, second = (
        run.predictions[columns].sort_values("image_id", ignore_index=True) for run in (one, other)
    )
    if not first.equals(second):
        raise DataError(
            f"{other.run_id}: scored other images than {one.run_id} ({len(second)} and {len(first)}); "
            "name the runs to report on, or run them again on one data set"
        )


def names(found: list[Run]) -> list[str]:
    """What to call each run: its network; where that repeats also its seed, then the end of its run id."""
    result = [run.name for run in found]
    for more in (lambda run: f"seed {run.config['seed']}", lambda run: run.run_id.rpartition("-")[2]):
        result = [
            name if result.count(name) == 1 else f"{name}, {more(run)}"
            for name, run in zip(result, found, strict=True)
        ]
    return result


def slug(name: str) -> str:
    """A name as part of a file's name.

    >>> slug("mean and std (no network)")
    'mean-and-std-no-network'
    """
    return re.sub(r"[^A-Za-z0-9.]+", "-", name).strip("-")


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _dirty() -> bool | str:
    changed = _git("status", "--porcelain", "--untracked-files=no")
    untracked = _git("ls-files", "--others", "--", "covidtf/*.py")
    return "unknown" if "unknown" in (changed, untracked) else bool(changed or untracked)


def _git(*arguments: str) -> str:
    # A copy of the code without a repository must not pass for the one that its folder may lie in.
    own = os.environ | {"GIT_CEILING_DIRECTORIES": str(ROOT.parent)}
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=ROOT, env=own, capture_output=True, text=True, check=False
        )
    except OSError:
        return "unknown"
    return done.stdout.strip() if done.returncode == 0 else "unknown"
