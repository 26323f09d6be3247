"""Readers of the public data sets: what they read, and what they refuse and report."""

import math
import os

import makers
import pytest

from covidtf import sources
from covidtf.files import DataError
from covidtf.sources.chexpert import find_chexpert


def reasons(rejected):
    """`{path: reason}` of a report."""
    return dict(zip(rejected["path"], rejected["reason"], strict=True))


def test_covid_chestxray_columns(tmp_path):
    """A row of metadata.csv becomes a manifest row with its person, URL and licence."""
    row = {"patientid": "313b", "sex": "F", "age": "55", "finding": "COVID-19, ARDS", "view": "AP Supine"}
    manifest, rejected = sources.read_covid_chestxray(makers.covid_chestxray(tmp_path, [row]))
    wanted = {
        "image_id": "covid-chestxray-dataset/images/1.png",
        "path": "images/1.png",
        "label": "COVID-19",
        "finding": "COVID-19, ARDS",
        "source": "covid-chestxray-dataset",
        "patient_id": "covid-chestxray-dataset:313b",
        "case_id": "covid-chestxray-dataset:313b",
        "view": "AP Supine",
        "split": "",
        "parent_id": "",
        "sha256": "",
        "sex": "F",
        "age": 55.0,
        "url": "https://example.org/1",
        "licence": "CC BY",
    }
    assert manifest.iloc[0].to_dict() == wanted
    assert rejected.empty and list(rejected.columns) == ["source", "path", "row", "reason"]


@pytest.mark.parametrize(
    ("finding", "label"),
    [
        ("COVID-19", "COVID-19"),
        ("Pneumonia/Viral/COVID-19", "COVID-19"),
        ("ARDS, COVID-19", "COVID-19"),
        ("No Finding", "non-COVID"),
        ("Pneumonia/Viral/SARS", "non-COVID"),
        ("Pneumonia/Viral", "non-COVID"),
    ],
)
def test_covid_chestxray_label(tmp_path, finding, label):
    """The label follows from the whole words of the finding, in the notation of either release."""
    folder = makers.covid_chestxray(tmp_path, [{"finding": finding}])
    manifest, _ = sources.read_covid_chestxray(folder)
    assert manifest["label"].tolist() == [label]
    assert manifest["finding"].tolist() == [finding]


@pytest.mark.parametrize(
    ("view", "wanted"),
    [("PA", "PA"), ("AP Erect", "AP"), ("APS", "AP Supine"), ("L", "L"), ("", "UNKNOWN")],
)
def test_covid_chestxray_view(tmp_path, view, wanted):
    """The source's views become the manifest's; a lateral image stays and a blank view is UNKNOWN."""
    manifest, _ = sources.read_covid_chestxray(makers.covid_chestxray(tmp_path, [{"view": view}]))
    assert manifest["view"].tolist() == [wanted]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"modality": "CT", "view": "Axial"}, "modality must be X-ray. Received: 'CT'"),
        ({"view": "Coronal"}, "the view must be one of a chest X-ray. Received: 'Coronal'"),
        ({"finding": "todo"}, "the finding must be known. Received: 'todo'"),
        ({"finding": "Unknown"}, "the finding must be known. Received: 'Unknown'"),
        ({"patientid": ""}, "the patient must be known. Received: ''"),
        ({"age": "old"}, "the age must be a number of years or nothing. Received: 'old'"),
        ({"make": False}, "the file is absent"),
        ({"filename": "../../1.png", "make": False}, "the path leads out of the folder"),
        ({"folder": "/etc", "filename": "hosts", "make": False}, "the path leads out of the folder"),
    ],
)
def test_covid_chestxray_rejects(tmp_path, changes, reason):
    """A row that cannot be used is listed with its line and reason, and the others are read."""
    folder = makers.covid_chestxray(tmp_path / "clone", [{}, changes])
    manifest, rejected = sources.read_covid_chestxray(folder)
    assert manifest["path"].tolist() == ["images/1.png"]
    assert rejected["row"].tolist() == ["3"]
    assert rejected["reason"].tolist() == [reason]


def test_file_without_a_row(tmp_path):
    """A file that no row names is listed, with no row."""
    folder = makers.covid_chestxray(tmp_path, [{}])
    makers.image(folder / "images" / "other.png")
    _, rejected = sources.read_covid_chestxray(folder)
    assert rejected.iloc[0].to_dict() == {
        "source": "covid-chestxray-dataset",
        "path": "images/other.png",
        "row": "",
        "reason": "no row names this file",
    }


