"""CT data sets: COVID19-Diag in the layouts people keep it in, COVID-CT in both of its, phantoms."""

import makers
import pandas as pd
import pytest

from covidtf.files import DataError
from covidtf.sources.covid_ct import read_covid_ct
from covidtf.sources.ct_cases import CT_LABELS, label_of, read_covid19_diag, read_phantom_cts
from covidtf.sources.metadata import RejectedError


def case(folder, name):
    """A case with one file in it, whose content no reader of folders looks at."""
    makers.image(folder / name / "1.png")


@pytest.fixture
def classes(tmp_path):
    """Class folders with two cases each, one of them a NIfTI file, under names people use."""
    for folder, cases in (("COVID_19", "ab"), ("normal", "cd"), ("Bacterial pneumonia", "e")):
        for name in cases:
            case(tmp_path / folder, name)
    (tmp_path / "Bacterial pneumonia" / "f.nii.gz").write_bytes(b"not read here")
    return tmp_path


def reasons(rejected):
    """Reason by path."""
    return dict(zip(rejected["path"], rejected["reason"], strict=True))


def test_class_folders_of_case_folders(classes):
    """Each entry of a class folder is a case; its name without the ending is the case and the patient."""
    table, rejected = read_covid19_diag(classes)
    found = dict(zip(table["case_id"], table["label"], strict=True))
    names = [f"COVID19-Diag:{name}" for name in "abcdef"]
    assert found == dict(zip(names, [label for label in CT_LABELS for _ in range(2)], strict=True))
    assert (table["patient_id"] == table["case_id"]).all()
    assert table.set_index("case_id").loc["COVID19-Diag:f", "path"] == "Bacterial pneumonia/f.nii.gz"
    assert rejected.empty


def test_a_case_in_two_classes_is_in_none(classes):
    """Both rows are listed with both places, whatever the case of the letters, and the rest is kept."""
    case(classes / "normal", "A")
    table, rejected = read_covid19_diag(classes)
    assert len(table) == 5
    text = "one case in two classes: COVID_19/a, normal/A"
    assert reasons(rejected) == {"COVID_19/a": text, "normal/A": text}


def test_classes_that_number_their_cases_anew(tmp_path):
    """1, 2, 3 in every class are other cases, and the class becomes part of their names."""
    for folder, count in (("COVID-19", 3), ("Normal", 5), ("Bacterial Pneumonia", 4)):
        for number in range(1, count + 1):
            case(tmp_path / folder, f"case {number}")
    table, rejected = read_covid19_diag(tmp_path)
    assert rejected.empty
    assert table["label"].value_counts().to_dict() == {"Normal": 5, "Bacterial Pneumonia": 4, "COVID-19": 3}
    assert table["patient_id"].is_unique
    assert "COVID19-Diag:COVID-19/case 1" in set(table["case_id"])


def test_one_study_under_two_names_is_in_neither(tmp_path):
    """Two rows of the table that lead to one folder, however it is spelt, are listed with their lines."""
    for name in "abc":
        case(tmp_path, name)
    rows = [["one", "a", "NCP"], ["two", "./a", "Normal"], ["three", "b", "Normal"], ["four", "c", "BP"]]
    makers.table(tmp_path / "cases.csv", ["case", "path", "class"], rows)
    table, rejected = read_covid19_diag(tmp_path)
    assert table["path"].tolist() == ["b", "c"]
    found = rejected[rejected["row"] != ""]
    assert found["row"].tolist() == ["2", "3"]
    assert set(found["reason"]) == {"one study in two cases: a, a"}


def test_what_is_no_case_is_listed(classes):
    """Loose slices, unknown folders, empty cases and a class without cases each have their reason."""
    makers.image(classes / "normal" / "slice.png")
    (classes / "normal" / "empty").mkdir()
    (classes / "masks").mkdir()
    (classes / "NC").mkdir()
    (classes / "README.txt").write_text("hello")
    (classes / "COVID_19" / "elsewhere").symlink_to(classes.parent)
    for path in (
        classes / "Bacterial pneumonia" / "e" / "1.png",
        classes / "Bacterial pneumonia" / "f.nii.gz",
    ):
        path.unlink()
    table, rejected = read_covid19_diag(classes)
    assert len(table) == 4
    found = reasons(rejected)
    assert found["normal/slice.png"].startswith("no case: a folder, or a file of")
    assert found["normal/empty"] == found["Bacterial pneumonia/e"] == "the study's folder holds no file"
    assert found["masks"].startswith("the class must be one of")
    assert found["NC"] == "a class folder without a case"
    assert found["README.txt"] == "no class folder: a file beside them"
    assert "leads out of the folder" in found["COVID_19/elsewhere"]
    assert found["Bacterial Pneumonia"] == "this class has no case"
    assert len(found) == 8


