"""A report in one file: the executed notebook without code, its figures, and the runs behind its numbers."""

import base64
import html
import re
from datetime import datetime
from pathlib import Path

import nbformat
import pandas as pd
from nbconvert import HTMLExporter

from covidtf import runs
from covidtf.config import RecipeConfig, TrialConfig
from covidtf.files import DataError, atomic

# Steps whose notebooks show tables and curves alone, no image of a patient.
STEPS = (
    *("06_report", "08_audit", "09_transfer", "10_ablation", "11_audit_trial", "12_recipe"),
    "13_use",
)
NOTICE = "Research software, not a medical device. Nothing here is meant for the care of patients."
_SAVED = re.compile(r"style\.save\(\w+,\s*config\.folder\s*/\s*f?\"(?P<name>[^\"]+)\"")
# The browser itself is told to load nothing.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_STYLE = """
body { font: 15px/1.45 "DejaVu Sans", Verdana, sans-serif; color: #222; max-width: 60rem; margin: 0 auto;
  padding: 1.5rem; }
h1 { font-size: 1.6rem; margin: 0 0 .3rem; } h2 { font-size: 1.2rem; margin: 2rem 0 .4rem; }
h3 { font-size: 1rem; } p { max-width: 46rem; }
.notice { border: 1px solid #D55E00; padding: .5rem .8rem; font-weight: bold; }
table { border-collapse: collapse; font-size: .8rem; margin: .6rem 0; border: 0; }
th, td { border: 0; border-bottom: 1px solid #ccc; padding: .2rem .5rem; text-align: left;
  vertical-align: top; }
thead th { border-bottom: 1px solid #222; }
.output_html, .wide { overflow-x: auto; }
code { font-family: "DejaVu Sans Mono", monospace; font-size: .9em; }
.sources td { overflow-wrap: anywhere; min-width: 2.6rem; }
.sources td:nth-last-child(-n+2) { min-width: 11rem; }
pre { white-space: pre-wrap; font-size: .85rem; }
figure { margin: .8rem 0; break-inside: avoid; } img { max-width: 100%; height: auto; }
figcaption { font-size: .75rem; color: #555; }
@page { size: A4 landscape; margin: 12mm; }
@media print { body { font-size: 9pt; max-width: none; padding: 0; }
  .output_html, .wide { overflow: visible; }
  tr { break-inside: avoid; } thead { display: table-header-group; } h2, h3 { break-after: avoid; } }
"""


def write(config, made: dict) -> Path:
    """Write `report.html` of a step that has just been executed, beside its notebook.

    Args:
        config: Settings of one of `STEPS`; `notebook.ipynb` and the saved figures lie in its folder.
        made: `runs.origin()` from before the notebook ran.
    Returns:
        The file: text, tables and figures in one, which asks no network for anything.
    Raises:
        DataError: Another step, no executed notebook, or a run that is not whole.
    """
    if config.step not in STEPS:
        raise DataError(f"`config` must be of one of {STEPS}. Received: {config.step!r}")
    path = config.folder / "notebook.ipynb"
    if not path.is_file():
        raise DataError(f"{path}: no such notebook; run the step first")
    found = _found(config)
    notebook = nbformat.read(path, as_version=4)
    text = page(notebook, config.folder, _facts(config, made), sources(found), config.smoke)
    with atomic(config.folder / "report.html") as temporary:
        temporary.write_text(text, encoding="utf-8")
    return config.folder / "report.html"


def page(
    notebook: nbformat.NotebookNode, folder: Path, facts: dict[str, str], table: pd.DataFrame, smoke: bool
) -> str:
    """The page.

    Args:
        notebook: Executed.
        folder: Of the figures that it saved: one saved as SVG since the notebook was started takes the place
            of the bitmap in the notebook.
        facts: Name and value of what stands at the top; `Experiment` is one.
        table: Of `sources`.
        smoke: Whether its numbers are of a smoke run, which is said at the top.
    """
    title = notebook.cells[0].source.splitlines()[0].removeprefix("# ")
    exporter = HTMLExporter(
        template_name="basic",
        exclude_input=True,
        exclude_input_prompt=True,
        exclude_output_prompt=True,
        exclude_anchor_links=True,
    )
    body, _ = exporter.from_notebook_node(_shown(notebook, folder))
    # What pandas says of its tables' looks, once per table, is in the page's own style.
    body = re.sub(r"<style scoped.*?</style>", "", body, flags=re.DOTALL)
    smoke_line = '<p class="notice">A smoke run: its numbers mean nothing.</p>' if smoke else ""
    listed = "".join(
        f"<tr><th>{_text(name)}</th><td>{_text(value)}</td></tr>" for name, value in facts.items()
    )
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        f'<meta name="viewport" content="width=device-width">'
        f"<title>{_text(title)}: {_text(facts['Experiment'])}</title><style>{_STYLE}</style></head>\n<body>"
        f'<h1>{_text(title)}: {_text(facts["Experiment"])}</h1>\n<p class="notice">{NOTICE}</p>{smoke_line}'
        f"<table>{listed}</table>\n{_sources_section(table)}\n{body}\n</body></html>\n"
    )


def sources(found: list[runs.Run]) -> pd.DataFrame:
    """One row per run that a report's numbers come from.

    Returns:
        Columns run, network, seed, fold (`-` without folds), data set (step), sources (with their number of
        images), trained (UTC), commit, clean (whether the code was the commit's), predictions and manifest
        (sha256).
    """
    return pd.DataFrame(
        {
            "run": run.folder,
            "network": run.name,
            "seed": run.config["seed"],
            "fold": run.config.get("fold") if run.config.get("folds") else "-",
            "data set": run.config.get("data", Path(run.folder).parts[0]),
            "sources": _counted(run.predictions["source"]),
            "trained": run.provenance["time"],
            "commit": run.provenance["commit"],
            "clean": {False: "yes", True: "no"}.get(run.provenance["dirty"], "cannot be told"),
            **{
                name: run.provenance["sha256"].get(name, "not recorded")
                for name in ("predictions", "manifest")
            },
        }
        for run in found
    )


def _found(config) -> list[runs.Run]:
    """The runs behind a step: those it names, or none where it draws and fits all itself."""
    if isinstance(config, RecipeConfig):
        return [runs.read(path) for path in config.folders(f"{config.before} {config.after}")]
    if isinstance(config, TrialConfig):
        return []
    return runs.find(config.experiment_folder, config.run_ids, folds=True)


def _facts(config, made: dict) -> dict[str, str]:
    state = {False: "", True: ", with changes that are not in it"}.get(made["dirty"], ", changes unknown")
    return {
        "Experiment": config.experiment,
        "Step": f"{config.step}; the executed notebook with its code is notebook.ipynb beside this file",
        "Started": made["time"],
        "Commit": f"{made['commit']}{state}",
        "Command": made["command"],
        "Settings (sha256)": config.digest(),
    }


def _counted(values: pd.Series) -> str:
    return ", ".join(f"{name} ({count})" for name, count in values.value_counts(sort=False).items())


def _sources_section(table: pd.DataFrame) -> str:
    if table.empty:
        return "<h2>Where the numbers come from</h2><p>No run: the notebook makes all that it judges.</p>"
    # Or pandas would cut a sha256 short.
    with pd.option_context("display.max_colwidth", None):
        listed = table.to_html(index=False, border=0, classes="sources")
    return (
        "<h2>Where the numbers come from</h2><p>The numbers below are computed from the predictions of these "
        "runs, apart from what the notebook says that it fits itself, such as a probe. Predictions and "
        "manifest are told by the sha256 of their files; images are counted in val and "
        f'test.</p><div class="wide">{listed}</div>'
    )


def _shown(notebook: nbformat.NotebookNode, folder: Path) -> nbformat.NotebookNode:
    """A copy without progress bars and empty cells, its figures as one block of HTML each."""
    started = notebook.metadata.get("papermill", {}).get("start_time")
    cells = []
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cells.append(cell)
            continue
        outputs = [output for output in cell.get("outputs", []) if output.get("name") != "stderr"]
        pictures = [output for output in outputs if "image/png" in output.get("data", {})]
        saved = _saved(cell.source, folder, started, len(pictures))
        for output, path in zip(pictures, saved, strict=True):
            output["data"] = {"text/html": _figure(output["data"]["image/png"], path)}
        if outputs:
            cells.append(cell | {"outputs": outputs})
    # The page has its own heading.
    first = cells[0] | {"source": "\n".join(cells[0].source.splitlines()[1:])}
    return nbformat.from_dict(notebook | {"cells": [first, *cells[1:]]})


def _saved(source: str, folder: Path, started: str | None, wanted: int) -> list[Path | None]:
    """The files that a cell saved, in their order, or None for each if they cannot be told."""
    if not started:
        return [None] * wanted
    begun = datetime.fromisoformat(started).timestamp()
    found = []
    for match in _SAVED.finditer(source):
        pattern = re.sub(r"\{[^}]*\}", "*", match["name"])
        paths = [path for path in folder.glob(f"{pattern}.svg") if path.stat().st_mtime >= begun]
        found += sorted(paths, key=lambda path: path.stat().st_mtime_ns)
    return found if len(found) == wanted else [None] * wanted


def _figure(bitmap: str, path: Path | None) -> str:
    """As an image of its own, so that the names inside one SVG do not meet those of another."""
    if path is None:
        return f'<figure><img alt="figure" src="data:image/png;base64,{"".join(bitmap.split())}"></figure>'
    data = base64.b64encode(path.read_bytes()).decode()
    return (
        f'<figure><img alt="{_text(path.stem)}" src="data:image/svg+xml;base64,{data}">'
        f"<figcaption>{_text(path.name)}</figcaption></figure>"
    )


def _text(value: object) -> str:
    return html.escape(str(value))
