"""Training: the same bits again, interruption and resumption, weights of earlier runs."""

import os
import shutil
import signal
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from covidtf import predictions, runs, training
from covidtf.config import TrainConfig
from covidtf.files import DataError, locked, read_json, sha256, write_json
from covidtf.training import batches, checkpoints, devices, epochs, predict, train, weights
from covidtf.training.devices import keras
from covidtf.training.networks import NETWORKS, Network, build
from covidtf.training.networks.normalisation import Normalisation
from covidtf.weights import start

SIZE = 32
FILES = ("best.weights.h5", "history.csv", "predictions.csv")


def tiny(x, classes):
    """A network with batch normalisation and dropout that traces in a fraction of a second."""
    x = keras.layers.Conv2D(4, 5, strides=4, name="conv")(x)
    x = keras.layers.BatchNormalization(momentum=0.9, name="norm")(x)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(keras.layers.ReLU(name="relu")(x))
    return keras.layers.Dense(classes, name="head", dtype="float32")(
        keras.layers.Dropout(0.5, name="dropout")(x)
    )


def draw(rng, name, shape):
    """Normal values for every parameter."""
    return rng.normal(0, 0.3, shape).astype("float32")


TINY = Network(tiny, draw, "head", ("relu",))


def deep(x, classes):
    """A network of three stages, to which auxiliary heads can be added."""
    for number in (1, 2, 3):
        x = keras.layers.Conv2D(4, 3, strides=2, name=f"conv{number}")(x)
        x = keras.layers.ReLU(name=f"relu{number}")(Normalisation(momentum=0.9, name=f"norm{number}")(x))
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.layers.Dense(classes, name="head", dtype="float32")(
        keras.layers.Dropout(0.5, name="dropout")(x)
    )


DEEP = Network(deep, draw, "head", ("relu1", "relu2", "relu3"), pool="pool")


@pytest.fixture(scope="module", autouse=True)
def known():
    """Make Tiny and Deep networks as long as these tests run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(NETWORKS, "Tiny", TINY)
        patch.setitem(NETWORKS, "Deep", DEEP)
        yield


def settings(**changes):
    """Settings of a short run with a partial last batch and both stages."""
    values = {
        "network": "Tiny",
        "weights": "none",
        "epochs": 3,
        "head_epochs": 1,
        "batch_size": 4,
        "optimizer": "adam",
        "learning_rate": 0.01,
        "schedule": "constant",
        "random_crop": 1.0,
        "random_flip": False,
        "mixed_precision": False,
        "seed": 3,
    }
    return SimpleNamespace(**values | changes)


def deep_settings(**changes):
    """Settings of a short run with auxiliary heads, learned weights and random views."""
    values = {
        **{"network": "Deep", "loss": "cross_entropy", "beta": 0.9, "auxiliary": "learned", "stages": ""},
        **{"auxiliary_weight": 0.3, "auxiliary_width": 6, "fusion": "learned", "folded": True},
        **{"random_grey": 0.3, "label_noise": 0.0, "folds": 0, "fold": 0},
    }
    return settings(**values | changes)


def prepare(labels=("COVID-19", "non-COVID"), channels=1):
    """Prepared data set of 27 squares, brighter from label to label, in an order that mixes the splits."""
    split = ["train", "train", "val", "train", "test", "val", "train", "test", ""] * 3
    label = [labels[(i + i // 9) % len(labels)] for i in range(len(split))]
    level = np.array([labels.index(name) for name in label]) * 90
    noise = np.random.default_rng(0).integers(0, 60, (len(split), SIZE, SIZE, channels))
    names = [f"s/{i}.png" for i in range(len(split))]
    columns = {"patient_id": [f"s:{i}" for i in range(len(split))], "case_id": "s:1", "source": "s"}
    table = {"image_id": names, **columns, "view": "PA", "finding": "f", "split": split, "label": label}
    images = (level[:, None, None, None] + noise).astype(np.uint8)
    return SimpleNamespace(
        images=images, manifest=pd.DataFrame(table), folder=Path("prepared"), crop="center", grey="stored"
    )


class CrashError(Exception):
    """Stands for whatever ends a process."""


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Folder of a finished run of Tiny."""
    folder = tmp_path_factory.mktemp("finished")
    train(settings(), prepare(), folder)
    return folder


def crash(monkeypatch, owner, name, calls, after=False):
    """Make the `calls`-th call of `owner.name` end the run, before it does anything or after."""
    real, left = getattr(owner, name), [calls]

    def broken(*args, **kwargs):
        left[0] -= 1
        if left[0] == 0 and not after:
            raise CrashError
        result = real(*args, **kwargs)
        if left[0] == 0:
            raise CrashError
        return result

    monkeypatch.setattr(owner, name, broken)


