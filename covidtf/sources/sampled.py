"""COVID-XRay-5K v1 sampled as its description says, and drawn lists that can be used again exactly."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from covidtf import manifest
from covidtf.files import DataError, progress, sha256, write_csv
from covidtf.sources.chexpert import CHEXPERT_LABELS
from covidtf.sources.metadata import LABELS, read_rows

FRONTAL = ("PA", "AP", "AP Supine")
LISTED = ("image_id", "source", "path", "split", "label", "sampled_for", "sha256")
Counts = tuple[int, int]


def sample_v1(
    covid: pd.DataFrame,
    chexpert: pd.DataFrame,
    covid_counts: Counts = (31, 40),
    no_finding: Counts = (700, 1700),
    per_label: Counts = (100, 100),
    seed: int = 0,
) -> pd.DataFrame:
    """A data set drawn as COVID-XRay-5K v1 is described; its own list of names was never published.

    COVID-19: whole patients, all their PA images, so that train and test have exactly the wanted numbers;
    every choice of patients that does is equally likely. Non-COVID: frontal images outside CheXpert's
    validation split, uniformly among those that have the label, rare labels first; an image is drawn once
    and no patient is in both splits. The draw depends on the seed and the rows, not on their order.

    Args:
        covid: Manifest of covid-chestxray-dataset.
        chexpert: Manifest of CheXpert.
        covid_counts: COVID-19 images in train and test.
        no_finding: Images with "No Finding" in train and test.
        per_label: Images for each of the 13 other CheXpert labels in train and test.
        seed: At least 0.
    Returns:
        Manifest with `split` and the extra column `sampled_for`, the label for which an image was drawn.
    Raises:
        DataError: Not enough images; says of which label, how many were wanted and are available.
        ValueError: Counts that are not two whole numbers of at least 0, or a negative seed.
    Reference: Minaee et al. 2020, arXiv 2004.09363v1.
    """
    _check_arguments(seed, covid_counts=covid_counts, no_finding=no_finding, per_label=per_label)
    wanted = {label: per_label for label in CHEXPERT_LABELS} | {"No Finding": no_finding}
    parts = [_draw_patients(covid, covid_counts, seed), _draw_labels(chexpert, wanted, seed)]
    return manifest.make(_without_nan(pd.concat(parts, ignore_index=True)), "sample_v1")


def _check_arguments(seed: int, **pairs: Counts) -> None:
    for name, counts in pairs.items():
        if len(counts) != 2 or any(count != int(count) or count < 0 for count in counts):
            raise ValueError(f"`{name}` must be two whole numbers of at least 0. Received: {counts}")
    if seed < 0:
        raise ValueError(f"`seed` must be at least 0. Received: {seed}")


def _draw_patients(covid: pd.DataFrame, wanted: Counts, seed: int) -> pd.DataFrame:
    eligible = (covid["label"] == LABELS[0]) & (covid["view"] == "PA") & (covid["parent_id"] == "")
    images = covid[eligible].sort_values("image_id")
    sizes = images["patient_id"].value_counts().sort_index()
    ways = _count_ways(sizes.tolist(), wanted)
    if ways[0][wanted] == 0:
        raise DataError(
            f"COVID-19: {wanted[0]} train and {wanted[1]} test images of whole patients were wanted. "
            f"Available: {len(images)} PA images of {len(sizes)} patients; no choice gives the numbers"
        )
    rng = np.random.default_rng([seed, 0])
    left, split = wanted, {}
    for index, (patient, size) in enumerate(sizes.items()):
        options = {"": left, "train": (left[0] - size, left[1]), "test": (left[0], left[1] - size)}
        chances = np.array([ways[index + 1][rest] if min(rest) >= 0 else 0 for rest in options.values()])
        split[patient] = str(rng.choice(list(options), p=chances / chances.sum()))
        left = options[split[patient]]
    images = images.assign(split=images["patient_id"].map(split), sampled_for=LABELS[0])
    return images[images["split"] != ""]


def _count_ways(sizes: list[int], wanted: Counts) -> list[np.ndarray]:
    """`ways[i][a, b]` is proportional to the choices from patients i.. with a train and b test images."""
    ways = [np.zeros((wanted[0] + 1, wanted[1] + 1))]
    ways[0][0, 0] = 1
    for size in reversed(sizes):
        last, new = ways[0], ways[0].copy()
        new[size:] += last[: len(last) - size] if size < len(last) else 0
        new[:, size:] += last[:, : last.shape[1] - size] if size < last.shape[1] else 0
        # Only ratios inside a layer matter, and thousands of patients would overflow.
        ways.insert(0, new / new.max())
    return ways


def _draw_labels(chexpert: pd.DataFrame, wanted: dict[str, Counts], seed: int) -> pd.DataFrame:
    eligible = chexpert["view"].isin(FRONTAL) & (chexpert["split"] != "val") & (chexpert["parent_id"] == "")
    images = chexpert[eligible & (chexpert["label"] == LABELS[1])].sort_values("image_id")
    findings = images["finding"].str.split("|")
    having = {
        label: np.flatnonzero(findings.map(lambda words, label=label: label in words)) for label in wanted
    }
    patients = images["patient_id"].to_numpy()
    split_of, drawn = {}, {}
    for label in sorted(wanted, key=lambda label: (len(having[label]), label)):
        rng = np.random.default_rng([seed, 1, CHEXPERT_LABELS.index(label)])
        room = dict(zip(("train", "test"), wanted[label], strict=True))
        for row in rng.permutation(having[label]):
            if not sum(room.values()):
                break
            chance = room["train"] / sum(room.values())
            split = split_of.get(patients[row]) or ("train" if rng.random() < chance else "test")
            if row not in drawn and room[split]:
                drawn[row], split_of[patients[row]] = (split, label), split
                room[split] -= 1
        if sum(room.values()):
            raise DataError(_shortage(label, wanted[label], room, having[label], patients))
    rows = sorted(drawn)
    table = images.iloc[rows].copy()
    table["split"], table["sampled_for"] = (
        zip(*(drawn[row] for row in rows), strict=True) if rows else ("", "")
    )
    return table


def _shortage(label: str, wanted: Counts, room: dict, having: np.ndarray, patients: np.ndarray) -> str:
    got = wanted[0] - room["train"], wanted[1] - room["test"]
    return (
        f"{label}: {wanted[0]} train and {wanted[1]} test images wanted. Available: {got[0]} and {got[1]}, "
        f"of {len(having)} frontal images of {len(set(patients[having]))} patients, without those drawn for "
        "rarer labels and those of the other split's patients"
    )


def save_list(table: pd.DataFrame, path: str | Path, roots: dict[str, Path] | None = None) -> Path:
    """Write which images were drawn, with their sha256, so that `apply_list` can draw them again.

    Args:
        table: Manifest with `split`.
        path: CSV to write, columns `LISTED`.
        roots: Folder of each source, to hash the files; not needed if the manifest has every sha256.
    Raises:
        ValueError: A sha256 is unknown and `roots` does not name its source.
    """
    columns = {name: table.get(name, "") for name in LISTED}
    return write_csv(pd.DataFrame({**columns, "sha256": list(_hashes(table, roots))}), path)


def apply_list(table: pd.DataFrame, path: str | Path, roots: dict[str, Path] | None = None) -> pd.DataFrame:
    """The images of a saved list, in its order and with its splits, each checked to be the same bytes.

    Args:
        table: Manifest that holds at least the listed images; its own `split` is replaced.
        path: CSV written by `save_list`.
        roots: As for `save_list`.
    Raises:
        DataError: A listed image is absent, or has another label or other bytes; names the first and counts.
        ValueError: As `save_list`.
    """
    path = Path(path)
    rows, bad = read_rows(path, path.resolve().parent, LISTED)
    if bad or not rows:
        reason = f"row {bad[0]['row']}: {bad[0]['reason']}" if bad else "the list is empty"
        raise DataError(f"{path}: {reason}")
    listed = pd.DataFrame([fields for _, fields in rows])
    _stop(path, listed, ~listed["image_id"].isin(table["image_id"]), "is not among the images given")
    drawn = table.set_index("image_id", drop=False).loc[listed["image_id"]].reset_index(drop=True)
    _stop(path, listed, drawn["label"] != listed["label"], "has another label")
    drawn = drawn.assign(sha256=list(_hashes(drawn, roots)))
    _stop(path, listed, drawn["sha256"] != listed["sha256"], "is not the same file: its sha256 differs")
    drawn = drawn.assign(split=listed["split"], sampled_for=listed["sampled_for"])
    return manifest.make(_without_nan(drawn), str(path))


def _without_nan(table: pd.DataFrame) -> pd.DataFrame:
    """Text columns that only one of several joined manifests has are `""` in the others' rows."""
    return table.assign(**table[table.columns.drop("age")].fillna(""))


def _stop(path: Path, listed: pd.DataFrame, bad: pd.Series, reason: str) -> None:
    if bad.any():
        row = int(np.flatnonzero(bad.to_numpy())[0])
        name = listed["image_id"].iloc[row]
        raise DataError(f"{path}: row {row + 2}: {name} {reason} ({int(bad.sum())} such rows)")


def _hashes(table: pd.DataFrame, roots: dict[str, Path] | None) -> Iterator[str]:
    rows = zip(table["sha256"], table["source"], table["path"], strict=True)
    for known, source, path in progress(rows, "hashing", len(table)):
        if not known and source not in (roots or {}):
            raise ValueError(
                f"`roots` must name the folder of {source!r} to hash its files. Received: {roots}"
            )
        yield known or sha256(roots[source] / path)
