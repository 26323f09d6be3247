"""Features of a frozen backbone: equal to its outputs, computed once, never taken for another's."""

import numpy as np
import pytest

from covidtf.files import DataError, locked, read_json
from covidtf.training import features as module
from covidtf.training.batches import Batches
from covidtf.training.devices import keras
from covidtf.training.features import features, fold
from covidtf.training.networks import NETWORKS, Network, build, split_model

SIZE = 32
ROWS = np.array([4, 2, 0, 4])


def tiny(x, classes):
    """Two convolutions, one with a bias, one used twice, and batch normalisations after each."""
    x = keras.layers.Conv2D(4, 5, strides=4, name="conv")(x)
    x = keras.layers.ReLU(name="relu")(keras.layers.BatchNormalization(name="norm")(x))
    y = keras.layers.Conv2D(4, 3, padding="same", use_bias=False, name="twice")(x)
    y = keras.layers.Add(name="add")([y, keras.layers.BatchNormalization(name="kept")(y)])
    x = keras.layers.GlobalAveragePooling2D(name="pool")(y)
    return keras.layers.Dense(classes, name="head")(x)


def draw(rng, name, shape):
    """Normal values for every parameter."""
    return rng.normal(0, 0.3, shape).astype("float32")


@pytest.fixture(scope="module", autouse=True)
def known():
    """Make Tiny a network as long as these tests run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(NETWORKS, "Tiny", Network(tiny, draw, "head", ("relu",), pool="pool"))
        yield


def network(name="Tiny", **options):
    """A network whose batch normalisations are not the identity."""
    model, rng = build(name, 2, size=SIZE, **options), np.random.default_rng(5)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            shape = layer.gamma.shape
            layer.set_weights(
                [rng.uniform(0.5, 1.5, shape), *rng.normal(0, 0.2, (2, *shape)), rng.uniform(0.5, 1.5, shape)]
            )
    return model


@pytest.fixture
def images():
    """Five grey images, the last two the same."""
    images = np.random.default_rng(0).integers(0, 256, (5, SIZE, SIZE, 1)).astype(np.uint8)
    images[3] = images[4]
    return images


def plain(model, images):
    """What Keras itself gives."""
    return np.asarray(split_model(model)[0](images.astype("float32"), training=False)).astype("float32")


def count(monkeypatch):
    """List to which every image is added that is computed, by its row."""
    seen, real = [], module._Cache.add

    def add(self, missing, *args):
        seen.extend(missing.values())
        return real(self, missing, *args)

    monkeypatch.setattr(module._Cache, "add", add)
    return seen


@pytest.mark.parametrize("name", ["Tiny", "ResNet18", "SqueezeNet1_0", "DenseNet121"])
def test_features_are_the_backbones_outputs(name, images, tmp_path):
    """In the order asked for, with a batch that is not full, to a few units in the last place."""
    model = network(name)
    got, wanted = features(model, images, ROWS, tmp_path, batch_size=2)[ROWS], plain(model, images)[ROWS]
    assert got.shape == wanted.shape
    assert got.dtype == np.float32
    assert np.abs(got - wanted).max() < 3e-6 * np.abs(wanted).max()


def test_half_precision_is_kept_as_it_is(images, tmp_path):
    """Under mixed bfloat16 nothing is folded: the features are the plain forward's very numbers."""
    model = network("SqueezeNet1_0", precision="mixed_bfloat16")
    got = features(model, images, np.arange(5), tmp_path, batch_size=5)[np.arange(5)]
    np.testing.assert_allclose(got, plain(model, images), rtol=0.02, atol=0.02 * np.abs(got).max())
    assert (got == got.astype(keras.ops.convert_to_numpy(keras.ops.zeros(1, "bfloat16")).dtype)).all()


def test_folding_keeps_the_function_and_only_what_can_be_folded(images):
    """A normalisation after a convolution goes; one whose convolution has a second user stays."""
    model = network()
    folded = fold(model)
    names = {layer.name for layer in folded.layers}
    assert "norm" not in names
    assert "kept" in names
    batch = images.astype("float32")
    np.testing.assert_allclose(folded(batch), model(batch, training=False), rtol=1e-5, atol=1e-6)


def test_each_image_is_computed_once(images, tmp_path, monkeypatch):
    """By its pixels: a copy, another position and another head find it, only new images are computed."""
    seen = count(monkeypatch)
    first = features(network(), images, [0, 3, 4], tmp_path)
    assert sorted(seen) == [0, 4]
    again = features(network(seed=0), images[::-1], np.arange(5), tmp_path)
    assert sorted(seen[2:]) == [2, 3]
    np.testing.assert_array_equal(again[[4, 1, 0]], first[[0, 3, 4]])
    other = network()
    other.get_layer("head").set_weights([np.ones((4, 2)), np.ones(2)])
    features(other, images, np.arange(5), tmp_path)
    assert len(seen) == 4


