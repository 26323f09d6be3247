"""What runs a network: Keras, or OpenVINO on a copy that is exported once per weights."""

import hashlib
import sys
import tempfile
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

from covidtf.files import DataError
from covidtf.scoring.trained import Trained

TOLERANCE = 1e-3  # by which an exported network's scores may differ from Keras'
_MARGIN = 0.5  # share of it that bfloat16 may use on the images of the check; others can be worse
_CHECKED = 16  # images of the first batch on which an export is checked
_RULES = 1  # to be raised when the same weights would be exported in another way

Engine = Callable[[np.ndarray], np.ndarray]


def keras_engine(trained: Trained, first: np.ndarray) -> Engine:
    """The network in Keras, on the backend that it is set to: uint8 images to logits.

    In float32 batch normalisations are folded into the convolutions before them (`features.fold`).

    Args:
        trained: The run.
        first: The first batch of images; not used.
    Raises:
        DataError: If the weights are not of this network.
    """
    from covidtf.training.features import forward

    return forward(load_network(trained, trained.precision))


def openvino_engine(trained: Trained, first: np.ndarray) -> Engine:
    """The network in OpenVINO on the CPU: uint8 images to logits, all batches of the shape of `first`.

    The network is exported with Keras once, to `<run>/openvino-<key>/`; the key changes with the weights and
    the versions of covidtf, Keras, TensorFlow and OpenVINO. The export is checked on the first images, as
    they are, mirrored, turned upside down and inverted. `tanh(d / 4)` bounds by how much a score can change,
    d being the range of the changes of an image's logits; it must be within `TOLERANCE`. The export computes
    in bfloat16 if the CPU has it and half of `TOLERANCE` is kept, else, which is said on standard error, in
    float32.

    Args:
        trained: The run.
        first: The first batch of images, `(n, size, size, channels)`.
    Raises:
        ImportError: If OpenVINO is not installed.
        DataError: If scores differ from Keras' by more than `TOLERANCE` in float32 too.
        OSError: If the run folder cannot be written.
    """
    try:
        import openvino
    except ImportError as error:
        message = "engine 'openvino' needs a package that is not installed: pip install -e '.[openvino]'"
        raise ImportError(message) from error
    path = trained.folder / f"openvino-{_key(trained)}" / "model.xml"
    if not path.is_file():
        _export(trained, first[:_CHECKED], path)
    model = openvino.Core().read_model(path)
    return _compile(model, first.shape, model.get_rt_info(["covidtf", "precision"]).astype(str))


ENGINES: dict[str, Callable[[Trained, np.ndarray], Engine]] = {
    "keras": keras_engine,
    "openvino": openvino_engine,
}


def load_network(trained: Trained, precision: str) -> "keras.Model":  # noqa: F821
    """The run's network in Keras with its weights, computing with a dtype policy: from pixels to logits.

    Of a run with auxiliary heads the logarithms of its fused scores, whose softmax is the scores too.

    Raises:
        DataError: If the weights are not of this network; names the file.
    """
    # Here and not above: Keras takes seconds to import, which an exported network does not need.
    from covidtf.training import weights
    from covidtf.training.networks import supervised

    shape = [trained.size, trained.size, trained.channels]
    settings = {"network": trained.network, "classes": trained.classes, "shape": shape} | trained.deep
    model = supervised.restore(settings, precision)
    weights.load(model, trained.folder)
    return supervised.scorer(model, trained.deep.get("fusion", "main"))


def _key(trained: Trained) -> str:
    packages = ("covidtf", "keras", "tensorflow", "openvino")
    # Not in the weights: how the heads' scores become one.
    fusion = [trained.deep["fusion"]] if trained.deep else []
    words = [str(_RULES), trained.sha256, *fusion, *(f"{name} {_version(name)}" for name in packages)]
    return hashlib.sha256("\n".join(words).encode()).hexdigest()[:16]


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"


def _export(trained: Trained, images: np.ndarray, path: Path) -> None:
    """Write the network to `path` with the precision that the check allows, all at once or not at all."""
    import openvino

    images = np.concatenate([images, images[:, :, ::-1], images[:, ::-1], 255 - images])
    with tempfile.TemporaryDirectory(prefix=".openvino-", dir=trained.folder) as scratch:
        wanted, model = _convert(trained, images, Path(scratch, "keras.xml"))
        precision, difference = _choose(model, images, wanted)
        if not difference <= TOLERANCE:
            raise DataError(
                f"{trained.weights}: exported to OpenVINO, scores must differ from Keras' by at most "
                f"{TOLERANCE}. Received: {difference:.2g}; use engine 'keras'"
            )
        model.set_rt_info(precision, ["covidtf", "precision"])
        model.set_rt_info(f"{difference:.3g}", ["covidtf", "score_difference_to_keras"])
        # OpenVINO would otherwise store the weights as float16.
        openvino.save_model(model, Path(scratch, path.parent.name, path.name), compress_to_fp16=False)
        if not path.parent.exists():
            Path(scratch, path.parent.name).rename(path.parent)
    print(
        f"exported to {path.parent}: {precision}, scores within {difference:.2g} of Keras'", file=sys.stderr
    )


def _convert(trained: Trained, images: np.ndarray, path: Path) -> tuple[np.ndarray, "openvino.Model"]:  # noqa: F821
    """Keras' logits of `images` in float32, and the network as OpenVINO reads it, with 8-bit input."""
    import openvino
    from openvino.preprocess import PrePostProcessor

    network = load_network(trained, "float32")
    wanted = np.asarray(network.predict_on_batch(images))
    network.export(str(path), format="openvino", verbose=False)
    steps = PrePostProcessor(openvino.Core().read_model(path))
    steps.input().tensor().set_element_type(openvino.Type.u8)
    return wanted, steps.build()


def _choose(model: "openvino.Model", images: np.ndarray, wanted: np.ndarray) -> tuple[str, float]:  # noqa: F821
    """The fastest precision that keeps to the tolerance, or float32; its largest difference in a score."""
    for precision, allowed in (("bf16", _MARGIN * TOLERANCE), ("f32", TOLERANCE)):
        if precision == "bf16" and not _has_bfloat16():
            continue
        found = _compile(model.clone(), images.shape, precision)(images)
        # The most that scores can differ where logits do so: a saturated score would hide it.
        difference = float(np.tanh(np.ptp(found - wanted, axis=1).max() / 4))
        if difference <= allowed:
            break
        print(
            f"openvino: with {precision} scores may differ by {difference:.2g} from Keras'", file=sys.stderr
        )
    return precision, difference


def _compile(model: "openvino.Model", shape: tuple[int, ...], precision: str) -> Engine:  # noqa: F821
    import openvino

    model.reshape(shape)
    if precision == "bf16" and not _has_bfloat16():
        precision = "f32"
    options = {"INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY"}
    request = openvino.Core().compile_model(model, "CPU", options).create_infer_request()
    return lambda images: request.infer([np.ascontiguousarray(images)])[0].copy()


def _has_bfloat16() -> bool:
    import openvino

    return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
