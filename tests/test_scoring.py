"""Scoring files with a finished run: the run's own scores again, files that cannot be scored, engines."""

import csv
import os
import shutil
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from test_training import TINY

from covidtf import manifest as manifests
from covidtf import scoring
from covidtf.__main__ import main
from covidtf.config import TrainConfig
from covidtf.files import DataError, read_json, sha256, write_json
from covidtf.images.prepare import prepare
from covidtf.scoring import engines
from covidtf.training import train
from covidtf.training.networks import NETWORKS

THRESHOLD = 0.5


@pytest.fixture(scope="module", autouse=True)
def known():
    """Make Tiny a network as long as these tests run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(NETWORKS, "Tiny", TINY)
        yield


def make_images(folder):
    """18 JPEGs and PNGs in two folders, some upright by EXIF alone, some large enough to be reduced."""
    rng, rows = np.random.default_rng(0), []
    for number in range(18):
        name = f"{'ab'[number % 2]}/{number:02}.{'png' if number % 5 == 0 else 'jpg'}"
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        values = rng.integers(0, 256, (6, 7, 3)).astype(np.uint8)
        image = Image.fromarray(values).resize((90 + 40 * (number % 3), 80), Image.Resampling.BICUBIC)
        exif = Image.Exif()
        exif[0x0112] = 6 if number % 4 == 0 else 1
        image.save(folder / name, exif=exif)
        label = ("COVID-19", "non-COVID")[number // 2 % 2]
        split = ("train", "val", "test")[number // 6]
        rows.append({"path": name, "label": label, "source": "s", "patient_id": f"s:{number}", "view": "PA"})
        rows[-1]["split"] = split
    return manifests.make(rows, "test")


def make_run(folder, crop, channels, grey="stored"):
    """An experiment's folder with files, a prepared data set and a run."""
    table = make_images(folder / "files")
    prepared = prepare(
        table, {"s": folder / "files"}, folder / "01_xray_dataset/prepared", 32, crop, channels, grey=grey
    )
    config = {"network": "Tiny", "weights": "none", "epochs": 2, "batch_size": 4, "learning_rate": 0.05}
    train(SimpleNamespace(**asdict(TrainConfig()) | config), prepared, folder / "run")
    write_json({"data": "01_xray_dataset"}, folder / "run/config.json")
    write_json({"positive": "COVID-19", "threshold": {"value": THRESHOLD}}, folder / "run/metrics.json")
    return folder


WAYS = {"center-grey": ("center", 1), "resize-rgb": ("resize", 3), "equalised": ("center", 1, "equalised")}


@pytest.fixture(scope="module", params=WAYS.values(), ids=WAYS)
def each(request, tmp_path_factory):
    """An experiment of each way to prepare images."""
    return make_run(tmp_path_factory.mktemp("each"), *request.param)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """An experiment that tests only read."""
    return make_run(tmp_path_factory.mktemp("trained"), "center", 1)


@pytest.fixture
def experiment(trained, tmp_path):
    """A copy of an experiment, to be changed."""
    return Path(shutil.copytree(trained, tmp_path / "experiment"))


def read(path):
    """A table with its text as it is."""
    return pd.read_csv(path, keep_default_na=False)


def test_a_file_gets_the_score_that_the_run_gave_it(each, tmp_path):
    """Val and test files scored from the files equal `predictions.csv` to 1e-6, with the same sha256."""
    counts = scoring.score(each / "run", [each / "files"], tmp_path / "scores.csv", batch_size=5)
    found = read(tmp_path / "scores.csv")
    assert counts == (18, 0)
    assert list(found.columns) == ["path", "sha256", "score_COVID-19", "score_non-COVID", "above_threshold"]
    assert list(found["path"]) == sorted(map(str, (each / "files").rglob("*.*")))
    assert list(found["sha256"]) == [sha256(path) for path in found["path"]]
    assert list(found["above_threshold"]) == list((found["score_COVID-19"] >= THRESHOLD).astype(int))
    wanted = pd.read_csv(each / "run/predictions.csv")
    assert len(wanted) == 12
    found.index = [Path(path).relative_to(each / "files").as_posix() for path in found["path"]]
    names = [image_id.removeprefix("s/") for image_id in wanted["image_id"]]
    for column in ("score_COVID-19", "score_non-COVID"):
        np.testing.assert_allclose(found.loc[names, column], wanted[column], rtol=0, atol=1e-6)
    assert read(tmp_path / "scores.rejected.csv").empty
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scores.csv", "scores.rejected.csv"]


