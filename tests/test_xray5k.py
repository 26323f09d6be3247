"""COVID-XRay-5K: rebuilt file by file, sampled as described, and drawn lists used again."""

import itertools
from pathlib import Path

import makers
import pandas as pd
import pytest

from covidtf import manifest
from covidtf.files import DataError, git_blob_sha1
from covidtf.sources import released, sampled, xray5k
from covidtf.sources.chexpert import CHEXPERT_LABELS
from covidtf.sources.metadata import CHEXPERT, COVID_CHESTXRAY

COVID = ("images/4-x-day1.jpg", "images/16654_1_1.png")
NEGATIVE = ("train/patient00028/study2/view1_frontal.jpg", "train/patient00003/study1/view1_frontal.jpg")


@pytest.fixture
def folders(tmp_path):
    """A clone and a small CheXpert with two listed files each."""
    clone = makers.covid_chestxray(
        tmp_path / "clone",
        [
            {"patientid": "179", "filename": "16654_1_1.png", "view": "AP", "sex": "M", "age": "61"},
            {"filename": "4-x-day1.jpg", "finding": "todo"},
        ],
    )
    findings = {name.removeprefix("train/"): "Edema|Fracture?" for name in NEGATIVE}
    return clone, makers.chexpert(tmp_path / "parent", findings)


@pytest.fixture
def short_list(monkeypatch, folders):
    """The published list cut to the four files of `folders`, with their hashes."""
    listed = xray5k.published_files()
    listed = listed[listed["path"].isin(COVID + NEGATIVE)].reset_index(drop=True)
    places = dict(zip((COVID_CHESTXRAY, CHEXPERT), folders, strict=True))
    files = [places[row.source] / row.path for row in listed.itertuples()]
    listed["git_blob_sha1"] = [git_blob_sha1(file) for file in files]
    monkeypatch.setattr(xray5k, "published_files", listed.copy)
    return listed


def test_published_list_agrees_with_the_published_counts():
    """The list that ships has as many files per split and label as were published, none twice."""
    listed = xray5k.published_files()
    counts = xray5k.published_counts().query("version == 'v3'").set_index(["split", "label"])["images"]
    assert listed.groupby(["split", "label"]).size().to_dict() == counts.to_dict()
    assert listed["image_id"].is_unique and listed["git_blob_sha1"].is_unique
    assert set(listed["source"]) == {COVID_CHESTXRAY, CHEXPERT}


def test_published_counts_follow_the_augmentation_factor():
    """v1 enlarged its COVID-19 train images 16 times and v3 5 times; every number says how sure it is."""
    counts = xray5k.published_counts()
    covid = counts[(counts["label"] == "COVID-19") & (counts["split"] == "train")].set_index("version")
    assert (covid["after_augmentation"] / covid["images"]).to_dict() == {"v1": 16, "v3": 5}
    assert set(counts["certainty"]) <= {"A", "B", "C", "M"}


def test_rebuild(folders, short_list):
    """Split, label and patient are the list's; person, view, URL and finding are joined from the tables."""
    table, report = xray5k.rebuild_v3(*folders)
    assert set(report["state"]) == {"present"}
    assert (report["wanted"] == report["received"]).all()
    table = table.set_index("path")
    columns = ["split", "patient_id", "finding", "view", "sex", "age", "url", "licence"]
    assert table.loc[COVID[1], columns].tolist() == [
        "test",
        "covid-chestxray-dataset:179",
        "COVID-19",
        "AP",
        "M",
        61.0,
        "https://example.org/1",
        "CC BY",
    ]
    assert table.loc[COVID[0], ["patient_id", "finding", "view", "url"]].tolist() == [
        "covid-chestxray-dataset:unknown:4-x-day1.jpg",
        "COVID-19",
        "UNKNOWN",
        "",
    ]
    assert table.loc[NEGATIVE[0], ["split", "case_id", "finding", "uncertain", "view"]].tolist() == [
        "train",
        "CheXpert:patient00028/study2",
        "Edema",
        "Fracture",
        "AP",
    ]
    assert report.set_index("path").loc[list(COVID), "metadata"].tolist() == [
        "the finding must be known. Received: 'todo'",
        "joined",
    ]