def test_train_and_test_folders_give_the_split(tmp_path):
    """Where the class folders lie in train/ and test/, that is the split; one case in both is in neither."""
    for part, names in (("Training", "ab"), ("test", "bc")):
        for name in names:
            case(tmp_path / part / "NCP", name)
    case(tmp_path / "Normal", "d")
    table, rejected = read_covid19_diag(tmp_path)
    assert dict(zip(table["case_id"], table["split"], strict=True)) == {
        "COVID19-Diag:a": "train",
        "COVID19-Diag:c": "test",
    }
    assert reasons(rejected)["test/NCP/b"] == "one case in two splits: Training/NCP/b, test/NCP/b"
    assert reasons(rejected)["Normal"] in ("beside train and test, so in neither", "this class has no case")
    assert (rejected["path"] == "Normal").sum() == 2


def test_a_table_wins_over_folders(classes):
    """`cases.csv` names case, path and class; bad rows are listed with their line, the others are read."""
    rows = [
        ["one", "COVID_19/a", "NCP", "p1"],
        ["two", "normal/c", "healthy", "p1"],
        ["three", "normal/d", "flu", "p2"],
        ["four", "nowhere", "BP", "p3"],
        ["", "normal/d", "BP", "p3"],
        ["five", "../out", "BP", "p3"],
        ["one", "COVID_19/b", "NCP", "p4"],
    ]
    makers.table(classes / "cases.csv", ["case", "path", "class", "patient"], rows)
    table, rejected = read_covid19_diag(classes)
    assert table[["case_id", "patient_id", "label"]].to_numpy().tolist() == [
        ["COVID19-Diag:two", "COVID19-Diag:p1", "Normal"]
    ]
    found = {row: reason for row, reason in zip(rejected["row"], rejected["reason"], strict=True) if row}
    assert found["2"] == found["8"] == "one case in two places: COVID_19/a, COVID_19/b"
    assert found["4"].startswith("the class must be one of") and found["4"].endswith("'flu'")
    assert found["5"] == "the study is absent"
    assert found["6"] == "the case must have a name. Received: ''"
    assert found["7"] == "the path leads out of the folder"


def test_no_folder_and_no_case_are_errors(tmp_path):
    """Nothing to read is said, with the folder."""
    with pytest.raises(DataError, match=r"absent: no such folder; COVID19-Diag is given by its authors"):
        read_covid19_diag(tmp_path / "absent")
    with pytest.raises(DataError, match="no image can be used"):
        read_covid19_diag(tmp_path)


@pytest.mark.parametrize(
    ("word", "label"),
    [("NCP", "COVID-19"), ("Covid 19", "COVID-19"), ("NORMAL", "Normal"), ("BP", "Bacterial Pneumonia")],
)
def test_words_for_classes(word, label):
    """The names people give to class folders."""
    assert label_of(word) == label


def test_an_unknown_word_is_refused():
    """Viral pneumonia is none of the three classes, and pneumonia as such may be viral."""
    for word in ("viral pneumonia", "pneumonia", "CP"):
        with pytest.raises(RejectedError, match=f"Received: '{word}'"):
            label_of(word)


def covid_ct(folder, rows):
    """COVID-CT with `slices.csv`."""
    for name, *_ in rows:
        if name:
            makers.image(folder / name)
    makers.table(folder / "slices.csv", ["file", "label", "split", "patient_id"], rows)
    return folder