def test_how_many_go_together_does_not_matter(trained, tmp_path):
    """One at a time, in batches with a smaller last one, and all at once: the same scores to 1e-6."""
    tables = []
    for size in (1, 4, 100):
        scoring.score(trained / "run", [trained / "files"], tmp_path / "scores.csv", batch_size=size)
        tables.append(read(tmp_path / "scores.csv"))
    for table in tables[1:]:
        pd.testing.assert_frame_equal(table, tables[0], rtol=0, atol=1e-6)


def spoil(folder):
    """Put beside the images what cannot be scored; its paths below `folder` and what the reason says."""
    (folder / "a/notes.txt").write_text("no image")
    (folder / "b/empty.jpg").touch()
    (folder / "b/cut.jpg").write_bytes((folder / "b/01.jpg").read_bytes()[:700])
    (folder / "link").symlink_to(folder / "a", target_is_directory=True)
    (folder / os.fsdecode(b"caf\xe9.jpg")).write_bytes(b"x")
    return {
        "a/notes.txt": "no image of a known format",
        "b/cut.jpg": "truncated",
        "b/empty.jpg": "empty file",
        os.fsdecode(b"caf\xe9.jpg"): "no image of a known format",
        "link": "not a regular file",
    }


def test_every_file_is_scored_or_rejected_with_its_reason(experiment, tmp_path, capsys):
    """Unreadable files, a link to a folder and a name that is no text are listed; the exit status is 3."""
    wanted = spoil(experiment / "files")
    out = tmp_path / "new/scores.csv"
    assert main(["predict", str(experiment / "run"), str(experiment / "files"), "--out", str(out)]) == 3
    with (tmp_path / "new/scores.rejected.csv").open(errors="surrogateescape", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["path"] for row in rows] == [f"{experiment / 'files'}/{name}" for name in sorted(wanted)]
    for row, (_, reason) in zip(rows, sorted(wanted.items()), strict=True):
        assert reason in row["reason"]
    assert len(read(out)) == 18
    assert "5 files rejected" in capsys.readouterr().err


def test_files_that_were_all_scored_end_with_0(trained, tmp_path):
    """A file named twice and in its folder is scored once; earlier output in the folder is no image."""
    shutil.copytree(trained / "files/a", tmp_path / "a")
    out = tmp_path / "a/scores.csv"
    for _ in range(2):
        command = ["predict", trained / "run", tmp_path / "a", tmp_path / "a/00.png", "--out", out]
        assert main(list(map(str, command))) == 0
        assert len(read(out)) == 9


def test_no_usable_file_leaves_empty_tables(trained, tmp_path):
    """Where every file is rejected the table of scores has its header alone."""
    (tmp_path / "x.png").write_bytes(b"x")
    assert scoring.score(trained / "run", [tmp_path / "x.png"], tmp_path / "scores.csv") == (0, 1)
    assert read(tmp_path / "scores.csv").empty


