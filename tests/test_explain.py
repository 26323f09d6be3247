"""Heat maps: fast occlusion maps against one forward at a time, Grad-CAM of networks with a known answer."""

import numpy as np
import pytest
from PIL import Image

from covidtf.explain import occlusion, windows
from covidtf.explain.gradcam import GradCAM, gradient, main_only
from covidtf.training.devices import keras
from covidtf.training.networks import NETWORKS, build, supervised

FOUR = ("ResNet18", "ResNet50", "SqueezeNet1_0", "DenseNet121")
DEEP = {"auxiliary": "learned", "stages": "", "auxiliary_weight": 0.3, "auxiliary_width": 8, "folded": True}


def lively(model, seed: int = 0):
    """The model with weights under which every layer says something: norms and biases are drawn as well."""
    rng = np.random.default_rng(seed)
    for layer in model.layers:
        values = layer.get_weights()
        if isinstance(layer, keras.layers.BatchNormalization):
            gamma, _, mean, _ = values
            shape = gamma.shape
            values = [rng.uniform(0.5, 1.0, shape), rng.normal(0, 0.2, shape), mean, np.ones(shape)]
        elif values and values[-1].ndim == 1:
            values[-1] = rng.uniform(0, 0.2, values[-1].shape)
        if layer.name == NETWORKS[model.name].head:
            values[0] = rng.normal(0, 0.5, values[0].shape)
        layer.set_weights(values)
    return model


def picture(size: int, channels: int = 1) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (size, size, channels)).astype(np.uint8)


def one_by_one(model, image, window: int, stride: int, fill: float, places=None) -> np.ndarray:
    """As most people write it; of some places of the squares alone if they are given."""
    first = occlusion.starts(len(image), window, stride)
    logits = []
    for row, column in places or [(r, c) for r in range(len(first)) for c in range(len(first))]:
        covered = image.astype(np.float32)
        covered[first[row] : first[row] + window, first[column] : first[column] + window] = fill
        logits.append(np.asarray(keras.ops.convert_to_numpy(model(covered[None], training=False)))[0])
    return np.array(logits)


def test_squares_reach_the_edge_and_are_625_on_an_image_of_the_paper():
    """The last square ends with the image even where the stride does not divide the way."""
    assert len(occlusion.starts(224)) ** 2 == 625
    assert occlusion.starts(64, 16, 10).tolist() == [0, 10, 20, 30, 40, 48]
    assert occlusion.starts(64, 64, 8).tolist() == [0]
    for window, stride in ((65, 8), (0, 1), (8, 9), (8, 0)):
        with pytest.raises(ValueError, match="must be in"):
            occlusion.starts(64, window, stride)


def test_each_pixel_is_the_mean_of_the_squares_that_cover_it():
    """Side 4, window 2, stride 1: hand-worked in one corner, one edge and the middle."""
    values = np.arange(9.0).reshape(3, 3)
    found = occlusion.heat_map(values, 4, 2, 1)
    assert found[0, 0] == 0 and found[3, 3] == 8
    assert found[0, 1] == np.mean([0, 1]) and found[1, 1] == np.mean([0, 1, 3, 4])
    with pytest.raises(ValueError, match="shape"):
        occlusion.heat_map(values, 4, 2, 2)


def test_falls_are_of_the_score_or_of_its_log_odds():
    """Logits whose softmax is 0.8 and 0.5, and three classes."""
    whole, covered = np.log([0.8, 0.2]), np.zeros((1, 1, 2))
    assert occlusion.falls(whole, covered, 0) == pytest.approx(0.3)
    assert occlusion.falls(whole, covered, 0, "log odds") == pytest.approx(np.log(4))
    three = np.log([0.5, 0.25, 0.25])
    assert occlusion.falls(three, np.zeros((1, 3)), 0, "log odds") == pytest.approx(np.log(2))
    with pytest.raises(ValueError, match="must be one of"):
        occlusion.falls(whole, covered, 0, "logit")


