"""Training: a prepared data set in, a run folder out; the same bits again, and after any interruption."""

import time
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import log_softmax, softmax
from sklearn.metrics import roc_auc_score

from covidtf import predictions, runs
from covidtf.files import locked, progress, sha256, write_csv, write_json
from covidtf.training import batches, checkpoints, weights
from covidtf.training.batches import Batches, RandomViews, TrainingData
from covidtf.training.devices import environment, keras, make_deterministic, precision
from covidtf.training.networks import build, set_trained_part
from covidtf.training.optimizers import compile_model

CHECKPOINT = "checkpoint.npz"
DECISIVE = (
    *("network", "epochs", "head_epochs", "batch_size", "optimizer", "learning_rate", "schedule"),
    *("random_crop", "random_flip", "seed"),
)
RULES = 3  # to be raised when the same settings and data would give another result


def train(config, prepared, folder: str | Path) -> pd.DataFrame:
    """Train one network and score val and test with its best epoch.

    Minimises the cross-entropy over `copies` of the train images, in an order that follows from (seed, epoch)
    alone. The first `head_epochs` epochs train the last layer alone, the others all layers, each part with a
    fresh optimiser. The best epoch has the highest AUROC on val; of equal ones, and where val lacks a class,
    it has the lowest cross-entropy, then it is the earliest. Test is scored once, with its weights. Writes
    into `folder`:

    - `history.csv` after every epoch: epoch (from 1), stage (head or all), train_loss (mean over the epoch,
      while weights change), val_loss, val_auroc (of the first class; of each class against the others,
      averaged, where there are more than two; empty where val lacks a class), val_accuracy (of the class
      with the highest score), seconds;
    - `checkpoint.npz` after every epoch, removed at the end: a run that is called again goes on from it and
      ends with the same `predictions.csv`, bit for bit;
    - `best.weights.h5`, `predictions.csv` and, last, `training.json`: settings (with classes, data and what
      it started from), best epoch, seconds (sum over the epochs), sha256 of the three other files, and
      origin: `runs.origin` and the environment when it was trained, not when it was last called. Where
      another process went on with other code or another device, `continues` in it holds the earlier origin.

    A finished run is not trained again. If its settings or data have changed since, or one of its files is
    lost or altered, it is, which is said on standard error, and the old files stay until there are new ones.

    The same settings and data give the same bits on the same machine, CPU cores and versions; TensorFlow's
    determinism stays switched on for the process.

    Args:
        config: A `covidtf.config.TrainConfig`.
        prepared: A `prepare.Prepared`, whose manifest may have a column `copies` (`batches.read`).
        folder: The run folder; made if absent.
    Returns:
        The history, one row per epoch.
    Raises:
        ValueError: Unknown network or optimiser, channels or size a network does not take.
        DataError: Unusable data, weights or checkpoint; names the file.
        FloatingPointError: If a loss is no longer finite; names epoch and learning rate.
    """
    folder = Path(folder)
    make_deterministic()
    data = batches.read(prepared)
    model = _build(config, data)
    settings = _settings(config, data, weights.start(model, config.weights, data.classes))
    with locked(folder, "training"):
        if not checkpoints.is_finished(settings, folder):
            record = _run_epochs(config, data, model, folder, settings)
            _finish(config, data, model, folder, record)
        (folder / CHECKPOINT).unlink(missing_ok=True)
    return pd.read_csv(folder / "history.csv")


