"""Splits by patient: drawn, checked for leaks, and balanced."""

import numpy as np
import pandas as pd

from covidtf.duplicates import duplicates, groups, links
from covidtf.files import DataError

__all__ = ["add_val", "balance", "check", "duplicates", "groups", "split", "strict"]

BALANCES = ("none", "oversample", "undersample", "source")
RANK = {"train": 0, "val": 1, "test": 2}
OVERLAP = ("kind", "value", "image_id_a", "split_a", "image_id_b", "split_b")


def split(
    table: pd.DataFrame, pairs: pd.DataFrame, test: float = 0.3, val: float = 0.1, seed: int = 0
) -> pd.DataFrame:
    """Split by group (see `groups`), with each label and each source divided alike.

    Groups are drawn in random order and taken while every count of images, per label and per label and
    source, stays within its share; then those are taken that bring the counts nearer to it; a label that is
    still absent gets its smallest group. Test is drawn first, then val from what is left.

    Args:
        table: Manifest. Row order does not matter; `split` is overwritten.
        pairs: As from `duplicates`.
        test: Share of the images of each label that become test, in `[0, 1)`.
        val: Share of the rest that becomes val, in `[0, 1)`.
        seed: Any integer >= 0.
    Returns:
        Copy of `table` with `split`; an augmented image whose original is not in train gets `""`.
    Raises:
        ValueError: If a share is out of range.
        DataError: If a label has too few groups to be in every split; gives the counts.
    """
    group = groups(table, pairs)
    result = table.assign(split="train")
    for name, share, number in (("test", test, 0), ("val", val, 1)):
        candidates = _images_per_group(result[result["split"] == "train"], group)
        drawn = _draw(
            candidates, _share(name, share) * candidates.sum(), np.random.default_rng([seed, number])
        )
        result.loc[group.isin(drawn), "split"] = name
    result = _only_train_copies(result)
    _require_labels(result, group, [name for name, share in (("test", test), ("val", val)) if share > 0])
    return result


def add_val(table: pd.DataFrame, pairs: pd.DataFrame, fraction: float = 0.1, seed: int = 0) -> pd.DataFrame:
    """Move part of train to val, by group, where the published split has no val.

    Groups that reach into test stay in train, so that val shares no patient, duplicate or URL with either.

    Args:
        table: Manifest with `split` train and test.
        pairs: As from `duplicates`.
        fraction: Share of the train images of each label that become val, in `[0, 1)`.
        seed: Any integer >= 0.
    Returns:
        Copy of `table`; augmented copies of a val image get split `""`, for they may be used nowhere.
    Raises:
        ValueError: If `fraction` is out of range.
        DataError: If there is a val already, no train, or a label with too few groups.
    """
    if (table["split"] == "val").any() or not (table["split"] == "train").any():
        raise DataError(f"a table with train and without val was wanted. Received: {_counts(table)}")
    group = groups(table, pairs)
    reaching = group[table["split"] == "test"]
    train = table["split"] == "train"
    target = _share("fraction", fraction) * _images_per_group(table[train], group).sum()
    sizes = _images_per_group(table[train & ~group.isin(reaching)], group)
    drawn = _draw(sizes.reindex(columns=target.index, fill_value=0), target, np.random.default_rng([seed, 1]))
    result = table.copy()
    result.loc[group.isin(drawn) & train, "split"] = "val"
    result = _only_train_copies(result)
    _require_labels(result, group, ["val"] if fraction > 0 else [])
    return result


def check(table: pd.DataFrame, pairs: pd.DataFrame, published: bool = False) -> pd.DataFrame:
    """Overlaps: a patient, a duplicate or a URL of covid-chestxray-dataset that is in two splits.

    Args:
        table: Manifest with `split`; rows of split `""` are in none.
        pairs: As from `duplicates`; the splits are taken from `table`.
        published: A published split is taken as published: its overlaps are returned, not refused.
    Returns:
        Columns kind ("patient", "url", "exact", "near"), value (patient_id, URL, or distance as "8 bits"),
        image_id_a, split_a, image_id_b, split_b. For patients and URLs one row per image of the split that
        comes first (train, val, test) beside one image of the other; for duplicates one row per pair.
    Raises:
        DataError: If there is an overlap and the split is not a published one; names both rows.
    """
    originals = table[table["parent_id"] == ""]
    shared = [_shared(originals, kind, values) for kind, values in links(originals).items()]
    overlaps = pd.concat([*shared, _shared_pictures(table, pairs)], ignore_index=True)
    if len(overlaps) and not published:
        first = overlaps.iloc[0]
        raise DataError(
            f"two splits overlap ({first['kind']} {first['value']}): {first['image_id_a']} is in "
            f"{first['split_a']} and {first['image_id_b']} in {first['split_b']} ({len(overlaps)} overlaps)"
        )
    return overlaps


