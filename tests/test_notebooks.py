"""Notebooks: their form, their parameters, and one headless run of each in smoke size."""

import ast
import re
from dataclasses import fields
from itertools import pairwise
from pathlib import Path
from typing import get_args

import nbformat
import pandas as pd
import pytest
import yaml

from covidtf import experiments, reproduce, runs
from covidtf.__main__ import main
from covidtf.audit import checks
from covidtf.config import (
    CONFIGS,
    ROOT,
    AblationConfig,
    AuditConfig,
    RecipeConfig,
    ReportConfig,
    SourceConfig,
    TransferConfig,
    TrialConfig,
    UseConfig,
)
from covidtf.metrics.baselines import BASELINES

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
EXPERIMENTS = sorted((ROOT / "notebooks" / "params").glob("*.yaml"))
PHANTOM, SAMPLE, CT, COVID_CT = (
    ROOT / "notebooks" / "params" / f"{name}.yaml"
    for name in ("phantom-xray", "xray-sample", "phantom-ct", "covid-ct")
)
# In the order of their folders.
NO_NETWORK = [name for _, name in sorted(BASELINES.items())]
by_name = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def code_cells(path: Path) -> list:
    """Code cells of a notebook, in order."""
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


def parameters_cell(path: Path):
    """The one cell tagged `parameters`."""
    (cell,) = [cell for cell in code_cells(path) if "parameters" in cell.metadata.get("tags", [])]
    return cell


def test_every_step_has_its_notebook():
    """The settings classes and the notebooks name the same steps."""
    assert [path.stem for path in NOTEBOOKS] == sorted(CONFIGS)


@by_name
def test_notebook_is_stripped(path):
    """No outputs, no execution counts, no traces of papermill, and valid as the format says."""
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    for cell in notebook.cells:
        assert set(cell.metadata) <= {"tags"}
        assert "injected-parameters" not in cell.metadata.get("tags", [])
        assert cell.cell_type != "code" or (not cell.outputs and cell.execution_count is None)


@by_name
def test_notebook_has_the_agreed_form(path):
    """Head, imports, parameters, settings; text before code; short cells; no definitions or own paths."""
    cells = nbformat.read(path, as_version=4).cells
    number, _ = path.stem.split("_", 1)
    assert cells[0].source.startswith(f"# {number} · ")
    for word in ("Question", "Reads", "Writes", "Makes", "Time"):
        assert f"**{word}.**" in cells[0].source
    assert [cell.cell_type for cell in cells[:4]] == ["markdown", "code", "code", "code"]
    assert "parameters" in cells[2].metadata.get("tags", [])
    assert "Config(" in cells[3].source
    assert 12 <= len(cells) <= 30
    for before, cell in pairwise(cells[3:]):
        assert cell.cell_type != "code" or before.cell_type == "markdown"
    assert any(cell.source.startswith("## Result") for cell in cells)
    assert "version(name)" in cells[-1].source
    for cell in code_cells(path):
        # A deep-supervised run has that many parameters, a line each.
        limit = 30 if "parameters" in cell.metadata.get("tags", []) else 25
        assert len(cell.source.splitlines()) <= limit
        assert not re.search(r"^\s*[!%]|filterwarnings|[\"'](/|~|[A-Z]:\\)", cell.source, re.MULTILINE)
        kinds = (ast.FunctionDef, ast.ClassDef, ast.Lambda)
        assert not any(isinstance(node, kinds) for node in ast.walk(ast.parse(cell.source)))


@by_name
def test_parameters_are_those_of_the_settings(path):
    """Names, types and defaults in the notebook are the dataclass's; every line is commented."""
    source = parameters_cell(path).source
    assert all(re.search(r"  # \S", line) for line in source.splitlines())
    found = {
        node.target.id: (node.annotation.id, ast.literal_eval(node.value)) for node in ast.parse(source).body
    }
    kinds = {
        item.name: type(get_args(item.type)[0]) if get_args(item.type) else item.type
        for item in fields(CONFIGS[path.stem])
    }
    wanted = {item.name: (kinds[item.name].__name__, item.default) for item in fields(CONFIGS[path.stem])}
    assert found == wanted


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_experiments_can_be_planned(path):
    """Every experiment file has known steps and parameters and its name; a target task ends in a report."""
    configs = experiments.plan(path, {})
    assert configs[-1].experiment == path.stem
    last = (
        ReportConfig | TransferConfig | AblationConfig | AuditConfig | TrialConfig | RecipeConfig | UseConfig
    )
    assert isinstance(configs[-1], last) or isinstance(configs[0], SourceConfig)


