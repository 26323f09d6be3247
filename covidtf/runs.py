"""Run folders: what a run used, what came out, and how both are read back and published."""

import json
import os
import re
import shutil
import subprocess
import time
from dataclasses import asdict, dataclass
from importlib.metadata import version
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
        config: Settings, as written.
        provenance: Where it came from: code, data, weights, versions, machine.
        predictions: One row per val and test image, one score column per class.
    """

    run_id: str
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
        started = self.config.get("weights", "no weights")
        return "random weights" if started == "none" else started


def provenance(config: Config, inputs: dict[str, Path], seconds: float, **more: object) -> dict:
    """Everything needed to say later where a result came from.

    Args:
        config: Settings of the step.
        inputs: Name -> file that the result depends on or that it kept (manifest, weights); hashed.
        seconds: Duration; of a training, the sum over its epochs, however often it was interrupted.
        more: Anything else JSON can hold (device, backend, what the weights started from).
    """
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "seconds": round(seconds, 1),
        "command": os.environ.get("COVIDTF_COMMAND", "notebook"),
        "commit": _git("rev-parse", "HEAD"),
        "dirty": _git("status", "--porcelain", "--untracked-files=no") not in ("", "unknown"),
        "seed": config.seed,
        "smoke": config.smoke,
        "sha256": {"config": config.digest()} | {name: sha256(path) for name, path in inputs.items()},
        "versions": {"covidtf": version("covidtf")} | {name: version(name) for name in PACKAGES},
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


def read(folder: str | Path) -> Run:
    """Read a complete run.

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
    return Run(folder.name, read_json(folder / "config.json"), record, table)


def find(experiment_folder: Path, names: str = "*") -> list[Run]:
    """Runs of an experiment, the trivial baselines last.

    Args:
        experiment_folder: Folder with one folder per run.
        names: Folder names separated by spaces; `*` takes every folder that holds a complete run.
    Raises:
        DataError: A named run is absent, or there is none at all.
    """
    if names == "*":
        folders = sorted(path.parent for path in experiment_folder.rglob("predictions.csv"))
    else:
        folders = [experiment_folder / name for name in names.split()]
    runs = [read(folder) for folder in folders]
    if not runs:
        raise DataError(f"{experiment_folder}: no complete run. Run notebook 04 first")
    return sorted(runs, key=lambda run: "baseline" in run.config)


def names(found: list[Run]) -> list[str]:
    """What to call each run: its network, and the seed too where one network ran with several."""
    networks = [run.name for run in found]
    return [
        run.name if networks.count(run.name) == 1 else f"{run.name}, seed {run.config['seed']}"
        for run in found
    ]


def slug(name: str) -> str:
    """A name as part of a file's name.

    >>> slug("mean and std (no network)")
    'mean-and-std-no-network'
    """
    return re.sub(r"[^A-Za-z0-9.]+", "-", name).strip("-")


PUBLISHED = {".csv", ".json", ".svg"}


def publish(experiment_folder: Path, results: Path) -> list[Path]:
    """Copy from a working folder to `results/` what may be committed: tables, curves, records, numbers.

    No weights, no prepared arrays, and nothing that shows an image: manifests and executed notebooks of the
    data steps stay behind, of the others notebooks go along. What was in the target before is replaced.

    Args:
        experiment_folder: `<out>/<experiment>`.
        results: Folder for the experiment's published files.
    Returns:
        The files written.
    Raises:
        DataError: A smoke run, an incomplete run, or a file that names a folder of this machine.
    """
    chosen = [path for path in sorted(experiment_folder.rglob("*")) if _publishable(path, experiment_folder)]
    for path in chosen:
        _refuse_private(path, {str(ROOT), str(Path.home()), str(experiment_folder.resolve().parent)})
    staged = results.with_name(f".{results.name}.partial")
    shutil.rmtree(staged, ignore_errors=True)
    for path in chosen:
        target = staged / path.relative_to(experiment_folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(_without_papermill(path))
    shutil.rmtree(results, ignore_errors=True)
    staged.rename(results)
    return [results / path.relative_to(experiment_folder) for path in chosen]


def _publishable(path: Path, top: Path) -> bool:
    """Whether a file is a table, record or curve; the names of the folders decide what may show images."""
    parts = path.relative_to(top).parts
    if not path.is_file() or any(part.startswith(".") for part in parts) or path.name == "step.json":
        return False
    if parts[0] in ("01_xray_dataset", "03_augmentation"):
        return len(parts) == 3 and parts[1] in ("tables", "baseline-mean-std") and path.suffix in PUBLISHED
    return len(parts) == 2 and (path.suffix in PUBLISHED or path.name == "notebook.ipynb")


def _refuse_private(path: Path, folders: set[str]) -> None:
    text = path.read_text(encoding="utf-8")
    for private in folders - {"/"}:
        if private in text:
            raise DataError(f"{path}: names a folder of this machine ({private}); rerun with relative paths")
    if path.name == "provenance.json" and json.loads(text)["smoke"]:
        raise DataError(f"{path}: a smoke run is never published")


def _without_papermill(path: Path) -> bytes:
    if path.suffix != ".ipynb":
        return path.read_bytes()
    notebook = read_json(path)
    notebook["metadata"].pop("papermill", None)
    for cell in notebook["cells"]:
        cell["metadata"].pop("papermill", None)
        cell["metadata"].pop("execution", None)
    return (json.dumps(notebook, indent=1, ensure_ascii=False) + "\n").encode()


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else "unknown"
