"""Auxiliary heads, the folded first layer, what is made of the heads' outputs, and runs that have them."""

import shutil
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pydicom
import pydicom.data
import pytest
from PIL import Image
from scipy.special import log_softmax, softmax
from test_training import DEEP, deep_settings, prepare

from covidtf import files, predictions, scoring, training
from covidtf.config import DeepConfig, TrainConfig
from covidtf.files import DataError, read_json, sha256
from covidtf.training import batches, train
from covidtf.training.devices import keras
from covidtf.training.features import forward
from covidtf.training.networks import NETWORKS, build, grey, set_trained_part, supervised
from covidtf.weights import safetensors_files, start
from covidtf.weights.exports import export_run

SIZE, CLASSES = 32, 3
LABELS = ("COVID-19", "Bacterial Pneumonia", "Normal")
LEARNED = {"auxiliary": "learned", "stages": "", "auxiliary_width": 8, "auxiliary_weight": 0.3}
FIXED = LEARNED | {"auxiliary": "fixed"}


@pytest.fixture(scope="module", autouse=True)
def known():
    """Make Deep a network as long as these tests run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(NETWORKS, "Deep", DEEP)
        yield


def pictures(count=2, size=SIZE, channels=1):
    """Smooth images with values that fill the range."""
    coarse = np.random.default_rng(0).integers(0, 256, (count, 8, 8, channels))
    return np.kron(coarse, np.ones((1, size // 8, size // 8, 1))).astype("float32")


def shake(model, seed=1):
    """Give the statistics of batch normalisations values as those of a trained network."""
    rng = np.random.default_rng(seed)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            shape = layer.gamma.shape
            pairs = ((0.5, 1.5), (-0.5, 0.5), (-0.5, 0.5), (0.5, 2))
            layer.set_weights([rng.uniform(*pair, shape).astype("float32") for pair in pairs])
    return model


def run_model(model, x):
    """Outputs in inference mode; not compiled, which would take longer than computing."""
    return keras.ops.convert_to_numpy(model(x, training=False))


@pytest.fixture(scope="module", params=["ResNet18", "SqueezeNet1_0", "DenseNet121"])
def base(request):
    """A published network for grey images."""
    return shake(build(request.param, CLASSES, 1, SIZE))


@pytest.fixture(scope="module")
def single(base):
    """The same with a first layer of one channel."""
    return grey.fold(base)


@pytest.fixture(scope="module")
def extended(base):
    """The same with auxiliary heads."""
    return supervised.extend(base, LEARNED)


def test_the_main_head_is_the_networks_own(base, extended):
    """Its logits are those without auxiliary heads; each head adds as many and what weights its loss."""
    outputs = run_model(extended, pictures())
    assert outputs.shape == (2, 3, CLASSES + 1)
    np.testing.assert_allclose(outputs[:, 0, :-1], run_model(base, pictures()), rtol=1e-5, atol=1e-6)
    assert (outputs[:, :, -1] == 0).all()
    assert np.ptp(outputs[0, 1:, :-1], axis=1).min() > 0
    last = len(NETWORKS[base.name].stages)
    names = ["main", f"auxiliary{last - 2}", f"auxiliary{last - 1}"]
    assert supervised.head_weights(extended) == dict.fromkeys(names, 0.5)


def test_heads_begin_with_features_after_a_relu(base, extended):
    """DenseNet's blocks end in plain sums, whose heads normalise them first; those of the others do not."""
    names = {layer.name for layer in extended.layers}
    assert ("auxiliary3.norm0" in names) == (base.name == "DenseNet121")
    first = extended.get_layer("auxiliary3.norm0" if base.name == "DenseNet121" else "auxiliary3.conv").input
    inner = run_model(keras.Model(extended.input, first), pictures())
    assert (inner.min() < 0) == (base.name == "DenseNet121")


def test_parameters_of_the_heads_counted_by_hand():
    """ResNet18's stages 3 and 4 have 128 and 256 channels: 3x3 convolutions to 128, 2 times 128, linear."""
    base = build("ResNet18", CLASSES, 1, SIZE)
    wide = supervised.extend(base, LEARNED | {"auxiliary_width": 128})
    heads = sum(9 * channels * 128 + 2 * 128 + 128 * 3 + 3 for channels in (128, 256))
    count = sum(np.prod(weight.shape) for weight in wide.trainable_weights)
    assert count - sum(np.prod(weight.shape) for weight in base.trainable_weights) == heads + 3
    linear = supervised.extend(base, FIXED | {"auxiliary_width": 0, "stages": "2"})
    count = sum(np.prod(weight.shape) for weight in linear.trainable_weights)
    assert count - sum(np.prod(weight.shape) for weight in base.trainable_weights) == 64 * 3 + 3
    assert supervised.head_weights(linear) == {"main": 1.0, "auxiliary2": 0.3}