def test_covid_ct_with_its_table(tmp_path):
    """Splits and patients are the table's; rows of another label, split or file are listed."""
    rows = [
        ["CT_COVID/a.jpg", "COVID-19", "train", "Patient 1"],
        ["CT_NonCOVID/1.jpg", "non-COVID", "val", "medpix_patient_2"],
        ["CT_NonCOVID/2.jpg", "normal", "val", "x"],
        ["CT_NonCOVID/3.jpg", "non-COVID", "dev", "x"],
        ["", "non-COVID", "val", "x"],
    ]
    folder = covid_ct(tmp_path, rows)
    makers.image(folder / "CT_COVID" / "unnamed.png")
    table, rejected = read_covid_ct(folder)
    assert table[["path", "split", "case_id"]].to_numpy().tolist() == [
        ["CT_COVID/a.jpg", "train", "COVID-CT:Patient 1"],
        ["CT_NonCOVID/1.jpg", "val", "COVID-CT:medpix_patient_2"],
    ]
    assert reasons(rejected) == {
        "CT_NonCOVID/2.jpg": "the label must be one of ('COVID-19', 'non-COVID'). Received: 'normal'",
        "CT_NonCOVID/3.jpg": "the split must be one of ('train', 'val', 'test'). Received: 'dev'",
        "CT_COVID/unnamed.png": "no row names this file",
        "": "the file must be named. Received: ''",
    }


def test_covid_ct_with_the_authors_lists(tmp_path):
    """The lists give label and split; publication and article stand for the patient; twice is never."""
    names = {
        ("COVID", "train"): ["2020.01.24.919183-p27-132.png", "2020.01.24.919183-p27-133.png"],
        ("COVID", "val"): ["nejm.png"],
        ("COVID", "test"): ["lost.png"],
        ("NonCOVID", "train"): ["91%0.jpg", "91%1.jpg", "twice.jpg"],
        ("NonCOVID", "val"): ["102.jpg"],
        ("NonCOVID", "test"): ["twice.jpg"],
    }
    for (word, split), files in names.items():
        makers.table(
            tmp_path / "Data-split" / word / f"{split}CT_{word}.txt", files[:1], [[f] for f in files[1:]]
        )
        for name in files:
            if name != "lost.png":
                makers.image(tmp_path / "Images-processed" / f"CT_{word}" / name)
    table, rejected = read_covid_ct(tmp_path)
    assert table["patient_id"].str.removeprefix("COVID-CT:").tolist() == [
        *["2020.01.24.919183"] * 2, "nejm", "91", "91", "102",
    ]  # fmt: skip
    assert table["split"].tolist() == ["train", "train", "val", "train", "train", "val"]
    assert reasons(rejected) == {
        "Images-processed/CT_COVID/lost.png": "the file is absent",
        "Images-processed/CT_NonCOVID/twice.jpg": "two lists name this file",
    }


def test_covid_ct_without_either(tmp_path):
    """Neither table nor lists: the error names what was looked for."""
    with pytest.raises(DataError, match=r"trainCT_COVID.txt: no such list, and no slices.csv"):
        read_covid_ct(tmp_path)


def test_real_covid_ct(real_data):
    """The share at hand: 425 slices in train, 118 in val, no patient in both."""
    table, rejected = read_covid_ct(real_data / "COVID-CT")
    assert table.groupby(["split", "label"]).size().to_dict() == {
        ("train", "COVID-19"): 191,
        ("train", "non-COVID"): 234,
        ("val", "COVID-19"): 60,
        ("val", "non-COVID"): 58,
    }
    assert rejected.empty
    assert not table[["patient_id", "split"]].drop_duplicates()["patient_id"].duplicated().any()


def test_phantoms_keep_their_columns(tmp_path):
    """Phantom cases are read with what only phantoms know; a study that is lost is listed."""
    columns = ["case_id", "patient_id", "path", "finding", "label", "scanner", "sex", "age", "severity"]
    rows = [
        ["c1", "p1", "studies/c1", "COVID-19", "COVID-19", "ge", "F", "40", "0.5"],
        ["c2", "p2", "studies/c2", "No Finding", "Normal", "siemens", "M", "50", "0"],
    ]
    makers.table(tmp_path / "cases.csv", columns, rows)
    case(tmp_path / "studies", "c1")
    table, rejected = read_phantom_cts(tmp_path)
    wanted = {"case_id": "phantom:c1", "patient_id": "phantom:p1", "scanner": "ge", "severity": "0.5"}
    assert table[list(wanted)].iloc[0].to_dict() == wanted
    assert table["age"].tolist() == [40.0]
    assert reasons(rejected) == {"studies/c2": "the study is absent"}
    assert isinstance(table, pd.DataFrame) and len(table) == 1