def test_rebuild_without_tables(folders, short_list):
    """Without metadata.csv and train.csv the files alone are enough."""
    for name in ("metadata.csv", "train.csv", "valid.csv"):
        for folder in folders:
            (folder / name).unlink(missing_ok=True)
    table, report = xray5k.rebuild_v3(*folders)
    assert set(report["metadata"]) == {"none"}
    assert sorted(table["finding"]) == ["", "", "COVID-19", "COVID-19"]
    assert table["age"].isna().all()


def test_rebuild_from_the_parent_of_chexpert(folders, short_list):
    """The parent of the release gives the same image_id and patients, with a longer path."""
    inner, outer = (xray5k.rebuild_v3(folders[0], place)[0] for place in (folders[1], folders[1].parent))
    assert outer.drop(columns="path").equals(inner.drop(columns="path"))
    assert (outer["path"] != inner["path"]).sum() == 2
    assert all((folders[1].parent / path).is_file() for path in outer.query("source == 'CheXpert'")["path"])


def test_source_says_another_label(folders, short_list):
    """The list's label stays where the source has changed its mind, and the report says so."""
    path = folders[0] / "metadata.csv"
    path.write_text(path.read_text(encoding="utf-8").replace("COVID-19", "SARS"), encoding="utf-8")
    table, report = xray5k.rebuild_v3(*folders)
    assert report.set_index("path").loc[COVID[1], "metadata"] == "other label"
    assert table.set_index("path").loc[COVID[1], ["label", "finding"]].tolist() == ["COVID-19", "SARS"]


def test_rebuild_with_files_missing(folders, short_list, tmp_path):
    """Absent, altered and outside files stop the rebuild with their counts, or are left out by choice."""
    (folders[0] / COVID[0]).unlink()
    (folders[1] / NEGATIVE[0]).write_bytes(b"another image")
    hidden = (folders[0] / COVID[1]).rename(tmp_path / "hidden.png")
    (folders[0] / COVID[1]).symlink_to(hidden)
    with pytest.raises(DataError) as error:
        xray5k.rebuild_v3(*folders)
    assert str(error.value) == (
        "COVID-XRay-5K v3: 4 files were wanted. Received: 1 of them; "
        "1 absent, the first covid-chestxray-dataset/images/4-x-day1.jpg; "
        "1 altered, the first CheXpert/train/patient00028/study2/view1_frontal.jpg; "
        "1 outside, the first covid-chestxray-dataset/images/16654_1_1.png. "
        "The list is of CheXpert-v1.0-small; the full release's files have other bytes. "
        'missing="go on" keeps the files that are as published'
    )
    table, report = xray5k.rebuild_v3(*folders, missing="go on")
    assert table["path"].tolist() == [NEGATIVE[1]]
    assert report.set_index("path")["state"].to_dict() == {
        COVID[0]: "absent",
        NEGATIVE[0]: "altered",
        COVID[1]: "outside",
        NEGATIVE[1]: "present",
    }
    assert report.set_index("path")["received"][COVID[1]] == ""


def test_report_is_written_before_the_error(folders, short_list, tmp_path):
    """A rebuild that stops has written the state of every file, and its error says where."""
    (folders[0] / COVID[0]).unlink()
    path = tmp_path / "tables" / "files.csv"
    with pytest.raises(DataError, match=f"The state of every file is in {path}"):
        xray5k.rebuild_v3(*folders, report_file=path)
    written = pd.read_csv(path, dtype=str, keep_default_na=False)
    assert list(written) == [
        *("image_id", "source", "path", "split", "label", "state", "wanted", "received", "metadata")
    ]
    assert written.set_index("path")["state"].to_dict() == {
        COVID[0]: "absent",
        COVID[1]: "present",
        NEGATIVE[0]: "present",
        NEGATIVE[1]: "present",
    }


def test_rebuild_of_nothing(tmp_path):
    """Going on with no file at all is an error, as is a folder that does not exist."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    with pytest.raises(DataError, match=r"5184 files were wanted\. Received: 0 of them; 5184 absent"):
        xray5k.rebuild_v3(tmp_path / "a", tmp_path / "b", missing="go on")
    with pytest.raises(DataError, match="no such folder; CheXpert was wanted"):
        xray5k.rebuild_v3(tmp_path / "a", tmp_path / "c")


def test_choice_of_going_on_is_checked(tmp_path):
    """Only the two choices are taken."""
    with pytest.raises(ValueError, match=r'`missing` must be "stop" or "go on"\. Received: True'):
        xray5k.rebuild_v3(tmp_path, tmp_path, missing=True)


def test_real_originals(real_data, tmp_path):
    """13 of the 28 real original files are COVID-XRay-5K's, byte for byte."""
    (tmp_path / "clone" / "images").mkdir(parents=True)
    (tmp_path / "chexpert").mkdir()
    for file in (real_data / "originals").iterdir():
        (tmp_path / "clone" / "images" / file.name).write_bytes(file.read_bytes())
    table, report = xray5k.rebuild_v3(tmp_path / "clone", tmp_path / "chexpert", missing="go on")
    assert report["state"].value_counts().to_dict() == {"absent": 5171, "present": 13}
    assert table["split"].value_counts().to_dict() == {"test": 7, "train": 6}


