"""Training: a prepared data set in, a run folder out; the same bits again, and after any interruption."""

from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import softmax

from covidtf import predictions
from covidtf.files import locked, progress, sha256, write_csv, write_json
from covidtf.training import batches, checkpoints, weights
from covidtf.training.batches import TrainingData
from covidtf.training.devices import keep_memory, keras, make_deterministic, precision
from covidtf.training.epochs import CHECKPOINT, best_epoch, logits, run_epochs
from covidtf.training.networks import build, supervised
from covidtf.weights import start

__all__ = ["RULES", "best_epoch", "predict", "train"]

DECISIVE = (
    *("network", "epochs", "head_epochs", "batch_size", "optimizer", "learning_rate", "schedule"),
    *("random_crop", "random_flip", "seed"),
)
# Of a `config.DeepConfig` as well.
DEEP = (
    *("loss", "beta", "auxiliary", "stages", "auxiliary_weight", "auxiliary_width", "fusion", "folded"),
    *("random_grey", "label_noise", "folds", "fold"),
)
RULES = 4  # to be raised when the same settings and data would give another result


def train(config, prepared, folder: str | Path) -> pd.DataFrame:
    """Train one network and score val and test with its best epoch.

    Minimises the cross-entropy over `copies` of the train images, in an order that follows from (seed, epoch)
    alone. The first `head_epochs` epochs train the last layer alone, the others all layers, each part with a
    fresh optimiser. Where the last layer learns from whole images, the outputs of the frozen backbone are
    computed once per image and kept in `features/` beside the run folder (`features.features`). The best
    epoch has the highest AUROC on val; of equal ones, and where val lacks a class, it has the lowest
    cross-entropy, then it is the earliest. Test is scored once, with its weights. Writes into `folder`:

    - `history.csv` after every epoch: epoch (from 1), stage (head or all), train_loss (mean over the epoch,
      while weights change), val_loss, val_auroc (of the first class; of each class against the others,
      averaged, where there are more than two; empty where val lacks a class), val_accuracy (of the class
      with the highest score), seconds;
    - `checkpoint.npz` after every epoch (every 20 seconds where the last layer learns from features), removed
      at the end: a run that is called again goes on from it and ends with the same `predictions.csv`, bit for
      bit;
    - `best.weights.h5`, `predictions.csv` and, last, `training.json`: settings (with classes, data and what
      it started from), best epoch, seconds (sum over the epochs), sha256 of the three other files, and
      origin: `runs.origin` and the environment when it was trained, not when it was last called. Where
      another process went on with other code or another device, `continues` in it holds the earlier origin.

    A finished run is not trained again. If its settings or data have changed since, or one of its files is
    lost or altered, it is, which is said on standard error, and the old files stay until there are new ones.

    With a `DeepConfig` the loss is `losses.of`, and the network `supervised.extend`'s: auxiliary heads count
    as head, the score is the fused one (`supervised.scorer`), there may be no test, and

    - `history.csv` also has `weight_<head>`, the weight of each head's loss after the epoch; train_loss is
      the loss over all heads;
    - `heads.csv` holds what `predictions.csv` would be of each head by itself, with a column `head`;
    - with `label_noise` some of train's labels are changed, `batches.with_label_noise`; `training.json` says
      how many.

    The same settings and data give the same bits on the same machine, CPU cores and versions; TensorFlow's
    determinism stays switched on for the process.

    Args:
        config: A `covidtf.config.TrainConfig` or `DeepConfig`.
        prepared: A `prepare.Prepared`, whose manifest may have a column `copies` (`batches.read`).
        folder: The run folder; made if absent.
    Returns:
        The history, one row per epoch.
    Raises:
        ValueError: Unknown network, optimiser or loss, channels, size or stages a network does not have.
        DataError: Unusable data, weights or checkpoint; names the file.
        FloatingPointError: If a loss is no longer finite; names epoch and learning rate.
    """
    folder = Path(folder)
    make_deterministic()
    keep_memory()
    data, noise = _read(config, prepared)
    model, started_from = _build(config, data)
    settings = _settings(config, data, started_from) | noise | _look(prepared)
    with locked(folder, "training"):
        if not checkpoints.is_finished(settings, folder):
            record = run_epochs(config, data, model, folder, settings)
            _finish(config, data, model, folder, record)
        (folder / CHECKPOINT).unlink(missing_ok=True)
    return pd.read_csv(folder / "history.csv")


