"""A training step against PyTorch, and the time to the first one: `python -m benchmarks.step [NETWORK ...]`.

Needs torch. Both sides do the same step over the same images in memory: pixels to normalised RGB, forward in
training, cross-entropy, backward, Adam. They take turns in processes of their own, on the same cores.

On a CPU: float32, batch 20, PyTorch in channels_last. `first_step_seconds_*` is the time from a built network
to the end of its first step in a fresh process. With `--device gpu`: ResNet50, batch 256, ours in mixed
precision on whichever backend `KERAS_BACKEND` names, PyTorch in channels_last, autocast to bfloat16 and
compiled; it ends with an error where either side sees no GPU.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from benchmarks.record import peak_mb, record

NETWORKS = ("ResNet18", "ResNet50", "SqueezeNet1_0", "DenseNet121")
SIZE, CLASSES, RATE = 224, 2, 1e-4
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def main() -> None:
    """Measure and append to the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("networks", nargs="*", metavar="NETWORK", help="[all four; on a GPU ResNet50]")
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--batch", type=int, help="images in a step [20; on a GPU 256]")
    parser.add_argument("--rounds", type=int, default=7, help="in which the sides take turns [%(default)s]")
    parser.add_argument("--steps", type=int, help="of a side in a round [3; on a GPU 50]")
    parser.add_argument("--threads", type=int, default=2, help="cores of the CPU [%(default)s]")
    parser.add_argument("--fresh", type=int, default=3, help="processes for the first step [%(default)s]")
    parser.add_argument("--side", choices=tuple(SIDES), help=argparse.SUPPRESS)
    options = parser.parse_args()
    gpu = options.device == "gpu"
    options.batch = options.batch or (256 if gpu else 20)
    options.steps = options.steps or (50 if gpu else 3)
    if options.side:
        serve(options)
        return
    for network in options.networks or (["ResNet50"] if gpu else NETWORKS):
        measure(network, options)


def measure(network: str, options: argparse.Namespace) -> None:
    """Rows of one network."""
    sides = {name: Side(name, network, options) for name in SIDES}
    ratios, rates = [], {name: [] for name in sides}
    for number in range(options.rounds):
        for name, side in sides.items():
            rates[name].append(options.steps * options.batch / side.work(options.steps))
        ours, theirs = (rates[name][-1] for name in ("keras", "torch"))
        ratios.append(ours / theirs)
        print(f"{network}, round {number + 1}: {ours:.2f} and {theirs:.2f} images/s, {ratios[-1]:.3f}")
    peaks = {name: side.close() for name, side in sides.items()}
    first = [sides["keras"].first]
    median = {name: statistics.median(found) for name, found in rates.items()}
    print(f"{network}: {sides['keras'].described} against {sides['torch'].described}, {median}, {peaks} MB")
    if options.device == "gpu":
        against = f"{sides['torch'].described}, batch {options.batch}; ours: {sides['keras'].described}"
        record(f"step_vs_torch_{network}_gpu", statistics.median(ratios), "x", against, "gpu")
        record(f"step_images_per_second_{network}", median["keras"], "images/s", against, "gpu")
        return
    against = f"{sides['torch'].described}, {options.threads} threads, batch {options.batch}"
    record(f"step_vs_torch_{network}", statistics.median(ratios), "x", against)
    record(f"step_peak_mb_{network}", peaks["keras"], "MB", f"PyTorch: {peaks['torch']:.0f} MB")
    for _ in range(options.fresh - 1):
        side = Side("keras", network, options)
        side.close()
        first.append(side.first)
    record(f"first_step_seconds_{network}", statistics.median(first), "s", "a built network, fresh process")


class Side:
    """A process that has made its first steps and makes more of them on request.

    Attributes:
        described: What it computes with.
        first: Seconds from the built network to the end of the first step.
    """

    def __init__(self, name: str, network: str, options: argparse.Namespace):
        command = [sys.executable, "-m", "benchmarks.step", network, "--side", name]
        for option in ("device", "batch", "threads"):
            command += [f"--{option}", str(getattr(options, option))]
        # Two frameworks share the GPU's memory: neither may take all of it in advance.
        shared = {"TF_FORCE_GPU_ALLOW_GROWTH": "true", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | shared,
            cwd=Path(__file__).parents[1],
        )
        self.described, self.first = self._read(), float(self._read())

    def work(self, steps: int) -> float:
        """Seconds that so many steps take."""
        self.process.stdin.write(f"{steps}\n")
        self.process.stdin.flush()
        return float(self._read())

    def close(self) -> float:
        """End the process; its peak memory in MB."""
        self.process.stdin.close()
        peak = float(self._read())
        self.process.wait()
        return peak

    def _read(self) -> str:
        line = self.process.stdout.readline().strip()
        if not line:
            raise SystemExit(f"{' '.join(self.process.args[1:])} failed, see above")
        return line


