"""CT data sets by name: from their folders to divided slices, what is left out, and the tables of them."""

import re
import shutil
from collections import Counter
from functools import partial
from types import SimpleNamespace

import makers
import pytest

from covidtf.config import CTConfig
from covidtf.ct import datasets
from covidtf.ct.prepare import prepare_studies
from covidtf.files import DataError
from covidtf.phantom.ct import write_cts
from covidtf.sources.ct_cases import CT_LABELS


@pytest.fixture(scope="module", autouse=True)
def quick():
    """Small phantoms, and no processes that have to start first."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets, "write_cts", partial(write_cts, matrix=64, workers=1))
        patch.setattr(datasets, "prepare_studies", partial(prepare_studies, workers=1))
        yield


def config(folder, dataset="phantom", **settings):
    """Settings whose sources and outputs lie in `folder`."""
    places = {"experiment": "cts", "out": str(folder / "out"), "data_folder": str(folder / "data")}
    return CTConfig(dataset=dataset, most_slices=4, size=48, **places, **settings)


def run(settings):
    """Everything the notebook does with the functions tested here."""
    collected = datasets.collect(settings)
    prepared = datasets.prepare_slices(settings, collected)
    division = datasets.divide(settings, prepared.manifest)
    return SimpleNamespace(settings=settings, collected=collected, prepared=prepared, division=division)


@pytest.fixture(scope="module")
def phantoms(quick, tmp_path_factory):
    """Twelve phantom cases, 3 with COVID-19, 5 normal, 4 with pneumonia; not to be changed."""
    return run(config(tmp_path_factory.mktemp("phantoms"), cases=12))


def splits_of(table, column="case_id"):
    """The splits in which each case's slices lie."""
    return table.groupby(column)["split"].agg(set)


def one_each(splits):
    return splits.map(len).eq(1).all()


# Phantoms


def test_slices_go_the_way_of_their_case(phantoms):
    """Four slices of each of twelve cases, all in one split; the images are in the manifest's order."""
    table = phantoms.division.manifest
    assert table.groupby("case_id").size().tolist() == [4] * 12
    assert one_each(splits_of(table)) and set(table["split"]) == {"train", "val", "test"}
    assert phantoms.prepared.images.shape == (48, 48, 48, 1)
    assert table["image_id"].tolist() == phantoms.prepared.manifest["image_id"].tolist()
    assert phantoms.division.dropped.empty


def test_class_table_has_the_published_form(phantoms):
    """0.3 of 3, 5 and 4 cases are 1, 2 and 1; one of what is left is val and counts as training."""
    table = datasets.class_table(phantoms.division.manifest)
    names = ["Item", "Class", "Training", "Of these val", "Testing"]
    assert list(table) == [*names, "Published training", "Published testing"]
    assert table.to_numpy().tolist() == [
        ["Cases", "COVID-19", 2, 1, 1, 43, 18],
        ["Cases", "Normal", 3, 1, 2, 67, 28],
        ["Cases", "Bacterial Pneumonia", 3, 1, 1, 48, 21],
        ["Images", "COVID-19", 8, 4, 4, 1256, 513],
        ["Images", "Normal", 12, 4, 8, 2674, 1150],
        ["Images", "Bacterial Pneumonia", 12, 4, 4, 980, 409],
    ]


def test_series_summary_counts_what_the_studies_hold(phantoms):
    """As many of each fate as series in the file names: 2 lung, 3 soft, 1 localizer, 501 dose page."""
    root = phantoms.settings.folder / "phantoms" / "studies"
    names = {re.sub(r"IM\d+(\.dcm)?$", "", str(path)) for path in root.rglob("*") if path.is_file()}
    numbers = Counter(int(re.search(r"(\d+)[_/]$", name)[1]) for name in names)
    table = datasets.series_summary(phantoms.prepared)
    assert list(table) == ["state", "thickness_mm", "kernel", "series"]
    lung = table[table["kernel"] == "lung"]
    assert lung["state"].str.startswith("chosen").all() and set(lung["thickness_mm"]) == {"5"}
    soft = table["state"].str.startswith("not chosen")
    found = {2: lung["series"].sum(), 3: table.loc[soft, "series"].sum()}
    rejected = table.set_index("state")["series"].filter(like="rejected")
    found |= {1: rejected.filter(like="localizer").sum(), 501: rejected.filter(like="dose page").sum()}
    assert found == dict(numbers) and numbers[2] == 12
    assert table["series"].sum() == numbers.total()


