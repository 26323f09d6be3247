"""A CT data set by name: from its folders to prepared slices, their split and the published table."""

from importlib import resources

import pandas as pd

from covidtf import case_splits, splits
from covidtf.config import CTConfig
from covidtf.ct.prepare import prepare_studies
from covidtf.datasets import Collected, Division, fewer
from covidtf.duplicates import duplicates
from covidtf.files import read_json, refuse_rows
from covidtf.images.prepare import Prepared, prepare
from covidtf.phantom.ct import write_cts
from covidtf.sources.covid_ct import COVID_CT, read_covid_ct
from covidtf.sources.ct_cases import COVID19_DIAG, CT_LABELS, read_covid19_diag, read_phantom_cts
from covidtf.sources.metadata import PHANTOM

CASES = 225  # phantoms, where the settings name no number: 61, 95 and 69 as the published table has them


def collect(config: CTConfig) -> Collected:
    """Read the sources of `config.dataset`; phantoms are made first.

    Returns:
        Its manifest has one row per case, whose path is a study; for COVID-CT one row per slice.
    Raises:
        DataError: A folder or table is absent or not what was wanted, or nothing is left.
    """
    if config.dataset == "phantom":
        folder = config.folder / "phantoms"
        write_cts(folder, config.cases or CASES, seed=config.seed, shortcut=config.shortcut)
        table, rejected = read_phantom_cts(folder)
        return Collected(table, {PHANTOM: folder}, rejected, pd.DataFrame())
    name, read = {
        "covid19-diag": (COVID19_DIAG, read_covid19_diag),
        "covid-ct": (COVID_CT, read_covid_ct),
    }[config.dataset]
    folder = config.source_folder
    table, rejected = read(folder)
    found = Collected(table, {name: folder}, rejected, pd.DataFrame())
    if not config.cases:
        return found
    return fewer(found, ("split", "label"), config.cases, config.seed, "cases")


def prepare_slices(config: CTConfig, collected: Collected) -> Prepared:
    """Every study read once, its slices chosen, windowed and written to one array; of COVID-CT every slice.

    Raises:
        DataError: As `ct.prepare.prepare_studies`, or `images.prepare.prepare` for COVID-CT.
    """
    folder = config.folder / "prepared"
    if config.dataset == "covid-ct":
        # Cut from figures at every side ratio: a centre crop would lose the outer lungs of the wide ones.
        return prepare(collected.manifest, collected.roots, folder, config.size, crop="resize")
    return prepare_studies(
        collected.manifest,
        collected.roots,
        folder,
        size=config.size,
        level=config.level,
        width=config.window,
        most=config.most_slices,
        least=config.least_slices,
        least_lung=config.least_lung,
    )


def divide(config: CTConfig, table: pd.DataFrame) -> Division:
    """Find duplicates between cases and give every slice its split.

    A split that the source names is taken as it is, with its overlaps reported, and val is 10 % of train by
    case where it has none. Otherwise cases are drawn (`case_splits.split_cases`); slices that are nearly
    equal in two splits are reported, equal ones do not occur. Cases of two classes with an equal slice are in
    no split and listed as dropped.

    Args:
        table: Prepared manifest.
    Raises:
        DataError: A class with too few cases, or a split for some cases only.
    """
    pairs = duplicates(table)
    case = table.set_index("image_id")["case_id"]
    two = pairs["image_id_a"].map(case) != pairs["image_id_b"].map(case)
    pairs, nothing = pairs[two].reset_index(drop=True), table.iloc[:0].assign(reason="")
    if (table["split"] != "").any():
        without = table["split"] == ""
        name = config.folder / "prepared" / "manifest.csv"
        refuse_rows(table, name, "split", without, "given for every case or for none")
        overlaps = splits.check(table, pairs, published=True)
        if not (table["split"] == "val").any():
            tied = pd.concat([pairs, _within_cases(table)], ignore_index=True)
            table = splits.add_val(table, tied, fraction=0.1, seed=config.seed)
        return Division(table, pairs, overlaps, nothing)
    same = case_splits.units(table.assign(patient_id=table["case_id"]), pairs)
    clash = table.groupby(same)["label"].transform("nunique") > 1
    drawn = case_splits.split_cases(table[~clash], pairs[~_either(pairs, table[clash])],
                                    config.test_fraction, val=0.1, seed=config.seed)  # fmt: skip
    table = table.assign(split=drawn["split"].reindex(table.index, fill_value=""))
    dropped = table[clash].assign(reason="a slice of it is in a case of another class too")
    splits.check(table, pairs[pairs["kind"] == "exact"])
    return Division(table, pairs, splits.check(table, pairs, published=True), dropped)