def predict(model: "keras.Model", images: np.ndarray, rows: np.ndarray, batch_size: int = 20) -> np.ndarray:
    """Scores: softmax of the logits.

    Args:
        model: As built by `networks.build`.
        images: uint8, shape `(n, size, size, channels)`.
        rows: Which of them, shape `(m,)`.
        batch_size: Images scored together; changes speed, and scores by rounding alone.
    Returns:
        float32, shape `(m, classes)`, rows in the order of `rows`.
    """
    with progress((), "scoring", total=-(-len(rows) // batch_size)) as bar:
        return softmax(_logits(model, images, rows, batch_size, bar), axis=1)


def _build(config, data: TrainingData) -> "keras.Model":
    size, channels = data.images.shape[2:]
    mixed = precision(config.mixed_precision)
    return build(config.network, len(data.classes), channels, size, config.seed, mixed)


def _settings(config, data: TrainingData, started_from: dict) -> dict:
    """All that decides the result: a run goes on, or counts as finished, only while none of it changes."""
    return {name: getattr(config, name) for name in DECISIVE} | {
        "rules": RULES,
        "backend": keras.backend.backend(),
        "precision": precision(config.mixed_precision),
        "started_from": started_from,
        "classes": data.classes,
        "images": {"train_per_epoch": len(data.shown), "val": len(data.val), "test": len(data.test)},
        "shape": list(data.images.shape[1:]),
        "data_sha256": data.sha256(),
    }


def _run_epochs(config, data: TrainingData, model: "keras.Model", folder: Path, settings: dict) -> dict:
    """All epochs that are still to do; leaves the best epoch's weights in `model`."""
    path = folder / CHECKPOINT
    checkpoints.clean(path)
    record, best = _resume(config, data, model, path, settings)
    history = record["history"]
    steps = _steps(config, data.shown) + _steps(config, data.val)
    with progress((), config.network, total=steps * (config.epochs - len(history))) as bar:
        for epoch in range(len(history) + 1, config.epochs + 1):
            if epoch in (1, config.head_epochs + 1):
                _compile(config, data, model, epoch)
            history.append(_run_epoch(config, data, model, epoch, bar))
            if best_epoch(history) == epoch:
                best = model.get_weights()
            # Before the checkpoint: whoever goes on from there finds all earlier rows written.
            write_csv(pd.DataFrame(history), folder / "history.csv")
            checkpoints.save(path, model, best, record)
    model.set_weights(best)
    return record


def _resume(
    config, data: TrainingData, model: "keras.Model", path: Path, settings: dict
) -> tuple[dict, list[np.ndarray]]:
    origin = runs.origin() | {"environment": environment(config.mixed_precision)}
    record = checkpoints.read_record(path) if path.is_file() else None
    if record is None or not checkpoints.is_same(settings, record["settings"], path):
        return {"settings": settings, "origin": origin, "history": []}, []
    # Checkpoints did not always hold an origin.
    record["origin"] = checkpoints.continued(origin, record.get("origin", {"dirty": "unknown"}))
    _compile(config, data, model, len(record["history"]))
    return record, checkpoints.restore(path, model)


def _compile(config, data: TrainingData, model: "keras.Model", epoch: int) -> None:
    """Start, or come back to, the stage that `epoch` is in."""
    stage = _stage(config, epoch)
    set_trained_part(model, stage)
    epochs = config.head_epochs if stage == "head" else config.epochs - config.head_epochs
    compile_model(model, config, epochs, _steps(config, data.shown))


def _steps(config, rows: np.ndarray) -> int:
    return -(-len(rows) // config.batch_size)


def _stage(config, epoch: int) -> str:
    return "head" if epoch <= config.head_epochs else "all"


def _run_epoch(config, data: TrainingData, model: "keras.Model", epoch: int, bar) -> dict:
    start = time.perf_counter()
    order = np.random.default_rng([config.seed, epoch]).permutation(data.shown)
    _seed_dropout(model, config.seed, epoch)
    shown = _shown(config, data, order, epoch)
    follow = _Follow(bar, f"epoch {epoch}/{config.epochs} {_stage(config, epoch)}")
    # Keras would otherwise shuffle the batches once more, from Python's global random state.
    loss = model.fit(shown, shuffle=False, verbose=0, callbacks=[follow]).history["loss"][0]
    row = {"epoch": epoch, "stage": _stage(config, epoch), "train_loss": float(loss)}
    row |= _validate(model, data, config.batch_size, bar)
    if not np.isfinite([row["train_loss"], row["val_loss"]]).all():
        raise FloatingPointError(
            f"the loss is not finite in epoch {epoch} (train {row['train_loss']}, val {row['val_loss']}); "
            f"the learning rate is {config.learning_rate}"
        )
    return row | {"seconds": round(time.perf_counter() - start, 2)}


def _shown(config, data: TrainingData, order: np.ndarray, epoch: int) -> Batches:
    shown = data.images, data.labels, order, config.batch_size
    if config.random_crop == 1 and not config.random_flip:
        return Batches(*shown)
    return RandomViews(*shown, crop=config.random_crop, flip=config.random_flip, seed=[config.seed, epoch])


def _validate(model: "keras.Model", data: TrainingData, batch_size: int, bar) -> dict:
    logits = _logits(model, data.images, data.val, batch_size, bar)
    labels = data.labels[data.val]
    loss = -log_softmax(logits.astype(np.float64), axis=1)[np.arange(len(labels)), labels].mean()
    return {
        "val_loss": float(loss),
        "val_auroc": _auroc(labels, softmax(logits, axis=1)),
        "val_accuracy": float((logits.argmax(axis=1) == labels).mean()),
    }


def _auroc(labels: np.ndarray, scores: np.ndarray) -> float:
    if len(set(labels)) < scores.shape[1] or not np.isfinite(scores).all():
        return float("nan")
    if scores.shape[1] == 2:
        return float(roc_auc_score(labels == 0, scores[:, 0]))
    return float(roc_auc_score(labels, scores, multi_class="ovr"))


def best_epoch(history: list[dict]) -> int:
    """Epoch with the highest AUROC on val; of equal ones, or without AUROC, the lowest cross-entropy.

    Cross-entropy alone picks the epochs before a network grows confident, however badly they rank.

    Args:
        history: Rows with epoch, val_auroc (NaN where val lacks a class) and val_loss.
    """
    return min(history, key=lambda row: (-np.nan_to_num(row["val_auroc"]), row["val_loss"]))["epoch"]


def _seed_dropout(model: "keras.Model", seed: int, epoch: int) -> None:
    for index, layer in enumerate(model.layers):
        if isinstance(layer, keras.layers.Dropout):
            state = np.random.SeedSequence([seed, epoch, index]).generate_state(1) >> 1
            layer.seed_generator.state.assign(np.array([state[0], 0]))


def _logits(model: "keras.Model", images: np.ndarray, rows: np.ndarray, batch_size: int, bar) -> np.ndarray:
    unused = np.zeros(len(images), dtype=np.int64)
    shown = Batches(images, unused, rows, batch_size)
    return np.asarray(model.predict(shown, verbose=0, callbacks=[_Follow(bar)]))


class _Follow(keras.callbacks.Callback):
    """Moves the bar with every step and shows the loss once a second, because reading it waits for a GPU."""

    def __init__(self, bar, text: str = ""):
        super().__init__()
        self.bar, self.text, self.read = bar, text, time.monotonic()

    def on_train_batch_end(self, batch, logs=None):
        self.bar.update()
        if time.monotonic() > self.read + 1:
            self.bar.set_postfix_str(f"{self.text}, loss {float(logs['loss']):.4f}", refresh=False)
            self.read = time.monotonic()

    def on_predict_batch_end(self, batch, logs=None):
        self.bar.update()


def _finish(config, data: TrainingData, model: "keras.Model", folder: Path, record: dict) -> None:
    history = pd.DataFrame(record.pop("history"))
    weights.save(model, folder)
    # Once more, because after an interruption there may have been no epoch left that wrote it.
    write_csv(history, folder / "history.csv")
    rows = np.sort(np.concatenate([data.val, data.test]))
    table = data.manifest.iloc[rows][list(predictions.COLUMNS)].reset_index(drop=True)
    scores = predict(model, data.images, rows, config.batch_size)
    columns = pd.DataFrame(scores, columns=[f"score_{label}" for label in data.classes])
    predictions.write(pd.concat([table, columns], axis=1), folder / "predictions.csv")
    record |= {
        "best_epoch": best_epoch(history.to_dict("records")),
        "seconds": round(float(history["seconds"].sum()), 2),
        "sha256": {name: sha256(folder / name) for name in weights.KEPT},
    }
    write_json(record, folder / weights.RECORD)