def test_repeated_file_that_agrees(tmp_path):
    """A file listed under two patients is kept once, by its first row, and the other row is reported."""
    same = {"filename": "a.png", "finding": "Pneumonia"}
    folder = makers.covid_chestxray(tmp_path, [{**same, "patientid": "285"}, {**same, "patientid": "339"}])
    manifest, rejected = sources.read_covid_chestxray(folder)
    assert manifest["patient_id"].tolist() == ["covid-chestxray-dataset:285"]
    assert rejected["row"].tolist() == ["3"]
    assert rejected["reason"].item() == (
        "row 2 names this file already, as covid-chestxray-dataset:285; "
        "this row says covid-chestxray-dataset:339"
    )


def test_repeated_file_that_conflicts(tmp_path):
    """A file with two findings is not kept at all, because either might be the wrong one."""
    folder = makers.covid_chestxray(
        tmp_path, [{"filename": "a.png"}, {"filename": "a.png", "finding": "SARS"}, {}]
    )
    manifest, rejected = sources.read_covid_chestxray(folder)
    assert manifest["path"].tolist() == ["images/3.png"]
    assert rejected["row"].tolist() == ["2", "3"]
    assert set(rejected["reason"]) == {"rows 2, 3 name this file and differ in label and finding"}


def test_first_release_of_covid_chestxray(tmp_path):
    """The table of March 2020 is read: `Patientid`, ` url`, no modality and no folder; CT is a view there."""
    columns = ["Patientid", "offset", "finding", "view", "filename", " url"]
    rows = [["1", " ", "COVID-19", "PA", "a.png", "u"], ["1", "", "COVID-19", "CT", "b.png", "u"]]
    makers.table(tmp_path / "metadata.csv", columns, rows)
    makers.image(tmp_path / "images" / "a.png")
    manifest, rejected = sources.read_covid_chestxray(tmp_path)
    assert manifest[["path", "patient_id", "url"]].iloc[0].tolist() == [
        "images/a.png",
        "covid-chestxray-dataset:1",
        "u",
    ]
    assert reasons(rejected) == {"images/b.png": "the view must be one of a chest X-ray. Received: 'CT'"}


def test_byte_order_mark(tmp_path):
    """A byte order mark before the header changes nothing."""
    plain = makers.covid_chestxray(tmp_path / "a", [{}])
    marked = makers.covid_chestxray(tmp_path / "b", [{}], encoding="utf-8-sig")
    assert (marked / "metadata.csv").read_bytes()[:3] == b"\xef\xbb\xbf"
    read = [sources.read_covid_chestxray(folder)[0] for folder in (plain, marked)]
    assert read[0].equals(read[1])


def test_latin_1_is_refused(tmp_path):
    """Text that is not UTF-8 is refused by file, row and byte instead of being guessed."""
    folder = makers.covid_chestxray(tmp_path, [{}, {"location": "Málaga"}], encoding="latin-1")
    with pytest.raises(DataError, match=r"metadata\.csv: row 3: .*UTF-8.*0xe1.*iconv"):
        sources.read_covid_chestxray(folder)


def test_line_of_a_row_after_a_note_of_several_lines(tmp_path):
    """`row` is the line in the file, also below a quoted field that holds line breaks."""
    folder = makers.covid_chestxray(tmp_path, [{"location": "one\ntwo\nthree"}, {"finding": "todo"}])
    _, rejected = sources.read_covid_chestxray(folder)
    assert rejected["row"].tolist() == ["5"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "patientid;finding;view;filename\n1;a;PA;x.png\n",
            r"columns .* are missing. Received: \['patientid;f",
        ),
        ("patientid,finding,view\n", r"columns \['filename'\] are missing. Received: \['patientid', 'fin"),
        ("", r"columns .* are missing. Received: \[\]"),
        ("patientid,finding,view,filename,url,url\n", r"columns \['url'\] come more than once"),
        ('patientid,finding,view,filename\n1,a,PA,"x.png\n', r"row 2: not CSV: unexpected end of data"),
        (
            "patientid,finding,view,filename\n",
            r"no image can be used, 0 were rejected; the first: it is empty",
        ),
        ("patientid,finding,view,filename\n1,a,PA,x.png\n", r"row 2, 'images/x.png': the file is absent"),
    ],
)
def test_bad_table(tmp_path, text, message):
    """A table that cannot be read is an error that names the file and what came instead."""
    (tmp_path / "metadata.csv").write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=message) as error:
        sources.read_covid_chestxray(tmp_path)
    assert str(tmp_path / "metadata.csv") in str(error.value)