def test_new_layers_follow_from_the_seed_and_their_names():
    """The same seed gives the same heads, whatever other heads there are; another seed gives others."""
    base = build("ResNet18", CLASSES, 1, SIZE)
    options = LEARNED | {"auxiliary_width": 128}
    first, second, other = (
        supervised.extend(base, options | {"stages": stages}, seed)
        for stages, seed in (("3", 5), ("2 3", 5), ("3", 6))
    )
    for name in ("auxiliary3.conv", "auxiliary3"):
        kernels = [model.get_layer(name).kernel.numpy() for model in (first, second, other)]
        np.testing.assert_array_equal(kernels[0], kernels[1])
        assert (kernels[0] != kernels[2]).all()
    assert np.std(first.get_layer("auxiliary3.conv").kernel) == pytest.approx(
        np.sqrt(2 / (9 * 128)), rel=0.02
    )
    assert np.abs(first.get_layer("auxiliary3").kernel).max() == pytest.approx(1 / np.sqrt(128), rel=0.05)


@pytest.mark.parametrize(
    ("network", "stages", "wanted"),
    [("ResNet18", "", [3, 4]), ("DenseNet121", "4 2", [2, 4]), ("SqueezeNet1_1", "", [2, 3])],
)
def test_stages_by_number(network, stages, wanted):
    """The default are the two before the last stage."""
    assert supervised.stage_numbers(network, stages) == wanted


@pytest.mark.parametrize("stages", ["5", "0", "2 2"])
def test_other_stages_are_refused(stages):
    """The last stage has the main head already."""
    with pytest.raises(ValueError, match=f"`stages` must be .* 1 to 4 for ResNet18. Received: '{stages}'"):
        supervised.stage_numbers("ResNet18", stages)


def test_an_auxiliary_head_counts_as_head(extended):
    """With the head alone, the backbone is frozen, and heads and the weights of their losses are trained."""
    set_trained_part(extended, "head")
    parts = {variable.path.split("/")[0].split(".")[0] for variable in extended.trainable_variables}
    numbers = [name for name in supervised.head_weights(extended) if name != "main"]
    assert parts == {*numbers, "heads", NETWORKS[extended.name].head.split(".")[0]}
    set_trained_part(extended, "all")


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_heads_are_in_float32_under_mixed_precision(policy):
    """Convolutions compute in 16 bits, logits, what weights the losses and all variables in 32."""
    model = supervised.extend(build("SqueezeNet1_1", CLASSES, 1, SIZE, precision=policy), LEARNED)
    assert run_model(model, pictures()).dtype == np.float32
    assert model.get_layer("auxiliary3.conv").compute_dtype == policy.removeprefix("mixed_")
    assert {variable.dtype for variable in model.trainable_variables} == {"float32"}
    assert model.dtype_policy.name == policy
    assert keras.config.dtype_policy().name == "float32"


def outputs_by_hand(log_c):
    """A model's outputs, and the same heads' scores in float64."""
    logits = np.random.default_rng(0).normal(0, 2, (5, 3, CLASSES)).astype("float32")
    column = np.broadcast_to(np.array(log_c, "float32")[:, None], (5, 3, 1))
    return np.concatenate([logits, column], axis=2), softmax(logits.astype(np.float64), axis=2)


@pytest.mark.parametrize(
    ("fusion", "share"),
    [("main", [1, 0, 0]), ("mean", [1 / 3, 1 / 3, 1 / 3]), ("learned", [4 / 7, 2 / 7, 1 / 7])],
)
def test_fusion_is_a_weighted_mean_of_scores(fusion, share):
    """For c^2 = 1/2, 1 and 2, weights 1/(2c^2) are as 4 to 2 to 1."""
    model = supervised.extend(build("Deep", CLASSES, 1, SIZE), LEARNED)
    outputs, scores = outputs_by_hand(np.log([0.5, 1, 2]) / 2)
    found = softmax(supervised.fused(model, outputs, fusion), axis=1)
    np.testing.assert_allclose(found, np.einsum("nhc,h->nc", scores, share), rtol=1e-5)
    if fusion != "main":
        np.testing.assert_allclose(found, np.exp(supervised.fused(model, outputs, fusion)), rtol=1e-5)


