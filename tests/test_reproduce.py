"""The runner: refuses before it starts, skips what has not changed, goes on after a crash."""

import os

import nbformat
import pytest
import yaml

from covidtf import experiments, files, reproduce
from covidtf.__main__ import main
from covidtf.files import DataError
from covidtf.metrics.baselines import BASELINES

EXPERIMENT = {
    "experiment": "tiny",
    "parameters": {"seed": 3},
    "steps": [
        {"01_xray_dataset": {"patients": 30}},
        {"03_augmentation": {"factor": 2}},
        {"04_transfer_learning": {"network": "ResNet18", "epochs": 2}},
        {"04_transfer_learning": {"network": "SqueezeNet1_0", "epochs": 2}},
        "06_report",
    ],
}


@pytest.fixture
def params(tmp_path):
    """A valid experiment file."""
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(EXPERIMENT))
    return path


def test_plan_merges_parameters_in_order(params):
    """The command line wins, each step takes what it knows, the report reads this plan's runs."""
    data, augment, first, second, report = experiments.plan(params, {"epochs": "5"}, out="elsewhere")
    assert (data.seed, data.patients, augment.factor) == (3, 30, 2)
    assert (first.epochs, second.epochs) == (5, 5)
    assert {step.out for step in (data, augment, first, second, report)} == {"elsewhere"}
    baselines = [f"01_xray_dataset/baseline-{slug}" for slug in BASELINES]
    assert report.run_ids.split() == [first.run_id, second.run_id, *baselines]


def test_lists_make_a_step_of_each_value_and_names_stand_for_folders(tmp_path):
    """Two lists of values give every combination, and `$name` the run folder of the step called so."""
    steps = [
        {"04_transfer_learning": {"network": "SqueezeNet1_0", "epochs": 2, "as": "first"}},
        {"04_transfer_learning": {"network": "SqueezeNet1_0", "weights": "$first", "seed": [0, 1, 2],
                                  "epochs": 4, "head_epochs": [0, 4]}},
        "09_transfer",
    ]  # fmt: skip
    path = tmp_path / "grid.yaml"
    path.write_text(yaml.safe_dump({"experiment": "grid", "steps": steps}, sort_keys=False))
    first, *others, transfer = experiments.plan(path, {})
    assert [(run.seed, run.head_epochs) for run in others] == [(s, h) for s in (0, 1, 2) for h in (0, 4)]
    assert {run.weights for run in others} == {f"runs/grid/{first.run_id}"}
    assert transfer.run_ids.split() == [run.run_id for run in (first, *others)]
    path.write_text(path.read_text().replace("$first", "$last"))
    with pytest.raises(DataError, match=r"no earlier step is called 'last'. Known are \['first'\]"):
        experiments.plan(path, {})


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"epoch": "5"}, "no step has parameters .'epoch'.. Did you mean .'epochs'.. Known are "),
        ({"epochs": "many"}, "`epochs` must be int. Received: 'many'"),
        ({"smoke": "'false'"}, "`smoke` must be bool"),
        ({"weights": "{"}, "`weights` cannot be read as YAML"),
        ({"weights": "runs/absent/run"}, "`weights`: runs/absent/run is not the folder of a finished run"),
    ],
)
def test_wrong_parameters_stop_before_anything_starts(params, overrides, message, tmp_path):
    """A misspelt or wrongly typed parameter is an error, and no folder has been made."""
    with pytest.raises(ValueError, match=message):
        reproduce.run(params, overrides, str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_command_line_false_is_false(params):
    """`-p smoke false` gives the boolean, not papermill's truthy string."""
    assert experiments.plan(params, {"smoke": "false"})[0].smoke is False


def test_floats_and_the_experiment_can_be_given_as_people_write_them(params):
    """`-p learning_rate 1e-4`, which YAML takes for text, is a number; the experiment's name can be set."""
    data, _, train, *_ = experiments.plan(params, {"learning_rate": "1e-4", "experiment": "other"})
    assert train.learning_rate == 1e-4
    assert data.experiment == "other"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "steps: []",
        "experiment: a\nsteps: [09_absent]",
        "experiment: [",
        "experiment: a\nsteps: []\nseed: 1",
    ],
)
def test_malformed_experiment_files_are_named(tmp_path, text):
    """Anything that is not an experiment file ends in an error with the file's name."""
    path = tmp_path / "broken.yaml"
    path.write_text(text)
    with pytest.raises(DataError, match=r"broken\.yaml"):
        experiments.plan(path, {})