@pytest.mark.parametrize("change", ["weights", "size", "rules", "copied"])
def test_another_backbone_finds_nothing(images, tmp_path, monkeypatch, change):
    """One weight, the rules or the input's size changed: computed anew, even beside a copied file."""
    model = network()
    features(model, images, ROWS, tmp_path)
    seen = count(monkeypatch)
    if change == "rules":
        monkeypatch.setattr(module, "RULES", module.RULES + 1)
    elif change == "size":
        model, images = build("Tiny", 2, size=SIZE + 4), np.pad(images, ((0, 0), (0, 4), (0, 4), (0, 0)))
    else:
        kernel, bias = model.get_layer("conv").get_weights()
        kernel[0, 0, 0, 0] = np.nextafter(kernel[0, 0, 0, 0], 9, dtype="float32")
        model.get_layer("conv").set_weights([kernel, bias])
    if change == "copied":
        features(model, images, [1], tmp_path)
        earlier, own = sorted(tmp_path.glob("*/*.npy"), key=lambda path: path.stat().st_size, reverse=True)
        (own.parent / "copied.npy").write_bytes(earlier.read_bytes())
        seen.clear()
    got = features(model, images, ROWS, tmp_path)[ROWS]
    assert sorted(seen) == [0, 2, 4]
    np.testing.assert_allclose(got, plain(model, images)[ROWS], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("damage", ["cut", "empty", "longer", "changed", "other"])
def test_a_damaged_cache_is_refused(images, tmp_path, damage):
    """Cut short, emptied, longer, a flipped bit or another kind of array: the error names the file."""
    features(network(), images, ROWS, tmp_path)
    (path,) = tmp_path.glob("*/*.npy")
    data = path.read_bytes()
    if damage == "other":
        np.save(path, np.zeros(3))
    else:
        flipped = data[:-1] + bytes([data[-1] ^ 1])
        path.write_bytes({"cut": data[:-1], "empty": b"", "longer": data + b"0", "changed": flipped}[damage])
    with pytest.raises(DataError, match=path.name):
        features(network(), images, ROWS, tmp_path)


def test_a_cache_cut_while_it_is_read_is_refused(images, tmp_path):
    """A file that shrinks after it was checked does not give numbers."""
    got = features(network(), images, ROWS, tmp_path)
    (path,) = tmp_path.glob("*/*.npy")
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(DataError, match="cut short"):
        got[[0, 2, 4]]


def test_an_interrupted_pass_leaves_nothing(images, tmp_path, monkeypatch):
    """After an error in the second batch there is no file; the next call removes what a killed one left."""
    calls, real = [], module.forward

    def breaking(backbone):
        forward = real(backbone)

        def step(batch):
            calls.append(1)
            if len(calls) == 2:
                raise KeyboardInterrupt
            return forward(batch)

        return step

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(module, "forward", breaking)
        features(network(), images, ROWS, tmp_path, batch_size=2)
    assert not list(tmp_path.glob("*/*npy*")) + list(tmp_path.glob("*/.*npy*"))
    (folder,) = tmp_path.iterdir()
    (folder / ".0123.npy.killed").write_bytes(b"half")
    features(network(), images, ROWS, tmp_path, batch_size=2)
    assert len(list(folder.glob("*.npy"))) == 1
    assert not list(folder.glob(".*npy*"))


def test_two_processes_do_not_add_at_once(images, tmp_path):
    """While another holds the lock, missing images are an error; those that are there can be read."""
    got = features(network(), images, ROWS, tmp_path)[ROWS]
    (folder,) = tmp_path.iterdir()
    with locked(folder, "computing features"):
        np.testing.assert_array_equal(features(network(), images, ROWS, tmp_path)[ROWS], got)
        with pytest.raises(DataError, match="another process is computing features"):
            features(network(), images, [1], tmp_path)


@pytest.mark.parametrize(("value", "named"), [(np.nan, "conv/kernel"), (1e38, "the features of image 0")])
def test_features_that_are_not_numbers_are_refused(images, tmp_path, value, named):
    """NaN among the weights, or weights that overflow: the error says where, nothing is kept."""
    model = network()
    model.get_layer("conv").set_weights([np.full((5, 5, 3, 4), value), np.zeros(4)])
    with pytest.raises(FloatingPointError, match=f"Tiny-backbone: {named}"):
        features(model, images // 4 + np.uint8(192), ROWS, tmp_path)
    assert not list(tmp_path.glob("*/*.npy"))


def test_features_stand_in_for_images(images, tmp_path):
    """`Batches` gives them in its order; a row that was not asked for is an error."""
    got = features(network(), images, ROWS, tmp_path)
    assert got.shape == (5, 4)
    assert len(got) == 5
    batch, labels = Batches(got, np.arange(5), np.array([4, 0, 2]), 2)[0]
    np.testing.assert_array_equal(batch, got[[4, 0]])
    np.testing.assert_array_equal(labels, [4, 0])
    with pytest.raises(IndexError, match="image 1"):
        got[[0, 1]]


def test_the_folder_says_what_it_is_of(images, tmp_path):
    """Network and input are in the record beside the file, the file can be opened with NumPy."""
    features(network(), images, ROWS, tmp_path)
    (record,) = tmp_path.glob("*/backbone.json")
    about = read_json(record)
    assert about["network"] == "Tiny"
    assert about["input"] == [SIZE, SIZE, 1]
    (path,) = tmp_path.glob("*/*.npy")
    assert np.load(path)["features"].shape == (3, 4)