@pytest.mark.parametrize("fusion", ["main", "mean", "learned"])
def test_the_scorer_gives_the_fused_scores(fusion):
    """From pixels, also with batch normalisations folded for inference."""
    model = shake(supervised.extend(build("Deep", CLASSES, 1, SIZE), LEARNED))
    model.get_layer("heads").slow.assign([0.05, -0.05, 0.0])
    wanted = supervised.fused(model, run_model(model, pictures()), fusion)
    scorer = supervised.scorer(model, fusion)
    np.testing.assert_allclose(run_model(scorer, pictures()), wanted, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(forward(scorer)(pictures()), wanted, rtol=1e-4, atol=1e-5)


def test_a_fusion_without_what_it_needs_is_refused():
    """Unknown names, and learned weights where none are learnt."""
    fixed = supervised.extend(build("Deep", CLASSES, 1, SIZE), FIXED)
    with pytest.raises(ValueError, match=r"`fusion` must be one of .* Received: 'median'"):
        supervised.scorer(fixed, "median")
    with pytest.raises(ValueError, match="`fusion` 'learned' needs `auxiliary` 'learned'"):
        supervised.scorer(fixed, "learned")
    with pytest.raises(ValueError, match=r"`auxiliary` must be none, fixed or learned\. Received: 'some'"):
        supervised.extend(build("Deep", CLASSES, 1, SIZE), {"auxiliary": "some"})


def test_a_folded_network_is_the_same_inside_the_border(base, single):
    """The first layer's outputs, with its normalisation, agree to rounding except where zeros come in."""
    assert single.count_params() < base.count_params()
    assert "rgb" not in {layer.name for layer in single.layers}
    name = NETWORKS[base.name].stages[0]
    wanted, found = (
        run_model(keras.Model(model.input, model.get_layer(name).output), pictures())
        for model in (base, single)
    )
    # A window of 7, each second pixel: the first two and the last two places touch the border of 3 zeros.
    inside = slice(None) if base.name == "SqueezeNet1_0" else slice(2, -2)
    np.testing.assert_allclose(
        found[:, inside, inside], wanted[:, inside, inside], rtol=1e-4, atol=2e-5 * np.abs(wanted).max()
    )


def test_the_border_of_a_folded_network_moves_scores_little(base, single):
    """SqueezeNet has no border at its first layer; of the others no score moves by more than 0.02."""
    scores = [softmax(run_model(model, pictures(8)), axis=1) for model in (base, single)]
    most = np.abs(scores[0] - scores[1]).max()
    assert most < (1e-5 if base.name == "SqueezeNet1_0" else 0.02)


def test_a_folded_network_unfolds(base):
    """Folded, unfolded and folded again it is the same, and the unfolded one gives the same scores."""
    single = shake(grey.fold(base), seed=2)
    wide = supervised.plain(single)
    again = grey.fold(wide)
    assert [layer.name for layer in wide.layers] == [layer.name for layer in base.layers]
    for left, right in zip(again.weights, single.weights, strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-5, atol=1e-6)


def test_the_shipped_weights_fold():
    """SqueezeNet's shipped weights, folded, give the features that they give to three equal channels."""
    model = build("SqueezeNet1_0", CLASSES, 1, 64)
    start(model, "tiny-imagenet", ["a", "b", "c"])
    single = grey.fold(model)
    wanted, found = (
        run_model(keras.Model(each.input, each.get_layer("features.12").output), pictures(2, 64))
        for each in (model, single)
    )
    assert np.abs(wanted - found).max() < 1e-4 * wanted.max()


def test_a_drawn_network_draws_its_one_channel():
    """Without weights the folded layer is drawn by the network's law, all others as without folding."""
    model = build("DenseNet121", CLASSES, 1, SIZE, seed=4)
    single = supervised.extend(model, {"folded": True}, seed=4, drawn=True)
    kernel = np.asarray(single.get_layer("features.conv0").kernel)
    assert kernel.shape == (7, 7, 1, 64)
    assert kernel.std() == pytest.approx(np.sqrt(2 / 49), rel=0.05)
    other = "features.denseblock1.denselayer1.conv1"
    np.testing.assert_array_equal(single.get_layer(other).kernel, model.get_layer(other).kernel)


def test_colour_cannot_be_folded():
    """Three channels that differ are no grey image."""
    with pytest.raises(ValueError, match=r"`folded` needs images of 1 channel\. Received: 3"):
        grey.fold(build("Deep", CLASSES, 3, SIZE))


def data(test=True):
    """27 squares of three classes in cases of two images of one label; without test if asked so."""
    prepared = prepare(LABELS)
    table = prepared.manifest
    order = table.groupby(["split", "label"]).cumcount() // 2
    table["case_id"] = "s:" + table["split"] + table["label"] + order.astype(str)
    if not test:
        table.loc[table["split"] == "test", "split"] = ""
    return prepared


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Folder of a finished run with learned weights and fusion."""
    folder = tmp_path_factory.mktemp("run")
    train(deep_settings(), data(), folder)
    return folder


def test_a_run_records_its_settings_and_weights(run):
    """`training.json` has every setting, the history each head's weight after each epoch, which moves."""
    settings = read_json(run / "training.json")["settings"]
    names = {name for name in asdict(DeepConfig()) if name not in asdict(TrainConfig())}
    assert names <= settings.keys()
    assert settings["stages"] == "1 2"
    history = pd.read_csv(run / "history.csv")
    weights = history[["weight_main", "weight_auxiliary1", "weight_auxiliary2"]]
    assert (weights.iloc[-1] != 0.5).all()
    assert (weights.diff().iloc[1:] != 0).all().all()


def test_predictions_are_the_heads_fused(run):
    """Each head's scores in `heads.csv`, weighted as in the best epoch, give `predictions.csv`."""
    table, each = predictions.read(run / "predictions.csv"), pd.read_csv(run / "heads.csv")
    history = pd.read_csv(run / "history.csv").set_index("epoch")
    row = history.loc[read_json(run / "training.json")["best_epoch"]]
    weights = row[["weight_main", "weight_auxiliary1", "weight_auxiliary2"]].to_numpy(float)
    columns = [f"score_{label}" for label in LABELS]
    heads = np.stack([part[columns].to_numpy() for _, part in each.groupby("head", sort=False)])
    wanted = np.einsum("hnc,h->nc", heads, weights / weights.sum())
    np.testing.assert_allclose(table[columns], wanted, atol=1e-6)
    assert list(each["head"].unique()) == ["main", "auxiliary1", "auxiliary2"]
    val = table[table["split"] == "val"]
    chosen = val[columns].to_numpy()[np.arange(len(val)), [LABELS.index(name) for name in val["label"]]]
    assert -np.log(chosen).mean() == pytest.approx(row["val_loss"], rel=1e-5)


def test_a_run_without_test_predicts_val_alone(tmp_path):
    """Data whose test is kept elsewhere are trained on; a plain run still refuses them."""
    train(deep_settings(epochs=1), data(test=False), tmp_path)
    assert set(predictions.read(tmp_path / "predictions.csv")["split"]) == {"val"}
    with pytest.raises(DataError, match="split 'test' has no image; training needs train, val and test"):
        batches.read(data(test=False))
    lost = data(test=False)
    lost.manifest.loc[lost.manifest["split"] == "val", "split"] = ""
    with pytest.raises(DataError, match="split 'val' has no image; training needs train and val"):
        batches.read(lost, test=False)


def test_without_its_own_settings_it_is_a_plain_run(tmp_path):
    """No auxiliary head, cross-entropy and beta 0: the plain run's scores to rounding."""
    off = {"auxiliary": "none", "fusion": "main", "beta": 0.0, "folded": False, "random_grey": 0.0}
    train(deep_settings(**off), data(), tmp_path / "deep")
    plain = {name: getattr(deep_settings(), name) for name in (*training.DECISIVE, "weights")}
    train(SimpleNamespace(**plain, mixed_precision=False), data(), tmp_path / "plain")
    tables = [predictions.read(tmp_path / name / "predictions.csv") for name in ("deep", "plain")]
    pd.testing.assert_frame_equal(*tables, rtol=0, atol=1e-4)
    assert not (tmp_path / "deep/heads.csv").exists()


@pytest.mark.parametrize(
    "changes",
    [
        {"loss": "generalized", "auxiliary": "fixed", "fusion": "mean"},
        {"loss": "symmetric", "fusion": "main", "auxiliary_width": 0, "stages": "2"},
        {"loss": "symmetric", "auxiliary": "none", "fusion": "mean", "head_epochs": 2},
    ],
)
def test_other_settings_train_too(tmp_path, changes):
    """Each loss with each kind of heads: finite losses, scores that sum to 1."""
    history = train(deep_settings(epochs=2, **changes), data(), tmp_path)
    assert np.isfinite(history["train_loss"]).all()
    predictions.read(tmp_path / "predictions.csv")


def test_label_noise_changes_train_cases_alone():
    """Of train's cases the share is changed, all images of one alike; labels of val and test stay."""
    before = batches.read(data())
    after, record = batches.with_label_noise(before, 0.3, seed=1)
    rows = np.unique(before.shown)
    moved = (after.labels != before.labels)[rows]
    cases = before.manifest["case_id"].to_numpy()[rows]
    changed = {case for case, flag in zip(cases, moved, strict=True) if flag}
    assert record["cases"] == len(set(cases))
    assert record["changed"] == len(changed) == round(0.3 * len(set(cases))) == 2
    for case in changed:
        assert len(set(after.labels[rows][cases == case])) == 1
        assert moved[cases == case].all()
    assert moved.any()
    others = np.setdiff1d(np.arange(len(before.labels)), rows)
    np.testing.assert_array_equal(after.labels[others], before.labels[others])
    again, same = batches.with_label_noise(before, 0.3, seed=1)
    np.testing.assert_array_equal(again.labels, after.labels)
    assert same == record != batches.with_label_noise(before, 0.3, seed=2)[1]
    assert batches.with_label_noise(before, 0.0, seed=1)[0].sha256() == before.sha256()
    with pytest.raises(DataError, match=r"leaves a class of .* without an image in train"):
        batches.with_label_noise(before, 0.5, seed=1)


def test_label_noise_is_recorded(tmp_path):
    """`training.json` says how many cases were changed; predictions keep the true labels."""
    train(deep_settings(epochs=1, label_noise=0.3), data(), tmp_path)
    record = read_json(tmp_path / "training.json")["settings"]["changed_labels"]
    assert record["changed"] == round(0.3 * record["cases"]) > 0
    assert len(record["sha256"]) == 64
    table = predictions.read(tmp_path / "predictions.csv")
    assert list(table["label"]) == list(data().manifest.query("split in ('val', 'test')")["label"])


def grey_views(**options):
    """The only batch of random views of one image, many times."""
    images = np.tile(np.arange(64, 192, dtype=np.uint8)[None, :, None, None], (1, 1, 128, 1))
    rows, labels = np.zeros(300, int), np.zeros(1, int)
    return batches.RandomViews(images, labels, rows, 300, crop=1.0, flip=False, seed=[1, 2], **options)[0][0]


def test_random_grey_changes_mean_and_contrast_by_its_share():
    """Means and spreads of views are uniform within the share of the image's, and the same again."""
    views = grey_views(grey=0.3)
    mean, spread = views.mean(axis=(1, 2, 3)), views.std(axis=(1, 2, 3))
    ratio = mean / 127.5, spread / np.arange(64, 192).std()
    for values in ratio:
        assert 0.69 < values.min() < 0.72
        assert 1.28 < values.max() < 1.31
        assert values.std() == pytest.approx(0.6 / np.sqrt(12), rel=0.1)
    np.testing.assert_array_equal(views, grey_views(grey=0.3))


def test_random_grey_leaves_other_random_numbers():
    """Without it a view is the image; crops and mirrors are those of views that never heard of it."""
    assert (grey_views() == grey_views()[0]).all()
    shown = data().images, np.zeros(27, int), np.arange(1), 1
    options = {"crop": 0.5, "flip": True, "seed": [1, 2]}
    plain, changed = (batches.RandomViews(*shown, **options, grey=share)[0][0][0] for share in (0.0, 0.3))
    left, right = plain.astype(float).ravel(), changed.astype(float).ravel()
    assert np.corrcoef(left, right)[0, 1] > 0.999


def test_files_get_the_scores_that_the_run_gave_them(run, tmp_path):
    """A run with fused heads and a folded layer scores image files as it scored its own data.

    Its metrics are those that notebook 05 writes: classes by slice and by case, and no threshold.
    """
    prepared = data()
    files.write_json({"slice": {}, "case": {}, "rule": {"rule": "mean", "k": None}}, run / "metrics.json")
    rows = np.flatnonzero(prepared.manifest["split"].isin(["val", "test"]))
    for row in rows:
        Image.fromarray(prepared.images[row, :, :, 0]).save(tmp_path / f"{row:02}.png")
    assert scoring.score(run, [tmp_path], tmp_path.with_suffix(".csv")) == (len(rows), 0)
    columns = [f"score_{label}" for label in LABELS]
    found, wanted = pd.read_csv(tmp_path.with_suffix(".csv")), predictions.read(run / "predictions.csv")
    np.testing.assert_allclose(found[columns], wanted[columns], atol=1e-6)


def test_an_exported_run_with_heads_gives_its_scores(run, tmp_path):
    """In OpenVINO, where weights of the heads are unequal, scores are Keras' to a thousandth."""
    pytest.importorskip("openvino", reason="needs the optional extra; see `make test-openvino`")
    shutil.copytree(run, tmp_path / "run")
    trained, images = scoring.read(tmp_path / "run"), data().images[:8]
    wanted, found = (scoring.Scorer(trained, name, 8)(images) for name in ("keras", "openvino"))
    np.testing.assert_allclose(found, wanted, atol=1e-3)


def test_a_plain_run_starts_from_one_with_heads(run, tmp_path):
    """Its network, unfolded, and its main head are taken over, its auxiliary heads are not."""
    model = build("Deep", CLASSES, 1, SIZE, seed=9)
    record = start(model, str(run), list(LABELS))
    assert (record["head"], record["weights"]) == ("kept", sha256(run / "best.weights.h5"))
    main = pd.read_csv(run / "heads.csv").query("head == 'main'")
    rows = np.flatnonzero(data().manifest["split"].isin(["val", "test"]))
    found = softmax(model.predict_on_batch(data().images[rows].astype("float32")), axis=1)
    np.testing.assert_allclose(found, main[[f"score_{label}" for label in LABELS]], atol=1e-4)
    again = train(deep_settings(weights=str(run), epochs=1, learning_rate=1e-9), data(), tmp_path)
    assert len(again) == 1
    assert read_json(tmp_path / "training.json")["settings"]["started_from"]["head"] == "kept"


def test_the_network_of_a_run_with_heads_can_be_exported(run, tmp_path):
    """The file holds the network with its main head, and three channels again."""
    tensors, metadata = safetensors_files.read(export_run(run, tmp_path / "out.safetensors"))
    assert tensors["conv1.weight"].shape[1] == 3
    assert metadata["network"] == "Deep"
    assert not any(name.startswith(("auxiliary", "heads")) for name in tensors)


def test_log_probabilities_of_the_main_head_are_log_softmax():
    """`main` gives the head's logits, whose softmax is the score."""
    model = supervised.extend(build("Deep", CLASSES, 1, SIZE), LEARNED)
    outputs, scores = outputs_by_hand([0, 0, 0])
    found = log_softmax(supervised.fused(model, outputs, "main"), axis=1)
    np.testing.assert_allclose(found, np.log(scores[:, 0]), rtol=1e-4, atol=1e-5)


def test_settings_of_the_notebook_are_all_decisive():
    """Each setting of `DeepConfig` that `TrainConfig` lacks is in the record of a run."""
    new = asdict(DeepConfig()).keys() - asdict(TrainConfig()).keys()
    assert new == set(training.DEEP)
    assert Path(training.__file__).is_file()


def test_a_dicom_file_is_not_scored_by_a_run_of_ct(run, tmp_path):
    """Its own window would show it otherwise than the slices that the network learnt from: it is listed."""
    path = Path(pydicom.data.get_testdata_file("CT_small.dcm"))
    shutil.copy(path, tmp_path / "slice.dcm")
    Image.fromarray(data().images[0, :, :, 0]).save(tmp_path / "slice.png")
    assert scoring.score(run, [tmp_path], tmp_path.with_suffix(".csv")) == (1, 1)
    rejected = pd.read_csv(scoring.rejected_path(tmp_path.with_suffix(".csv")))
    assert rejected["reason"].str.contains("windowed as in notebook 02").all()
