"""A cheap network to try a question on: a linear layer, trained on the outputs of a frozen backbone."""

import contextlib
import hashlib
import io
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from covidtf import predictions
from covidtf.audit import controls
from covidtf.files import DataError, atomic, progress

if TYPE_CHECKING:
    from covidtf.images.store import Prepared

NETWORK, WEIGHTS = "SqueezeNet1_0", "tiny-imagenet"
# Of the penalty |w|^2 / (2 C). With more features than patients C = 1 would learn train by heart.
C = 0.01
BALANCES = ("label", "source")
_BATCH = 32
_RULES = 1  # to be raised when the same weights and pixels would give other features


def features(
    images: np.ndarray, folder: str | Path, network: str = NETWORK, weights: str = WEIGHTS
) -> np.ndarray:
    """Outputs of a frozen backbone, one vector per image: maps are averaged over their positions.

    They are kept in `folder`, in a file whose name follows from the backbone's weights and the pixels of all
    images, and are read from there when the same images come again.

    Args:
        images: uint8, shape `(n, size, size, channels)`.
        folder: Of the files; made if absent.
        network: A key of `training.networks.NETWORKS`.
        weights: What `weights.start` takes.
    Returns:
        float32, shape `(n, features)`: 512 for SqueezeNet and ResNet18.
    Raises:
        ValueError: Unknown network, or images that it does not take.
        DataError: Weights that are not there; a damaged file, which is named.
        FloatingPointError: If a weight or a feature is not finite.
    """
    backbone, key = _backbone(network, weights, images.shape[1:])
    digest = hashlib.sha256(f"{key} {images.shape}".encode())
    for start in range(0, len(images), _BATCH):
        digest.update(np.ascontiguousarray(images[start : start + _BATCH]))
    path = Path(folder) / f"{network}-{digest.hexdigest()[:16]}.npy"
    if not path.is_file():
        values = _compute(backbone, images)
        with atomic(path) as temporary, temporary.open("wb") as file:
            np.save(file, values)
    return _read(path, len(images))


def scores(
    features: np.ndarray,
    manifest: pd.DataFrame,
    labels: Sequence[str] | None = None,
    balance: str = "label",
) -> pd.DataFrame:
    """Train the linear layer on the originals of train, and score val and test.

    Logistic regression on features standardised by train, classes weighted to count alike, penalty
    |w|^2 / (2 C) with C = `C`, the same for every question. Its minimum is unique, so there are no seeds, no
    learning rate and no epochs that would have to be chosen, and it takes a tenth of a second.

    Args:
        features: Shape `(n, features)`, row i of the image of row i of `manifest`.
        manifest: With `split`. Rows of train that were made from another image (`parent_id`) are not used.
        labels: What to tell apart instead of the manifest's label (a source, permuted labels); one per row.
        balance: Of `BALANCES`: classes count alike, or within each class its sources count alike too.
    Returns:
        Predictions table of val and test, in the manifest's order; its `label` is what was told apart.
    Raises:
        ValueError: Features or labels that are not one row per row of the manifest, or an unknown balance.
        DataError: Features that are not finite, fewer than two labels in train, a label that only val or test
            has, or no image to score.
    """
    labels = manifest["label"].to_numpy(str) if labels is None else np.asarray(labels, dtype=str)
    for name, values in (("features", features), ("labels", labels)):
        if len(values) != len(manifest):
            raise ValueError(f"`{name}` must be of {len(manifest)} images. Received: {len(values)}")
    if not np.isfinite(features).all():
        bad = np.argwhere(~np.isfinite(features))[0, 0]
        raise DataError(f"features: finite numbers were wanted. Received: others in row {bad}")
    train, scored = _parts(manifest, labels)
    # In 64 bits: the solver would otherwise stop early, at weights that depend on the machine.
    features = np.asarray(features, float)
    model = make_pipeline(StandardScaler(), LogisticRegression(C=C, max_iter=2000))
    weights = _weights(manifest.loc[train, "source"].to_numpy(str), labels[train], balance)
    model.fit(features[train], labels[train], logisticregression__sample_weight=weights)
    table = manifest.loc[scored, list(predictions.COLUMNS)].reset_index(drop=True)
    table["label"] = labels[scored]
    for label, score in zip(model.classes_, model.predict_proba(features[scored]).T, strict=True):
        table[f"score_{label}"] = score
    return predictions.validate(table, "probe")


