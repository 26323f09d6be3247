"""Leaks: images that val or test has in common with another split, by each kind of tie."""

import pandas as pd

from covidtf import splits
from covidtf.audit.checks import CHECKS, count, judge
from covidtf.duplicates import duplicates, links

_JUDGED = ("val", "test")
_NO_PAIRS = pd.DataFrame(columns=["image_id_a", "image_id_b", "kind", "distance"])
_UNKNOWN = r":unknown(?:$|\W)"
_NOTHING = {
    "patient": "the patient of no image of val or test is known",
    "case": "the case of no image of val or test is known",
    "source URL": "no image of val or test has a URL of covid-chestxray-dataset",
    "exact duplicate": "the sha256 of no image of val or test is known",
    "near duplicate": "the manifest has no perceptual hashes",
    "augmented copy": "no image is marked as a copy",
}


def rows(table: pd.DataFrame, pairs: pd.DataFrame | None = None) -> list[dict]:
    """One verdict per kind of leak.

    The number is of the originals of val and test that are tied to another split; of augmented copies, of
    the copies that are in val or test or whose original is in another split than theirs.

    Args:
        table: Manifest with `split`, as the networks were trained on it; copies with their `parent_id`.
        pairs: As from `duplicates.duplicates`; by default they are looked for.
    Returns:
        Rows of `checks.judge`. `n` counts the images of val and test that could be told; where others could
        not, `reason` says how many.
    """
    judged = table[table["split"].isin(_JUDGED) & (table["parent_id"] == "")]
    tied = overlaps(table, pairs)
    found = []
    for kind, known in _known(table).items():
        told = judged[known.loc[judged.index]]
        if told.empty:
            found.append(judge(CHECKS[kind], "data", None, _NOTHING[kind]))
            continue
        number = count(told["image_id"].isin(tied[kind]).sum(), len(told), told["patient_id"].nunique())
        others = len(judged) - len(told)
        found.append(judge(CHECKS[kind], "data", number, f"{others} could not be told" if others else ""))
    return [*found, _copies(table)]


def overlaps(table: pd.DataFrame, pairs: pd.DataFrame | None = None) -> dict[str, set[str]]:
    """Originals of val and test that are tied to another split, by kind of tie.

    Ties by patient, URL and duplicate are those of `splits.check`. A case is tied like a patient.

    Returns:
        image_id by "patient", "case", "source URL", "exact duplicate", "near duplicate".
    """
    if pairs is None:
        pairs = duplicates(table) if "phash" in table else _NO_PAIRS
    cases = table.assign(patient_id=table["case_id"].where(table["case_id"] != "", "of:unknown"))
    found = splits.check(table, pairs, published=True)
    shared = {"case": splits.check(cases, _NO_PAIRS, published=True).query("kind == 'patient'")}
    for name, kind in (("patient", "patient"), ("source URL", "url")):
        shared[name] = found[found["kind"] == kind]
    values = {"case": cases["patient_id"], "patient": table["patient_id"], "source URL": links(table)["url"]}
    tied = {name: values[name].isin(set(rows["value"])) for name, rows in shared.items()}
    for name, kind in (("exact duplicate", "exact"), ("near duplicate", "near")):
        of_kind = found[found["kind"] == kind]
        tied[name] = table["image_id"].isin({*of_kind["image_id_a"], *of_kind["image_id_b"]})
    judged = table["split"].isin(_JUDGED) & (table["parent_id"] == "")
    return {name: set(table.loc[rows & judged, "image_id"]) for name, rows in tied.items()}


def _known(table: pd.DataFrame) -> dict[str, pd.Series]:
    """Which rows have what a kind of tie is told by."""
    hashed = "phash" in table
    return {
        "patient": links(table)["patient"] != "",
        "case": (table["case_id"] != "") & ~table["case_id"].str.contains(_UNKNOWN),
        "exact duplicate": (table["sha256"] != "") & hashed,
        "near duplicate": pd.Series(hashed, index=table.index),
        "source URL": links(table)["url"] != "",
    }


def _copies(table: pd.DataFrame) -> dict:
    check, copies = CHECKS["augmented copy"], table[table["parent_id"] != ""]
    if copies.empty:
        return judge(check, "data", None, _NOTHING[check.name])
    of_original = copies["parent_id"].map(table.set_index("image_id")["split"])
    used = copies["split"] != ""
    wrong = used & (copies["split"].isin(_JUDGED) | (of_original != copies["split"]))
    return judge(check, "data", count(wrong.sum(), int(used.sum()), copies.loc[used, "patient_id"].nunique()))
