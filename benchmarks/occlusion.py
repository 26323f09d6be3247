"""An occlusion map against one forward at a time: `python -m benchmarks.occlusion [NETWORK ...]`.

Three ways to write the loop that covers the image and scores it once per square, all at batch 1 and in Keras:
`model.predict`, the plain call `model(x)`, and `predict_on_batch`, the fastest of them, a compiled function
without Keras' loop around it. Of each some squares are timed, spread over the image, and taken times their
share; they take turns with the fast map, which is whole each time. Building it (and compiling, once per
network) is outside of the ratio and stands in its row.
"""

import argparse
import statistics
import time

import numpy as np

from benchmarks.record import record
from covidtf.explain.occlusion import STRIDE, WINDOW, Occluder
from covidtf.training.devices import keep_memory
from covidtf.training.networks import build

NETWORKS = ("ResNet18", "SqueezeNet1_0", "ResNet50", "DenseNet121")
SIZE, ROUNDS, EVERY = 224, 5, 25
LIMIT = 1e-3


def main() -> None:
    """Measure and append to the table: a ratio per network and way."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("networks", nargs="*", default=NETWORKS)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--dry", action="store_true", help="print and do not append")
    options = parser.parse_args()
    keep_memory()
    for network in options.networks:
        measure(network, options.rounds, options.dry)


def measure(network: str, rounds: int, dry: bool) -> None:
    """Compare the maps, then let the ways take turns."""
    model = build(network, classes=2, size=SIZE)
    liven(model)
    image = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 1)).astype(np.uint8)
    start = time.perf_counter()
    occluder = Occluder(model)
    occluder(image)
    first = time.perf_counter() - start
    covered, places = squares(image, occluder)
    ways = {
        "predict": lambda x: model.predict(x, verbose=0),
        "call": lambda x: np.asarray(model(x, training=False)),
        "predict_on_batch": model.predict_on_batch,
    }
    _, found = occluder(image)
    wanted = np.concatenate([ways["call"](x) for x in covered])
    difference = np.abs(found.reshape(-1, 2)[places] - wanted).max() / np.ptp(wanted, axis=0).max()
    if not difference <= LIMIT:
        raise SystemExit(
            f"{network}: logits within {LIMIT} of their range are wanted. Received: {difference}"
        )
    seconds = turns(rounds, ways, covered, lambda: occluder(image), len(occluder.starts) ** 2)
    ours = statistics.median(seconds["ours"])
    for name in ways:
        ratios = [slow / fast for slow, fast in zip(seconds[name], seconds["ours"], strict=True)]
        against = (
            f"{name} at batch 1: {statistics.median(seconds[name]):.1f} s; {network}, window {WINDOW}, "
            f"stride {STRIDE}, {len(found) ** 2} squares in {ours:.1f} s, the first map {first:.1f} s; "
            f"logits differ by at most {difference:.1e} of their range"
        )
        value, row = statistics.median(ratios), f"occlusion_{network}_vs_{name}"
        print(f"{row}: {value:.2f} x, {against}") if dry else record(row, value, "x", against)


def liven(model) -> None:
    """Change drawn weights so that the square moves the logits: as drawn they hardly do, or are 0."""
    for layer in model.layers:
        values = layer.get_weights()
        if len(values) == 2 and model.name.startswith("SqueezeNet"):
            layer.set_weights([values[0], np.full_like(values[1], 0.1)])
        elif len(values) == 4:
            # Gamma, beta, mean and variance: sums around a block's layers grow less.
            layer.set_weights([0.5 * values[0], *values[1:]])


def squares(image: np.ndarray, occluder: Occluder) -> tuple[list[np.ndarray], list[int]]:
    """Every so many occluded images, as batches of one, and their places in the map."""
    first, found, places = occluder.starts, [], []
    for place in range(0, len(first) ** 2, EVERY - 1):
        row, column = first[place // len(first)], first[place % len(first)]
        covered = image.astype(np.float32)
        covered[row : row + occluder.window, column : column + occluder.window] = image.mean()
        found.append(covered[None])
        places.append(place)
    return found, places


def turns(rounds: int, ways: dict, covered: list, ours, count: int) -> dict[str, list[float]]:
    """Seconds of whole maps, one number per round."""
    seconds = {name: [] for name in (*ways, "ours")}
    for way in ways.values():
        way(covered[0])
    for _ in range(rounds):
        for name, way in ways.items():
            start = time.perf_counter()
            for x in covered:
                way(x)
            seconds[name].append((time.perf_counter() - start) * count / len(covered))
        start = time.perf_counter()
        ours()
        seconds["ours"].append(time.perf_counter() - start)
    return seconds


if __name__ == "__main__":
    main()