def test_command_line_reports_errors_without_a_traceback(params, capsys):
    """Exit code 1 and one line on standard error."""
    assert main(["reproduce", str(params), "-p", "epoch", "5"]) == 1
    assert capsys.readouterr().err.startswith("covidtf: ")


@pytest.fixture
def counting_notebooks(tmp_path, monkeypatch):
    """Notebooks that write a file, fail where a file `stop` lies beside them, and need no TensorFlow."""
    folder = tmp_path / "notebooks"
    folder.mkdir()
    for step in ("01_xray_dataset", "03_augmentation", "04_transfer_learning", "06_report"):
        notebook = nbformat.v4.new_notebook()
        parameters = nbformat.v4.new_code_cell("seed = 0", metadata={"tags": ["parameters"]})
        work = nbformat.v4.new_code_cell(
            "from pathlib import Path\n"
            f"assert not Path('stop-{step}').exists(), 'told to stop'\n"
            f"folder = Path(out) / experiment / ({step!r} if {step!r}[:2] != '04' else network)\n"
            "Path('log').open('a').write(f'{folder.name} ')"
        )
        notebook.cells = [parameters, work]
        nbformat.write(notebook, folder / f"{step}.ipynb")
    monkeypatch.setattr(reproduce, "NOTEBOOKS", folder)
    # These steps leave no runs for a page to be made of.
    monkeypatch.setattr(reproduce.html, "write", lambda config, made: (config.folder / "report.html").touch())
    return folder


def test_unchanged_steps_are_skipped_and_a_crash_is_continued(params, counting_notebooks, tmp_path, capsys):
    """A second run starts nothing, a changed parameter what depends on it; a crash goes on in place."""
    out, log = str(tmp_path / "out"), counting_notebooks / "log"
    (counting_notebooks / "stop-06_report").touch()
    assert main(["reproduce", str(params), "--out", out]) == 1
    assert "told to stop" in capsys.readouterr().err
    assert log.read_text().split() == ["01_xray_dataset", "03_augmentation", "ResNet18", "SqueezeNet1_0"]

    (counting_notebooks / "stop-06_report").unlink()
    reproduce.run(params, {}, out)
    assert log.read_text().split()[4:] == ["06_report"]

    reproduce.run(params, {}, out)
    assert len(log.read_text().split()) == 5

    reproduce.run(params, {"factor": "3"}, out)
    assert log.read_text().split()[5:] == ["03_augmentation", "ResNet18", "SqueezeNet1_0", "06_report"]


def test_one_step_runs_alone_on_what_lies_there(params, counting_notebooks, tmp_path, capsys):
    """`--only` runs it whatever changed, says so in the command, and leaves it to be run again later."""
    out, log = str(tmp_path / "out"), counting_notebooks / "log"
    assert main(["reproduce", str(params), "--out", out, "--only", "06_report"]) == 1
    said = capsys.readouterr().err
    assert "01_xray_dataset: 06_report reads it, and it is not there or not finished" in said
    assert not (tmp_path / "out").exists()
    assert main(["reproduce", str(params), "--out", out, "--only", "07_heat_maps"]) == 1
    assert "steps to run must be some of ['01_xray_dataset'," in capsys.readouterr().err
    reproduce.run(params, {}, out)
    # These notebooks write no table for the summary at the end.
    main(["reproduce", "--only", "06_report", str(params), "--out", out, "--only", "03_augmentation"])
    assert log.read_text().split()[4:] == ["06_report", "03_augmentation", "06_report"]
    assert os.environ["COVIDTF_COMMAND"].endswith("tiny.yaml --only 06_report --only 03_augmentation")
    reproduce.run(params, {}, out)
    assert log.read_text().split()[7:] == ["03_augmentation", "06_report"]
    reproduce.run(params, {"draws": "100"}, out, only=["06_report"])
    with pytest.raises(ValueError, match=r"06_report were wanted.* Received: \['factor'\]"):
        reproduce.run(params, {"factor": "7", "draws": "99"}, out, only=["06_report"])
    with pytest.raises(DataError, match=r"ResNet18-seed1-.*06_report reads it, and it is not there"):
        reproduce.run(params, {"seed": "1"}, out, only=["06_report"])