def test_row_of_wrong_length(tmp_path):
    """A row with too few fields is listed and does not shift the others."""
    folder = makers.covid_chestxray(tmp_path, [{}])
    with (folder / "metadata.csv").open("a", encoding="utf-8") as file:
        file.write("2,,M\n")
    manifest, rejected = sources.read_covid_chestxray(folder)
    assert len(manifest) == 1
    assert rejected.iloc[0].tolist() == [
        "covid-chestxray-dataset",
        "",
        "3",
        "metadata.csv: 15 fields were wanted. Received: 3",
    ]


def test_no_table(tmp_path):
    """A folder without its table is an error that names the table."""
    with pytest.raises(DataError, match=r"metadata\.csv: no such file"):
        sources.read_covid_chestxray(tmp_path)


def test_links_out_of_the_folder(tmp_path):
    """A link out of the folder is listed and not read; one that stays inside, and one to the folder, are."""
    secret = makers.image(tmp_path / "elsewhere" / "secret.png")
    makers.image(tmp_path / "elsewhere" / "deep" / "2.png")
    rows = [{}, {"make": False}, {"filename": "deep/2.png", "make": False}, {"make": False}]
    folder = makers.covid_chestxray(tmp_path / "clone", rows)
    images = folder / "images"
    (images / "2.png").symlink_to(secret)
    (images / "deep").symlink_to(tmp_path / "elsewhere" / "deep")
    (images / "4.png").symlink_to(images / "1.png")
    (images / "broken.png").symlink_to(images / "nowhere.png")
    link = tmp_path / "link"
    link.symlink_to(folder)
    manifest, rejected = sources.read_covid_chestxray(link)
    outside = "is a symbolic link that leads out of the folder"
    assert manifest["path"].tolist() == ["images/1.png", "images/4.png"]
    assert reasons(rejected) == {
        "images/2.png": f"images/2.png {outside}",
        "images/deep/2.png": f"images/deep {outside}",
        "images/deep": outside,
        "images/broken.png": "is a link that is broken or to a folder",
    }


def test_names_that_no_table_can_hold(tmp_path):
    """A file whose name is not UTF-8 or holds a backslash is listed, its bytes escaped, and does no harm."""
    folder = makers.released(tmp_path, ["train/covid/kept.png", "train/covid/a\\b.png"])
    (folder / "train" / "covid" / os.fsdecode(b"M\xe1laga.png")).write_bytes(b"")
    manifest, rejected = sources.read_covid_xray_5k(folder)
    assert manifest["path"].tolist() == ["train/covid/kept.png"]
    assert sorted(rejected["path"]) == [r"train/covid/M\xe1laga.png", r"train/covid/a\b.png"]
    assert set(rejected["reason"]) == {"has a name with a backslash or bytes that are not text"}


def test_images_folder_that_is_a_link_out(tmp_path):
    """With the whole image folder elsewhere nothing is read, and the error says why."""
    makers.image(tmp_path / "elsewhere" / "1.png")
    folder = makers.covid_chestxray(tmp_path / "clone", [{"make": False}])
    (folder / "images").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="images is a symbolic link that leads out of the folder"):
        sources.read_covid_chestxray(folder)


def test_table_that_is_a_link_out(tmp_path):
    """The table itself may not lie outside either."""
    other = makers.covid_chestxray(tmp_path / "other", [{}])
    (tmp_path / "clone").mkdir()
    (tmp_path / "clone" / "metadata.csv").symlink_to(other / "metadata.csv")
    with pytest.raises(DataError, match="leads out of the folder"):
        sources.read_covid_chestxray(tmp_path / "clone")


FINDINGS = {
    "patient00001/study1/view1_frontal.jpg": "No Finding",
    "patient00001/study2/view1_frontal.jpg": "Edema|Pneumonia|Atelectasis?",
    "patient00002/study1/view2_lateral.jpg": "Fracture?",
    "valid/patient64541/study1/view1_frontal.jpg": "Cardiomegaly",
}


