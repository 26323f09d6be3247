"""Tests of covidtf.weights: what a run starts from, found, checked and converted; and what is refused."""

import functools
import http.server
import json
import shutil
import struct
import subprocess
import sys
import threading
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from test_torch_files import assert_equal
from torch_checkpoints import FOLDER, FORMATS, tiny
from torch_reference import parameter

from covidtf import weights
from covidtf.files import DataError, read_json, sha256, write_json
from covidtf.training import weights as run_weights
from covidtf.training.devices import keras
from covidtf.training.networks import NETWORKS, Network, build
from covidtf.weights import convert, imagenet, places, safetensors_files, torch_files

CLASSES = ["COVID-19", "non-COVID"]


def tiny_layers(x, classes):
    """The network of torch_checkpoints.TINY."""
    x = keras.layers.Conv2D(4, 5, strides=4, use_bias=False, name="conv1")(x)
    x = keras.layers.ReLU(name="relu")(keras.layers.BatchNormalization(name="bn1")(x))
    x = keras.layers.Dropout(0.5, name="dropout")(keras.layers.GlobalAveragePooling2D(name="pool")(x))
    return keras.layers.Dense(classes, name="fc")(x)


@pytest.fixture(scope="module", autouse=True)
def known():
    """Make Tiny a network as long as these tests run."""
    draw = lambda rng, name, shape: rng.normal(0, 0.3, shape).astype("float32")  # noqa: E731
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(NETWORKS, "Tiny", Network(tiny_layers, draw, "fc", ("relu",), "pool"))
        yield


@pytest.fixture
def model():
    """A new Tiny for two classes."""
    return build("Tiny", 2, channels=3, size=32)


# Safetensors


def test_bfloat16_in_safetensors_is_widened(tmp_path):
    """A file made by hand as the format's text says: length, JSON, numbers."""
    head = json.dumps({"w": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}}).encode()
    file = tmp_path / "a.safetensors"
    file.write_bytes(struct.pack("<Q", len(head)) + head + b"\x80\x3f\x20\xc0")
    assert_equal(safetensors_files.read(file)[0], {"w": np.array([1, -2.5], np.float32)})


def test_damaged_safetensors_are_refused(tmp_path):
    """Cut anywhere, or with numbers of another type: an error that names the file."""
    file = safetensors_files.write(tiny(), tmp_path / "a.safetensors", {"format": "pt"})
    whole = file.read_bytes()
    for size in range(0, len(whole), 11):
        file.write_bytes(whole[:size])
        with pytest.raises(DataError, match=r"a.safetensors: not a safetensors file"):
            safetensors_files.read(file)
    save_file({"w": np.ones(3, np.int32)}, file)
    with pytest.raises(DataError, match=r"a.safetensors: `w` must be one of .*Received: I32"):
        safetensors_files.read(file)


# Into a model and out of it


def test_assigned_weights_compute_what_torch_computes(model):
    """The logits of one image are those worked out from the tensors in torch's layout."""
    convert.assign(model, tiny(), "a.pt", head=True)
    pixels = np.arange(32 * 32 * 3).reshape(1, 32, 32, 3) % 251
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    x = ((pixels[0] / 255 - mean) / std).transpose(2, 0, 1)
    t = {name: values.astype(float) for name, values in tiny().items()}
    windows = np.lib.stride_tricks.sliding_window_view(x, (3, 5, 5))[0, ::4, ::4]
    x = np.einsum("hwcij,ocij->ohw", windows, t["conv1.weight"])
    scale = t["bn1.weight"] / np.sqrt(t["bn1.running_var"] + 1e-3)
    x = (x - t["bn1.running_mean"][:, None, None]) * scale[:, None, None] + t["bn1.bias"][:, None, None]
    wanted = t["fc.weight"] @ np.maximum(x, 0).mean((1, 2)) + t["fc.bias"]
    np.testing.assert_allclose(model.predict(pixels.astype("float32"), verbose=0)[0], wanted, rtol=1e-4)


