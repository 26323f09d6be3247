"""Run folders: complete or refused, and only what may be public is published."""

import json
import shutil
from dataclasses import replace

import pandas as pd
import pytest

from covidtf import files, predictions, publication, runs
from covidtf.config import ROOT, TrainConfig
from covidtf.files import DataError, write_csv


@pytest.fixture
def experiment(tmp_path):
    """An experiment folder with one complete run, an image array, weights and an executed data notebook."""
    config = TrainConfig(out=str(tmp_path), epochs=1)
    folder = config.folder
    table = pd.DataFrame({"image_id": ["a/1", "a/2"], "patient_id": ["a:007", "a:8"], "label": ["x", "y"]})
    table = table.assign(case_id="", source="a", view="PA", finding="", split="test")
    table = table.assign(score_x=[0.75, 0.25], score_y=[0.25, 0.75])
    predictions.write(table, folder / "predictions.csv")
    (folder / "best.weights.h5").write_bytes(b"weights")
    (folder / "roc.png").write_bytes(b"png")
    (folder / "roc.svg").write_text("<svg/>")
    (folder / "architecture.svg").write_text("<svg/>")
    (folder / "report.html").write_text("of no report step")
    inputs = {"predictions": folder / "predictions.csv"}
    runs.write(config, folder, runs.provenance(config, inputs, 1.0, device="cpu"))
    report = pd.DataFrame({"folder": [config.run_id]})
    write_csv(report, config.experiment_folder / "06_report" / "results.csv")
    (config.experiment_folder / "06_report" / "report.html").write_text("<p>tables and curves</p>")
    tables = config.experiment_folder / "01_xray_dataset" / "tables"
    write_csv(pd.DataFrame({"n": [2]}), tables / "counts.csv")
    (tables.parent / "notebook.ipynb").write_text("{}")
    (tables.parent / "manifest.csv").write_text("image_id\n")
    return config.experiment_folder


def test_read_gives_back_what_was_written(experiment):
    """Settings and predictions survive; numbers that are names stay text."""
    (run,) = runs.find(experiment)
    assert run.name == "ResNet18"
    assert run.config["epochs"] == 1
    assert "out" not in run.config
    assert run.predictions["patient_id"].tolist() == ["a:007", "a:8"]


def test_altered_predictions_are_refused(experiment):
    """Predictions that are not those of the record are an error that names the file."""
    (run,) = runs.find(experiment)
    with (experiment / run.run_id / "predictions.csv").open("a") as file:
        file.write("a/3,,x\n")
    with pytest.raises(DataError, match=r"predictions\.csv: sha256 must be"):
        runs.find(experiment)


def test_absent_runs_are_an_error(experiment, tmp_path):
    """Neither a named run that is absent nor an empty folder passes for a result."""
    with pytest.raises(DataError, match="not a complete run"):
        runs.find(experiment, "ResNet18-absent")
    with pytest.raises(DataError, match="no complete run"):
        runs.find(tmp_path / "empty")


def test_publish_leaves_images_and_weights_behind(experiment, tmp_path):
    """Tables, records and curves go to results/; weights, bitmaps, manifests and data notebooks do not."""
    target = tmp_path / "results" / "phantom-xray"
    published = {str(path.relative_to(target)) for path in publication.publish(experiment, target)}
    run_id = TrainConfig(epochs=1).run_id
    wanted = {f"{run_id}/{name}" for name in ("config.json", "provenance.json", "predictions.csv", "roc.svg")}
    wanted |= {f"{run_id}/architecture.svg", "06_report/results.csv", "06_report/report.html"}
    assert published == wanted | {"01_xray_dataset/tables/counts.csv"}


def test_publish_leaves_runs_behind_that_the_report_does_not_list(experiment, tmp_path):
    """What earlier settings left in the working folder is not published."""
    (run,) = runs.find(experiment)
    shutil.copytree(experiment / run.run_id, experiment / "stale")
    published = publication.publish(experiment, tmp_path / "results")
    assert not [path for path in published if "stale" in path.parts]


@pytest.mark.parametrize("lost", ["06_report/results.csv", "predictions.csv"])
def test_publish_of_something_incomplete_keeps_what_was_published(experiment, tmp_path, lost):
    """A wrong folder, or a run that is not whole, is an error, and what was published stays."""
    (run,) = runs.find(experiment)
    target = tmp_path / "results" / "phantom-xray"
    before = publication.publish(experiment, target)
    (experiment / (lost if "/" in lost else f"{run.run_id}/{lost}")).unlink()
    with pytest.raises(DataError, match="missing"):
        publication.publish(experiment, target)
    assert all(path.is_file() for path in before)


def test_runs_are_called_by_what_tells_them_apart(experiment):
    """The network alone, with the seed where a network repeats, and with the run id's end where both do."""
    (run,) = runs.find(experiment)
    other = replace(run, config=run.config | {"seed": 1})
    again = replace(run, run_id="ResNet18-seed0-abc")
    assert runs.names([run]) == ["ResNet18"]
    assert runs.names([run, other]) == ["ResNet18, seed 0", "ResNet18, seed 1"]
    end = run.run_id.rpartition("-")[2]
    assert runs.names([run, again]) == [f"ResNet18, seed 0, {end}", "ResNet18, seed 0, abc"]


