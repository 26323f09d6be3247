"""Are the networks PyTorch's? The same parameters and images in both: logits, loss and gradient.

`python -m benchmarks.compare_torch [NETWORK ...]` needs torch; `KERAS_BACKEND=jax` compares with JAX. Prints
a line per network and appends the difference of logits to the table, or, if a difference is above its limit,
ends with exit status 1:

- logits: largest |Keras - torch| over largest |torch|, at 224 pixels, normalised by stored statistics;
- loss: relative, of a batch in training (normalised by the batch, without dropout);
- gradient: of that loss, length of the difference over length of torch's, all parameters together. Rounding
  alone moves it by up to 4 % here, torch's from its own in float64 as far as Keras' (at a value near zero a
  ReLU opens or closes), so its limit is wide.
"""

import argparse
import sys

import numpy as np
import torch
from torch.nn import functional

from benchmarks import torch_networks
from benchmarks.record import record
from covidtf.training.devices import environment, keras
from covidtf.training.networks import build
from covidtf.weights.convert import tensors_of

SIZE, CLASSES, BATCH = 224, 10, 8
LIMITS = {"logits": 1e-4, "loss": 1e-4, "gradient": 0.1}


def main() -> None:
    """Compare the networks that are named, or all."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("networks", nargs="*", metavar="NETWORK", help="such as ResNet50 [all]")
    found = environment()
    print(f"Keras {found['keras']}, {found['backend']} {found['backend_version']}, torch {torch.__version__}")
    failed = False
    for network in parser.parse_args().networks or torch_networks.NETWORKS:
        differences = compare(network)
        print(f"{network}:", ", ".join(f"{name} {x:.1e}" for name, x in differences.items()), flush=True)
        # NaN, too, is to fail.
        if not all(differences[name] <= limit for name, limit in LIMITS.items()):
            failed = True
            continue
        name = f"logit_difference_{network}_{found['backend']}"
        record(name, differences["logits"], "of the largest", f"PyTorch {torch.__version__}, {SIZE} px")
    sys.exit(int(failed))


def compare(network: str) -> dict[str, float]:
    """Relative differences of `logits`, `loss` and `gradient` of one network, from a fixed seed."""
    rng = np.random.default_rng(0)
    model = build(network, CLASSES, channels=3, size=SIZE)
    _spread(model, rng)
    other = torch_networks.build(network, CLASSES)
    # Without the counters of batches, which Keras has not and which decide nothing.
    other.load_state_dict({name: torch.from_numpy(x) for name, x in tensors_of(model).items()}, strict=False)
    pixels = rng.integers(0, 256, (BATCH, SIZE, SIZE, 3), np.uint8)
    labels = rng.integers(0, CLASSES, BATCH)
    for layer in model.layers:
        if isinstance(layer, keras.layers.Dropout):
            layer.rate = 0
    ours, theirs = _ours(model, pixels, labels), _theirs(other, pixels, labels)
    largest = {name: np.abs(ours[name] - theirs[name]).max() / np.abs(theirs[name]).max() for name in LIMITS}
    length = np.linalg.norm(ours["gradient"] - theirs["gradient"]) / np.linalg.norm(theirs["gradient"])
    return largest | {"gradient": length}


def _spread(model: "keras.Model", rng: np.random.Generator) -> None:
    """Move normalisation away from 1 and 0, or a wrong statistic would not be seen."""
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            for variable, low in zip(layer.weights, (0.8, -0.2, -0.2, 0.8), strict=True):
                variable.assign(rng.uniform(low, low + 0.4, variable.shape))


def _ours(model: "keras.Model", pixels: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
    logits = model.predict_on_batch(pixels)
    before = tensors_of(model)
    # A step of plain SGD with rate 1 is the gradient, on any backend.
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(1.0), loss, jit_compile=False)
    loss = np.asarray(model.train_on_batch(pixels, labels))
    after = tensors_of(model)
    gradient = [(before[name] - after[name]).ravel() for name in sorted(before) if ".running_" not in name]
    return {"logits": logits, "loss": loss, "gradient": np.concatenate(gradient)}


def _theirs(network: torch.nn.Module, pixels: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    x = ((torch.from_numpy(pixels) / 255 - mean) / std).permute(0, 3, 1, 2)
    y = torch.from_numpy(labels)
    for module in network.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0
    with torch.no_grad():
        logits = network.eval()(x)
    loss = functional.cross_entropy(network.train()(x), y)
    loss.backward()
    gradient = [parameter.grad.flatten() for _, parameter in sorted(network.named_parameters())]
    return {
        "logits": logits.numpy(),
        "loss": loss.detach().numpy(),
        "gradient": torch.cat(gradient).numpy(),
    }


if __name__ == "__main__":
    main()