@pytest.mark.parametrize(
    ("network", "size", "window", "stride"),
    [
        ("ResNet18", 64, 12, 12),
        ("ResNet50", 48, 12, 12),
        ("SqueezeNet1_0", 64, 10, 9),
        ("SqueezeNet1_1", 63, 9, 9),
        ("DenseNet121", 48, 12, 12),
        ("ResNet18", 75, 20, 19),
    ],
)
def test_fast_map_is_the_map_of_one_forward_at_a_time(network, size, window, stride):
    """At the corners, the edges and inside, on even and odd sides; and parts are left out indeed."""
    model, image = lively(build(network, 2, size=size)), picture(size)
    occluder = occlusion.Occluder(model, window, stride)
    assert sum(part.share < 0.8 for part in occluder._parts) >= 3
    whole, found = occluder(image)
    last = len(occluder.starts) - 1
    places = [(0, 0), (0, last), (last, 0), (last, last), (0, 2), (2, last), (1, 1), (2, 3)]
    wanted = one_by_one(model, image, window, stride, image.mean(), places)
    assert np.ptp(wanted, axis=0).max() > 1e-2
    np.testing.assert_allclose([found[place] for place in places], wanted, atol=1e-4)
    direct = model(image[None].astype(np.float32), training=False)
    np.testing.assert_allclose(whole, keras.ops.convert_to_numpy(direct)[0], atol=1e-4)


def test_whole_map_of_many_tiles_and_a_given_fill():
    """All 81 squares of a small image in colour, black instead of its mean."""
    model, image = lively(build("SqueezeNet1_1", 3, channels=3, size=40)), picture(40, 3)
    occluder = occlusion.Occluder(model, 8, 4)
    _, found = occluder(image, fill=0)
    wanted = one_by_one(model, image, 8, 4, 0).reshape(found.shape)
    assert found.shape == (9, 9, 3)
    np.testing.assert_allclose(found, wanted, atol=1e-4)
    maps = [occlusion.heat_map(each[..., 0], 40, 8, 4) for each in (found, wanted)]
    np.testing.assert_allclose(*maps, atol=1e-4)


@pytest.mark.parametrize("fusion", ["main", "mean"])
def test_fast_map_of_a_deeply_supervised_network(fusion):
    """Its heads join several stages; the folded first layer has one channel."""
    model = supervised.scorer(lively(supervised.extend(build("ResNet18", 3, size=64), DEEP)), fusion)
    image, short = picture(64), main_only(model)
    assert (len(short.layers) < len(model.layers)) == (fusion == "main")
    _, found = occlusion.Occluder(short, 12, 12)(image)
    places = [(0, 0), (2, 3), (5, 5)]
    wanted = one_by_one(model, image, 12, 12, image.mean(), places)
    np.testing.assert_allclose([found[place] for place in places], wanted, atol=1e-4)


def test_windows_are_those_that_a_change_reaches():
    """Of every part of ResNet18 what changes under a square is what is said to be reached, to the pixel."""
    model, image = lively(build("ResNet18", 2, size=64)), picture(64).astype(np.float32)
    low, high = 20, 32
    other = image.copy()
    other[low:high, low:high] = 255 - other[low:high, low:high]
    span = np.array([low]), np.array([high])
    for segment in windows.segments(model, 64):
        span = segment.reached(span)
        values = keras.Model(model.input, segment.exit)(np.stack([image, other]), training=False)
        one, two = keras.ops.convert_to_numpy(values)
        changed = np.flatnonzero((one != two).any(axis=(1, 2)))
        assert changed.min() == span[0][0] and changed.max() == span[1][0] - 1


def test_mixed_precision_is_refused():
    """Windows would be computed with other rounding than the whole."""
    with pytest.raises(ValueError, match="float32"):
        occlusion.Occluder(build("SqueezeNet1_1", 2, size=32, precision="mixed_bfloat16"))


def corner_net():
    """A ResNet18 in name, whose class 1 is the brightness of the image, seen by a feature map of stride 8."""
    pixels = keras.Input((64, 64, 1))
    x = keras.layers.AveragePooling2D(8)(pixels)
    kernel = np.array([[[[1 / 255, -1 / 255]]]], np.float32)
    x = keras.layers.Conv2D(2, 1, use_bias=False, name="layer4.1")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    outputs = keras.layers.Dense(2, use_bias=False, name="fc")(x)
    model = keras.Model(pixels, outputs, name="ResNet18")
    model.get_layer("layer4.1").set_weights([kernel])
    model.get_layer("fc").set_weights([np.array([[-1.0, 1.0], [0.0, 0.0]], np.float32)])
    return model


