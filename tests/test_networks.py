"""Tests of covidtf.training.networks and covidtf.training.devices."""

import itertools
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from torch_reference import CASES, CLASSES, FILE, images, parameter

from covidtf.training.devices import _without_startup_noise, environment, keras, precision
from covidtf.training.networks import NETWORKS, build, head_layers, set_trained_part, split_model
from covidtf.training.networks.normalisation import Normalisation

KINDS = {
    "kernel": "weight",
    "gamma": "weight",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}
# Axes of torch's parameter in the order of Keras' variable, by number of dimensions.
AXES = {1: (0,), 2: (1, 0), 4: (2, 3, 1, 0)}


def parameters(model):
    """Each variable that has a value, with the name and shape of torchvision's parameter."""
    for layer in model.layers:
        for variable in layer.weights:
            axes = AXES[len(variable.shape)]
            shape = tuple(variable.shape[axes.index(axis)] for axis in range(len(axes)))
            yield variable, f"{layer.name}.{KINDS.get(variable.name, 'bias')}", shape


@pytest.fixture(scope="module", params=NETWORKS)
def network(request):
    """Name of a network."""
    return request.param


@pytest.mark.parametrize(
    ("network", "size", "channels"), [(name, *case) for name, cases in CASES.items() for case in cases]
)
def test_logits_equal_torchvisions(network, size, channels):
    """With the same parameters the logits agree with PyTorch's, at even and odd sizes, grey and RGB."""
    model = build(network, CLASSES, channels, size)
    for variable, name, shape in parameters(model):
        variable.assign(parameter(name, shape).transpose(AXES[len(shape)]))
    wanted = np.array(json.loads(FILE.read_text())[f"{network} {size} {channels}"])
    found = model.predict_on_batch(images(size, channels))
    assert np.abs(found - wanted).max() <= 2e-5 * np.abs(wanted).max()


@pytest.mark.parametrize(
    ("network", "count"),
    [
        ("ResNet18", 11_689_512),
        ("ResNet50", 25_557_032),
        ("SqueezeNet1_0", 1_248_424),
        ("SqueezeNet1_1", 1_235_496),
        ("DenseNet121", 7_978_856),
    ],
)
def test_number_of_parameters_is_torchvisions(network, count):
    """With 1000 classes there are as many trained parameters as torchvision's documentation says."""
    model = build(network, classes=1000, channels=3)
    assert sum(np.prod(variable.shape) for variable in model.trainable_weights) == count


def test_weights_are_drawn_as_torchvision_draws_them():
    """Standard deviations and bounds of the first weights are those of torchvision's initialisation."""
    resnet, squeezenet, densenet = (
        build(name, classes=1000, size=32) for name in ("ResNet50", "SqueezeNet1_0", "DenseNet121")
    )
    kernel, dense = resnet.get_layer("layer3.1.conv2").kernel, resnet.get_layer("fc")
    assert np.std(kernel) == pytest.approx(np.sqrt(2 / (3 * 3 * 256)), rel=0.01)
    for variable in (dense.kernel, dense.bias):
        assert np.abs(variable).max() == pytest.approx(1 / np.sqrt(2048), rel=0.01)
        assert np.std(variable) == pytest.approx(1 / np.sqrt(3 * 2048), rel=0.05)
    expand = squeezenet.get_layer("features.12.expand3x3")
    assert np.abs(expand.kernel).max() == pytest.approx(np.sqrt(6 / (9 * 64)), rel=0.01)
    assert np.std(squeezenet.get_layer("classifier.1").kernel) == pytest.approx(0.01, rel=0.01)
    assert not np.any(expand.bias)
    kernel, dense = densenet.get_layer("features.transition2.conv").kernel, densenet.get_layer("classifier")
    assert np.std(kernel) == pytest.approx(np.sqrt(2 / 512), rel=0.01)
    assert np.abs(dense.kernel).max() == pytest.approx(1 / np.sqrt(1024), rel=0.01)
    assert not np.any(dense.bias)


def test_weights_follow_from_seed_and_layer(network):
    """The same seed gives the same weights whatever the classes, the size and the global seed."""
    keras.utils.set_random_seed(1)
    first = build(network, classes=2, size=32, seed=5)
    keras.utils.set_random_seed(2)
    again = build(network, classes=7, size=48, channels=3, seed=5)
    other = build(network, classes=2, size=32, seed=6)
    kernels = [layer.name for layer in first.layers if isinstance(layer, keras.layers.Conv2D)]
    for name in set(kernels) - {NETWORKS[network].head}:
        kernel = first.get_layer(name).get_weights()[0]
        np.testing.assert_array_equal(kernel, again.get_layer(name).get_weights()[0])
        assert not np.array_equal(kernel, other.get_layer(name).get_weights()[0])