@pytest.mark.parametrize("release", ["CheXpert-v1.0-small", "CheXpert-v1.0"])
@pytest.mark.parametrize("parent", [False, True])
def test_chexpert(tmp_path, release, parent):
    """Both releases are read, from their folder or its parent, with the same image_id."""
    folder = makers.chexpert(tmp_path, FINDINGS, release)
    manifest, rejected = sources.read_chexpert(tmp_path if parent else folder)
    assert rejected.empty
    prefix = f"{release}/" if parent else ""
    assert manifest["path"].iloc[1] == f"{prefix}train/patient00001/study2/view1_frontal.jpg"
    assert manifest["image_id"].iloc[1] == "CheXpert/train/patient00001/study2/view1_frontal.jpg"
    assert manifest["patient_id"].tolist() == [
        "CheXpert:patient00001",
        "CheXpert:patient00001",
        "CheXpert:patient00002",
        "CheXpert:patient64541",
    ]
    assert manifest["case_id"].iloc[1] == "CheXpert:patient00001/study2"
    assert manifest["finding"].tolist() == ["No Finding", "Edema|Pneumonia", "", "Cardiomegaly"]
    assert manifest["uncertain"].tolist() == ["", "Atelectasis", "Fracture", ""]
    assert manifest["view"].tolist() == ["AP", "AP", "L", "AP"]
    assert manifest["split"].tolist() == ["train", "train", "train", "val"]
    assert manifest["sex"].tolist() == ["M", "M", "F", "M"]
    assert manifest["age"].tolist() == [50, 50, 40, 50]
    assert set(manifest["label"]) == {"non-COVID"}


def test_chexpert_in_batches(tmp_path):
    """The full release's download folders are read: patients lie in batches, the tables in the first."""
    folder = makers.chexpert(tmp_path, FINDINGS, "CheXpert-v1.0")
    first = folder.rename(tmp_path / "CheXpert-v1.0 batch 1 (validate & csv)")
    for number, patient in ((2, "patient00001"), (3, "patient00002")):
        batch = tmp_path / f"CheXpert-v1.0 batch {number} (train {number - 1})"
        batch.mkdir()
        (first / "train" / patient).rename(batch / patient)
    manifest, rejected = sources.read_chexpert(tmp_path)
    assert rejected.empty
    assert dict(zip(manifest["image_id"], manifest["path"], strict=True)) == {
        "CheXpert/train/patient00001/study1/view1_frontal.jpg": (
            "CheXpert-v1.0 batch 2 (train 1)/patient00001/study1/view1_frontal.jpg"
        ),
        "CheXpert/train/patient00001/study2/view1_frontal.jpg": (
            "CheXpert-v1.0 batch 2 (train 1)/patient00001/study2/view1_frontal.jpg"
        ),
        "CheXpert/train/patient00002/study1/view2_lateral.jpg": (
            "CheXpert-v1.0 batch 3 (train 2)/patient00002/study1/view2_lateral.jpg"
        ),
        "CheXpert/valid/patient64541/study1/view1_frontal.jpg": (
            "CheXpert-v1.0 batch 1 (validate & csv)/valid/patient64541/study1/view1_frontal.jpg"
        ),
    }


def test_two_releases_of_chexpert(tmp_path):
    """A parent of two releases is an error that names them, because either might be meant."""
    makers.chexpert(tmp_path, FINDINGS, "CheXpert-v1.0-small")
    makers.chexpert(tmp_path, FINDINGS, "CheXpert-v1.0")
    with pytest.raises(DataError, match=r"one release .* \['CheXpert-v1.0', 'CheXpert-v1.0-small'\]"):
        sources.read_chexpert(tmp_path)