@pytest.mark.parametrize(
    ("owner", "name", "calls", "after"),
    [
        (epochs._Follow, "on_train_batch_end", 2, False),
        (epochs._Follow, "on_train_batch_end", 4, False),
        (checkpoints, "save", 1, False),
        (checkpoints, "save", 1, True),
        (checkpoints, "save", 2, True),
        (checkpoints, "save", 3, True),
        (predictions, "write", 1, False),
    ],
)
def test_an_interrupted_run_ends_as_if_nothing_had_happened(
    finished, tmp_path, monkeypatch, owner, name, calls, after
):
    """Wherever a run is cut off, calling it again gives the same predictions, weights and history."""
    with monkeypatch.context() as patch, pytest.raises(CrashError):
        crash(patch, owner, name, calls, after)
        train(settings(), prepare(), tmp_path)
    history = train(settings(), prepare(), tmp_path)
    for file in ("predictions.csv", "best.weights.h5"):
        assert sha256(tmp_path / file) == sha256(finished / file)
    wanted = pd.read_csv(finished / "history.csv").drop(columns="seconds")
    pd.testing.assert_frame_equal(history.drop(columns="seconds"), wanted)
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in finished.iterdir()}


def test_a_published_network_resumes_exactly(tmp_path, monkeypatch):
    """SqueezeNet with dropout, random views, Adam and a schedule, cut off in the middle: the same bytes."""
    views = {"random_crop": 0.5, "random_flip": True, "schedule": "cosine"}
    config = settings(network="SqueezeNet1_0", epochs=3, head_epochs=1, learning_rate=1e-4, **views)
    train(config, prepare(), tmp_path / "whole")
    with monkeypatch.context() as patch, pytest.raises(CrashError):
        crash(patch, checkpoints, "save", 2, after=True)
        train(config, prepare(), tmp_path / "cut")
    train(config, prepare(), tmp_path / "cut")
    assert sha256(tmp_path / "cut/predictions.csv") == sha256(tmp_path / "whole/predictions.csv")


@pytest.mark.parametrize("calls", [1, 2])
def test_a_run_with_auxiliary_heads_resumes_exactly(tmp_path, monkeypatch, calls):
    """Learned weights, random views and label noise, cut off in either stage: the same bytes."""
    config, data = deep_settings(label_noise=0.2, random_flip=True), prepare()
    data.manifest["case_id"] = data.manifest["patient_id"]
    history = train(config, data, tmp_path / "whole")
    assert list(history["stage"]) == ["head", "all", "all"]
    assert (history["weight_main"] != 0.5).all()
    with monkeypatch.context() as patch, pytest.raises(CrashError):
        crash(patch, checkpoints, "save", calls, after=True)
        train(config, data, tmp_path / "cut")
    train(config, data, tmp_path / "cut")
    for file in ("predictions.csv", "best.weights.h5", "heads.csv"):
        assert sha256(tmp_path / "cut" / file) == sha256(tmp_path / "whole" / file)


def test_a_run_with_auxiliary_heads_follows_from_its_seed(tmp_path):
    """The same bytes again, others under another seed, and its scores are those of the best epoch."""
    for name, seed in (("first", 3), ("again", 3), ("other", 4)):
        train(deep_settings(seed=seed, epochs=2), prepare(), tmp_path / name)
    first, again, other = (
        sha256(tmp_path / name / "predictions.csv") for name in ("first", "again", "other")
    )
    assert first == again != other
    history = pd.read_csv(tmp_path / "first/history.csv").set_index("epoch")
    table = predictions.read(tmp_path / "first/predictions.csv").query("split == 'val'")
    score = np.where(table["label"] == "COVID-19", table["score_COVID-19"], table["score_non-COVID"])
    best = read_json(tmp_path / "first/training.json")["best_epoch"]
    assert -np.log(score).mean() == pytest.approx(history.loc[best, "val_loss"], rel=1e-5)