def changed(**items):
    """Tiny's tensors with some of them replaced, or (None) left out; `_` stands for a dot."""
    tensors = tiny() | {name.replace("__", "."): values for name, values in items.items()}
    return {name: values for name, values in tensors.items() if values is not None}


BAD = {
    "missing": (changed(bn1__bias=None), r"of 7 tensors wanted, 1 missing \(`bn1.bias`\)"),
    "unknown": (changed(bn2__bias=np.ones(4)), r"1 unknown \(`bn2.bias`\)"),
    "channels": (
        changed(conv1__weight=np.ones((4, 1, 5, 5), np.float32)),
        r"`conv1.weight` of a Tiny must have shape \(4, 3, 5, 5\). Received: \(4, 1, 5, 5\)",
    ),
    "classes": (
        changed(fc__bias=np.ones(3)),
        r"`fc.bias` of a Tiny must have shape \(2,\). Received: \(3,\)",
    ),
    "integers": (
        changed(bn1__bias=np.ones(4, int)),
        "`bn1.bias` must be floating point numbers. Received: int64",
    ),
    "NaN": (changed(bn1__bias=np.array([1, np.nan, 0, 0])), "`bn1.bias` must be finite.*in 1 of 4"),
    "infinity": (changed(bn1__bias=np.full(4, np.inf)), "`bn1.bias` must be finite.*in 4 of 4"),
    "too large": (changed(bn1__bias=np.full(4, 1e300)), "`bn1.bias` must be finite.*in 4 of 4"),
    "variance": (changed(bn1__running_var=np.full(4, -0.5)), "`bn1.running_var` .*negative. Received: -0.5"),
}


@pytest.mark.parametrize("case", BAD)
def test_weights_that_do_not_fit_change_nothing(case, model):
    """The error names file and tensor, what was wanted and what came, and the model is as it was."""
    tensors, message = BAD[case]
    before = model.get_weights()
    with pytest.raises(DataError, match=f"a.pt: .*{message}"):
        convert.assign(model, tensors, "a.pt", head=True)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_a_checkpoint_of_another_network_is_refused(model):
    """The error says how much is missing and unknown, and names three of each."""
    with pytest.raises(
        DataError,
        match=r"of a SqueezeNet1_0: of 52 tensors wanted, 52 missing .*, \.\.\.\) and 7 unknown .*`bn1.bias`",
    ):
        convert.assign(build("SqueezeNet1_0", 2, size=32), tiny(), "a.pt", head=True)


def test_the_head_is_left_out_unless_asked_for(model):
    """Without the head, its tensors may be absent or of other classes, and the model's head stays."""
    before = model.get_layer("fc").get_weights()
    for tensors in (changed(fc__weight=np.ones((1000, 4)), fc__bias=np.ones(1000)), changed(fc__bias=None)):
        convert.assign(model, tensors, "a.pt", head=False)
        for old, new in zip(before, model.get_layer("fc").get_weights(), strict=True):
            np.testing.assert_array_equal(old, new)
        np.testing.assert_array_equal(convert.tensors_of(model)["conv1.weight"], tiny()["conv1.weight"])


def reference(model):
    """Each tensor's value by the formula of names and shapes, in torch's layout."""
    return {name: parameter(name, values.shape) for name, values in convert.tensors_of(model).items()}


@pytest.mark.parametrize("network", ["ResNet18", "SqueezeNet1_0", "SqueezeNet1_1"])
def test_a_network_goes_out_and_comes_back(network, tmp_path):
    """What is assigned, exported as .safetensors and assigned to another model is the same, bit for bit."""
    first, second = (build(network, 2, size=32, seed=seed) for seed in (0, 1))
    wanted = reference(first)
    convert.assign(first, wanted, "reference", head=True)
    file = weights.export(first, CLASSES, tmp_path / "a.safetensors")
    assert_equal(load_file(file), wanted)
    record = weights.start(second, str(file), CLASSES)
    assert record == {"weights": sha256(file), "source": "a.safetensors", "head": "kept"}
    assert_equal(convert.tensors_of(second), wanted)


