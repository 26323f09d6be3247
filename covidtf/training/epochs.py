"""The epochs of a run: which part learns from what, one epoch after the other, from wherever it stopped."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import log_softmax, softmax
from sklearn.metrics import roc_auc_score

from covidtf import runs
from covidtf.files import progress, write_csv
from covidtf.training import checkpoints, features, heads, losses
from covidtf.training.batches import Batches, RandomViews, TrainingData
from covidtf.training.devices import environment, feed, keras
from covidtf.training.networks import set_trained_part, split_model
from covidtf.training.networks.supervised import fused, has_heads, head_weights
from covidtf.training.optimizers import compile_model

CHECKPOINT = "checkpoint.npz"
CHECKPOINT_SECONDS = 20  # between two checkpoints where a head learns from features
FEATURES = "features"  # beside the run folders, shared by them


@dataclass(frozen=True)
class Stage:
    """What learns in some of the epochs, and from what.

    Attributes:
        name: `head` or `all`.
        model: What is trained: the whole network, or its head where that reads features.
        inputs: Images, or features of the frozen backbone, one per image of the data set.
    """

    name: str
    model: "keras.Model"
    inputs: object


def run_epochs(config, data: TrainingData, model: "keras.Model", folder: Path, settings: dict) -> dict:
    """All epochs that are still to do; leaves the best epoch's weights in `model`.

    Args:
        settings: All that decides the result, for the checkpoint.
    Returns:
        `settings`, `origin` and `history` (a list of rows).
    """
    path = folder / CHECKPOINT
    checkpoints.clean(path)
    record, stage, best = _resume(config, data, model, path, settings)
    history = record["history"]
    # Before the bar, since features have one of their own.
    stage = stage or _stage(config, data, model, 1, folder)
    steps, saved = _steps(config, data.shown) + _steps(config, data.val), time.monotonic()
    with progress((), config.network, total=steps * (config.epochs - len(history))) as bar:
        for epoch in range(len(history) + 1, config.epochs + 1):
            if stage.name != _part(config, epoch):
                stage = _stage(config, data, model, epoch, folder)
            history.append(_run_epoch(config, data, model, stage, epoch, bar))
            if best_epoch(history) == epoch:
                best = model.get_weights()
            # Before the checkpoint: whoever goes on from there finds all earlier rows written.
            write_csv(pd.DataFrame(history), folder / "history.csv")
            last = epoch in (config.head_epochs, config.epochs)
            # An epoch on features takes less time than writing the whole network.
            if stage.model is model or last or time.monotonic() > saved + CHECKPOINT_SECONDS:
                checkpoints.save(path, model, stage.model.optimizer, best, record)
                saved = time.monotonic()
    model.set_weights(best)
    return record


def best_epoch(history: list[dict]) -> int:
    """Epoch with the highest AUROC on val; of equal ones, or without AUROC, the lowest cross-entropy.

    Cross-entropy alone picks the epochs before a network grows confident, however badly they rank.

    Args:
        history: Rows with epoch, val_auroc (NaN where val lacks a class) and val_loss.
    """
    return min(history, key=lambda row: (-np.nan_to_num(row["val_auroc"]), row["val_loss"]))["epoch"]


def measure(labels: np.ndarray, logits: np.ndarray) -> dict[str, float]:
    """`val_loss` (cross-entropy), `val_auroc` and `val_accuracy` of logits, shape `(n, classes)`."""
    chosen = np.arange(len(labels)), labels
    return {
        "val_loss": float(-log_softmax(logits.astype(np.float64), axis=1)[chosen].mean()),
        "val_auroc": _auroc(labels, softmax(logits, axis=1)),
        "val_accuracy": float((logits.argmax(axis=1) == labels).mean()),
    }


def logits(
    model: "keras.Model", images: np.ndarray, rows: np.ndarray, batch_size: int, follow: Callable
) -> np.ndarray:
    """Logits of `rows` of `images`, shape `(m, classes)`; `follow` is called after each batch.

    Of a model with auxiliary heads all of its outputs.
    """
    unused = np.zeros(len(images), dtype=np.int64)
    shown = Batches(images, unused, rows, batch_size)
    after = keras.callbacks.LambdaCallback(on_predict_batch_end=lambda batch, logs=None: follow())
    return np.asarray(feed(model.predict, shown, verbose=0, callbacks=[after]))


def _auroc(labels: np.ndarray, scores: np.ndarray) -> float:
    if len(set(labels)) < scores.shape[1] or not np.isfinite(scores).all():
        return float("nan")
    if scores.shape[1] == 2:
        return float(roc_auc_score(labels == 0, scores[:, 0]))
    return float(roc_auc_score(labels, scores, multi_class="ovr"))


def _resume(config, data: TrainingData, model: "keras.Model", path: Path, settings: dict):
    origin = runs.origin() | {"environment": environment(config.mixed_precision)}
    record = checkpoints.read_record(path) if path.is_file() else None
    if record is None or not checkpoints.is_same(settings, record["settings"], path):
        return {"settings": settings, "origin": origin, "history": []}, None, []
    # Checkpoints did not always hold an origin.
    record["origin"] = checkpoints.continued(origin, record.get("origin", {"dirty": "unknown"}))
    best = checkpoints.restore(path, model)
    stage = _stage(config, data, model, len(record["history"]), path.parent)
    checkpoints.restore_optimizer(path, stage.model.optimizer)
    return record, stage, best


def _stage(config, data: TrainingData, model: "keras.Model", epoch: int, folder: Path) -> Stage:
    """Start, or come back to, the stage that `epoch` is in.

    A frozen backbone gives the same features in every epoch, unless each shows other views of an image.
    Auxiliary heads read other layers, so they learn from images.
    """
    name = _part(config, epoch)
    epochs = config.head_epochs if name == "head" else config.epochs - config.head_epochs
    set_trained_part(model, name)
    stage = Stage(name, model, data.images)
    if name == "head" and not _random(config) and not has_heads(model):
        rows = np.union1d(data.shown, data.val)
        found = features.features(model, data.images, rows, folder.parent / FEATURES)
        stage = Stage(name, split_model(model)[1], found)
    steps = _steps(config, data.shown)
    # An epoch on vectors is one execution.
    at_once = steps if stage.model is not model and len(stage.inputs.shape) == 2 else 1
    counts = np.bincount(data.labels[data.shown], minlength=len(data.classes))
    compile_model(stage.model, config, epochs, steps, at_once, losses.of(config, counts))
    return stage


def _part(config, epoch: int) -> str:
    return "head" if epoch <= config.head_epochs else "all"


def _run_epoch(config, data: TrainingData, model: "keras.Model", stage: Stage, epoch: int, bar) -> dict:
    start = time.perf_counter()
    order = np.random.default_rng([config.seed, epoch]).permutation(data.shown)
    heads.seed_dropout(model, config.seed, epoch)
    follow = _Follow(bar, f"epoch {epoch}/{config.epochs} {stage.name}")
    if stage.model is model:
        shown = _shown(config, data, order, epoch)
        # Keras would otherwise shuffle the batches once more, from Python's global random state.
        fitted = feed(model.fit, shown, shuffle=False, verbose=0, callbacks=[follow])
        loss = fitted.history["loss"][0]
        outputs = logits(model, data.images, data.val, config.batch_size, bar.update)
        scores = fused(model, outputs, getattr(config, "fusion", "main"))
    else:
        loss = heads.run_epoch(stage.model, stage.inputs, data.labels, order, config.batch_size, [follow])
        scores = heads.logits(stage.model, stage.inputs, data.val, config.batch_size)
        bar.update(_steps(config, data.val))
    row = {"epoch": epoch, "stage": stage.name, "train_loss": float(loss)}
    row |= measure(data.labels[data.val], scores)
    if not np.isfinite([row["train_loss"], row["val_loss"]]).all():
        raise FloatingPointError(
            f"the loss is not finite in epoch {epoch} (train {row['train_loss']}, val {row['val_loss']}); "
            f"the learning rate is {config.learning_rate}"
        )
    row |= {f"weight_{name}": weight for name, weight in head_weights(model).items()}
    return row | {"seconds": round(time.perf_counter() - start, 2)}


def _shown(config, data: TrainingData, order: np.ndarray, epoch: int) -> Batches:
    shown = data.images, data.labels, order, config.batch_size
    if not _random(config):
        return Batches(*shown)
    views = {"crop": config.random_crop, "flip": config.random_flip, "grey": _random_grey(config)}
    return RandomViews(*shown, **views, seed=[config.seed, epoch])


def _random(config) -> bool:
    return config.random_crop < 1 or config.random_flip or _random_grey(config) > 0


def _random_grey(config) -> float:
    return getattr(config, "random_grey", 0.0)


def _steps(config, rows: np.ndarray) -> int:
    return -(-len(rows) // config.batch_size)


class _Follow(keras.callbacks.Callback):
    """Moves the bar with every step and shows the loss once a second, because reading it waits for a GPU."""

    def __init__(self, bar, text: str):
        super().__init__()
        self.bar, self.text, self.read, self.done = bar, text, time.monotonic(), 0

    def on_train_batch_end(self, batch, logs=None):
        # Several steps may have been one execution.
        self.bar.update(batch + 1 - self.done)
        self.done = batch + 1
        if time.monotonic() > self.read + 1:
            self.bar.set_postfix_str(f"{self.text}, loss {float(logs['loss']):.4f}", refresh=False)
            self.read = time.monotonic()