def test_a_killed_process_leaves_a_run_that_goes_on(finished, tmp_path):
    """SIGKILL while the second checkpoint is written: the run goes on from the first, nothing is left."""
    code = f"""
import os, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
import numpy as np
from test_training import *
real, calls = np.savez, []
def half(file, **arrays):
    calls.append(1)
    if len(calls) == 2:
        file.write(b"half")
        file.flush()
        os.kill(os.getpid(), 9)
    real(file, **arrays)
np.savez = half
NETWORKS["Tiny"] = TINY
train(settings(), prepare(), {str(tmp_path)!r})
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert len(checkpoints.read_record(tmp_path / "checkpoint.npz")["history"]) == 1
    train(settings(), prepare(), tmp_path)
    assert sha256(tmp_path / "predictions.csv") == sha256(finished / "predictions.csv")
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in finished.iterdir()}


def test_the_seed_alone_decides(finished, tmp_path):
    """Under other global seeds the predictions are the same bytes; under another `seed` they are not."""
    keras.utils.set_random_seed(17)
    train(settings(), prepare(), tmp_path / "same")
    train(settings(seed=4), prepare(), tmp_path / "other")
    assert sha256(tmp_path / "same/predictions.csv") == sha256(finished / "predictions.csv")
    assert sha256(tmp_path / "other/predictions.csv") != sha256(finished / "predictions.csv")


def test_predictions_are_the_best_epochs(tmp_path):
    """Val and test rows in manifest order, scored with the epoch that ranks val best."""
    data = prepare()
    # With val inverted, what is learnt on train makes val worse, so that the best epoch is not the last one.
    data.images[data.manifest["split"] == "val"] ^= 255
    train(settings(learning_rate=0.1), data, tmp_path)
    history, table = pd.read_csv(tmp_path / "history.csv"), predictions.read(tmp_path / "predictions.csv")
    record = read_json(tmp_path / "training.json")
    assert list(table.columns[-2:]) == ["score_COVID-19", "score_non-COVID"]
    shown = data.manifest[data.manifest["split"].isin(["val", "test"])].reset_index(drop=True)
    pd.testing.assert_frame_equal(table[list(predictions.COLUMNS)], shown[list(predictions.COLUMNS)])
    assert list(history["epoch"]) == [1, 2, 3]
    assert list(history["stage"]) == ["head", "all", "all"]
    kept = history.sort_values(["val_auroc", "val_loss"], ascending=[False, True]).iloc[0]
    assert record["best_epoch"] == kept["epoch"] < 3
    val = table[table["split"] == "val"]
    score = np.where(val["label"] == "COVID-19", val["score_COVID-19"], val["score_non-COVID"])
    assert -np.log(score).mean() == pytest.approx(kept["val_loss"], rel=1e-5)
    ranks = val["score_COVID-19"].rank()[val["label"] == "COVID-19"]
    auroc = (ranks - np.arange(1, len(ranks) + 1)).sum() / len(ranks) / (len(val) - len(ranks))
    assert auroc == pytest.approx(kept["val_auroc"])
    model = build("Tiny", 2, size=SIZE)
    weights.load(model, tmp_path)
    rows = np.flatnonzero(data.manifest["split"].isin(["val", "test"]))
    np.testing.assert_allclose(predict(model, data.images, rows, 5)[:, 0], table["score_COVID-19"], rtol=1e-5)
    assert record["sha256"] == {name: sha256(tmp_path / name) for name in FILES}


@pytest.mark.parametrize(
    ("aurocs", "losses", "best"),
    [
        ([0.6, 0.9, 0.7], [0.5, 2.0, 0.4], 2),
        ([0.9, 0.9, 0.7], [0.5, 0.4, 0.1], 2),
        ([0.9, 0.9, 0.9], [0.4, 0.4, 0.4], 1),
        ([np.nan, np.nan, np.nan], [0.5, 0.3, 0.4], 2),
    ],
)
def test_the_best_epoch_ranks_val_best(aurocs, losses, best):
    """Highest AUROC, then lowest cross-entropy, then earliest; cross-entropy where AUROC cannot be told."""
    rows = zip(aurocs, losses, strict=True)
    history = [{"epoch": i, "val_auroc": a, "val_loss": b} for i, (a, b) in enumerate(rows, 1)]
    assert training.best_epoch(history) == best


def test_a_finished_run_is_not_trained_again(finished, monkeypatch):
    """Calling a finished run returns its history without a step."""
    monkeypatch.setattr(training, "run_epochs", None)
    assert len(train(settings(), prepare(), finished)) == 3


def truncate(path):
    """Cut a file short."""
    os.truncate(path, 99)


@pytest.mark.parametrize(
    ("name", "alter"),
    [
        ("predictions.csv", Path.unlink),
        ("predictions.csv", truncate),
        ("history.csv", Path.unlink),
        ("best.weights.h5", truncate),
    ],
)
def test_a_run_that_lost_or_changed_a_file_is_trained_anew(finished, tmp_path, capsys, name, alter):
    """The run is whole again with the same weights and predictions, and standard error says why."""
    shutil.copytree(finished, tmp_path / "run")
    alter(tmp_path / "run" / name)
    assert len(train(settings(), prepare(), tmp_path / "run")) == 3
    assert f"run: {name} lost or altered: trained anew" in capsys.readouterr().err
    for file in ("best.weights.h5", "predictions.csv"):
        assert sha256(tmp_path / "run" / file) == sha256(finished / file)
    train(settings(), prepare(), tmp_path / "run")
    assert capsys.readouterr().err == ""


def origin(commit, dirty=False, when="2026-01-01"):
    """What `runs.origin` might say."""
    return {"time": when, "command": "notebook", "commit": commit, "dirty": dirty, "versions": {"a": "1"}}


def test_calling_a_finished_run_again_keeps_its_origin(tmp_path, monkeypatch):
    """Called again from other code, record and provenance still name what it was trained with."""
    config = TrainConfig(out=str(tmp_path), seed=3)
    monkeypatch.setattr(runs, "origin", lambda: origin("first"))
    train(settings(), prepare(), tmp_path)
    before = (tmp_path / "training.json").read_bytes()
    monkeypatch.setattr(runs, "origin", lambda: origin("second", dirty=True, when="2026-01-02"))
    train(settings(), prepare(), tmp_path)
    assert (tmp_path / "training.json").read_bytes() == before
    record = read_json(tmp_path / "training.json")
    inputs = {"predictions": tmp_path / "predictions.csv"}
    found = runs.provenance(config, inputs, record["seconds"], record["origin"])
    assert {key: found[key] for key in origin("first")} == origin("first")
    assert found["environment"]["backend"] == keras.backend.backend()
    # Recorded to a tenth, and a sum of hundredths may lie on the edge between two.
    total = pd.read_csv(tmp_path / "history.csv")["seconds"].sum()
    assert found["seconds"] == pytest.approx(total, abs=0.051)


@pytest.mark.parametrize(
    ("first", "second", "wanted"),
    [
        (origin("a"), origin("a", when="2026-01-02"), origin("a")),
        (origin("a", dirty=True), origin("b"), origin("b", dirty=True) | {"continues": "a"}),
        (origin("a"), origin("a", dirty="unknown"), origin("a", dirty="unknown") | {"continues": "a"}),
    ],
)
def test_an_interrupted_run_records_all_it_was_computed_with(tmp_path, monkeypatch, first, second, wanted):
    """One origin where the code is the same, else both, dirty if one is; seconds sum over all epochs."""
    with monkeypatch.context() as patch, pytest.raises(CrashError):
        crash(patch, checkpoints, "save", 2, after=True)
        patch.setattr(runs, "origin", lambda: first)
        train(settings(), prepare(), tmp_path)
    before = [row["seconds"] for row in checkpoints.read_record(tmp_path / "checkpoint.npz")["history"]]
    monkeypatch.setattr(runs, "origin", lambda: second)
    seconds = train(settings(), prepare(), tmp_path)["seconds"]
    record = read_json(tmp_path / "training.json")
    found = {key: value for key, value in record["origin"].items() if key != "environment"}
    if "continues" in found:
        found["continues"] = found["continues"]["commit"]
    assert found == wanted
    assert list(seconds[:2]) == before
    assert record["seconds"] == pytest.approx(seconds.sum())


def commit(folder):
    """Make `folder` a git repository with one committed module."""
    (folder / "covidtf").mkdir(parents=True)
    (folder / "covidtf/a.py").write_text("a = 1\n")
    author = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
    for arguments in (["init", "-q"], ["add", "."], [*author, "commit", "-q", "-m", "a"]):
        subprocess.run(["git", *arguments], cwd=folder, check=True)


@pytest.mark.parametrize(
    ("file", "dirty"),
    [("covidtf/a.py", True), ("covidtf/sub/b.py", True), ("covidtf/b.txt", False), ("b.py", False)],
)
def test_code_that_no_commit_holds_is_dirty(tmp_path, monkeypatch, file, dirty):
    """A changed file or a new module of the package is; other new files are not."""
    monkeypatch.setattr(runs, "ROOT", tmp_path)
    commit(tmp_path)
    assert runs.origin()["dirty"] is False
    assert len(runs.origin()["commit"]) == 40
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text("a = 2\n")
    assert runs.origin()["dirty"] is dirty


@pytest.mark.parametrize("case", ["no git", "no repository", "another's repository"])
def test_an_origin_that_cannot_be_told_is_unknown(tmp_path, monkeypatch, case):
    """Without git or a repository of its own the code is not taken for clean, and nothing fails."""
    monkeypatch.setattr(runs, "ROOT", tmp_path / "code")
    if case == "another's repository":
        commit(tmp_path)
    if case == "no git":
        commit(tmp_path / "code")
        monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "code").mkdir(exist_ok=True)
    found = runs.origin()
    assert (found["commit"], found["dirty"]) == ("unknown", "unknown")


@pytest.mark.parametrize("cut", [False, True])
def test_a_run_is_trained_anew_when_its_data_have_changed(tmp_path, monkeypatch, capsys, cut):
    """With one pixel changed neither a checkpoint nor a finished run is taken for this one, which is said."""
    config, data = settings(epochs=1, head_epochs=0), prepare()
    with monkeypatch.context() as patch, pytest.raises(CrashError) if cut else nullcontext():
        if cut:
            crash(patch, predictions, "write", 1)
        train(config, prepare(), tmp_path / "changed")
    data.images[np.flatnonzero(data.manifest["split"] == "train")[0], 0, 0, 0] ^= 128
    train(config, data, tmp_path / "changed")
    assert "is of another run, data_sha256 changed: trained anew" in capsys.readouterr().err
    train(config, data, tmp_path / "fresh")
    assert sha256(tmp_path / "changed/predictions.csv") == sha256(tmp_path / "fresh/predictions.csv")


def test_the_frozen_backbone_stays(tmp_path):
    """Training the last layer leaves the others as they were, batch statistics included; `all` does not."""
    before = build("Tiny", 2, size=SIZE, seed=3)
    changed = {}
    for head_epochs in (2, 0):
        train(settings(epochs=2, head_epochs=head_epochs), prepare(), tmp_path / str(head_epochs))
        after = build("Tiny", 2, size=SIZE)
        weights.load(after, tmp_path / str(head_epochs))
        pairs = zip(before.weights, after.weights, strict=True)
        changed[head_epochs] = {old.path for old, new in pairs if not np.array_equal(old, new)}
    assert changed[2] == {"head/kernel", "head/bias"}
    assert changed[0] == {variable.path for variable in before.weights}


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_training_learns(tmp_path, optimizer):
    """Dark and bright squares are told apart after some epochs, far below the loss of guessing."""
    config = settings(epochs=15, head_epochs=0, optimizer=optimizer, learning_rate=0.1)
    history = train(config, prepare(), tmp_path)
    assert history["val_auroc"].max() == 1.0
    assert history["val_loss"].min() < 0.5 * np.log(2)


def test_more_than_two_classes(tmp_path):
    """Three labels give three scores, COVID-19 first and the others sorted, from an RGB data set."""
    data = prepare(("normal", "COVID-19", "bacterial"), channels=3)
    history = train(settings(epochs=1, head_epochs=0), data, tmp_path)
    table = predictions.read(tmp_path / "predictions.csv")
    assert list(table.columns[-3:]) == ["score_COVID-19", "score_bacterial", "score_normal"]
    assert history["val_auroc"].between(0, 1).all()


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_trains_and_resumes(policy, tmp_path, monkeypatch):
    """A CPU's and a GPU's policy are recorded, give distributions, and go on with the same bytes."""
    for module in (training, devices):
        monkeypatch.setattr(module, "precision", lambda mixed: policy if mixed else "float32")
    config = settings(mixed_precision=True, epochs=3, head_epochs=0, weights="none")
    train(config, prepare(), tmp_path / "whole")
    record = read_json(tmp_path / "whole" / "training.json")
    assert record["settings"]["precision"] == record["origin"]["environment"]["precision"] == policy
    table = predictions.read(tmp_path / "whole" / "predictions.csv")
    np.testing.assert_allclose(table[["score_COVID-19", "score_non-COVID"]].sum(axis=1), 1, atol=1e-6)
    with monkeypatch.context() as patch, pytest.raises(CrashError):
        crash(patch, checkpoints, "save", 2, after=True)
        train(config, prepare(), tmp_path / "cut")
    train(config, prepare(), tmp_path / "cut")
    assert sha256(tmp_path / "cut/predictions.csv") == sha256(tmp_path / "whole/predictions.csv")


def test_copies_say_how_often_an_image_is_shown():
    """An epoch shows a train row as often as `copies` says; val and test are not repeated."""
    data = prepare()
    train_rows = np.flatnonzero(data.manifest["split"] == "train")
    data.manifest["copies"] = 5
    data.manifest.loc[train_rows, "copies"] = np.arange(len(train_rows)) % 3
    found = batches.read(data)
    np.testing.assert_array_equal(
        found.shown, [row for i, row in enumerate(train_rows) for _ in range(i % 3)]
    )
    np.testing.assert_array_equal(found.val, np.flatnonzero(data.manifest["split"] == "val"))


def test_an_epoch_shows_every_image_once_in_its_own_order():
    """Batches cover the rows, the last one is smaller, and pixels and labels stay together."""
    data = batches.read(prepare())
    shown = batches.Batches(data.images, data.labels, data.shown[::-1], 5)
    parts = [shown[i] for i in range(len(shown))]
    assert [len(labels) for _, labels in parts] == [5, 5, 2]
    np.testing.assert_array_equal(
        np.concatenate([images for images, _ in parts]), data.images[data.shown[::-1]]
    )
    np.testing.assert_array_equal(
        np.concatenate([labels for _, labels in parts]), data.labels[data.shown[::-1]]
    )


@pytest.mark.parametrize(("size", "together"), [(5, 1), (5, 2), (2, 3), (20, 4)])
def test_what_keras_is_fed_keeps_its_order(size, together):
    """A network that only adds up pixels sees each row once, in order, however many are read together."""
    data = batches.read(prepare())
    pixels = keras.Input(data.images.shape[1:])
    model = keras.Model(pixels, keras.ops.sum(pixels, axis=(1, 2, 3)))
    rows = data.shown[::-1]
    shown = batches.Batches(data.images, data.labels, rows, size)
    sums = devices.feed(model.predict, shown, together, verbose=0)
    np.testing.assert_allclose(sums, data.images[rows].sum(axis=(1, 2, 3)), rtol=1e-6)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="tf.data is TensorFlow's")
def test_no_tuner_is_to_be_waited_for():
    """What `fit` gets from us on TensorFlow has pixels beside their labels, a length, and no tuning."""
    data = batches.read(prepare())
    shown = batches.Batches(data.images, data.labels, data.shown, 5)
    dataset = devices.feed(lambda given: given, shown, 2)
    assert dataset.options().autotune.enabled is False
    assert int(dataset.cardinality()) == len(shown) == 3
    for (images, labels), wanted in zip(dataset, (shown[index] for index in range(3)), strict=True):
        np.testing.assert_array_equal(images, wanted[0])
        np.testing.assert_array_equal(labels, wanted[1])


def test_an_error_of_reading_a_batch_arrives_as_it_is():
    """What the feature cache says of a file that was cut short is not turned into TensorFlow's words."""

    class Broken(batches.Batches):
        def __getitem__(self, index):
            raise DataError("cache.npy: cut short")

    data = batches.read(prepare())
    model = build("Tiny", 2, size=SIZE)
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    shown = Broken(data.images, data.labels, data.shown, 5)
    with pytest.raises(DataError, match=r"cache\.npy: cut short"):
        devices.feed(model.fit, shown, shuffle=False, verbose=0)