@pytest.fixture(scope="module")
def smoke_run(tmp_path_factory):
    """The phantom experiment in smoke size, run once through papermill for all tests below."""
    out = tmp_path_factory.mktemp("out")
    assert main(["reproduce", str(PHANTOM), "-p", "smoke", "true", "--out", str(out)]) == 0
    return out


def test_smoke_run_makes_every_table_and_figure(smoke_run):
    """Each notebook ran to its end, and the report holds a row per run and its figures in three formats."""
    folder = smoke_run / "smoke" / "phantom-xray"
    found = runs.find(folder)
    assert [run.name for run in found] == ["ResNet18", "SqueezeNet 1.0", *NO_NETWORK]
    for step in [path.parent for path in folder.rglob("step.json")]:
        assert (step / "notebook.ipynb").is_file()
    assert len(list(folder.rglob("step.json"))) == 6
    for name in ("roc", "precision_recall", "confusion", "thresholds", "auroc"):
        for ending in ("svg", "pdf", "png"):
            assert (folder / "06_report" / f"{name}.{ending}").stat().st_size > 0


def test_what_scores_are_worth_in_a_smoke_run(smoke_run):
    """Every table has rows of all networks, every figure three formats, and the report says it is smoke."""
    folder = smoke_run / "smoke" / "phantom-xray" / "13_use"
    for name in ("areas", "operating_points", "predictive_values", "calibration"):
        table = pd.read_csv(folder / f"{name}.csv")
        assert set(table["network"]) == {"ResNet18", "SqueezeNet 1.0", *NO_NETWORK}, name
    differences = pd.read_csv(folder / "differences.csv")
    assert differences["kind"].tolist() == ["over the best baseline"] * 2 + ["between networks"]
    for name in ("decision_curves", "subgroups"):
        networks = pd.read_csv(folder / f"{name}.csv").query("not baseline")["network"]
        assert set(networks) == {"ResNet18", "SqueezeNet 1.0"}, name
    figures = ("areas", "differences", "reliability", "decision_curves")
    for name in (*(f"{figure}_split" for figure in figures), "subgroups_split-ResNet18"):
        assert all((folder / f"{name}.{ending}").stat().st_size > 0 for ending in ("svg", "pdf", "png"))
    text = (folder / "report.html").read_text()
    assert "A smoke run" in text and "split, judged on test:" in text


def test_executed_notebooks_hold_no_noise(smoke_run):
    """What libraries log at their start does not land in notebooks: only progress bars and our own word."""
    for path in (smoke_run / "smoke" / "phantom-xray").rglob("notebook.ipynb"):
        for cell in code_cells(path):
            for output in cell.outputs:
                if output.get("name") == "stderr":
                    lines = [line for line in output.text.splitlines() if line.strip()]
                    assert all("|" in line or line.endswith("the head is new") for line in lines)


def test_finished_experiment_is_skipped_and_smoke_is_never_published(
    smoke_run, capsys, monkeypatch, tmp_path
):
    """A second call runs no notebook and prints the same table; publishing smoke runs is refused."""
    arguments = ["reproduce", str(PHANTOM), "-p", "smoke", "true"]
    assert main([*arguments, "--out", str(smoke_run)]) == 0
    printed = capsys.readouterr().out
    assert printed.count("nothing changed, skipped") == 6
    assert "| ResNet18 |" in printed
    monkeypatch.setattr("covidtf.config.ROOT", tmp_path)
    assert main(["publish", str(smoke_run / "smoke" / "phantom-xray")]) == 1
    assert "smoke run is never published" in capsys.readouterr().err
    assert not (tmp_path / "results").exists()