def retrained(
    prepared: "Prepared",
    masks: np.ndarray,
    folder: str | Path,
    tried: Sequence[str] = controls.CONTROLS,
    network: str = NETWORK,
    weights: str = WEIGHTS,
    seed: int = 0,
) -> dict[str, pd.DataFrame]:
    """Train and test the probe on the images of each control.

    Used are the originals that have a split and a mask with lungs, the same ones for every control; so all
    tables are of the same images and can be compared in pairs.

    Args:
        prepared: Images uint8, shape `(n, size, size, channels)`, and their manifest with `split`.
        masks: bool, shape `(n, size, size)`, one per prepared image, True in the lungs.
        folder: Where features are kept.
        tried: Of `controls.CONTROLS`.
        network: As `features`.
        weights: As `features`.
        seed: Of the permutations of patches.
    Returns:
        Predictions table of val and test for each control.
    Raises:
        ValueError, DataError: As `features` and `scores`.
    """
    manifest = prepared.manifest
    original = (manifest["split"] != "") & (manifest["parent_id"] == "")
    rows = np.flatnonzero(original.to_numpy() & controls.with_lungs(masks))
    used, table = np.asarray(prepared.images[rows]), manifest.iloc[rows].reset_index(drop=True)
    found = {}
    for control in tried:
        changed = controls.apply(control, used, masks[rows], seed)
        found[control] = scores(features(changed, folder, network, weights), table)
    return found


def _weights(sources: np.ndarray, labels: np.ndarray, balance: str) -> np.ndarray:
    """Weight of each image, 1 on average."""
    if balance not in BALANCES:
        raise ValueError(f"`balance` must be one of {BALANCES}. Received: {balance!r}")
    part = pd.Series(labels if balance == "label" else labels + "\n" + sources)
    parts_of_label = part.groupby(labels).nunique()
    size, shares = part.map(part.value_counts()), parts_of_label[labels].to_numpy()
    return len(labels) / (size.to_numpy() * shares * len(parts_of_label))


def _parts(manifest: pd.DataFrame, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which rows are learnt from, and which are scored."""
    train = ((manifest["split"] == "train") & (manifest["parent_id"] == "")).to_numpy()
    scored = manifest["split"].isin(("val", "test")).to_numpy()
    known, new = (set(labels[part].tolist()) for part in (train, scored))
    if len(known) < 2 or not scored.any():
        raise DataError(
            "probe: two labels in train and images in val or test were wanted. "
            f"Received: labels {sorted(known)}, {int(scored.sum())} images in val and test"
        )
    if new - known:
        raise DataError(f"probe: train has no image of {sorted(new - known)}, which val or test has")
    return train, scored


@lru_cache(maxsize=1)
def _backbone(network: str, weights: str, shape: tuple[int, ...]) -> tuple[Callable, str]:
    """Images to vectors, and a text of all that decides them."""
    # Here and not above: `scores` needs no Keras.
    from covidtf.training.devices import keras
    from covidtf.training.features import forward
    from covidtf.training.networks import build, split_model
    from covidtf.weights import start

    if len(shape) != 3 or shape[0] != shape[1]:
        raise ValueError(f"`images` must be of shape (n, size, size, channels). Received: (n, *{shape})")
    model = build(network, classes=2, channels=shape[2], size=shape[0])
    # What is said of the head does not matter, because it is not used.
    with contextlib.redirect_stderr(io.StringIO()):
        record = start(model, weights, ["", " "])
    backbone = split_model(model)[0]
    if not all(np.isfinite(values).all() for values in backbone.get_weights()):
        raise FloatingPointError(f"{weights}: a weight of the backbone is not finite")
    if len(backbone.output.shape) == 4:
        pooled = keras.ops.mean(backbone.output, axis=(1, 2))
        backbone = keras.Model(backbone.input, pooled, name=backbone.name)
    about = (network, record["weights"], keras.backend.backend(), keras.version(), _RULES)
    return forward(backbone), " ".join(map(str, about))


def _compute(backbone: Callable, images: np.ndarray) -> np.ndarray:
    """Outputs of all images, in batches of one size, which is compiled once."""
    parts = []
    for start in progress(range(0, len(images), _BATCH), "features"):
        rows = np.minimum(np.arange(start, start + _BATCH), len(images) - 1)
        parts.append(np.asarray(backbone(images[rows]))[: len(images) - start])
    values = np.concatenate(parts)
    bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
    if len(bad):
        raise FloatingPointError(f"the features of image {bad[0]} are not finite")
    return values


def _read(path: Path, count: int) -> np.ndarray:
    try:
        values = np.load(path)
    except (ValueError, EOFError, OSError) as error:
        raise DataError(f"{path}: a damaged file of features, delete it: {error}") from error
    if values.ndim != 2 or len(values) != count:
        raise DataError(f"{path}: {count} rows of features were wanted, delete it. Received: {values.shape}")
    return values