def test_random_views_are_never_enlarged():
    """Their crops follow from the number of the batch."""
    views = batches.RandomViews(gradient(1), np.zeros(4, int), np.arange(4), 2, crop=0.5, flip=True, seed=[0])
    with pytest.raises(TypeError, match="only plain batches can be enlarged"):
        views.enlarged(2)


def gradient(channels):
    """Four images that grow brighter from left to right, which a mirror and a crop change in a known way."""
    ramp = np.broadcast_to(np.arange(64, dtype=np.uint8)[None, :, None], (64, 64, channels))
    return np.stack([ramp] * 4)


@pytest.mark.parametrize("channels", [1, 3])
def test_random_views_crop_and_mirror(channels):
    """Some of 40 views are mirrored, all have a part of the ramp that fits their share, none is repeated."""
    shown = [gradient(channels), np.zeros(4, int), np.zeros(40, int), 40]
    images, _ = batches.RandomViews(*shown, crop=0.3, flip=True, seed=[0, 1])[0]
    assert images.shape == (40, 64, 64, channels)
    first, last = (images[:, 32, side, 0].astype(int) for side in (0, -1))
    assert 8 < (first > last).sum() < 32
    # A share of 0.3 at a ratio of 3/4 leaves at least half of the width.
    assert (np.abs(first - last) >= 63 * np.sqrt(0.3 * 3 / 4) - 2).all()
    assert (np.abs(first - last) < 63).any()
    assert len(np.unique(images.reshape(40, -1), axis=0)) > 30
    same, _ = batches.RandomViews(*shown, crop=0.3, flip=True, seed=[0, 1])[0]
    other, _ = batches.RandomViews(*shown, crop=0.3, flip=True, seed=[0, 2])[0]
    np.testing.assert_array_equal(images, same)
    assert not np.array_equal(images, other)