@pytest.mark.parametrize("folder", ["empty", "absent"])
def test_no_chexpert(tmp_path, folder):
    """A folder that is no CheXpert is an error that says what was wanted."""
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="wanted"):
        sources.read_chexpert(tmp_path / folder)


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("1.0,,,,", "2.0,,,,", "No Finding must be 1, 0, -1 or nothing. Received: '2.0'"),
        (
            "study1/view1_frontal.jpg,M",
            "view1_frontal.jpg,M",
            "Path must end in <train|valid>/patientN/studyN/",
        ),
        ("Frontal,AP,1.0", "Oblique,AP,1.0", "Frontal/Lateral must be either. Received: 'Oblique'"),
        ("patient00001/study1", "patient00009/study1", "the file is absent"),
    ],
)
def test_chexpert_rejects(tmp_path, old, new, reason):
    """A row of train.csv that cannot be used is listed with its reason."""
    folder = makers.chexpert(tmp_path, FINDINGS)
    text = (folder / "train.csv").read_text(encoding="utf-8")
    assert old in text
    (folder / "train.csv").write_text(text.replace(old, new, 1), encoding="utf-8")
    manifest, rejected = sources.read_chexpert(folder)
    assert len(manifest) == 3
    assert rejected["row"].iloc[0] == "2"
    assert rejected["reason"].iloc[0].startswith(f"train.csv: {reason}")


def test_chexpert_names_the_table_of_a_rejected_row(tmp_path):
    """Row 2 of valid.csv is told from row 2 of train.csv, and a file without a row has no table."""
    folder = makers.chexpert(tmp_path, FINDINGS)
    for name in ("train", "valid"):
        text = (folder / f"{name}.csv").read_text(encoding="utf-8")
        text = text.replace("Male,50,Frontal", "Male,50,Oblique", 1)
        (folder / f"{name}.csv").write_text(text, encoding="utf-8")
    makers.image(folder / "train" / "patient00007" / "study1" / "view1_frontal.jpg")
    _, rejected = sources.read_chexpert(folder)
    assert rejected["row"].tolist() == ["2", "2", ""]
    assert rejected["reason"].tolist() == [
        "train.csv: Frontal/Lateral must be either. Received: 'Oblique'",
        "valid.csv: Frontal/Lateral must be either. Received: 'Oblique'",
        "no row names this file",
    ]


@pytest.mark.parametrize(
    ("names", "wanted"),
    [
        (["CheXpert-v1.0-small"], "CheXpert-v1.0-small"),
        (["CheXpert-v1.0", "CheXpert-v1.0-small"], "CheXpert-v1.0-small"),
        (["CheXpert-v1.0"], "CheXpert-v1.0"),
        (["CheXpert-v1.0 batch 1 (validate & csv)"], "."),
    ],
)
def test_find_chexpert(tmp_path, names, wanted):
    """The small release comes first, then the full one, then the parent of its batches."""
    for name in names:
        (tmp_path / name).mkdir()
    assert find_chexpert(tmp_path) == tmp_path / wanted


def test_chexpert_under_another_name(tmp_path):
    """A folder of another name is an error that says which names are looked for and what is there."""
    (tmp_path / "chexpert").mkdir()
    with pytest.raises(
        DataError, match=r"CheXpert-v1\.0-small or CheXpert-v1\.0, .* Received: \['chexpert'\]"
    ):
        find_chexpert(tmp_path)


def test_chestxray14_as_published(tmp_path):
    """The published header, whose bracketed names hold commas, is read, trailing comma and all."""
    row = ["00000061_012.png", "Pneumonia|Effusion", "12", "61", "58", "F", "PA", 2500, 2048, 0.1, 0.1, ""]
    manifest, rejected = sources.read_chestxray14(makers.chestxray14(tmp_path, [row]))
    assert rejected.empty
    columns = ["image_id", "patient_id", "case_id", "finding", "label", "view", "sex", "age"]
    assert manifest[columns].iloc[0].tolist() == [
        "ChestX-ray14/images/00000061_012.png",
        "ChestX-ray14:61",
        "ChestX-ray14:61",
        "Pneumonia|Effusion",
        "non-COVID",
        "PA",
        "F",
        58.0,
    ]


def test_chestxray14_rows_longer_than_the_header(tmp_path):
    """A trailing comma in the rows alone does not shift the columns."""
    header = makers.CHESTXRAY14_HEADER.removesuffix(",")
    row = ["a.png", "No Finding", "0", "7", "013M", "M", "AP", 1, 1, 0.1, 0.1, ""]
    manifest, _ = sources.read_chestxray14(makers.chestxray14(tmp_path, [row], header))
    assert manifest["patient_id"].tolist() == ["ChestX-ray14:7"]
    assert manifest["age"].iloc[0] == pytest.approx(13 / 12)