def covid_manifest(sizes: list[int]) -> pd.DataFrame:
    """A manifest of PA COVID-19 images; patient i has `sizes[i]` of them, and one AP image besides."""
    rows = []
    for patient, size in enumerate(sizes):
        for number in range(size + 1):
            view = "AP" if number == size else "PA"
            path = f"images/{patient:03}-{number}.png"
            person = f"{COVID_CHESTXRAY}:{patient}"
            rows.append({"path": path, "patient_id": person, "view": view, "url": "u"})
    return _manifest(rows, COVID_CHESTXRAY, "COVID-19")


def chexpert_manifest(patients: int, images: int = 2) -> pd.DataFrame:
    """A manifest in which image k of patient i has one label, the 14 labels taking turns."""
    rows = []
    for patient, number in itertools.product(range(patients), range(images)):
        label = CHEXPERT_LABELS[(patient + number) % 14]
        study = f"train/patient{patient:05}/study1"
        person = f"CheXpert:patient{patient:05}"
        rows.append(
            {
                "path": f"{study}/view{number}_frontal.jpg",
                "patient_id": person,
                "finding": label,
                "view": "AP",
                "uncertain": "",
            }
        )
        lateral = {"path": f"{study}/view{number}_lateral.jpg", "view": "L"}
        rows.append({**rows[-1], **lateral})
    return _manifest(rows, CHEXPERT, "non-COVID")


def _manifest(rows: list[dict], source: str, label: str) -> pd.DataFrame:
    return manifest.make([{"source": source, "label": label, **row} for row in rows], "test")


SMALL = {"covid_counts": (5, 7), "no_finding": (6, 9), "per_label": (2, 3)}


@pytest.fixture(scope="module")
def sources():
    """Manifests from which a small data set can be drawn."""
    return covid_manifest([4, 3, 2, 2, 1, 1, 1, 1, 1]), chexpert_manifest(280)


def test_sample_has_the_wanted_counts(sources):
    """Every count is exact, views are frontal, COVID-19 is PA, and no patient is in both splits."""
    drawn = xray5k.sample_v1(*sources, **SMALL)
    counts = pd.crosstab(drawn["sampled_for"], drawn["split"])[["train", "test"]]
    assert counts.loc["COVID-19"].tolist() == [5, 7]
    assert counts.loc["No Finding"].tolist() == [6, 9]
    assert len(counts) == 15
    assert (counts.drop(["COVID-19", "No Finding"]) == [2, 3]).all(axis=None)
    assert set(drawn.loc[drawn["label"] == "COVID-19", "view"]) == {"PA"}
    assert "L" not in set(drawn["view"])
    patients = [set(drawn.loc[drawn["split"] == split, "patient_id"]) for split in ("train", "test")]
    assert not patients[0] & patients[1]
    negatives = drawn[drawn["label"] == "non-COVID"]
    assert (negatives["sampled_for"] == negatives["finding"]).all()


def test_sample_takes_whole_patients(sources):
    """All PA images of a drawn COVID-19 patient are taken."""
    drawn = xray5k.sample_v1(*sources, **SMALL)
    available = sources[0].query("view == 'PA'")["patient_id"].value_counts()
    taken = drawn.query("label == 'COVID-19'")["patient_id"].value_counts()
    assert (taken == available[taken.index]).all()


def test_sample_depends_on_the_seed_alone(sources):
    """Shuffled rows give the same draw and another seed gives another."""
    first = xray5k.sample_v1(*sources, **SMALL, seed=3)
    shuffled = [table.sample(frac=1, random_state=1) for table in sources]
    assert xray5k.sample_v1(*shuffled, **SMALL, seed=3).equals(first)
    other = xray5k.sample_v1(*sources, **SMALL, seed=4)
    for label in ("COVID-19", "non-COVID"):
        ids = [set(table.loc[table["label"] == label, "image_id"]) for table in (first, other)]
        assert ids[0] != ids[1]