def test_random_views_of_the_whole_image_only_mirror():
    """With a share of 1 each view is the image or its mirror image."""
    ramp = gradient(1)
    shown = [ramp, np.zeros(4, int), np.zeros(20, int), 20]
    images, _ = batches.RandomViews(*shown, crop=1.0, flip=True, seed=[0])[0]
    mirrored = [np.array_equal(image, ramp[0, :, ::-1]) for image in images]
    assert all(np.array_equal(i, ramp[0]) or m for i, m in zip(images, mirrored, strict=True))
    assert 0 < sum(mirrored) < 20


def without(column, value):
    """Data set whose rows with `value` in `column` are in no split."""
    data = prepare()
    data.manifest.loc[data.manifest[column] == value, "split"] = ""
    return data


def one_class_in_train():
    """Data set whose COVID-19 images of train are shown 0 times."""
    data = prepare()
    data.manifest["copies"] = (data.manifest["label"] != "COVID-19").astype(int)
    return data


def changed(**values):
    """Data set with an attribute or a manifest column replaced."""
    data = prepare()
    for name, value in values.items():
        if name == "images":
            data.images = value(data.images)
        else:
            data.manifest[name] = value
    return data


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (without("split", "val"), "manifest.csv: split 'val' has no image"),
        (without("split", "test"), "manifest.csv: split 'test' has no image"),
        (without("split", "train"), "manifest.csv: split 'train' has no image"),
        (without("label", "COVID-19"), r"two labels or more were wanted. Received: \['non-COVID'\]"),
        (one_class_in_train(), "no image of train has label 'COVID-19'"),
        (changed(copies=-1), "row 2: `copies` must be a whole number from 0. Received: -1"),
        (changed(copies=0.5), "row 2: `copies` must be a whole number from 0. Received: 0.5"),
        (changed(images=lambda x: x[1:]), "one row per image was wanted. Received: 27 rows, 26 images"),
        (changed(images=lambda x: x / 255), "uint8 .* Received: float64"),
        (changed(images=lambda x: x[:, :30]), r"square .* Received: uint8 \(27, 30, 32, 1\)"),
    ],
)
def test_unusable_data_are_refused(tmp_path, data, message):
    """Data that cannot be trained on give an error that names the manifest, before anything is written."""
    with pytest.raises(DataError, match=message):
        train(settings(), data, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("changes", "channels", "message"),
    [
        ({"network": "VGG"}, 1, "`network` must be one of"),
        ({"optimizer": "lion"}, 1, "`optimizer` must be one of .* Received: 'lion'"),
        ({}, 2, r"`channels` must be 1 \(grey\) or 3 \(RGB\). Received: 2"),
    ],
)
def test_unusable_settings_are_refused(tmp_path, changes, channels, message):
    """Settings outside of their choices are named with what came."""
    with pytest.raises(ValueError, match=message):
        train(settings(**changes), prepare(channels=channels), tmp_path)


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
    """The error names epoch and learning rate, and no checkpoint of the broken weights is kept."""
    with pytest.raises(FloatingPointError, match=r"not finite in epoch 1 .* learning rate is 1e\+38"):
        train(settings(learning_rate=1e38, optimizer="sgd"), prepare(), tmp_path)
    assert not (tmp_path / "checkpoint.npz").exists()


