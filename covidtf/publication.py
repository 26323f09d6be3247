"""Publication: from a working folder to results/, and never an image, weights or a smoke run."""

import json
import shutil
from pathlib import Path

import pandas as pd

from covidtf import runs
from covidtf.config import ROOT
from covidtf.files import DataError

PUBLISHED = {".csv", ".json", ".svg"}


def publish(experiment_folder: Path, results: Path) -> list[Path]:
    """Copy from a working folder to `results/` what may be committed: tables, curves, records, numbers.

    No weights, no prepared arrays, and nothing that shows an image: manifests and executed notebooks of the
    data steps stay behind, of the others notebooks go along. Runs that the report does not list stay behind
    too. What was in the target before is replaced once the new files are whole.

    Args:
        experiment_folder: `<out>/<experiment>`.
        results: Folder for the experiment's published files.
    Returns:
        The files written.
    Raises:
        DataError: No report, an incomplete run, a smoke run, or a file that names a folder of this machine.
    """
    table = experiment_folder / "06_report" / "results.csv"
    if not table.is_file():
        raise DataError(f"{experiment_folder}: nothing to publish, 06_report/results.csv is missing")
    reported = {run.run_id for run in runs.find(experiment_folder, " ".join(_folders(table)))}
    private = {str(ROOT), str(Path.home()), str(experiment_folder.resolve().parent)} - {"/"}
    # All is read and checked before anything that is published changes.
    contents = {
        path.relative_to(experiment_folder): _content(path, private)
        for path in sorted(experiment_folder.rglob("*"))
        if path.is_file() and _publishable(path.relative_to(experiment_folder).parts, reported)
    }
    _replace(results, contents)
    return [results / path for path in contents]


def _replace(results: Path, contents: dict[Path, str]) -> None:
    staged, former = (results.with_name(f".{results.name}.{word}") for word in ("partial", "former"))
    for left in (staged, former):
        shutil.rmtree(left, ignore_errors=True)
    for path, text in contents.items():
        (staged / path).parent.mkdir(parents=True, exist_ok=True)
        (staged / path).write_text(text, encoding="utf-8")
    if results.exists():
        results.rename(former)
    staged.rename(results)
    shutil.rmtree(former, ignore_errors=True)


def _folders(table: Path) -> list[str]:
    """Folders of the runs in a results table, below the experiment's."""
    return pd.read_csv(table)["folder"].tolist()


def _publishable(parts: tuple[str, ...], reported: set[str]) -> bool:
    """Whether a file is a table, record or curve; the folders' names decide what may show images."""
    step, ending = parts[0], Path(parts[-1]).suffix
    if parts[-1].startswith(".") or parts[-1] == "step.json":
        return False
    if step in ("01_xray_dataset", "03_augmentation"):
        return len(parts) == 3 and parts[1] in {"tables", *reported} and ending in PUBLISHED
    wanted = step == "06_report" or step in reported
    return wanted and len(parts) == 2 and (ending in PUBLISHED or parts[-1] == "notebook.ipynb")


def _content(path: Path, private: set[str]) -> str:
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        text = _without_papermill(json.loads(text))
    for folder in private:
        if folder in text:
            raise DataError(f"{path}: names a folder of this machine ({folder}); rerun with relative paths")
    if path.name == "provenance.json" and json.loads(text)["smoke"]:
        raise DataError(f"{path}: a smoke run is never published")
    return text


def _without_papermill(notebook: dict) -> str:
    """Papermill notes where it read and wrote, which is nobody's business."""
    for part in (notebook, *notebook["cells"]):
        for name in ("papermill", "execution"):
            part["metadata"].pop(name, None)
    return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"