def test_only_the_chosen_part_is_trained(network):
    """`head` leaves the last layer's two parameters trainable, `all` every one; the head is found by name."""
    model = build(network, classes=2, size=32)
    everything = len(model.trainable_weights)
    set_trained_part(model, "head")
    assert [id(w) for w in model.trainable_weights] == [
        id(w) for layer in head_layers(model) for w in layer.weights
    ]
    assert head_layers(model)[0].weights[0].shape[-1] == 2
    set_trained_part(model, "all")
    assert len(model.trainable_weights) == everything
    with pytest.raises(ValueError, match="`part` must be"):
        set_trained_part(model, "tail")


def test_backbone_and_head_make_the_network(network):
    """The two halves in sequence give the model's logits; the head is the published one."""
    model = build(network, CLASSES, size=33)
    backbone, head = split_model(model)
    pixels = images(33, 1)
    found = head.predict_on_batch(backbone.predict_on_batch(pixels))
    np.testing.assert_allclose(found, model.predict_on_batch(pixels), rtol=1e-5, atol=1e-6)
    kinds = [type(layer).__name__ for layer in head.layers[1:]]
    if network.startswith("SqueezeNet"):
        assert len(backbone.output.shape) == 4
        assert kinds == ["Dropout", "Conv2D", "ReLU", "GlobalAveragePooling2D"]
    else:
        assert backbone.output.shape[1:] == (head_layers(model)[0].kernel.shape[0],)
        assert kinds == ["Dense"]


def test_each_stage_halves_the_one_before(network):
    """Stages are feature maps, from half the image's resolution on."""
    model = build(network, CLASSES, size=96)
    shapes = [model.get_layer(name).output.shape for name in NETWORKS[network].stages]
    sides = [96, *(side for _, side, _, _ in shapes)]
    # A convolution without border and a pool in ceil mode may lose or gain a pixel or two.
    assert all(abs(after - before / 2) <= 3 for before, after in itertools.pairwise(sides))
    assert len(sides) == (5 if network.startswith("SqueezeNet") else 6)