def test_runs_on_other_images_are_not_compared(experiment):
    """Two runs whose test images differ are refused together."""
    (run,) = runs.find(experiment)
    folder = experiment / "other"
    shutil.copytree(experiment / run.run_id, folder)
    predictions.write(run.predictions.iloc[:1], folder / "predictions.csv")
    record = json.loads((folder / "provenance.json").read_text())
    record["sha256"]["predictions"] = files.sha256(folder / "predictions.csv")
    (folder / "provenance.json").write_text(json.dumps(record))
    with pytest.raises(DataError, match="scored other images"):
        runs.find(experiment)


@pytest.mark.parametrize("change", ["smoke", "path"])
def test_publish_refuses_smoke_runs_and_private_paths(experiment, tmp_path, change):
    """What is in results/ before a refused publication stays as it was."""
    target = tmp_path / "results" / "phantom-xray"
    publication.publish(experiment, target)
    before = sorted(path.name for path in target.rglob("*"))
    record = next(experiment.glob("*/provenance.json"))
    value = json.loads(record.read_text())
    value.update({"smoke": True} if change == "smoke" else {"command": f"{ROOT}/x"})
    record.write_text(json.dumps(value))
    with pytest.raises(DataError, match="smoke run" if change == "smoke" else "folder of this machine"):
        publication.publish(experiment, target)
    assert sorted(path.name for path in target.rglob("*")) == before


def test_publish_of_source_tasks_leaves_their_predictions_behind(experiment, tmp_path):
    """Without a report, runs on a source task are published as records and curves; without one, nothing."""
    shutil.rmtree(experiment / "06_report")
    with pytest.raises(DataError, match="nothing to publish"):
        publication.publish(experiment, tmp_path / "results")
    (experiment / "00_source_task" / "tables").mkdir(parents=True)
    (experiment / "00_source_task" / "tables" / "counts.csv").write_text("a\n")
    (experiment / "00_source_task" / "manifest.csv").write_text("a\n")
    published = publication.publish(experiment, tmp_path / "results")
    names = {str(path.relative_to(tmp_path / "results")) for path in published}
    (run,) = {name.split("/")[0] for name in names if name.endswith("provenance.json")}
    assert {"00_source_task/tables/counts.csv", f"{run}/config.json"} <= names
    assert not [name for name in names if name.endswith(("predictions.csv", "manifest.csv", ".h5", ".npy"))]


@pytest.mark.parametrize("smoke", [False, True])
def test_publish_of_a_comparison_takes_its_tables_alone(experiment, tmp_path, smoke):
    """Of notebook 09 the tables and figures are published, no run folder; never of smoke runs."""
    (experiment / "06_report").rename(experiment / "09_transfer")
    (experiment / "09_transfer" / "runs.csv").write_text(f"run_id,smoke\na,{smoke}\n")
    if smoke:
        with pytest.raises(DataError, match="smoke run"):
            publication.publish(experiment, tmp_path / "results")
        return
    published = publication.publish(experiment, tmp_path / "results")
    steps = {path.relative_to(tmp_path / "results").parts[0] for path in published}
    assert steps <= {"09_transfer", "01_xray_dataset", "03_augmentation"}
    assert tmp_path / "results" / "09_transfer" / "runs.csv" in published


@pytest.mark.parametrize("smoke", [False, True])
def test_publish_of_an_ablation_takes_its_tables_and_those_of_the_slices(experiment, tmp_path, smoke):
    """Of notebook 10 and of the CT data set's tables; no run, baseline, manifest or picture of slices."""
    shutil.rmtree(experiment / "06_report")
    shutil.rmtree(experiment / "01_xray_dataset")
    for path in (
        "10_ablation/ablation.csv",
        "02_ct_dataset/tables/classes.csv",
        "02_ct_dataset/manifest.csv",
    ):
        write_csv(pd.DataFrame({"n": [2]}), experiment / path)
    (experiment / "02_ct_dataset" / "tables" / "slices_per_case.svg").write_text("<svg/>")
    for path in (
        "02_ct_dataset/samples.png",
        "02_ct_dataset/tables/slices_per_case.png",
        "10_ablation/a.png",
    ):
        (experiment / path).write_bytes(b"png")
    (run,) = runs.find(experiment)
    shutil.copytree(experiment / run.run_id, experiment / "02_ct_dataset" / "baseline-mean-std")
    notebook = {"cells": [{"metadata": {}, "source": "x\n"}], "metadata": {"papermill": {}}}
    for step in ("02_ct_dataset", "10_ablation"):
        (experiment / step / "notebook.ipynb").write_text(json.dumps(notebook))
    (experiment / "10_ablation" / "runs.csv").write_text(f"run_id,smoke\na,{smoke}\n")
    if smoke:
        with pytest.raises(DataError, match="smoke run"):
            publication.publish(experiment, tmp_path / "results")
        return
    published = publication.publish(experiment, tmp_path / "results")
    assert {str(path.relative_to(tmp_path / "results")) for path in published} == {
        *(f"10_ablation/{name}" for name in ("ablation.csv", "runs.csv", "notebook.ipynb")),
        *(f"02_ct_dataset/tables/{name}" for name in ("classes.csv", "slices_per_case.svg")),
    }