def test_a_damaged_checkpoint_is_named(tmp_path, monkeypatch):
    """A checkpoint cut short gives an error that names it instead of a fresh start."""
    with monkeypatch.context() as patch, pytest.raises(CrashError):
        crash(patch, checkpoints, "save", 1, after=True)
        train(settings(), prepare(), tmp_path)
    path = tmp_path / "checkpoint.npz"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(DataError, match=r"checkpoint.npz: a damaged checkpoint"):
        train(settings(), prepare(), tmp_path)


def test_a_folder_takes_one_process_at_a_time(tmp_path):
    """While one process trains in a folder, another is told so."""
    with locked(tmp_path, "training"), pytest.raises(DataError, match="another process is training"):
        train(settings(), prepare(), tmp_path)


def starting_model(folder, labels):
    """A new model for `labels` that starts from the run in `folder`, and what was recorded."""
    model = build("Tiny", len(labels), size=SIZE, seed=99)
    return model, start(model, str(folder), labels)


def test_weights_of_an_earlier_run_are_taken_over(finished, capsys):
    """For the same classes all weights are the earlier run's, and its file's sha256 is recorded."""
    model, record = starting_model(finished, ["COVID-19", "non-COVID"])
    earlier = build("Tiny", 2, size=SIZE)
    weights.load(earlier, finished)
    for new, old in zip(model.weights, earlier.weights, strict=True):
        np.testing.assert_array_equal(new, old)
    assert (record["weights"], record["head"]) == (sha256(finished / "best.weights.h5"), "kept")
    assert record["started_from"]["weights"] == "none"
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("labels", [["a", "b"], ["COVID-19", "bacterial", "normal"]])
def test_the_head_is_new_for_other_classes(finished, labels, capsys):
    """For other classes, as many or more, the backbone is taken over and the new head is announced."""
    model, record = starting_model(finished, labels)
    earlier, fresh = build("Tiny", 2, size=SIZE), build("Tiny", len(labels), size=SIZE, seed=99)
    weights.load(earlier, finished)
    for name, source in (("conv", earlier), ("norm", earlier), ("head", fresh)):
        for new, old in zip(model.get_layer(name).weights, source.get_layer(name).weights, strict=True):
            np.testing.assert_array_equal(new, old)
    assert record["head"] == "new"
    assert "the head is new" in capsys.readouterr().err