def strict(table: pd.DataFrame, overlaps: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Variant of a published split without its overlaps: they leave train (or val), test stays as it is.

    Args:
        table: Manifest with `split`.
        overlaps: As from `check(table, pairs, published=True)`.
    Returns:
        `(table, dropped)`: a copy in which the dropped rows and their augmented copies have split `""` (they
        keep their place, because row i describes image i), and these rows with their former split and a
        column `reason` with the kinds of overlap.
    Raises:
        DataError: If a label is left without an image in a split that had it.
    """
    kinds = overlaps.groupby("image_id_a")["kind"].agg(lambda values: ", ".join(sorted(set(values))))
    owner = table["image_id"].where(table["image_id"].isin(kinds.index), table["parent_id"])
    gone = owner.isin(kinds.index)
    dropped = table[gone].assign(reason=owner[gone].map(kinds))
    result = table.assign(split=table["split"].mask(gone, ""))
    _require_labels(result, result["image_id"], [name for name in RANK if (table["split"] == name).any()])
    return result, dropped


def balance(
    table: pd.DataFrame, how: str = "oversample", ratio: float = 1.0, label: str = "COVID-19", seed: int = 0
) -> pd.DataFrame:
    """How often an epoch shows each row of train, so that `label` : all others reaches `ratio`.

    Oversampling shows the class that falls short more often: n rows reach a total of m by being shown
    `m // n` times each and `m % n` of them, drawn at random, once more. Undersampling leaves rows of the
    other class out, drawn at random. m is the nearest integer, halves upwards. "source" has the totals of
    oversampling and divides each class's equally among its sources, so that no source of a class outweighs
    another; where that is less than a source has, rows are left out.

    Args:
        table: Manifest with `split`. Augmented rows count as rows; row order does not matter.
        how: "oversample", "undersample", "source" or "none" (every row once).
        ratio: Wanted rows of `label` per row of the others, > 0.
        label: The class on the left of the ratio.
        seed: Any integer >= 0.
    Returns:
        Copy of `table` with the integer column `copies`: 0 is left out; 1 in val and test, 0 without split.
    Raises:
        ValueError: If `how` or `ratio` is not one of these.
        DataError: If train lacks `label` or the others, or a class would be left with nothing.
    """
    if how not in BALANCES:
        raise ValueError(f"`how` must be one of {BALANCES}. Received: {how!r}")
    if not 0 < ratio < np.inf:
        raise ValueError(f"`ratio` must be above 0. Received: {ratio}")
    copies = (table["split"] != "").astype(int)
    if how != "none":
        train = table[table["split"] == "train"].sort_values("image_id")
        random = np.random.default_rng([seed, 2])
        for chosen, total in _resampled(train, train["label"] == label, how, ratio):
            shuffled = random.permutation(chosen)
            copies.loc[shuffled] = total // len(chosen) + (np.arange(len(chosen)) < total % len(chosen))
    return table.assign(copies=copies)


def _resampled(
    train: pd.DataFrame, positive: pd.Series, how: str, ratio: float
) -> list[tuple[np.ndarray, int]]:
    """Index of rows that are shown more or less often, and how many rows of them are shown."""
    inside, outside = int(positive.sum()), int((~positive).sum())
    if not inside or not outside:
        raise DataError(f"train must hold both classes to be balanced. Received: {_counts(train)}")
    short = inside < ratio * outside
    change_inside = short == (how != "undersample")
    total = int(np.floor((ratio * outside if change_inside else inside / ratio) + 0.5))
    if total == 0:
        raise DataError(f"a ratio of {ratio} leaves no row of one class. Received: {_counts(train)}")
    changed = train.index[positive == change_inside].to_numpy()
    if how != "source":
        return [(changed, total)]
    kept = train.index[positive != change_inside]
    return _by_source(train.loc[changed], total) + _by_source(train.loc[kept], len(kept))


def _by_source(rows: pd.DataFrame, total: int) -> list[tuple[np.ndarray, int]]:
    """`total` rows, divided equally among the sources; those that come first get what cannot be divided."""
    parts = [part.index.to_numpy() for _, part in rows.groupby("source", sort=True)]
    return [(part, total // len(parts) + (place < total % len(parts))) for place, part in enumerate(parts)]


def _share(name: str, value: float) -> float:
    if not 0 <= value < 1:
        raise ValueError(f"`{name}` must be in [0, 1). Received: {value}")
    return value


def _images_per_group(table: pd.DataFrame, group: pd.Series) -> pd.DataFrame:
    """Originals of each group, in columns ("label", label) and ("source", label and source)."""
    rows = table[table["parent_id"] == ""]
    keys = {"label": rows["label"], "source": rows["label"] + " | " + rows["source"]}
    return pd.concat({name: pd.crosstab(group[rows.index], key) for name, key in keys.items()}, axis=1)


def _draw(sizes: pd.DataFrame, target: pd.Series, random: np.random.Generator) -> pd.Index:
    """Names of the groups whose images add up to `target` in each column, as nearly as the draw gets."""
    if not target.any():
        return sizes.index[:0]
    counts, goal = sizes.to_numpy(), target.to_numpy() + 1e-9
    taken = np.zeros(len(sizes), bool)
    have = np.zeros(sizes.shape[1])
    order = random.permutation(len(sizes))
    for must_fit in (True, False):
        for group in order[~taken[order]]:
            after = have + counts[group]
            nearer = np.abs(after - goal).sum() < np.abs(have - goal).sum()
            if (after <= goal).all() if must_fit else nearer:
                taken[group] = True
                have = after
    labels = sizes["label"].to_numpy()
    for column in range(labels.shape[1]):
        _take_smallest(labels[:, column], taken, order)
    return sizes.index[taken]


def _take_smallest(images: np.ndarray, taken: np.ndarray, order: np.ndarray) -> None:
    """Take the smallest group of a label that is absent, unless it is the label's last group."""
    free = order[(images[order] > 0) & ~taken[order]]
    if len(free) > 1 and not (images[taken] > 0).any():
        taken[free[np.argmin(images[free])]] = True


def _only_train_copies(table: pd.DataFrame) -> pd.DataFrame:
    splits = table.set_index("image_id")["split"]
    lost = (table["parent_id"] != "") & (table["parent_id"].map(splits) != "train")
    return table.assign(split=table["split"].mask(lost, ""))


def _require_labels(table: pd.DataFrame, group: pd.Series, names: list[str]) -> None:
    for label, rows in table.groupby("label"):
        for name in ["train", *names]:
            if not (rows["split"] == name).any():
                number = group[rows.index].nunique()
                raise DataError(
                    f"label {label!r} has no image in {name}: its {len(rows)} images are {number} group(s) "
                    f"that must not be divided. Counts: {_counts(table)}"
                )


def _counts(table: pd.DataFrame) -> str:
    counts = table.groupby(["split", "label"]).size()
    return ", ".join(f"{split or 'no split'} {label} {n}" for (split, label), n in counts.items())


def _shared(table: pd.DataFrame, kind: str, values: pd.Series) -> pd.DataFrame:
    """Rows whose value also occurs in a later split, each beside the first row there."""
    rows = table.assign(kind=kind, value=values)[["kind", "value", "image_id", "split"]]
    rows = rows[(rows["value"] != "") & rows["split"].isin(RANK)].sort_values(["value", "image_id"])
    first = rows.drop_duplicates(["value", "split"]).drop(columns="kind")
    both = rows.merge(first, on="value", suffixes=("_a", "_b"))
    return both[both["split_a"].map(RANK) < both["split_b"].map(RANK)][[*OVERLAP]]


def _shared_pictures(table: pd.DataFrame, pairs: pd.DataFrame) -> pd.DataFrame:
    splits = table.set_index("image_id")["split"]
    rows = pairs[["kind", "image_id_a", "image_id_b"]].assign(value=pairs["distance"].astype("str") + " bits")
    rows = pd.concat([rows, rows.rename(columns={"image_id_a": "image_id_b", "image_id_b": "image_id_a"})])
    rows = rows.assign(**{f"split_{side}": rows[f"image_id_{side}"].map(splits) for side in "ab"})
    return rows[rows["split_a"].map(RANK) < rows["split_b"].map(RANK)][[*OVERLAP]]