def test_settings_reach_the_slices(phantoms, monkeypatch):
    """Window, size and limits are those of the settings."""
    seen = {}
    monkeypatch.setattr(datasets, "prepare_studies", lambda *_, **settings: seen.update(settings))
    changes = {"level": 40.0, "window": 400.0, "size": 64, "most_slices": 7, "least_slices": 3}
    settings = CTConfig(dataset="phantom", least_lung=0.02, **changes)
    datasets.prepare_slices(settings, phantoms.collected)
    assert seen == {
        "size": 64, "level": 40.0, "width": 400.0, "most": 7, "least": 3, "least_lung": 0.02,
    }  # fmt: skip


def test_no_number_of_cases_means_the_published_one(tmp_path, monkeypatch):
    """225 phantoms where `cases` is 0, with the seed and the shortcut of the settings."""
    seen = []
    monkeypatch.setattr(datasets, "write_cts", lambda *given, **settings: seen.append((given, settings)))
    monkeypatch.setattr(datasets, "read_phantom_cts", lambda folder: (None, None))
    settings = config(tmp_path, seed=7, shortcut=True)
    datasets.collect(settings)
    assert seen == [((settings.folder / "phantoms", 225), {"seed": 7, "shortcut": True})]


# Splits


def with_splits(phantoms, published):
    """The phantoms' slices as if a source had put the cases of each label in these splits, in turn."""
    table = phantoms.prepared.manifest.copy()
    place = table.groupby("label")["case_id"].transform(lambda names: names.rank(method="dense") - 1)
    return table.assign(split=[published[int(number) % len(published)] for number in place])


@pytest.mark.parametrize("patient", ["", "COVID19-Diag:unknown"])
def test_val_comes_out_of_a_published_train_by_case(phantoms, patient):
    """One case per class moves from train to val, test stays; also where no patient is known."""
    table = with_splits(phantoms, ["train", "test", "train"])
    if patient:
        table["patient_id"] = patient
    divided = datasets.divide(phantoms.settings, table).manifest
    assert one_each(splits_of(divided))
    assert (divided["split"] == "test").equals(table["split"] == "test")
    val = divided[divided["split"] == "val"]
    assert val.groupby("label")["case_id"].nunique().to_dict() == dict.fromkeys(CT_LABELS, 1)


def test_a_published_val_is_taken_as_it_is(phantoms):
    """With train, val and test in the source nothing moves, and a patient in two of them is reported."""
    table = with_splits(phantoms, ["train", "val", "test"])
    first = table["case_id"].unique()[0]
    there = table.loc[table["case_id"] == first, "split"].iloc[0]
    other = table.loc[table["split"] != there, "case_id"].iloc[0]
    two = table["case_id"].isin([first, other])
    table.loc[two, "patient_id"] = "phantom:both"
    division = datasets.divide(phantoms.settings, table)
    assert division.manifest["split"].equals(table["split"])
    assert set(division.overlaps["kind"]) == {"patient"}
    assert set(division.overlaps["value"]) == {"phantom:both"}


def test_a_split_for_some_cases_only_is_refused(phantoms):
    """A case without split beside others that have one would be used nowhere."""
    table = with_splits(phantoms, ["train", "test", ""])
    with pytest.raises(DataError, match=r"manifest\.csv: row \d+: `split` must be given for every case"):
        datasets.divide(phantoms.settings, table)


@pytest.mark.parametrize("patient", ["", "COVID19-Diag:unknown"])
def test_cases_with_an_equal_slice_go_one_way(phantoms, patient):
    """The pair is listed, and what the draw had put into two splits is in one; known patients or not."""
    table, drawn = phantoms.prepared.manifest.copy(), phantoms.division.manifest
    normal = drawn[drawn["label"] == "Normal"].drop_duplicates("split").set_index("split")
    rows = [table.index[table["image_id"] == normal.loc[split, "image_id"]][0] for split in ("train", "test")]
    table.loc[rows[1], ["sha256", "phash"]] = table.loc[rows[0], ["sha256", "phash"]]
    if patient:
        table["patient_id"] = patient
    division = datasets.divide(phantoms.settings, table)
    both = division.manifest["case_id"].isin(table.loc[rows, "case_id"])
    assert division.manifest.loc[both, "split"].nunique() == 1 and both.sum() == 8
    assert division.pairs["kind"].tolist() == ["exact"]
    assert set(division.pairs[["image_id_a", "image_id_b"]].iloc[0]) == set(table.loc[rows, "image_id"])