def predict(model: "keras.Model", images: np.ndarray, rows: np.ndarray, batch_size: int = 20) -> np.ndarray:
    """Scores: softmax of the logits.

    Args:
        model: As built by `networks.build`, or a `supervised.scorer`.
        images: uint8, shape `(n, size, size, channels)`.
        rows: Which of them, shape `(m,)`.
        batch_size: Images scored together; changes speed, and scores by rounding alone.
    Returns:
        float32, shape `(m, classes)`, rows in the order of `rows`.
    """
    with progress((), "scoring", total=-(-len(rows) // batch_size)) as bar:
        return softmax(logits(model, images, rows, batch_size, bar.update), axis=1)


def _read(config, prepared) -> tuple[TrainingData, dict]:
    """The data, and what was done to them, for the record."""
    if not _is_deep(config):
        return batches.read(prepared), {}
    data = batches.read(prepared, test=False)
    data, noise = batches.with_label_noise(data, config.label_noise, config.seed)
    return data, {"changed_labels": noise}


def _build(config, data: TrainingData) -> tuple["keras.Model", dict]:
    """The network with the weights that it starts from, and the record of these."""
    size, channels = data.images.shape[2:]
    mixed = precision(config.mixed_precision)
    model = build(config.network, len(data.classes), channels, size, config.seed, mixed)
    started_from = start(model, config.weights, data.classes)
    if not _is_deep(config):
        return model, started_from
    drawn = config.weights == "none"
    model = supervised.extend(model, _deep_settings(config), config.seed, drawn)
    # Before the first epoch, whose val is what it is needed for.
    supervised.scorer(model, config.fusion)
    return model, started_from


def _is_deep(config) -> bool:
    return hasattr(config, "auxiliary")


def _deep_settings(config) -> dict:
    """Those of deep supervision as they count: the stages that `""` stands for, none without heads."""
    if not _is_deep(config):
        return {}
    numbers = supervised.stage_numbers(config.network, config.stages) if config.auxiliary != "none" else []
    return {name: getattr(config, name) for name in DEEP} | {"stages": " ".join(map(str, numbers))}


def _settings(config, data: TrainingData, started_from: dict) -> dict:
    """All that decides the result: a run goes on, or counts as finished, only while none of it changes."""
    named = {name: getattr(config, name) for name in DECISIVE} | _deep_settings(config)
    return named | {
        "rules": RULES,
        "backend": keras.backend.backend(),
        "precision": precision(config.mixed_precision),
        "started_from": started_from,
        "sources": sorted(set(data.manifest["source"])),
        "classes": data.classes,
        "images": {"train_per_epoch": len(data.shown), "val": len(data.val), "test": len(data.test)},
        "shape": list(data.images.shape[1:]),
        "data_sha256": data.sha256(),
    }


def _look(prepared) -> dict[str, str]:
    """How images were cut and changed, which whoever scores others has to do to them too."""
    return {"crop": prepared.crop} | ({} if prepared.grey == "stored" else {"grey": prepared.grey})


def _finish(config, data: TrainingData, model: "keras.Model", folder: Path, record: dict) -> None:
    history = pd.DataFrame(record.pop("history"))
    weights.save(model, folder)
    # Once more, because after an interruption there may have been no epoch left that wrote it.
    write_csv(history, folder / "history.csv")
    rows = np.sort(np.concatenate([data.val, data.test]))
    table = data.manifest.iloc[rows][list(predictions.COLUMNS)].reset_index(drop=True)
    if supervised.has_heads(model):
        scores = _score_heads(config, data, model, rows, table, folder)
    else:
        scores = predict(model, data.images, rows, config.batch_size)
    predictions.write(_with_scores(table, scores, data.classes), folder / "predictions.csv")
    record |= {
        "best_epoch": best_epoch(history.to_dict("records")),
        "seconds": round(float(history["seconds"].sum()), 2),
        "sha256": {name: sha256(folder / name) for name in weights.KEPT},
    }
    write_json(record, folder / weights.RECORD)


def _score_heads(config, data: TrainingData, model, rows, table: pd.DataFrame, folder: Path) -> np.ndarray:
    """Write `heads.csv`; the fused scores."""
    with progress((), "scoring", total=-(-len(rows) // config.batch_size)) as bar:
        outputs = logits(model, data.images, rows, config.batch_size, bar.update)
    each = [
        _with_scores(table, softmax(outputs[:, index, :-1], axis=1), data.classes).assign(head=name)
        for index, name in enumerate(supervised.head_weights(model))
    ]
    write_csv(pd.concat(each, ignore_index=True), folder / "heads.csv")
    return softmax(supervised.fused(model, outputs, config.fusion), axis=1)


def _with_scores(table: pd.DataFrame, scores: np.ndarray, classes: list[str]) -> pd.DataFrame:
    columns = pd.DataFrame(scores, columns=[f"score_{label}" for label in classes])
    return pd.concat([table, columns], axis=1)