def test_training_goes_on_from_an_earlier_run(finished, tmp_path):
    """A second run starts where the first one ended, and says so in its record."""
    first = pd.read_csv(finished / "history.csv")["val_loss"].min()
    second = train(
        settings(weights=str(finished), epochs=1, head_epochs=0, learning_rate=1e-9), prepare(), tmp_path
    )
    assert second["val_loss"][0] < 1.5 * first
    assert read_json(tmp_path / "training.json")["settings"]["started_from"]["head"] == "kept"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "training.json").unlink(), "training.json is missing"),
        (lambda folder: (folder / "best.weights.h5").unlink(), "best.weights.h5: no such file"),
        (lambda folder: os.truncate(folder / "best.weights.h5", 999), "not the weights that training.json"),
        (lambda folder: (folder / "training.json").write_text("{}"), "no network or classes in it"),
        (lambda folder: write_json({"settings": None}, folder / "training.json"), "no network or classes"),
    ],
)
def test_unusable_weights_are_refused(finished, tmp_path, damage, message):
    """An earlier run that is incomplete or altered is an error that names the file, never a random start."""
    shutil.copytree(finished, tmp_path / "run")
    damage(tmp_path / "run")
    with pytest.raises(DataError, match=message):
        starting_model(tmp_path / "run", ["COVID-19", "non-COVID"])