def test_an_equal_slice_in_two_classes_takes_both_cases_out(phantoms):
    """One study under two labels teaches neither; both are listed, and the others are divided as ever."""
    table = phantoms.prepared.manifest.copy()
    normal, ill = (table.index[table["label"] == label][0] for label in ("Normal", "Bacterial Pneumonia"))
    table.loc[ill, ["sha256", "phash"]] = table.loc[normal, ["sha256", "phash"]]
    both = table["case_id"].isin(table.loc[[normal, ill], "case_id"])
    division = datasets.divide(phantoms.settings, table)
    assert (division.manifest.loc[both, "split"] == "").all()
    assert (division.manifest.loc[~both, "split"] != "").all()
    assert set(division.dropped["case_id"]) == set(table.loc[both, "case_id"]) and len(division.dropped) == 8
    assert set(division.dropped["reason"]) == {"a slice of it is in a case of another class too"}


def test_cases_of_one_patient_in_two_classes_go_one_way(phantoms):
    """Ill once and well another time: both cases are kept, in one split."""
    table = phantoms.prepared.manifest.copy()
    cases = [table.loc[table["label"] == label, "case_id"].iloc[0] for label in ("Normal", "COVID-19")]
    both = table["case_id"].isin(cases)
    table.loc[both, "patient_id"] = "phantom:both"
    division = datasets.divide(phantoms.settings, table)
    assert division.dropped.empty
    assert division.manifest.loc[both, "split"].unique().tolist() in (["train"], ["val"], ["test"])


def test_nearly_equal_slices_in_two_splits_are_reported(phantoms):
    """The split stays as drawn, for they tie nothing; those of one case, as of thin slices, are no pair."""
    table, drawn = phantoms.prepared.manifest.copy(), phantoms.division.manifest["split"]
    rows = [table.index[drawn == split][0] for split in ("train", "test")]
    table.loc[rows[1], "phash"] = table.loc[rows[0], "phash"]
    third = table.index[~table["case_id"].isin(table.loc[rows, "case_id"])][:2]
    table.loc[third, "phash"] = table.loc[third[0], "phash"]
    division = datasets.divide(phantoms.settings, table)
    assert division.manifest["split"].equals(drawn)
    assert division.overlaps[["kind", "value"]].to_numpy().tolist() == [["near", "0 bits"]]
    assert len(division.pairs) == 1


# COVID19-Diag


def test_covid19_diag_from_class_folders_of_dicom_studies(phantoms, tmp_path):
    """The phantoms' studies in class folders become the same slices; a case that is none is listed."""
    words = dict(zip(CT_LABELS, ("NCP", "healthy", "BP"), strict=True))
    root = tmp_path / "data" / "COVID19-Diag"
    for row in phantoms.collected.manifest.itertuples():
        study = phantoms.settings.folder / "phantoms" / row.path
        shutil.copytree(study, root / words[row.label] / study.name)
    (root / "BP" / "broken").mkdir()
    (root / "BP" / "broken" / "report.txt").write_text("no image")
    found = run(config(tmp_path, "covid19-diag"))
    assert len(found.collected.manifest) == 13 and found.collected.rejected.empty
    columns = ["case_id", "label", "slice", "sha256"]
    same = [
        of.prepared.manifest[columns].assign(case_id=of.prepared.manifest["case_id"].str.split(":").str[1])
        for of in (found, phantoms)
    ]
    assert sorted(same[0].to_numpy().tolist()) == sorted(same[1].to_numpy().tolist())
    rejected = found.prepared.rejected.set_index("path")["reason"]
    assert "no DICOM file" in rejected["BP/broken"]
    assert one_each(splits_of(found.division.manifest))
    counted = [datasets.class_table(of.division.manifest) for of in (found, phantoms)]
    assert counted[0].equals(counted[1])


# COVID-CT


def covid_ct(folder, rows):
    """COVID-CT with `slices.csv`; a row is a file's stem, label, split and patient."""
    lines = []
    for name, label, split, patient in rows:
        path = f"{'CT_COVID' if label == 'COVID-19' else 'CT_NonCOVID'}/{name}.png"
        makers.image(folder / "data" / "COVID-CT" / path, size=40)
        lines.append([path, label, split, patient])
    makers.table(folder / "data" / "COVID-CT" / "slices.csv", ["file", "label", "split", "patient_id"], lines)


def slices(split, label, patients):
    """Two slices of each of so many patients."""
    word = f"{split}-{label}"
    return [[f"{word}-{n}-{slice_}", label, split, f"{word}-{n}"] for n in range(patients) for slice_ in "ab"]