def test_ct_phantoms_in_smoke_size(tmp_path):
    """From DICOM studies to the ablation: every notebook of the CT system ends, and nothing was lost."""
    assert main(["reproduce", str(CT), "-p", "smoke", "true", "--out", str(tmp_path)]) == 0
    folder = tmp_path / "smoke" / "phantom-ct"
    found = runs.find(folder)
    assert [run.name for run in found] == ["ResNet18", "ResNet18", *NO_NETWORK]
    studies = pd.read_csv(folder / "02_ct_dataset" / "prepared" / "studies.csv")
    assert (studies["state"] == "prepared").all() and len(studies) == 12
    assert (studies["chosen"] == 6).all()
    table = pd.read_csv(folder / "10_ablation" / "ablation.csv")
    assert set(table["method"]) == {"cross-entropy", "full", *NO_NETWORK}
    assert set(table["split"]) == {"test"}
    for name in ("confusion", "roc", "history"):
        assert len(list(folder.glob(f"ResNet18-*/{name}.svg"))) == 2
    assert len(list(folder.glob("ResNet18-*/head_weights.svg"))) == 1
    shares = pd.read_csv(folder / "07_heat_maps" / "evidence.csv")
    assert set(shares["network"]) == {"ResNet18, cross-entropy", "ResNet18, full"}
    counts = pd.read_csv(folder / "10_ablation" / "confusion.csv")
    rows = found[0].predictions
    assert (
        counts.groupby(["level", "method"])["count"].sum()["slice"].eq((rows["split"] == "test").sum()).all()
    )


def test_real_slices_in_smoke_size(real_data, tmp_path):
    """COVID-CT passes through: no test split, so val is judged, and a fold of a cross-validation."""
    experiment = yaml.safe_load(COVID_CT.read_text())
    data, network = (
        next(step for step in experiment["steps"] if name in step)
        for name in ("02_ct_dataset", "05_deep_supervision")
    )
    own = {"network": "SqueezeNet1_0", "weights": "tiny-imagenet", "seed": 0}
    plain = network["05_deep_supervision"] | own
    fold = {"05_deep_supervision": plain | {"folds": 5, "fold": 1}}
    experiment["steps"] = [data, {"05_deep_supervision": plain}, fold]
    path = tmp_path / "covid-ct.yaml"
    path.write_text(yaml.safe_dump(experiment))
    overrides = {"smoke": "true", "data_folder": str(real_data), "size": "64"}
    reproduce.run(path, overrides, str(tmp_path / "out"))
    found = runs.find(tmp_path / "out" / "smoke" / "covid-ct", folds=True)
    judged = {run.config["folds"]: set(run.predictions["split"]) for run in found if "loss" in run.config}
    assert judged == {0: {"val"}, 5: {"val", "test"}}
    assert sum("baseline" in run.config for run in found) == 6 * len(NO_NETWORK)


def test_real_sample_in_smoke_size(real_data, tmp_path):
    """The real X-rays pass through every notebook: sources, split, augmentation, training, report."""
    experiment = yaml.safe_load(SAMPLE.read_text())
    networks = [step for step in experiment["steps"] if "04_transfer_learning" in step]
    experiment["steps"].remove(networks[0])
    path = tmp_path / "xray-sample.yaml"
    path.write_text(yaml.safe_dump(experiment))
    overrides = {"smoke": "true", "data_folder": str(real_data)}
    reproduce.run(path, overrides, str(tmp_path / "out"))
    found = runs.find(tmp_path / "out" / "smoke" / "xray-sample")
    assert [run.name for run in found] == ["SqueezeNet 1.0", *NO_NETWORK]
    sources = set(found[0].predictions["source"])
    assert sources == {"covid-chestxray-dataset", "ChestX-ray14"}


def test_audit_of_a_smoke_run_does_every_check(smoke_run, capsys):
    """The command runs what is missing, the audit, and prints a verdict on each check."""
    status = main(["audit", str(PHANTOM), "-p", "smoke", "true", "--out", str(smoke_run)])
    printed, folder = capsys.readouterr().out, smoke_run / "smoke" / "phantom-xray" / "08_audit"
    verdicts = checks.read(folder / "checks.csv")
    assert status == (4 if "failed" in set(verdicts["verdict"]) else 0)
    assert printed.count("nothing changed, skipped") == 6
    assert checks.words(verdicts) in printed
    assert set(verdicts["check"]) == set(checks.CHECKS) and "not done" not in set(verdicts["reason"])
    for name in ("leaks", "baselines", "controls", "sources", "robustness", "runs", "thresholds"):
        assert len(pd.read_csv(folder / f"{name}.csv")) > 0
    for name in ("verdicts", "controls"):
        assert all((folder / f"{name}.{ending}").stat().st_size > 0 for ending in ("svg", "pdf", "png"))