def test_a_step_alone_needs_the_folders_that_it_names(tmp_path):
    """Baselines in a data step, and steps of other experiments, not only what its kind reads."""
    params = reproduce.NOTEBOOKS / "params"
    for name, step, wanted in (
        ("phantom-ct-ablation", "10_ablation", "02_ct_dataset"),
        ("xray-recipe", "12_recipe", "xray-sample/01_xray_dataset"),
        ("xray-transfer-resnet18", "04_transfer_learning", "pretrain/00_source_task"),
    ):
        with pytest.raises(DataError, match=f"{wanted}: {step} reads it, and it is not there"):
            reproduce.run(params / f"{name}.yaml", {}, str(tmp_path / "out"), only=[step])
    assert not (tmp_path / "out").exists()


def test_audit_and_heat_maps_are_of_the_split(tmp_path):
    """The plan names no run and no baseline of a fold for them; a comparison gets both."""
    steps = [
        {"02_ct_dataset": {"dataset": "phantom", "folds": 3}},
        {"05_deep_supervision": {"seed": [0, 1]}},
        {"05_deep_supervision": {"folds": 3, "fold": [0, 1, 2]}},
        "07_heat_maps",
        "10_ablation",
    ]
    path = tmp_path / "slices.yaml"
    path.write_text(yaml.safe_dump({"experiment": "slices", "steps": steps}))
    _, *runs, maps, comparison, audit = experiments.plan(path, {}, last="08_audit")
    own, folds = ([run.run_id for run in runs if bool(run.folds) is cut] for cut in (False, True))
    assert maps.run_ids == audit.run_ids
    assert audit.run_ids.split()[:2] == own and len(audit.run_ids.split()) == 2 + len(BASELINES)
    assert set(folds) < set(comparison.run_ids.split())
    assert len(comparison.run_ids.split()) == 5 + 4 * len(BASELINES)


def test_absent_data_or_experiment_is_said_before_a_folder_is_made(tmp_path, monkeypatch, capsys):
    """Without public images, or with a wrong path, the error says what was wanted; nothing is left."""
    monkeypatch.delenv("COVIDTF_DATA", raising=False)
    sample = reproduce.NOTEBOOKS / "params" / "xray-sample.yaml"
    assert main(["reproduce", str(sample), "--out", str(tmp_path / "out")]) == 1
    assert "set `data_folder` or COVIDTF_DATA" in capsys.readouterr().err
    assert main(["reproduce", "xray-sample"]) == 1
    said = capsys.readouterr().err
    assert "no such file. Experiments are notebooks/params/" in said and "params/xray-sample.yaml" in said
    assert not list(tmp_path.iterdir())


def test_two_runners_do_not_share_a_folder(params, counting_notebooks, tmp_path):
    """A second process that writes to one of the experiments, be it in a later step, is told so."""
    plan = yaml.safe_load(params.read_text())
    plan["steps"].append({"01_xray_dataset": {"experiment": "second"}})
    params.write_text(yaml.safe_dump(plan))
    for config in (experiments.plan(params, {}, str(tmp_path / "out"))[place] for place in (0, -1)):
        locked = files.locked(config.experiment_folder, "testing")
        with locked, pytest.raises(DataError, match="another process"):
            reproduce.run(params, {}, str(tmp_path / "out"))
    assert config.experiment == "second"


def test_figures_of_an_earlier_call_do_not_stay(params, counting_notebooks, tmp_path):
    """A figure that the notebook did not make this time is removed once it ended; all else stays."""
    out = tmp_path / "out"
    (counting_notebooks / "stop-06_report").touch()
    folder = experiments.plan(params, {}, str(out))[-1].folder
    folder.mkdir(parents=True)
    for name in ("old.svg", "old.csv"):
        (folder / name).write_text("old")
        os.utime(folder / name, (1, 1))
    (folder / "kept").mkdir()
    (folder / "new.svg").write_text("new")
    os.utime(folder / "new.svg", (2**32, 2**32))
    assert main(["reproduce", str(params), "--out", str(out)]) == 1
    assert (folder / "old.svg").exists()
    (counting_notebooks / "stop-06_report").unlink()
    reproduce.run(params, {}, str(out))
    assert not (folder / "old.svg").exists()
    assert all((folder / name).exists() for name in ("old.csv", "new.svg", "kept"))


def test_lost_output_is_made_again(params, counting_notebooks, tmp_path):
    """A step whose written files are gone or of another size runs again; only a report has a page."""
    out, log = tmp_path / "out", counting_notebooks / "log"
    reproduce.run(params, {}, str(out))
    (page,) = out.rglob("report.html")
    assert page.parent.name == "06_report"
    page.unlink()
    reproduce.run(params, {}, str(out))
    assert log.read_text().split()[5:] == ["06_report"]
