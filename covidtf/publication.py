"""Publication: from a working folder to results/, and never an image of a patient, weights or a smoke run."""

import json
import shutil
from pathlib import Path

import pandas as pd

from covidtf import html, runs
from covidtf.config import ROOT
from covidtf.files import DataError
from covidtf.sources.metadata import PHANTOM

PUBLISHED = {".csv", ".json", ".svg"}
_DATA_STEPS = ("00_source_task", "01_xray_dataset", "02_ct_dataset", "03_augmentation")
_COMPARISONS = ("09_transfer", "10_ablation")
_AUDIT, _BASELINE = "08_audit", "baseline-"
_TRIAL = "11_audit_trial"
_MAPS = "07_heat_maps"


def publish(experiment_folder: Path, results: Path) -> list[Path]:
    """Copy from a working folder to `results/` what may be committed: tables, curves, records, numbers.

    No weights, no prepared arrays, and nothing that shows an image: manifests and executed notebooks of the
    data steps stay behind, of the others notebooks go along. Heat maps are shown of phantoms alone: where any
    image is of another source, the step's notebook and its examples stay behind. Runs that the report does
    not list stay behind too; of a comparison by notebook 09 or 10 its tables alone are published, which hold
    every run's scores and record; of an audit of baselines alone these; of source tasks the runs without
    their predictions, whose columns are hundreds of classes.
    What was in the target before is replaced once the new files are whole.

    Args:
        experiment_folder: `<out>/<experiment>`.
        results: Folder for the experiment's published files.
    Returns:
        The files written.
    Raises:
        DataError: No report, an incomplete run, a smoke run, or a file that names a folder of this machine.
    """
    reported, tasks = _runs(experiment_folder)
    pictures = phantom_pictures(experiment_folder)
    private = {str(ROOT), str(Path.home()), str(experiment_folder.resolve().parent)} - {"/"}
    # All is read and checked before anything that is published changes.
    contents = {
        path.relative_to(experiment_folder): _content(path, private)
        for path in sorted(experiment_folder.rglob("*"))
        if path.is_file()
        and _publishable(path.relative_to(experiment_folder).parts, reported, tasks, pictures)
    }
    _replace(results, contents)
    return [results / path for path in contents]


def phantom_pictures(experiment_folder: Path) -> set[str]:
    """Names of the files of notebook 07 that show images, if all that they can show are phantoms; or none.

    The images' source decides, in every row of the data steps' manifests, of the runs' predictions and of the
    notebook's own tables; a table that is absent, or a notebook that did not end, is no permission.
    """
    folder = experiment_folder / _MAPS
    examples, shares = folder / "examples.csv", folder / "evidence_images.csv"
    manifests = [experiment_folder / step / "manifest.csv" for step in _DATA_STEPS]
    manifests = [path for path in manifests if path.parent.is_dir()]
    wanted = [examples, shares, folder / "step.json", *manifests]
    if not manifests or not all(path.is_file() for path in wanted):
        return set()
    tables = [examples, shares, *manifests, *experiment_folder.glob("*/predictions.csv")]
    sources = {source for path in tables for source in _column(path, "source")}
    if sources != {PHANTOM}:
        return set()
    # Figures of earlier calls of the notebook may still be there.
    return {"notebook.ipynb"} | {f"examples_{runs.slug(name)}.png" for name in _column(examples, "network")}


def _column(path: Path, name: str) -> list[str]:
    return pd.read_csv(path, dtype=str, keep_default_na=False)[name].tolist()


def _replace(results: Path, contents: dict[Path, bytes]) -> None:
    staged, former = (results.with_name(f".{results.name}.{word}") for word in ("partial", "former"))
    for left in (staged, former):
        shutil.rmtree(left, ignore_errors=True)
    for path, content in contents.items():
        (staged / path).parent.mkdir(parents=True, exist_ok=True)
        (staged / path).write_bytes(content)
    if results.exists():
        results.rename(former)
    staged.rename(results)
    shutil.rmtree(former, ignore_errors=True)


def _runs(experiment_folder: Path) -> tuple[set[str], set[str]]:
    """Names of the runs to publish: those of the report, and those of source tasks."""
    table = experiment_folder / "06_report" / "results.csv"
    if table.is_file():
        # Folders below the experiment's.
        folders = " ".join(pd.read_csv(table)["folder"])
        return {run.run_id for run in runs.find(experiment_folder, folders)}, set()
    if any((experiment_folder / step / "runs.csv").is_file() for step in _COMPARISONS):
        return set(), set()
    if (experiment_folder / _TRIAL / "trial.csv").is_file():
        return set(), set()
    audited = experiment_folder / _AUDIT / "runs.csv"
    if audited.is_file() and all((names := pd.read_csv(audited)["run_id"]).str.startswith(_BASELINE)):
        return set(names), set()
    tasks = {path.parent.name for path in experiment_folder.glob("*/provenance.json")}
    if not tasks or not (experiment_folder / "00_source_task").is_dir():
        raise DataError(f"{experiment_folder}: nothing to publish, 06_report/results.csv is missing")
    return set(), tasks


def _publishable(parts: tuple[str, ...], reported: set[str], tasks: set[str], pictures: set[str]) -> bool:
    """Whether a file is a table, record or curve; the folders' names decide what may show images."""
    step, ending = parts[0], Path(parts[-1]).suffix
    if parts[-1].startswith(".") or parts[-1] == "step.json":
        return False
    if step in _DATA_STEPS:
        return len(parts) == 3 and parts[1] in {"tables", *reported} and ending in PUBLISHED
    if step == _MAPS:
        # Of real images nothing is a picture but this figure.
        return len(parts) == 2 and (ending == ".csv" or parts[-1] in {"evidence.svg", *pictures})
    if step in tasks and parts[-1] == "predictions.csv":
        return False
    wanted = step in {*html.STEPS, *reported, *tasks}
    page = parts[-1] == "notebook.ipynb" or (parts[-1] == "report.html" and step in html.STEPS)
    return wanted and len(parts) == 2 and (ending in PUBLISHED or page)


def _content(path: Path, private: set[str]) -> bytes:
    if path.suffix == ".png":
        content, text = path.read_bytes(), ""
    else:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".ipynb":
            text = _without_papermill(json.loads(text))
        content = text.encode()
    for folder in private:
        if folder.encode() in content:
            raise DataError(f"{path}: names a folder of this machine ({folder}); rerun with relative paths")
    if _is_smoke(path, text):
        raise DataError(f"{path}: a smoke run is never published")
    return content


def _is_smoke(path: Path, text: str) -> bool:
    if path.name in ("provenance.json", "trial.json"):
        return json.loads(text)["smoke"]
    return path.name == "runs.csv" and bool(pd.read_csv(path)["smoke"].any())


def _without_papermill(notebook: dict) -> str:
    """Papermill notes where it read and wrote, which is nobody's business."""
    for part in (notebook, *notebook["cells"]):
        for name in ("papermill", "execution"):
            part["metadata"].pop(name, None)
    for cell in notebook["cells"]:
        # Injected parameters end in an empty line, which the linter would not let pass.
        cell["source"] = "".join(cell["source"]).rstrip()
    return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"