def test_densenets_old_names_are_understood():
    """`norm.1`, `conv.2` and so on, as in the published checkpoint, are today's `norm1`, `conv2`."""
    model = build("DenseNet121", 2, size=32)
    wanted = reference(model)
    old = {}
    for name, values in wanted.items():
        inside = "denselayer" in name
        for word in ("norm1", "norm2", "conv1", "conv2") if inside else ():
            name = name.replace(f".{word}.", f".{word[:4]}.{word[4:]}.")
        old[name] = values
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    convert.assign(model, old, "densenet.pth", head=True)
    assert_equal(convert.tensors_of(model), wanted)
    both = old | {"features.denseblock1.denselayer1.norm1.weight": np.ones(64, np.float32)}
    with pytest.raises(
        DataError, match=r"densenet.pth: `features.denseblock1.denselayer1.norm1.weight` is .*twice"
    ):
        convert.assign(model, both, "densenet.pth", head=True)


@pytest.mark.parametrize("network", ["ResNet50", "SqueezeNet1_1", "DenseNet121"])
def test_torch_loads_what_is_exported(network, tmp_path):
    """PyTorch's network takes the file in without a missing or unknown tensor; needs torch."""
    torch = pytest.importorskip("torch")
    from benchmarks import torch_networks

    model = build(network, 2, size=32)
    file = weights.export(model, CLASSES, tmp_path / "a.safetensors")
    theirs = torch_networks.build(network, 2)
    theirs.load_state_dict({name: torch.from_numpy(values) for name, values in load_file(file).items()})
    torch.save(theirs.state_dict(), tmp_path / "a.pth", _use_new_zipfile_serialization=False)
    other = build(network, 2, size=32, seed=1)
    convert.assign(other, torch_files.read(tmp_path / "a.pth"), "a.pth", head=True)
    assert_equal(convert.tensors_of(other), convert.tensors_of(model))


# What a run starts from


def test_a_checkpoint_file_starts_a_run(model, capsys):
    """The backbone is the file's; a .pt does not name its classes, so the head is new, which is said."""
    head = model.get_layer("fc").get_weights()
    file = FOLDER / "training-zip.pt"
    record = weights.start(model, str(file), CLASSES)
    assert record == {"weights": sha256(file), "source": "training-zip.pt", "head": "new"}
    assert_equal(
        {name: values for name, values in convert.tensors_of(model).items() if not name.startswith("fc")},
        {name: values for name, values in tiny().items() if not name.startswith("fc")},
    )
    np.testing.assert_array_equal(model.get_layer("fc").get_weights()[0], head[0])
    assert capsys.readouterr().err == (
        "training-zip.pt was trained for classes that it does not name: the head is new\n"
    )


@pytest.mark.parametrize("classes", [["non-COVID", "COVID-19"], ["a", "b", "c"]])
def test_the_head_is_new_for_other_classes(classes, model, tmp_path, capsys):
    """The order counts too: a head for the same classes in another order would swap them."""
    file = weights.export(model, CLASSES, tmp_path / "a.safetensors")
    other = build("Tiny", len(classes), channels=3, size=32, seed=1)
    assert weights.start(other, str(file), classes)["head"] == "new"
    assert "trained for ['COVID-19', 'non-COVID']: the head is new" in capsys.readouterr().err


@pytest.fixture
def shipping(tmp_path, monkeypatch):
    """Weights of Tiny that ship, in a folder of their own: the model they were made of, and the file."""
    monkeypatch.setattr(places, "SHIPPED", tmp_path / "shipped")
    first = build("Tiny", 2, channels=3, size=32, seed=5)
    record = {"classes": CLASSES, "trained": "50 epochs on natural images", "val_accuracy": 0.4}
    return first, weights.write_shipped(first, "natural", record, tmp_path / "shipped")