def test_an_interruption_loses_nothing(trained, tmp_path, monkeypatch):
    """When the second batch fails, `.partial` holds the first one's rows and the earlier table stays."""
    (tmp_path / "scores.csv").write_text("earlier")
    keras_engine, calls = engines.keras_engine, []

    def broken(*arguments):
        network = keras_engine(*arguments)

        def run(images):
            calls.append(images)
            if len(calls) == 2:
                raise OSError("no power")
            return network(images)

        return run

    monkeypatch.setitem(engines.ENGINES, "keras", broken)
    with pytest.raises(OSError, match="no power"):
        scoring.score(trained / "run", [trained / "files"], tmp_path / "scores.csv", batch_size=4)
    assert len(read(tmp_path / "scores.csv.partial")) == 4
    assert (tmp_path / "scores.csv").read_text() == "earlier"


def alter_weights(folder):
    (folder / "run/best.weights.h5").write_bytes(b"other")


def cut_record(folder):
    record = read_json(folder / "run/training.json")
    write_json({"settings": record["settings"]}, folder / "run/training.json")


def no_crop(folder):
    record = read_json(folder / "run/training.json")
    record["settings"]["crop"] = None
    write_json(record, folder / "run/training.json")


def foreign_positive(folder):
    write_json({"positive": "flu", "threshold": {"value": 0.5}}, folder / "run/metrics.json")


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda folder: (folder / "run/training.json").unlink(), "training.json is missing"),
        (lambda folder: (folder / "run/best.weights.h5").unlink(), "best.weights.h5: no such file"),
        (alter_weights, "best.weights.h5: sha256 must be"),
        (cut_record, "training.json: not the record of a finished run"),
        (foreign_positive, "metrics.json: `positive` must be one of"),
        (no_crop, "training.json: `crop` must be one of"),
        (lambda folder: shutil.rmtree(folder / "files"), "files: no such file or folder"),
        (lambda folder: [file.unlink() for file in folder.glob("files/*/*")], "files: no files to score"),
    ],
)
def test_what_is_missing_or_altered_is_named(experiment, tmp_path, harm, message):
    """A run that is not whole, or nothing to score: an error that names the file, and no output."""
    harm(experiment)
    with pytest.raises(DataError, match=message):
        scoring.score(experiment / "run", [experiment / "files"], tmp_path / "scores.csv")
    assert not list(tmp_path.glob("scores*"))


def test_a_recorded_crop_needs_no_data_set(experiment):
    """A run that recorded `crop` can be moved away from the data set it was trained on."""
    shutil.rmtree(experiment / "01_xray_dataset")
    record = read_json(experiment / "run/training.json")
    record["settings"]["crop"] = "resize"
    write_json(record, experiment / "run/training.json")
    assert scoring.read(experiment / "run").crop == "resize"


def test_scores_that_are_no_numbers_are_refused(trained, monkeypatch):
    """A network that gives NaN is an error that names its weights."""
    monkeypatch.setitem(engines.ENGINES, "keras", lambda *_: lambda images: np.full((len(images), 2), np.nan))
    scorer = scoring.Scorer(scoring.read(trained / "run"))
    with pytest.raises(DataError, match=r"best\.weights\.h5: the network's scores are not finite"):
        scorer(np.zeros((1, 32, 32, 1), np.uint8))


@pytest.mark.parametrize(
    ("values", "name"), [({"engine": "abacus"}, "engine"), ({"batch_size": 0}, "batch_size")]
)
def test_values_out_of_range_are_refused(trained, values, name):
    """The error names the argument and what it may be."""
    with pytest.raises(ValueError, match=f"`{name}` must be"):
        scoring.Scorer(scoring.read(trained / "run"), **values)


def test_an_engine_that_is_not_installed_says_how_to_get_it(trained, tmp_path, monkeypatch, capsys):
    """Without OpenVINO the command ends with 1 and names the extra to install."""
    monkeypatch.setitem(sys.modules, "openvino", None)
    command = [
        "predict",
        trained / "run",
        trained / "files",
        "--out",
        tmp_path / "s.csv",
        "--engine",
        "openvino",
    ]
    assert main(list(map(str, command))) == 1
    assert "pip install -e '.[openvino]'" in capsys.readouterr().err