def test_chestxray14_with_few_columns(tmp_path):
    """Without the later columns the view is UNKNOWN, the sex blank and the age absent."""
    folder = makers.chestxray14(
        tmp_path, [["a.png", "No Finding", 0, 7]], "Image Index,Finding Labels,Follow-up #,Patient ID"
    )
    manifest, _ = sources.read_chestxray14(folder)
    assert manifest["view"].tolist() == ["UNKNOWN"]
    assert manifest["sex"].tolist() == [""]
    assert math.isnan(manifest["age"].iloc[0])


def test_chestxray14_in_twelve_folders(tmp_path):
    """Images in images_001/images and so on are found, and the table of 2020 is taken."""
    rows = [["a.png", "No Finding", 0, 1], ["b.png", "Hernia", 0, 2], ["c.png", "Mass", 0, 3]]
    header = "Image Index,Finding Labels,Follow-up #,Patient ID"
    makers.chestxray14(tmp_path, rows[:1], header, "images_001/images")
    makers.chestxray14(tmp_path, rows[1:2], header, "images_012/images")
    makers.table(tmp_path / "Data_Entry_2017_v2020.csv", header.split(","), rows)
    manifest, rejected = sources.read_chestxray14(tmp_path)
    assert manifest["path"].tolist() == ["images_001/images/a.png", "images_012/images/b.png"]
    assert manifest["image_id"].tolist() == ["ChestX-ray14/images/a.png", "ChestX-ray14/images/b.png"]
    assert reasons(rejected) == {"images/c.png": "the file is absent"}


def test_phantom_keeps_further_columns(tmp_path):
    """Columns that the phantoms add are kept as text, and a label of another study is refused."""
    columns = ["filename", "patient_id", "finding", "label", "view", "style", "sex", "age", "severity"]
    rows = [
        ["p1.png", "1", "COVID-19", "COVID-19", "AP", "scanner-b", "F", "61", "0.7"],
        ["p2.png", "phantom:2", "No Finding", "normal", "PA", "scanner-a", "M", "", ""],
    ]
    makers.table(tmp_path / "metadata.csv", columns, rows)
    for name in ("p1.png", "p2.png"):
        makers.image(tmp_path / "images" / name)
    manifest, rejected = sources.read_phantom(tmp_path)
    assert manifest[["image_id", "patient_id", "style", "severity", "age"]].iloc[0].tolist() == [
        "phantom/images/p1.png",
        "phantom:1",
        "scanner-b",
        "0.7",
        61.0,
    ]
    assert reasons(rejected) == {
        "images/p2.png": "the label must be one of ('COVID-19', 'non-COVID'). Received: 'normal'"
    }


UUID = "1f0c3b5e-0d4c-4a8e-9a57-0c5b7f6d2e11"
COPY = f"covid_original_covid-19-pneumonia-40.jpg_{UUID}.jpg"


def test_released_archive(tmp_path):
    """Patients come from a negative's name, for a positive from the published list; prefixes are findings."""
    names = [
        "train/covid/covid-19-pneumonia-40.jpg",
        f"train/covid/{COPY}",
        "train/covid/4-x-day1.jpg",
        "train/non/Atelectasis-patient00028-study2-view1_frontal.jpg",
        "test/covid/new-name.png",
        "test/non/patient00003-study1-view1_frontal.jpg",
    ]
    manifest, rejected = sources.read_covid_xray_5k(makers.released(tmp_path, names))
    assert rejected.empty
    table = manifest.set_index("path").loc[names]
    assert table["patient_id"].tolist() == [
        "covid-chestxray-dataset:145",
        "covid-chestxray-dataset:145",
        "covid-chestxray-dataset:unknown:4-x-day1.jpg",
        "CheXpert:patient00028",
        "covid-chestxray-dataset:unknown:new-name.png",
        "CheXpert:patient00003",
    ]
    assert manifest["patient_id"].str.contains(":unknown:").sum() == 2
    assert table["case_id"].iloc[3] == "CheXpert:patient00028/study2"
    assert table["finding"].tolist() == ["COVID-19"] * 3 + ["Atelectasis", "COVID-19", ""]
    assert table["label"].tolist() == ["COVID-19"] * 3 + ["non-COVID", "COVID-19", "non-COVID"]
    assert table["split"].tolist() == ["train"] * 4 + ["test"] * 2
    original = "covid-chestxray-dataset/train/covid/covid-19-pneumonia-40.jpg"
    assert table["parent_id"].tolist() == ["", original, "", "", "", ""]
    assert table["original_path"].tolist()[3:] == [
        "train/patient00028/study2/view1_frontal.jpg",
        "",
        "train/patient00003/study1/view1_frontal.jpg",
    ]