def test_choices_of_patients_are_equally_likely():
    """Patients of 2, 1 and 1 images give 2 train and 1 test images in two ways, each drawn half the time."""
    covid, chexpert = covid_manifest([2, 1, 1]), chexpert_manifest(1)
    none = {"no_finding": (0, 0), "per_label": (0, 0)}
    tests = []
    for seed in range(200):
        drawn = xray5k.sample_v1(covid, chexpert, (2, 1), **none, seed=seed)
        assert drawn["split"].value_counts().to_dict() == {"train": 2, "test": 1}
        tests.append(drawn.query("split == 'test'")["patient_id"].item())
    share = tests.count(f"{COVID_CHESTXRAY}:1") / 200
    # Five standard deviations of a fair coin in 200 tosses.
    assert abs(share - 0.5) < 0.177
    assert set(tests) == {f"{COVID_CHESTXRAY}:1", f"{COVID_CHESTXRAY}:2"}


def test_number_of_choices():
    """The count of choices behind the draw agrees with trying all of them."""
    sizes, wanted = [3, 2, 2, 1, 1, 1], (3, 4)
    splits = itertools.product(("", "train", "test"), repeat=len(sizes))
    totals = pd.Series(
        [
            tuple(
                sum(s for s, part in zip(sizes, split, strict=True) if part == name)
                for name in ("train", "test")
            )
            for split in splits
        ]
    ).value_counts()
    ways = sampled._count_ways(sizes, wanted)[0]
    ratio = ways[wanted] / ways[0, 0]
    assert ratio == pytest.approx(totals[wanted] / totals[(0, 0)])


def test_sample_from_many_patients():
    """Two thousand patients neither overflow the count of choices nor lose it."""
    drawn = xray5k.sample_v1(covid_manifest([1] * 2000), chexpert_manifest(1), (31, 40), (0, 0), (0, 0))
    assert drawn["split"].value_counts().to_dict() == {"test": 40, "train": 31}


@pytest.mark.parametrize(
    ("sizes", "counts", "message"),
    [
        (
            [4, 4],
            (3, 4),
            "3 train and 4 test images of whole patients .* Available: 8 PA images of 2 patients",
        ),
        ([], (1, 0), "Available: 0 PA images of 0 patients"),
    ],
)
def test_impossible_covid_counts(sizes, counts, message):
    """Numbers that whole patients cannot make are an error that says what there is."""
    covid = covid_manifest(sizes) if sizes else covid_manifest([1]).query("view == 'L'")
    with pytest.raises(DataError, match=message):
        xray5k.sample_v1(covid, chexpert_manifest(1), counts, (0, 0), (0, 0))


def test_shortage_of_a_label(sources):
    """A label with too few images is an error that names it, what was wanted and what there is."""
    chexpert = sources[1]
    chexpert = chexpert[(chexpert["finding"] != "Fracture") | chexpert["path"].str.contains("patient00012")]
    with pytest.raises(
        DataError,
        match=r"Fracture: 2 train and 3 test images wanted\. Available: .* of 1 frontal images of 1 patients",
    ):
        xray5k.sample_v1(sources[0], chexpert, **SMALL)


@pytest.mark.parametrize("split", ["val", "train"])
def test_validation_images_of_chexpert_stay_out(sources, split):
    """CheXpert's own validation split is never drawn from: the published v3 list has none of it."""
    chexpert = sources[1].assign(split=split)
    if split == "val":
        with pytest.raises(DataError, match="of 0 frontal images"):
            xray5k.sample_v1(sources[0], chexpert, **SMALL)
    else:
        assert len(xray5k.sample_v1(sources[0], chexpert, **SMALL)) == 12 + 15 + 65


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"covid_counts": (5,)}, r"`covid_counts` must be two whole numbers .* Received: \(5,\)"),
        ({"per_label": (1, -1)}, "`per_label` must be"),
        ({"no_finding": (1, 0.5)}, "`no_finding` must be"),
        ({"seed": -1}, "`seed` must be at least 0. Received: -1"),
    ],
)
def test_arguments_of_the_sample(sources, changes, message):
    """Arguments that make no sense are refused by name."""
    with pytest.raises(ValueError, match=message):
        xray5k.sample_v1(*sources, **{**SMALL, **changes})