def serve(options: argparse.Namespace) -> None:
    """One side: describe it, make its first steps, then as many as each line of the input says."""
    if options.device == "cpu":
        # Before any framework counts the cores.
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.threads])
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (4 * options.batch, SIZE, SIZE, 1), np.uint8)
    labels = np.arange(len(images)) % CLASSES
    described, start = SIDES[options.side](options.networks[0], images, labels, options)
    print(described, flush=True)
    begun = time.perf_counter()
    work = start()
    work(1)
    first = time.perf_counter() - begun
    # Said once all is warm: whoever reads it lets the other side begin.
    work(2)
    print(first, flush=True)
    for line in sys.stdin:
        begun = time.perf_counter()
        work(int(line))
        print(time.perf_counter() - begun, flush=True)
    print(peak_mb())


def _ours(network: str, images: np.ndarray, labels: np.ndarray, options) -> tuple[str, Callable]:
    from covidtf.training.batches import Batches
    from covidtf.training.devices import environment, feed, keep_memory, make_deterministic, precision
    from covidtf.training.networks import build
    from covidtf.training.optimizers import compile_model

    # As training has it.
    make_deterministic()
    keep_memory()
    gpu = options.device == "gpu"
    found = environment(gpu)
    if gpu and not found["cards"]:
        raise SystemExit(f"no GPU: {found['backend']} sees {found['devices']}; nothing was measured")
    model = build(network, CLASSES, images.shape[-1], SIZE, precision=precision(gpu))
    settings = SimpleNamespace(optimizer="adam", learning_rate=RATE, schedule="constant")

    def start() -> Callable:
        compile_model(model, settings, epochs=1, steps=1)
        return work

    def work(steps: int) -> None:
        rows = np.arange(steps * options.batch) % len(images)
        # The loss of the last step is read, so that all of them are done.
        shown = Batches(images, labels, rows, options.batch)
        feed(model.fit, shown, shuffle=False, verbose=0)

    device = ", ".join(found["cards"]) or "CPU"
    return f"Keras {found['keras']}, {found['backend']}, {found['precision']}, {device}", start


def _theirs(network: str, images: np.ndarray, labels: np.ndarray, options) -> tuple[str, Callable]:
    import torch

    from benchmarks import torch_networks

    gpu = options.device == "gpu"
    if gpu and not torch.cuda.is_available():
        raise SystemExit(f"no GPU: torch {torch.__version__} sees none; nothing was measured")
    torch.set_num_threads(options.threads)
    device = torch.device("cuda" if gpu else "cpu")
    model = torch_networks.build(network, CLASSES).to(device, memory_format=torch.channels_last).train()
    mean, std = (torch.tensor(values, device=device)[:, None, None] for values in (MEAN, STD))
    pixels, truth = torch.from_numpy(images).permute(0, 3, 1, 2), torch.from_numpy(labels)

    def start() -> Callable:
        optimizer = torch.optim.Adam(model.parameters(), RATE, fused=gpu or None)
        network = torch.compile(model) if gpu else model

        def work(steps: int) -> None:
            for step in range(steps):
                rows = torch.arange(step * options.batch, (step + 1) * options.batch) % len(images)
                x, y = (_to(values[rows], device) for values in (pixels, truth))
                x = ((x / 255).expand(-1, 3, -1, -1) - mean) / std
                x = x.contiguous(memory_format=torch.channels_last)
                optimizer.zero_grad()
                with torch.autocast(device.type, torch.bfloat16, enabled=gpu):
                    loss = torch.nn.functional.cross_entropy(network(x), y)
                loss.backward()
                optimizer.step()
            loss.item()

        return work

    kind = f"compiled, autocast, {torch.cuda.get_device_name()}" if gpu else "float32"
    return f"PyTorch {torch.__version__}, channels_last, {kind}", start


def _to(values, device):
    """Copy to a GPU while it works; on a CPU there is nothing to copy."""
    return values.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else values


SIDES = {"keras": _ours, "torch": _theirs}


if __name__ == "__main__":
    main()