def test_nan_among_an_earlier_runs_weights_is_refused(finished, tmp_path):
    """One number that is not finite is an error that names file and tensor, though every hash is right."""
    shutil.copytree(finished, tmp_path / "run")
    model = build("Tiny", 2, size=SIZE)
    weights.load(model, finished)
    kernel, *others = model.get_layer("conv").get_weights()
    kernel[0, 0, 0, 1] = np.nan
    model.get_layer("conv").set_weights([kernel, *others])
    weights.save(model, tmp_path / "run")
    record = read_json(tmp_path / "run" / "training.json")
    record["sha256"]["best.weights.h5"] = sha256(tmp_path / "run" / "best.weights.h5")
    write_json(record, tmp_path / "run" / "training.json")
    with pytest.raises(DataError, match=r"best\.weights\.h5: conv/kernel is not finite"):
        starting_model(tmp_path / "run", ["COVID-19", "non-COVID"])


def test_weights_of_another_network_are_refused(finished):
    """A run of one network cannot start another."""
    model = build("SqueezeNet1_0", 2, size=SIZE)
    with pytest.raises(ValueError, match=r"`weights` must be of a SqueezeNet1_0. Received: .*a Tiny"):
        start(model, str(finished), ["COVID-19", "non-COVID"])


def test_weights_of_another_shape_are_refused(finished):
    """A weights file that does not fit the model is an error that names the file."""
    with pytest.raises(DataError, match=r"best.weights.h5: not weights of this Tiny"):
        weights.load(build("Tiny", 3, size=SIZE), finished)


def test_a_corrected_manifest_is_other_data():
    """A finding that is corrected changes the data's hash, because predictions repeat it."""
    first, second = prepare(), prepare()
    second.manifest["finding"] = "corrected"
    assert batches.read(first).sha256() == batches.read(prepare()).sha256()
    assert batches.read(first).sha256() != batches.read(second).sha256()