def test_shipped_weights_start_a_run(shipping, model):
    """They are kept in float16 and give the same float32, rounded to 11 bits; the record holds the sha256."""
    first, file = shipping
    record = read_json(file.with_suffix(".json"))
    assert (record["sha256"], record["bytes"]) == (sha256(file), file.stat().st_size)
    assert (record["network"], record["name"], record["val_accuracy"]) == ("Tiny", "natural", 0.4)
    assert {values.dtype.name for values in load_file(file).values()} == {"float16"}
    started = weights.start(model, "natural", CLASSES)
    assert started == {"weights": record["sha256"], "source": "natural", "head": "kept"}
    assert places.identity("natural", "Tiny") == record["sha256"]
    rounded = {
        name: values.astype("float16").astype("float32") for name, values in convert.tensors_of(first).items()
    }
    assert_equal(convert.tensors_of(model), rounded)


def test_shipped_weights_that_changed_are_refused(shipping, model):
    """Another byte in the file is an error with both hashes; another network has none of that name."""
    _, file = shipping
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    recorded = read_json(file.with_suffix(".json"))["sha256"]
    for refuse in (
        weights.start,
        lambda *_: places.check("natural", "Tiny"),
        lambda *_: places.identity("natural", "Tiny"),
    ):
        with pytest.raises(DataError, match=f"must be {recorded}. Received: {sha256(file)}"):
            refuse(model, "natural", CLASSES)
    with pytest.raises(DataError, match=r"ResNet18-natural does not ship. There are: Tiny-natural"):
        places.check("natural", "ResNet18")
    file.unlink()
    with pytest.raises(DataError, match=r"Received: no such file"):
        weights.start(model, "natural", CLASSES)