def test_grad_cam_finds_the_corner_that_a_network_reacts_to():
    """The bright corner speaks for class 1 and against class 0, whose map is empty."""
    image = np.zeros((64, 64, 1), np.uint8)
    image[:16, 48:] = 255
    maps, peaks = GradCAM(corner_net())(np.stack([image, image]), [1, 0])
    # The mean over 8 x 8 pixels hands each pixel of the feature map a gradient of 1 / 64.
    assert peaks[0] == pytest.approx(1 / 64) and peaks[1] == 0
    assert maps.shape == (2, 64, 64) and maps[0].max() == 1 and not maps[1].any()
    assert maps[0, :12, 52:].min() == pytest.approx(1)
    assert not maps[0, 24:].any() and not maps[0, :, :40].any()


@pytest.mark.parametrize("network", ["ResNet18", "DenseNet121"])
def test_gradient_is_the_dense_kernel_where_the_rest_is_linear(network):
    """After the last stage there are a mean and a linear layer: a_k is kernel / (h w)."""
    model, images = lively(build(network, 2, size=64)), np.stack([picture(64), 255 - picture(64)])
    ends = NETWORKS[network].stages[-1], NETWORKS[network].head
    features = keras.Model(model.input, model.get_layer(ends[0]).output)(images.astype(np.float32))
    features = keras.ops.convert_to_numpy(features)
    kernel = model.get_layer(ends[1]).get_weights()[0]
    weights = kernel[:, 1] / np.prod(features.shape[1:3])
    wanted = np.maximum(features @ weights, 0)
    wanted = [np.asarray(Image.fromarray(one).resize((64, 64), Image.Resampling.BILINEAR)) for one in wanted]
    maps, peaks = GradCAM(model)(images, 1)
    np.testing.assert_allclose(maps * peaks[:, None, None], wanted, rtol=1e-4, atol=1e-6)


def test_gradient_is_the_slope_of_finite_differences():
    """Through SqueezeNet's head, which is not linear."""
    model = lively(build("SqueezeNet1_1", 2, size=32))
    cam, wanted = GradCAM(model), np.array([[0.0, 1.0]], np.float32)
    features = cam._backbone(picture(32)[None].astype(np.float32), training=False)
    features = keras.ops.convert_to_numpy(keras.tree.flatten(features)[0])
    tail = keras.Model([model.get_layer(cam.layer).output], model.output)
    found = gradient(tail, [keras.ops.convert_to_tensor(features)], wanted)
    direction = np.random.default_rng(2).normal(size=features.shape).astype(np.float32)
    ahead, behind = (
        float(keras.ops.convert_to_numpy(tail([features + step * direction], training=False))[0, 1])
        for step in (1e-2, -1e-2)
    )
    slope = float((keras.ops.convert_to_numpy(found) * direction).sum())
    assert slope == pytest.approx((ahead - behind) / 2e-2, rel=0.02)


def test_grad_cam_of_every_network_head_and_stage():
    """Maps of all four, and of a deeply supervised one by its fused score, by one head, at an inner stage."""
    images = picture(64)[None]
    for network in FOUR:
        maps, _ = GradCAM(lively(build(network, 2, size=64)))(images, 0)
        assert maps.shape == (1, 64, 64) and np.isfinite(maps).all()
    deep = lively(supervised.extend(build("ResNet18", 3, size=64), DEEP))
    model = supervised.scorer(deep, "mean")
    found = {
        (stage, head): GradCAM(model, stage, head)(images, 0)[0]
        for stage, head in ((None, "score"), (4, "score"), (4, "main"), (4, "auxiliary4"), (3, "auxiliary3"))
    }
    assert len({one.tobytes() for one in found.values()}) == len(found)
    np.testing.assert_array_equal(GradCAM(deep, 4, "main")(images, 0)[0], found[4, "main"])
    for stage, head in ((None, "auxiliary4"), (6, "score"), (None, "other")):
        with pytest.raises(ValueError, match="must be"):
            GradCAM(model, stage, head)
    with pytest.raises(ValueError, match="scorer"):
        GradCAM(deep)
    with pytest.raises(ValueError, match="no others"):
        GradCAM(build("ResNet18", 2, size=64), head="auxiliary3")
