"""Duplicate images, and the groups of images that a split has to keep together."""

import re

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from covidtf.files import DataError, progress

CELLS = 4_000_000  # pairs compared at once, about 100 MB
URL_SOURCE = "covid-chestxray-dataset"


def duplicates(table: pd.DataFrame, distance: int = 24) -> pd.DataFrame:
    """Pairs of rows that show one picture: equal files ("exact") or nearly equal pixels ("near").

    The distance of two images is the number of bits in which their perceptual hashes differ. Of 256 bits (as
    `prepare` writes them) a resampled and recompressed copy differs in at most 12, 19 of 20 of other
    brightness or contrast in at most 24; of 813 X-rays of two sources no two are closer than 52. Hashes of 64
    bits do not tell X-rays apart: those of two patients can differ in only 2. Copies that are cropped by 2 %
    and more, rotated by 3 degrees and more, mirrored or overlaid with text are mostly not found. Phantoms
    resemble each other more: among hundreds of patients a few may count as near.

    Args:
        table: Prepared manifest, with `sha256` (empty where unknown) and `phash` (hexadecimal, any length).
            An augmented image is not compared with its original or with other copies of it.
        distance: Largest number of differing bits of a near duplicate, in `[0, bits / 4)`.
    Returns:
        Columns image_id_a, image_id_b, kind, distance, split_a, split_b, source_a, source_b, patient_a,
        patient_b; one row per pair, sorted, `image_id_a < image_id_b`.
    Raises:
        ValueError: If `distance` is out of range for the length of the hashes.
        DataError: If `phash` is absent, malformed or of more than one length; names the row.
    Reference: Zauner, Implementation and benchmarking of perceptual image hash functions, 2010.
    """
    hashes = _hashes(table)
    bits = 4 * table["phash"].str.len().max() if len(table) else np.inf
    if not 0 <= distance < bits / 4:
        raise ValueError(
            f"`distance` must be in [0, {bits / 4:g}) for {bits}-bit hashes. Received: {distance}"
        )
    order = np.argsort(table["image_id"].to_numpy(), kind="stable")
    found = _compare(hashes[order], *(codes[order] for codes in (_files(table), _families(table))), distance)
    a, b, distances, exact = found
    pairs = {"kind": np.where(exact, "exact", "near"), "distance": distances}
    for column, short in (
        ("image_id", "image_id"),
        ("split",) * 2,
        ("source",) * 2,
        ("patient_id", "patient"),
    ):
        values = table[column].to_numpy()[order]
        pairs |= {f"{short}_a": values[a], f"{short}_b": values[b]}
    return pd.DataFrame(pairs)[
        [*_names("image_id"), "kind", "distance", *_names("split", "source", "patient")]
    ]


def links(table: pd.DataFrame) -> dict[str, pd.Series]:
    """What ties images together besides duplicates: the patient, and the URL of covid-chestxray-dataset.

    A URL of that source is one publication, whose patients may be one person under two ids. Only the language
    that a page is shown in is left out of it.

    Returns:
        Values by kind ("patient", "url"), one per row, `""` where the row ties to nothing: an unknown patient
        (`<source>:unknown...`), no URL, another source.
    """
    patient = table["patient_id"].where(~table["patient_id"].str.contains(r":unknown(?:$|\W)"), "")
    url = table["url"].fillna("") if "url" in table else pd.Series("", index=table.index, dtype="str")
    url = url.str.strip().str.replace(r"\?lang=\w+$", "", regex=True).str.rstrip("/")
    return {"patient": patient, "url": url.where(table["source"] == URL_SOURCE, "")}


def groups(table: pd.DataFrame, pairs: pd.DataFrame) -> pd.Series:
    """Group of each row: rows tied by patient, duplicate, URL or original, directly or through others.

    Every URL ties, also that of a whole repository (58 of 207 images of our sample come from one hospital's):
    the group stays on one side. To split such a collection by patient, empty its `url` first.

    Args:
        table: Manifest.
        pairs: As from `duplicates`; its columns image_id_a and image_id_b are used.
    Returns:
        Named by the smallest image_id of the group, so that row order does not matter; indexed as `table`.
    Raises:
        DataError: If `pairs` names an image that `table` does not hold.
    """
    family = table["parent_id"].where(table["parent_id"] != "", table["image_id"])
    edges = [_edges(values.to_numpy()) for values in (family, *links(table).values())]
    ids = pd.Index(table["image_id"])
    edges.append([ids.get_indexer(pairs[column]) for column in _names("image_id")])
    a, b = np.concatenate(edges, axis=1)
    if min(a.min(initial=0), b.min(initial=0)) < 0:
        raise DataError("the pairs of duplicates name images that are not in the table: find them again")
    graph = coo_array((np.ones(len(a), bool), (a, b)), shape=(len(table), len(table)))
    _, label = connected_components(graph, directed=False)
    return table["image_id"].groupby(label).transform("min").rename("group")


def _edges(values: np.ndarray) -> list[np.ndarray]:
    rows = np.flatnonzero(values != "")
    codes, _ = pd.factorize(values[rows])
    _, first = np.unique(codes, return_index=True)
    return [rows, rows[first[codes]]]


def _names(*columns: str) -> list[str]:
    return [f"{column}_{side}" for column in columns for side in "ab"]


def _hashes(table: pd.DataFrame) -> np.ndarray:
    """Hashes as 64-bit words, shape `(n, words)`, padded on the left."""
    if "phash" not in table:
        raise DataError("column `phash` is missing: duplicates are looked for in a prepared manifest")
    values = table["phash"].to_list()
    digits = len(values[0]) if values else 0
    for row, value in enumerate(values):
        if not (isinstance(value, str) and len(value) == digits and re.fullmatch("[0-9a-f]+", value)):
            raise DataError(
                f"manifest row {row + 2} ({table['image_id'].iloc[row]}): `phash` must be {digits or 'some'} "
                f"hexadecimal digits like the first row's. Received: {value!r}"
            )
    width = -(-digits // 16) * 16
    data = bytes.fromhex("".join(value.zfill(width) for value in values))
    return np.frombuffer(data, dtype=np.uint64).reshape(len(values), width // 16)


def _files(table: pd.DataFrame) -> np.ndarray:
    """Equal numbers for equal files; a file of unknown sha256 is equal to none."""
    codes, _ = pd.factorize(table["sha256"])
    return np.where(table["sha256"] == "", len(table) + np.arange(len(table)), codes)


def _families(table: pd.DataFrame) -> np.ndarray:
    codes, _ = pd.factorize(table["parent_id"].where(table["parent_id"] != "", table["image_id"]))
    return codes


def _compare(hashes: np.ndarray, files: np.ndarray, families: np.ndarray, distance: int) -> tuple:
    """Rows a < b of every pair, their distance and whether their files are equal."""
    found = []
    step = max(1, CELLS // max(1, len(hashes)))
    for start in progress(range(0, len(hashes), step), "duplicates"):
        some, rest = slice(start, start + step), slice(start, None)
        apart = np.zeros((len(files[some]), len(files[rest])), np.uint16)
        for word in range(hashes.shape[1]):
            apart += np.bitwise_count(hashes[some, word, None] ^ hashes[None, rest, word])
        equal = files[some, None] == files[None, rest]
        hit = ((apart <= distance) | equal) & (families[some, None] != families[None, rest])
        a, b = np.nonzero(np.triu(hit, 1))
        found.append((a + start, b + start, apart[a, b].astype(int), equal[a, b]))
    return tuple(np.concatenate(parts) for parts in zip(*found, strict=True)) if found else ([],) * 4