def test_the_smallest_image(network):
    """At the network's smallest size every stage has a pixel; one pixel less is refused, with the size."""
    smallest = NETWORKS[network].smallest
    assert NETWORKS[network].smallest == CASES[network][0][0]
    model = build(network, CLASSES, size=smallest)
    assert model.get_layer(NETWORKS[network].stages[-1]).output.shape[1:3] == (1, 1)
    with pytest.raises(ValueError, match=f"at least {smallest} for {network}. Received: {smallest - 1}"):
        build(network, CLASSES, size=smallest - 1)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_keeps_weights_and_logits_in_float32(network, policy):
    """Inner layers compute in 16 bits, logits stay near float32's, the global policy is left alone."""
    model = build(network, CLASSES, size=32, precision=policy)
    assert {variable.dtype for variable in model.weights} == {"float32"}
    first = next(layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D))
    assert first.compute_dtype == policy.removeprefix("mixed_")
    assert {layer.compute_dtype for layer in head_layers(model)} == {"float32"}
    assert model.output.dtype == "float32"
    assert keras.config.dtype_policy().name == "float32"
    full = build(network, CLASSES, size=32)
    pixels = images(32, 1)
    logits = full.predict_on_batch(pixels)
    np.testing.assert_allclose(model.predict_on_batch(pixels), logits, atol=0.05 * np.abs(logits).max())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"network": "ResNet19"}, "`network` must be one of .* Received: 'ResNet19'"),
        ({"classes": 1}, "`classes` must be at least 2. Received: 1"),
        ({"channels": 2}, r"`channels` must be 1 \(grey\) or 3 \(RGB\). Received: 2"),
        ({"size": 31}, "`size` must be at least 32 for ResNet18. Received: 31"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    """An argument outside of its range is named, with what was wanted and what came."""
    with pytest.raises(ValueError, match=message):
        build(**{"network": "ResNet18", "classes": 2, "size": 32} | arguments)


def normalised(layer, steps=1, **options):
    """A convolution and a dense layer around a normalisation, after steps on 3 images of 4x5 pixels."""
    rng = np.random.default_rng(0)
    model = keras.Sequential(
        [
            keras.Input((4, 5, 2)),
            keras.layers.Conv2D(6, 1, use_bias=False),
            layer(momentum=0.9, epsilon=1e-5, name="norm", **options),
            keras.layers.ReLU(),
            keras.layers.Flatten(),
            keras.layers.Dense(2),
        ]
    )
    model.set_weights([rng.uniform(0.5, 1.5, variable.shape) for variable in model.weights])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    # Plain SGD with rate 1: what changes is the gradient.
    model.compile(keras.optimizers.SGD(1.0), loss, jit_compile=False)
    images = rng.normal(size=(3, 4, 5, 2)).astype("float32")
    before = model.get_layer("norm").get_weights()
    for _ in range(steps):
        model.train_on_batch(images, np.array([0, 1, 1]))
    return model, before


def test_normalisation_has_keras_values_and_gradients():
    """After a step all parameters, those of the layers before and after too, are as with Keras' own layer."""
    ours, _ = normalised(Normalisation)
    theirs, _ = normalised(keras.layers.BatchNormalization)
    for variable, wanted in zip(ours.trainable_weights, theirs.trainable_weights, strict=True):
        np.testing.assert_allclose(variable, wanted, rtol=1e-4, atol=1e-5, err_msg=variable.path)


def test_normalisation_averages_the_unbiased_variance():
    """As PyTorch documents it: 0.9 of the old and 0.1 of the batch's, divided by 60 - 1 pixels."""
    ours, before = normalised(Normalisation)
    theirs, _ = normalised(keras.layers.BatchNormalization)
    mean, biased = (np.asarray(weight) for weight in theirs.get_layer("norm").get_weights()[2:])
    wanted = 0.9 * before[3] + (biased - 0.9 * before[3]) * 60 / 59
    np.testing.assert_allclose(ours.get_layer("norm").moving_mean, mean, rtol=1e-5)
    np.testing.assert_allclose(ours.get_layer("norm").moving_variance, wanted, rtol=1e-5)


def test_a_frozen_normalisation_keeps_its_statistics():
    """It normalises by what it has stored, also in training, and changes neither that nor its parameters."""
    ours, before = normalised(Normalisation, trainable=False)
    theirs, _ = normalised(keras.layers.BatchNormalization, trainable=False)
    for found, wanted in zip(ours.get_layer("norm").get_weights(), before, strict=True):
        np.testing.assert_array_equal(found, wanted)
    np.testing.assert_allclose(ours.layers[0].kernel, theirs.layers[0].kernel, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_normalisation_averages_in_float32(policy):
    """Under mixed precision statistics and parameters learn in float32, to within 16 bits of full ones."""
    mixed, _ = normalised(Normalisation, dtype=policy)
    full, _ = normalised(Normalisation)
    assert mixed.get_layer("norm").compute_dtype == policy.removeprefix("mixed_")
    assert {weight.dtype for weight in mixed.get_layer("norm").weights} == {"float32"}
    for found, wanted in zip(*(m.get_layer("norm").get_weights() for m in (mixed, full)), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=0.02, atol=0.02)


def test_environment_names_backend_device_and_precision():
    """The record of a run says what computed it, in values that JSON holds."""
    found = json.loads(json.dumps(environment()))
    assert found["backend"] == keras.backend.backend()
    assert found["backend_version"].count(".") >= 2
    assert found["devices"]
    assert found["precision"] == "float32"
    gpu = found["devices"][0].startswith("gpu")
    assert precision(mixed=True) == ("mixed_float16" if gpu else "mixed_bfloat16")


def test_start_up_is_silent():
    """Importing the package and using a network for the first time write nothing to standard error."""
    code = """
import numpy as np
from covidtf.training.networks import build
build("SqueezeNet1_0", 2, size=32).predict(np.zeros((1, 32, 32, 1)), verbose=0)
"""
    environ = {key: value for key, value in os.environ.items() if not key.startswith("TF_")}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environ
    )
    assert done.stderr == ""
    assert done.stdout == ""


def test_what_is_no_noise_passes(capfd):
    """While Keras is imported only TensorFlow's log lines are dropped, and nothing if the import fails."""
    written = b"I0000 00:00:1.5 7 port.cc:153] on\nmatters\n"
    with _without_startup_noise():
        os.write(2, written)
    assert capfd.readouterr().err == "matters\n"
    with pytest.raises(ImportError), _without_startup_noise():
        os.write(2, written)
        raise ImportError
    assert capfd.readouterr().err == written.decode()