def test_released_archive_below_one_folder(tmp_path):
    """The archive unpacks into a folder; its parent reads the same images under the same image_id."""
    names = ["train/covid/a.png", "test/non/patient00003-study1-view1_frontal.jpg", "val/non/b.png"]
    folder = makers.released(tmp_path / "data", names)
    inner, outer = (sources.read_covid_xray_5k(place)[0] for place in (folder, tmp_path))
    assert (outer["path"] == "data/" + inner["path"]).all()
    assert outer["image_id"].tolist() == inner["image_id"].tolist()
    assert sorted(inner["split"]) == ["test", "train", "val"]


def test_copy_of_a_copy(tmp_path):
    """Augmentor run over its own output gives copies of copies; all are tied to the original image."""
    names = ["covid-19-pneumonia-40.jpg", COPY, f"covid_original_{COPY}_{UUID}.jpg"]
    folder = makers.released(tmp_path, [f"train/covid/{name}" for name in names])
    manifest, _ = sources.read_covid_xray_5k(folder)
    assert sorted(manifest["parent_id"]) == [""] + 2 * [
        "covid-chestxray-dataset/train/covid/covid-19-pneumonia-40.jpg"
    ]


@pytest.mark.filterwarnings("ignore:invalid escape sequence")
def test_augmentor_writes_the_names_that_are_recognised(tmp_path):
    """Files that the installed Augmentor really writes are tied to their originals."""
    import Augmentor

    source = makers.image(tmp_path / "train" / "covid" / "a.b_original.png").parent
    pipeline = Augmentor.Pipeline(str(source), output_directory=".")
    pipeline.flip_left_right(probability=1)
    pipeline.sample(2, multi_threaded=False)
    manifest, rejected = sources.read_covid_xray_5k(tmp_path)
    assert rejected.empty
    assert (manifest["parent_id"] != "").sum() == 2


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        (
            f"train/covid/{COPY}",
            "is Augmentor's copy of covid-19-pneumonia-40.jpg, which is not in train/covid",
        ),
        (f"test/covid/{COPY}", "is Augmentor's copy of an image and not in train"),
        ("train/covid/Thumbs.db", "does not have the name of an image"),
        ("train/covid/._a.png", "does not have the name of an image"),
        ("train/other/a.png", "must be in a folder covid or non"),
        ("train/a.png", "must be in a folder covid or non"),
    ],
)
def test_released_archive_rejects(tmp_path, name, reason):
    """What is no image of the data set, and a copy without its original or outside train, is listed."""
    folder = makers.released(tmp_path, ["train/covid/kept.png"])
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(b"")
    manifest, rejected = sources.read_covid_xray_5k(folder)
    assert manifest["path"].tolist() == ["train/covid/kept.png"]
    assert reasons(rejected) == {name: reason}


@pytest.mark.parametrize(("folder", "message"), [(".", "train/ and test/"), ("absent", "no such folder")])
def test_no_released_archive(tmp_path, folder, message):
    """A folder without train and test is an error that says what was found."""
    with pytest.raises(DataError, match=message):
        sources.read_covid_xray_5k(tmp_path / folder)


def test_real_covid_chestxray(real_data):
    """The real sample: 207 rows name 204 files, because three files are listed under patients 285 and 339."""
    manifest, rejected = sources.read_covid_chestxray(real_data / "covid-chestxray-dataset")
    assert len(manifest) == 204
    assert manifest["label"].value_counts().to_dict() == {"COVID-19": 144, "non-COVID": 60}
    assert rejected["row"].tolist() == ["206", "207", "208"]
    assert rejected["reason"].str.endswith(":285; this row says covid-chestxray-dataset:339").all()
    both = manifest.groupby("patient_id")["label"].nunique() == 2
    assert both.sum() == 6


def test_real_chestxray14(real_data):
    """The real sample of ChestX-ray14: every row and file is used."""
    manifest, rejected = sources.read_chestxray14(real_data / "ChestX-ray14")
    assert rejected.empty
    assert manifest["finding"].value_counts().to_dict() == {"Pneumonia": 306, "No Finding": 303}
    assert manifest["patient_id"].nunique() == 415