def test_covid_ct_with_its_val(tmp_path):
    """The splits are the table's, a patient in two is reported, and no published counts stand beside."""
    rows = [row for split in ("train", "val", "test") for label in ("COVID-19", "non-COVID")
            for row in slices(split, label, 2)]  # fmt: skip
    rows[0][3] = rows[8][3] = "both"
    covid_ct(tmp_path, rows)
    found = run(config(tmp_path, "covid-ct"))
    table = found.division.manifest
    assert dict(zip(table["path"].str.split("/").str[1], table["split"], strict=True)) == {
        f"{name}.png": split for name, _, split, _ in rows
    }
    assert found.division.overlaps[["kind", "value"]].to_numpy().tolist() == [["patient", "COVID-CT:both"]]
    assert found.prepared.crop == "resize" and found.prepared.images.shape == (24, 48, 48, 1)
    # Of 4 slices of 2 patients one in train and one in val belong to a patient more.
    assert datasets.class_table(table).to_numpy().tolist() == [
        ["Cases", "COVID-19", 5, 3, 2],
        ["Cases", "non-COVID", 4, 2, 2],
        ["Images", "COVID-19", 8, 4, 4],
        ["Images", "non-COVID", 8, 4, 4],
    ]


def test_covid_ct_without_val(tmp_path):
    """A tenth of train becomes val, both slices of a patient; test is not touched."""
    rows = [row for split, patients in (("train", 10), ("test", 2)) for label in ("COVID-19", "non-COVID")
            for row in slices(split, label, patients)]  # fmt: skip
    covid_ct(tmp_path, rows)
    table = run(config(tmp_path, "covid-ct")).division.manifest
    assert one_each(splits_of(table, "patient_id"))
    assert table.groupby(["split", "label"]).size().to_dict() == {
        (split, label): number
        for split, number in (("train", 18), ("val", 2), ("test", 4))
        for label in ("COVID-19", "non-COVID")
    }
    assert table.loc[table["split"] == "test", "patient_id"].str.contains(":test-").all()


def test_slices_without_studies_have_no_series(phantoms, tmp_path):
    """Also where the same folder held studies before."""
    covid_ct(tmp_path, slices("train", "COVID-19", 2) + slices("val", "non-COVID", 2))
    settings = config(tmp_path, "covid-ct")
    shutil.copytree(phantoms.prepared.folder, settings.folder / "prepared")
    table = datasets.series_summary(datasets.prepare_slices(settings, datasets.collect(settings)))
    assert table.empty and list(table) == ["state", "thickness_mm", "kernel", "series"]


def test_cases_left_out_are_listed(tmp_path):
    """With `cases` 1, one patient per split and label stays with both slices; the others have a reason."""
    rows = [row for split in ("train", "val") for label in ("COVID-19", "non-COVID")
            for row in slices(split, label, 3)]  # fmt: skip
    covid_ct(tmp_path, rows)
    found = datasets.collect(config(tmp_path, "covid-ct", cases=1))
    kept = found.manifest.groupby(["split", "label"])
    assert kept["patient_id"].nunique().tolist() == [1] * 4 and kept.size().tolist() == [2] * 4
    assert set(found.manifest["path"]).isdisjoint(found.rejected["path"])
    assert len(found.manifest) + len(found.rejected) == len(rows)
    reasons = [f"left out by `cases`: {split} {label}" for _, label, split, _ in rows]
    assert Counter(found.rejected["reason"]) == {reason: 4 for reason in set(reasons)}


# Errors and published numbers


@pytest.mark.parametrize(("dataset", "name"), [("covid-ct", "COVID-CT"), ("covid19-diag", "COVID19-Diag")])
def test_an_absent_folder_is_named(tmp_path, dataset, name):
    """With the data set that it was looked for."""
    (tmp_path / "data").mkdir()
    with pytest.raises(DataError, match=f"data/{name}: no such folder; dataset '{dataset}' is looked for"):
        datasets.collect(config(tmp_path, dataset))


def test_published_counts():
    """Slices 1769, 3824 and 1389 in table and text; cases 61, 95, 69 in the table, 69, 95, 62 in the text."""
    table = datasets.published_counts()
    sums = table.groupby(["place", "item", "class"])["count"].sum()
    found = {key: [sums[(*key, label)] for label in CT_LABELS] for key in sums.index.droplevel("class")}
    assert found == {
        ("table", "Images"): [1769, 3824, 1389],
        ("text", "Images"): [1769, 3824, 1389],
        ("table", "Cases"): [61, 95, 69],
        ("text", "Cases"): [69, 95, 62],
    }
    assert set(table["certainty"]) == {"A"}
