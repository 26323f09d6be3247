"""A grid of heads: networks, seeds, folds and learning rates, for one pass of each backbone."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold

from covidtf.files import DataError, progress
from covidtf.training.batches import TrainingData
from covidtf.training.devices import keras
from covidtf.training.epochs import best_epoch, measure
from covidtf.training.features import features
from covidtf.training.heads import train_heads

COLUMNS = ("network", "seed", "fold", "learning_rate", "best_epoch", "val_auroc", "val_loss", "train_loss")


def grid(
    models: Sequence["keras.Model"],
    data: TrainingData,
    folder: str | Path,
    seeds: Sequence[int] = (0, 1, 2),
    folds: int = 5,
    learning_rates: Sequence[float] = (1e-4, 1e-3, 1e-2),
    epochs: int = 100,
    batch_size: int = 20,
    optimizer: str = "adam",
) -> pd.DataFrame:
    """Cross-validate the head of each frozen network, by patient, with each seed and learning rate.

    Train and val of the data set together are divided into folds, test is left alone. Each head starts as
    `build` draws it with its seed and equals, within rounding, the run with that seed on that fold.

    Args:
        models: As built by `networks.build` for the data's classes, with the weights of their backbones.
        data: `batches.read` of a prepared data set.
        folder: Of the feature caches.
        seeds: Of first weights and orders; the folds are the same for all of them.
        folds: Number of folds, at least 2.
    Returns:
        One row per head, with `COLUMNS`; fold from 1; val_auroc, val_loss and train_loss are those of the
        best epoch (`training.best_epoch`).
    Raises:
        DataError: If a class has fewer patients than there are folds.
        ValueError: Unknown optimiser, fewer than two folds.
    """
    parts = divide(data, folds)
    groups = [(seed, fold) for seed in seeds for fold in range(folds)]
    rows, val = ([parts[fold][part] for _, fold in groups] for part in (0, 1))
    table = []
    for model in models:
        values = features(model, data.images, np.concatenate([*rows, *val]), folder)
        histories = {}
        with progress((), f"{model.name} heads", total=epochs * len(groups) * len(learning_rates)) as bar:

            def follow(epoch, group, rate, loss, scores, _, histories=histories, bar=bar):
                row = {"epoch": epoch, "train_loss": loss} | measure(data.labels[val[group]], scores)
                histories.setdefault((group, rate), []).append(row)
                bar.update()

            train_heads(
                *(model, values, data.labels, rows, [seed for seed, _ in groups], learning_rates),
                *(epochs, batch_size, optimizer, val, follow),
            )
        for (group, rate), history in sorted(histories.items()):
            best = history[best_epoch(history) - 1]
            seed, fold = groups[group]
            row = {
                "network": model.name,
                "seed": seed,
                "fold": fold + 1,
                "learning_rate": learning_rates[rate],
            }
            table.append(row | {"best_epoch": best.pop("epoch")} | best)
    return pd.DataFrame(table)[list(COLUMNS)]


def divide(data: TrainingData, folds: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Rows that an epoch shows, and rows of val, for each fold: patients stay together, labels in proportion.

    A train row is shown as often as `data.shown` has it, a val row of the data set once. A fold's val has
    each image once and no augmented ones, which are those with a `parent_id`.

    Raises:
        DataError: If a class has fewer patients than there are folds.
    """
    if folds < 2:
        raise ValueError(f"`folds` must be at least 2. Received: {folds}")
    pool = np.union1d(data.shown, data.val)
    patients, labels = data.manifest["patient_id"].to_numpy()[pool], data.labels[pool]
    for index, label in enumerate(data.classes):
        count = len(set(patients[labels == index]))
        if count < folds:
            raise DataError(f"{folds} folds need as many patients of {label!r}. Received: {count}")
    original = np.ones(len(data.images), dtype=bool)
    if "parent_id" in data.manifest:
        original = (data.manifest["parent_id"].fillna("") == "").to_numpy()
    # In manifest order, as `batches.read` has them: the order of an epoch is a permutation of it.
    shown = np.sort(np.concatenate([data.shown, data.val]))
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=0)
    parts = [pool[held] for _, held in splitter.split(pool, labels, patients)]
    return [(shown[~np.isin(shown, held)], held[original[held]]) for held in parts]