def test_openvino_gives_keras_scores_to_a_thousandth(experiment, tmp_path):
    """All scores are within 1e-3 of Keras', and the second call, which exports nothing, gives the same."""
    pytest.importorskip("openvino", reason="needs the optional extra; see `make test-openvino`")
    tables = []
    for name, engine in (("k", "keras"), ("a", "openvino"), ("b", "openvino")):
        inputs, out = [experiment / "files"], tmp_path / f"{name}.csv"
        scoring.score(experiment / "run", inputs, out, engine, batch_size=7)
        tables.append(read(out))
        exported = sorted((experiment / "run").glob("openvino-*/model.xml"))
        tables[-1].attrs["exported"] = [path.stat().st_mtime_ns for path in exported]
    keras, first, second = tables
    scores = ["score_COVID-19", "score_non-COVID"]
    np.testing.assert_allclose(first[scores], keras[scores], rtol=0, atol=1e-3)
    np.testing.assert_array_equal(second[scores], first[scores])
    assert keras.attrs["exported"] == []
    assert len(first.attrs["exported"]) == 1
    assert second.attrs["exported"] == first.attrs["exported"]
    assert [path.name for path in (experiment / "run").glob(".*")] == [".lock"]


def test_an_exported_network_needs_no_keras(experiment, tmp_path):
    """A process that scores with an exported network imports neither Keras nor TensorFlow."""
    pytest.importorskip("openvino", reason="needs the optional extra; see `make test-openvino`")
    scoring.score(experiment / "run", [experiment / "files"], tmp_path / "a.csv", "openvino")
    command = ["predict", experiment / "run", experiment / "files", "--out", tmp_path / "b.csv"]
    command = [*map(str, command), "--engine", "openvino"]
    code = f"""
import sys
from covidtf.__main__ import main
from covidtf.config import TrainConfig
assert main({command}) == 0
assert not {{"keras", "tensorflow"}} & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "b.csv").read_bytes() == (tmp_path / "a.csv").read_bytes()


def test_an_export_that_deviates_is_refused(experiment, monkeypatch):
    """Scores further from Keras' than the tolerance are an error, and no export is left behind."""
    pytest.importorskip("openvino", reason="needs the optional extra; see `make test-openvino`")
    trained = scoring.read(experiment / "run")
    load = engines.load_network

    def other(*arguments):
        model = load(*arguments)
        real = model.predict_on_batch
        model.predict_on_batch = lambda images: real(images) + np.array([0.02, 0])
        return model

    monkeypatch.setattr(engines, "load_network", other)
    images = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 1)).astype(np.uint8)
    with pytest.raises(DataError, match=r"scores must differ from Keras' by at most 0.001"):
        engines.openvino_engine(trained, images)
    assert not [path for path in trained.folder.iterdir() if "openvino" in path.name]


def test_bfloat16_is_used_only_where_it_keeps_the_scores(trained, monkeypatch):
    """bfloat16 that moves logits is left for float32, even where scores are saturated; else it is taken."""
    pytest.importorskip("openvino", reason="needs the optional extra; see `make test-openvino`")
    monkeypatch.setattr(engines, "_has_bfloat16", lambda: True)
    images, wanted = np.zeros((2, 4, 4, 1), np.uint8), np.array([[30.0, -30.0]] * 2)

    class Model:
        clone = str

    for error, chosen in ((0.1, "f32"), (1e-5, "bf16")):
        off = {"bf16": wanted + np.array([error, 0]), "f32": wanted}
        monkeypatch.setattr(engines, "_compile", lambda model, shape, name, off=off: lambda images: off[name])
        assert engines._choose(Model(), images, wanted)[0] == chosen


def test_other_weights_are_exported_anew(trained):
    """The export's name changes with the weights."""
    run = scoring.read(trained / "run")
    assert engines._key(run) == engines._key(replace(run, size=64)) != engines._key(replace(run, sha256="0"))