def test_what_cannot_ship_is_refused(model, tmp_path):
    """Classes that are not the model's, and weights beyond float16's largest number; no file is made."""
    with pytest.raises(ValueError, match=r"`classes` must be 2. Received: 3"):
        weights.write_shipped(model, "x", {"classes": ["a", "b", "c"]}, tmp_path)
    model.get_layer("fc").set_weights([np.full((4, 2), 70000.0), np.zeros(2)])
    with pytest.raises(ValueError, match=r"`fc.weight` must be finite in float16"):
        weights.write_shipped(model, "x", {"classes": CLASSES}, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_weights_that_ship_are_whole():
    """Each file that ships has a record with its sha256, says its classes and fits its network."""
    for stem in places._shipped_names():
        network, name = stem.split("-", 1)
        file, record = places.shipped(name, network)
        assert (record["network"], record["name"]) == (network, name)
        tensors, metadata = safetensors_files.read(file)
        assert json.loads(metadata["classes"]) == record["classes"]
        convert.assign(build(network, len(record["classes"]), size=64), tensors, stem, head=True)


def test_a_run_says_what_it_came_from(model, tmp_path):
    """An earlier run, here of grey images, is named by its id, and what it started from is repeated."""
    folder, earlier_model = tmp_path / "Tiny-seed0-12345678", build("Tiny", 2, channels=1, size=32, seed=7)
    folder.mkdir()
    for name in run_weights.KEPT:
        (folder / name).write_text("")
    run_weights.save(earlier_model, folder)
    earlier = {"weights": "ab" * 32, "source": "imagenet", "head": "new"}
    write_json(
        {
            "settings": {"network": "Tiny", "classes": CLASSES, "started_from": earlier},
            "sha256": {name: sha256(folder / name) for name in run_weights.KEPT},
        },
        folder / "training.json",
    )
    record = weights.start(model, str(folder), CLASSES)
    wanted = {"weights": sha256(folder / "best.weights.h5"), "source": folder.name, "head": "kept"}
    assert record == wanted | {"started_from": earlier}
    assert_equal(convert.tensors_of(model), convert.tensors_of(earlier_model))
    with pytest.raises(DataError, match=r"not the folder of a finished run: no provenance.json"):
        places.check(str(folder), "Tiny")
    write_json({"sha256": {}}, folder / "provenance.json")
    places.check(str(folder), "Tiny")
    assert places.identity(str(folder), "Tiny") == sha256(folder / "provenance.json")
    with pytest.raises(ValueError, match=r"`weights` must be of a ResNet18. Received: .*a Tiny"):
        places.check(str(folder), "ResNet18")


@pytest.mark.parametrize(
    ("metadata", "error", "message"),
    [
        ({"classes": "5"}, DataError, r"a\.safetensors: `classes` .* must be a list of names. Received: 5"),
        ({"classes": "[1]"}, DataError, r"a\.safetensors: `classes` .* must be a list of names"),
        ({"classes": "["}, DataError, r"a\.safetensors: `classes` .* must be JSON"),
        ({"network": "ResNet18"}, ValueError, r"must be of a Tiny. Received: .*a\.safetensors, a ResNet18"),
    ],
)
def test_metadata_that_say_something_else_are_refused(metadata, error, message, model, tmp_path):
    """Classes that are no list of names, or another network, are errors that name the file."""
    file = safetensors_files.write(convert.tensors_of(model), tmp_path / "a.safetensors", metadata)
    with pytest.raises(error, match=message):
        weights.start(model, str(file), CLASSES)


def test_unknown_weights_are_refused(model, tmp_path, shipping):
    """A misspelt word is an error that says what is possible, in each of the three places that ask."""
    (tmp_path / "a.h5").write_text("")
    for word in ("imagnet", "runs/absent", str(tmp_path / "a.h5")):
        for ask in (places.check, places.identity, lambda word, _: weights.start(model, word, CLASSES)):
            with pytest.raises(DataError, match=f"`weights`: {word} is not .*one of none, imagenet, natural"):
                ask(word, "Tiny")


def test_no_weights_leave_the_model_as_it_is(model):
    """`none` is recorded as such."""
    before = model.get_weights()
    assert weights.start(model, "none", CLASSES) == {"weights": "none", "head": "new"}
    assert places.identity("none", "Tiny") == "none"
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_places_are_asked_without_keras():
    """The runner of notebooks, which starts in a moment, must not wait for Keras."""
    code = "import sys; from covidtf.weights import places; places.check('imagenet', 'ResNet18')"
    subprocess.run([sys.executable, "-c", f"{code}; assert 'keras' not in sys.modules"], check=True)


# ImageNet's


def test_the_table_holds_the_networks():
    """Each network has a row; hashes are whole or eight digits and begin as the file's name says."""
    for network in NETWORKS:
        if network == "Tiny":
            continue
        row = imagenet.checkpoint(network)
        assert row["url"] == f"https://download.pytorch.org/models/{row['file']}"
        assert row["file"].startswith(f"{network.lower()}-{row['sha256'][:8]}.")
        assert len(row["sha256"]) in (8, 64)
        assert ("only these are checked" in row["sha256_from"]) == (len(row["sha256"]) == 8)
    with pytest.raises(ValueError, match=r"`imagenet` weights exist for .*Received: 'Tiny'"):
        imagenet.checkpoint("Tiny")


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A web server for `tmp_path/web`, an empty cache, and a function that writes a table for Tiny."""
    web = tmp_path / "web"
    web.mkdir()
    asked = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            asked.append(self.path)

    service = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=web))
    threading.Thread(target=service.serve_forever, args=(0.01,), daemon=True).start()
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(imagenet, "TABLE", tmp_path / "table.csv")

    def write(digest):
        url = f"http://127.0.0.1:{service.server_port}/tiny.pth"
        imagenet.TABLE.write_text(f"network,url,file,sha256,bytes\nTiny,{url},tiny.pth,{digest},\n")

    yield SimpleNamespace(web=web, cache=tmp_path / "home" / "covidtf", asked=asked, write=write)
    service.shutdown()
    service.server_close()


@pytest.mark.parametrize("digits", [64, 8])
@pytest.mark.parametrize("form", FORMATS)
def test_imagenet_is_downloaded_once(form, digits, server, model):
    """The first start downloads and checks, the second finds the file; what was used is recorded."""
    shutil.copy(FOLDER / f"state-dict-{form}.pt", server.web / "tiny.pth")
    digest = sha256(server.web / "tiny.pth")
    server.write(digest[:digits])
    for _ in range(2):
        record = weights.start(model, "imagenet", CLASSES)
        assert record == {"weights": digest, "source": "imagenet", "head": "new"}
        np.testing.assert_array_equal(convert.tensors_of(model)["conv1.weight"], tiny()["conv1.weight"])
    assert len(server.asked) == 1
    assert [path.name for path in server.cache.iterdir()] == ["tiny.pth"]
    assert places.identity("imagenet", "Tiny") == digest[:digits]


def test_a_download_of_the_wrong_hash_is_not_kept(server, model):
    """The error tells the expected and the actual hash, and the cache is empty."""
    (server.web / "tiny.pth").write_bytes(b"an error page")
    server.write("0123456789abcdef" * 4)
    before = model.get_weights()
    actual = sha256(server.web / "tiny.pth")
    with pytest.raises(DataError, match=f"tiny.pth: .*must be {'0123456789abcdef' * 4}. Received: {actual}"):
        weights.start(model, "imagenet", CLASSES)
    assert list(server.cache.iterdir()) == []
    np.testing.assert_array_equal(before[0], model.get_weights()[0])


def test_a_cached_file_of_the_wrong_hash_is_not_used(server, model):
    """A file in the cache that is not the published one is an error; nothing is downloaded over it."""
    server.cache.mkdir(parents=True)
    shutil.copy(FOLDER / "state-dict-zip.pt", server.cache / "tiny.pth")
    server.write("01234567")
    with pytest.raises(
        DataError, match=f"{server.cache}/tiny.pth: .*must be 01234567 .its first 8 digits are known"
    ):
        weights.start(model, "imagenet", CLASSES)
    assert server.asked == []


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:9/tiny.pth", "http://name.invalid/tiny.pth", "file:///absent/tiny.pth"]
)
def test_offline_the_error_says_what_to_do(url, server, model):
    """It names the URL, and the place where the file is looked for; nothing is left behind."""
    imagenet.TABLE.write_text(f"network,url,file,sha256,bytes\nTiny,{url},tiny.pth,01234567,\n")
    with pytest.raises(DataError, match=f"{url}: cannot be downloaded .*put it to {server.cache}/tiny.pth"):
        weights.start(model, "imagenet", CLASSES)
    assert list(server.cache.iterdir()) == []


def test_an_interrupted_download_leaves_nothing(server, monkeypatch):
    """After half of the file the next start begins anew."""
    shutil.copy(FOLDER / "state-dict-zip.pt", server.web / "tiny.pth")
    server.write(sha256(server.web / "tiny.pth"))
    real = imagenet._download

    def interrupted(row, target):
        yield next(iter(real(row, target)))[:100]
        raise KeyboardInterrupt

    monkeypatch.setattr(imagenet, "_download", interrupted)
    with pytest.raises(KeyboardInterrupt):
        imagenet.path("Tiny")
    assert list(server.cache.iterdir()) == []
    monkeypatch.setattr(imagenet, "_download", real)
    assert sha256(imagenet.path("Tiny")) == sha256(server.web / "tiny.pth")


def test_what_ships_is_small_whole_and_has_its_record():
    """The SqueezeNet of the package is below 2 MB, is what its record says, and is no random network."""
    file, record = places.shipped("tiny-imagenet", "SqueezeNet1_0")
    assert file.stat().st_size == record["bytes"] < 2_000_000
    assert len(record["classes"]) == 200
    assert record["test"]["accuracy"]["ci95"][0] > 0.1
    model = build("SqueezeNet1_0", 2, size=32)
    fresh = model.get_layer("features.3.squeeze").get_weights()
    said = weights.start(model, "tiny-imagenet", ["COVID-19", "non-COVID"])
    assert said == {"weights": record["sha256"], "source": "tiny-imagenet", "head": "new"}
    assert not np.allclose(model.get_layer("features.3.squeeze").get_weights()[0], fresh[0])