@pytest.fixture
def drawn(tmp_path):
    """Manifests of files that exist, a draw from them, and their folders."""
    covid, chexpert = covid_manifest([1, 1, 1]), chexpert_manifest(56, 1)
    roots = {COVID_CHESTXRAY: tmp_path / "c", CHEXPERT: tmp_path / "x"}
    table = xray5k.sample_v1(covid, chexpert, (1, 1), (1, 1), (1, 1))
    for row in table.itertuples():
        makers.image(roots[row.source] / row.path, seed=row.Index)
    return pd.concat([covid, chexpert], ignore_index=True), table, roots


def test_saved_list_gives_the_same_draw(drawn, tmp_path):
    """A saved list draws the same images, splits and order again out of manifests in any order."""
    everything, table, roots = drawn
    path = xray5k.save_list(table, tmp_path / "list.csv", roots)
    again = xray5k.apply_list(everything.sample(frac=1, random_state=0), path, roots)
    assert set(again["sha256"].str.len()) == {64}
    columns = list(table.columns.drop("sha256"))
    assert again[columns].equals(table[columns])


def test_saved_list_uses_known_hashes(drawn, tmp_path):
    """A manifest that has its sha256 needs no files, and an unknown one needs them."""
    everything, table, _ = drawn
    with pytest.raises(ValueError, match="`roots` must name the folder of"):
        xray5k.save_list(table, tmp_path / "list.csv")
    assert not (tmp_path / "list.csv").exists()
    known = {name: f"{number:064x}" for number, name in enumerate(everything["image_id"])}
    path = xray5k.save_list(table.assign(sha256=table["image_id"].map(known)), tmp_path / "list.csv")
    again = xray5k.apply_list(everything.assign(sha256=everything["image_id"].map(known)), path)
    assert again["image_id"].tolist() == table["image_id"].tolist()


def _shorten(everything: pd.DataFrame, table: pd.DataFrame, roots: dict[str, Path]) -> pd.DataFrame:
    return everything[everything["image_id"] != table["image_id"].iloc[1]]


def _relabel(everything: pd.DataFrame, table: pd.DataFrame, roots: dict[str, Path]) -> pd.DataFrame:
    there = everything["image_id"] == table["image_id"].iloc[1]
    return everything.assign(label=everything["label"].mask(there, "COVID-19 or so"))


def _alter(everything: pd.DataFrame, table: pd.DataFrame, roots: dict[str, Path]) -> pd.DataFrame:
    row = table.iloc[1]
    makers.image(roots[row["source"]] / row["path"], seed=10_000)
    return everything


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_shorten, "is not among the images given"),
        (_relabel, "has another label"),
        (_alter, "is not the same file: its sha256 differs"),
    ],
)
def test_saved_list_that_no_longer_fits(drawn, tmp_path, change, message):
    """An image that is gone, relabelled or altered is an error that names the list, the row and the image."""
    everything, table, roots = drawn
    path = xray5k.save_list(table, tmp_path / "list.csv", roots)
    everything = change(everything, table, roots)
    with pytest.raises(DataError) as error:
        xray5k.apply_list(everything, path, roots)
    assert str(error.value) == f"{path}: row 3: {table['image_id'].iloc[1]} {message} (1 such rows)"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image_id,split\n", "columns .* are missing"),
        (",".join(sampled.LISTED) + "\n", "the list is empty"),
        (",".join(sampled.LISTED) + "\na,b\n", "row 2: .*7 fields were wanted. Received: 2"),
    ],
)
def test_list_that_is_none(drawn, tmp_path, text, message):
    """A file that is not a saved list is refused."""
    (tmp_path / "list.csv").write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        xray5k.apply_list(drawn[0], tmp_path / "list.csv", drawn[2])


def test_published_counts_agree_with_the_list_and_each_other():
    """v3's counts are those of the file list; 31 originals give 496 images (x16), 84 give 420 (x5)."""
    counts = released.published_counts()
    listed = released.published_files().groupby(["split", "label"]).size()
    for row in counts[counts["version"] == "v3"].itertuples():
        assert row.images == listed[row.split, row.label]
    enlarged = counts[(counts["split"] == "train") & (counts["label"] == "COVID-19")]
    assert (enlarged["after_augmentation"] / enlarged["images"]).tolist() == [16, 5]