def further(folder, steps):
    """An experiment file of these steps."""
    path = folder / "further.yaml"
    path.write_text(yaml.safe_dump({"experiment": "phantom-xray", "steps": steps}))
    return str(path)


def test_data_are_audited_before_any_network_is_trained(tmp_path):
    """What is asked of networks cannot be told, which says so; what is asked of data is answered."""
    path, folder = further(tmp_path, ["01_xray_dataset"]), tmp_path / "smoke" / "phantom-xray"
    assert main(["audit", path, "-p", "smoke", "true", "--out", str(tmp_path)]) in (0, 4)
    verdicts = checks.read(folder / "08_audit" / "checks.csv")
    assert set(verdicts["check"]) == set(checks.CHECKS) and set(verdicts["subject"]) == {"data"}
    untold = verdicts[verdicts["reason"] == "no network is audited"]
    wanted = {
        "robustness",
        "gain over the best baseline",
        "loss to equalised",
        "within source",
        "external source",
    }
    assert wanted <= set(untold["check"]) and "not done" not in set(verdicts["reason"])
    told = verdicts.set_index("check").loc[["patient", "border strip", "burned-in marks"], "value"]
    assert told.notna().all() and not (folder / "06_report").exists()


def test_heat_maps_of_a_smoke_run_have_numbers_and_examples(smoke_run, tmp_path):
    """Both methods on every network; examples as pictures, which stay in the run folder."""
    path = further(tmp_path, ["07_heat_maps"])
    assert main(["reproduce", path, "-p", "smoke", "true", "--out", str(smoke_run)]) == 0
    folder = smoke_run / "smoke" / "phantom-xray" / "07_heat_maps"
    table = pd.read_csv(folder / "evidence.csv")
    assert set(table["network"]) == {"ResNet18", "SqueezeNet 1.0"}
    assert set(table["method"]) == {"Grad-CAM", "occlusion"} and (table["area"].dropna() < 0.6).all()
    assert sorted(path.name for path in folder.glob("examples_*.png")) == [
        "examples_ResNet18.png",
        "examples_SqueezeNet-1.0.png",
    ]


def test_a_recipe_in_smoke_size_is_held_against_the_images_as_stored(smoke_run, tmp_path):
    """Two ways to prepare the phantoms, each with two balances; the first has no gain."""
    ways = [{"as": "plain"}, {"as": "both", "experiment": "cut", "crop": "lungs", "grey": "equalised"}]
    steps = [{"01_xray_dataset": {"dataset": "phantom"} | way} for way in ways]
    path = further(tmp_path, [*steps, {"12_recipe": {"data": "$plain $both"}}])
    assert main(["reproduce", path, "-p", "smoke", "true", "--out", str(smoke_run)]) == 0
    folder = smoke_run / "smoke" / "phantom-xray" / "12_recipe"
    table = pd.read_csv(folder / "probe.csv")
    assert list(dict.fromkeys(table["variant"])) == [
        "as stored",
        "as stored, sources balanced",
        "lungs, equalised",
        "lungs, equalised, sources balanced",
    ]
    gains = table[table["measure"] == "all sources"].set_index("variant")["gain"]
    assert gains.isna().sum() == 1 and pd.isna(gains["as stored"])
    assert pd.read_csv(folder / "networks.csv").empty
    assert (folder / "probe.svg").stat().st_size > 0


def test_the_audits_trial_in_smoke_size(tmp_path):
    """One seed without a shortcut and one with a border, which must be told."""
    path = str(ROOT / "notebooks" / "params" / "audit-trial.yaml")
    assert main(["reproduce", path, "-p", "smoke", "true", "--out", str(tmp_path)]) == 0
    folder = tmp_path / "smoke" / "audit-trial" / "11_audit_trial"
    rates = pd.read_csv(folder / "rates.csv")
    assert set(rates["condition"]) == {"clean", "border"} and (rates["seeds"] == 1).all()
    assert (folder / "failures.svg").stat().st_size > 0


def test_command_is_recorded_without_private_paths(smoke_run):
    """The provenance tells how to run it again and names no folder of the user's."""
    record = runs.find(smoke_run / "smoke" / "phantom-xray")[0].provenance
    assert record["started_from"] == {"weights": "none", "head": "new"}
    assert record["command"].startswith("python -m covidtf reproduce notebooks/params/phantom-xray.yaml")
    assert str(smoke_run) not in str(record)