def _either(pairs: pd.DataFrame, rows: pd.DataFrame) -> pd.Series:
    """Which pairs have an image of `rows`."""
    return pairs["image_id_a"].isin(rows["image_id"]) | pairs["image_id_b"].isin(rows["image_id"])


def dropped(division: Division) -> pd.DataFrame:
    """The cases that `divide` took out, as rows of the rejected: source, path, row, reason."""
    cases = division.dropped.drop_duplicates("case_id")
    return cases[["source", "path", "reason"]].assign(row="")[["source", "path", "row", "reason"]]


def series_summary(prepared: Prepared) -> pd.DataFrame:
    """What became of the series in the studies: how many of each thickness, kernel and fate.

    Returns:
        Columns state, thickness_mm, kernel, series (their number); empty for slices without studies.
    """
    columns = ["state", "thickness_mm", "kernel"]
    # The file of an earlier data set may still lie there.
    if "series.csv" not in read_json(prepared.folder / "settings.json").get("tables", ()):
        return pd.DataFrame(columns=[*columns, "series"])
    table = pd.read_csv(prepared.folder / "series.csv", keep_default_na=False, dtype=str)
    return table.groupby(columns).size().rename("series").reset_index()


def class_table(table: pd.DataFrame) -> pd.DataFrame:
    """Cases and images per class and split in the form of the publication's Table 1, with its counts beside.

    Args:
        table: Manifest of slices with `split`.
    Returns:
        Columns Item (Cases, Images), Class, Training (with val), Of these val, Testing; where the classes are
        the publication's also Published training and Published testing.
    """
    rows = []
    for item, column in (("Cases", "case_id"), ("Images", "image_id")):
        for label in _in_order(set(table["label"])):
            found = {
                name: table.loc[(table["label"] == label) & table["split"].isin(parts), column].nunique()
                for name, parts in (
                    ("Training", ("train", "val")),
                    ("Of these val", ("val",)),
                    ("Testing", ("test",)),
                )
            }
            rows.append({"Item": item, "Class": label, **found})
    result, published = pd.DataFrame(rows), published_counts()
    if set(table["label"]) <= set(CT_LABELS):
        of_table = published[published["place"] == "table"].rename(columns={"item": "Item", "class": "Class"})
        for split, name in (("train", "Published training"), ("test", "Published testing")):
            of_split = of_table.loc[of_table["split"] == split, ["Item", "Class", "count"]]
            result = result.merge(of_split.rename(columns={"count": name}), how="left")
    return result


def published_counts() -> pd.DataFrame:
    """Cases and images of COVID19-Diag as published, in its table and in its text, which disagree on cases.

    Returns:
        Columns item, class, split (train, test; all for the text), count, place (table or text), certainty
        (A: read in a primary artefact), note.
    """
    with resources.files("covidtf.published").joinpath("covid19_diag.csv").open("rb") as file:
        return pd.read_csv(file, keep_default_na=False)


def _within_cases(table: pd.DataFrame) -> pd.DataFrame:
    """Pairs that tie the slices of a case; an unknown patient ties none."""
    first = table.groupby("case_id")["image_id"].transform("min")
    return pd.DataFrame({"image_id_a": table["image_id"], "image_id_b": first})


def _in_order(labels: set[str]) -> list[str]:
    known = [label for label in CT_LABELS if label in labels]
    return known + sorted(labels - set(known))
