"""Duplicates are found, groups stay whole, splits are balanced and repeatable, leaks are refused by name."""

import itertools
from importlib import resources

import imagehash
import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageEnhance

from covidtf import sources, splits
from covidtf.files import DataError, sha256

COVID = "covid-chestxray-dataset"


def table(rows, **columns):
    """Manifest with the columns that splits reads; `rows` are (image_id, patient, split)."""
    frame = pd.DataFrame(rows, columns=["image_id", "patient_id", "split"])
    frame["patient_id"] = COVID + ":" + frame["patient_id"]
    hashes = np.random.default_rng(0)
    defaults = {"label": "COVID-19", "source": COVID, "parent_id": "", "url": "", "sha256": ""}
    defaults |= {"phash": [hashes.bytes(32).hex() for _ in range(len(frame))]}
    return frame.assign(**(defaults | columns))


def no_pairs():
    """Table of no duplicates."""
    return splits.duplicates(table([("a", "1", "")]))


def many(patients=200, seed=0):
    """Patients with 1 to 5 images each, of two labels and two sources."""
    random = np.random.default_rng(seed)
    counts = random.integers(1, 6, patients)
    rows = [(f"{p:03}-{k}", f"p{p}", "") for p, count in enumerate(counts) for k in range(count)]
    owner = np.repeat(np.arange(patients), counts)
    label = np.where(owner % 3 == 0, "COVID-19", "non-COVID")
    source = np.where(owner % 3 == 1, "ChestX-ray14", COVID)
    return table(rows, label=label, source=source)


def flip(value, bits):
    """Hexadecimal hash with its last `bits` bits inverted."""
    return f"{int(value, 16) ^ ((1 << bits) - 1):0{len(value)}x}"


def test_duplicates_finds_equal_files_and_near_hashes():
    """Equal sha256 is exact at any distance, 24 bits are near, 25 are nothing; unknown files match none."""
    start = "5a" * 32
    images = table(
        [("c", "3", "test"), ("a", "1", "train"), ("b", "2", "test"), ("d", "4", ""), ("e", "5", "")],
        phash=[flip(start, 24), start, flip(start, 25), "0f" * 32, "f0" * 32],
        sha256=["", "", "", "1" * 64, "1" * 64],
    )
    pairs = splits.duplicates(images)
    found = pairs[["image_id_a", "image_id_b", "kind", "distance"]].to_numpy().tolist()
    assert found == [["a", "c", "near", 24], ["b", "c", "near", 1], ["d", "e", "exact", 256]]
    first = pairs.iloc[0].to_dict()
    assert (first["split_a"], first["split_b"], first["patient_a"]) == ("train", "test", f"{COVID}:1")
    assert (first["source_a"], first["patient_b"]) == (COVID, f"{COVID}:3")


def test_duplicates_agrees_with_imagehash(monkeypatch):
    """In small chunks, every pair and its distance are those of imagehash's own subtraction."""
    monkeypatch.setattr("covidtf.duplicates.CELLS", 70)
    images = table([(f"{i:02}", str(i), "") for i in range(30)])
    # Random hashes lie about 128 bits apart: near ones come from one hash with known changes.
    images["phash"] = [flip(images["phash"][0], 4 * i) for i in range(30)]
    hashes = [imagehash.hex_to_hash(value) for value in images["phash"]]
    expected = {(a, b): hashes[a] - hashes[b] for a, b in itertools.combinations(range(30), 2)}
    pairs = splits.duplicates(images, distance=63)
    found = {
        (int(row.image_id_a), int(row.image_id_b)): row.distance for row in pairs.itertuples(index=False)
    }
    assert found == {pair: distance for pair, distance in expected.items() if distance <= 63}


def test_duplicates_leaves_out_an_original_and_its_copies():
    """Copies of one original are no duplicates of it or each other; of another patient's image they are."""
    images = table(
        [("a", "1", "train"), ("a#1", "1", "train"), ("a#2", "1", "train"), ("b", "2", "test")],
        phash="77" * 32,
        parent_id=["", "a", "a", ""],
    )
    pairs = splits.duplicates(images)
    assert pairs[["image_id_a", "image_id_b"]].to_numpy().tolist() == [["a", "b"], ["a#1", "b"], ["a#2", "b"]]


@pytest.mark.parametrize(
    ("phash", "distance", "message"),
    [
        (["0" * 16, "f" * 16], 24, r"`distance` must be in \[0, 16\) for 64-bit hashes\. Received: 24"),
        (["0" * 64, "f" * 64], -1, r"`distance` must be in \[0, 64\)"),
        (["0" * 64, "f" * 16], 8, r"manifest row 3 \(b\): `phash` must be 64 hexadecimal digits"),
        (["0" * 64, "x" * 64], 8, r"manifest row 3 \(b\): `phash`"),
        (["", ""], 8, r"manifest row 2 \(a\): `phash`"),
    ],
)
def test_duplicates_refuses_bad_hashes(phash, distance, message):
    """Hashes too short for the distance, of two lengths or malformed are errors, not other results."""
    images = table([("a", "1", ""), ("b", "2", "")], phash=phash)
    with pytest.raises(ValueError, match=message):
        splits.duplicates(images, distance)


def test_duplicates_needs_a_prepared_manifest():
    """Without hashes the error says what is missing."""
    with pytest.raises(DataError, match="column `phash` is missing"):
        splits.duplicates(table([("a", "1", "")]).drop(columns="phash"))


def test_groups_follow_every_tie():
    """Patient, URL, duplicate and original tie, also through one another; unknown patients, no URL do not."""
    patients = [
        "1",
        "1",
        "2",
        "3",
        "unknown:e",
        "unknown:e",
        "unknown:f",
        "unknown:g",
        "unknown",
        "unknown",
        "5",
        "6",
    ]
    names = ["a", "b", "c", "d", "e", "e#1", "f", "g", "h", "i", "j", "k"]
    images = table(
        [(name, patient, "") for name, patient in zip(names, patients, strict=True)],
        url=["", "x.org/1", "x.org/1?lang=us", *[""] * 7, "x.org/2", "x.org/2"],
        parent_id=["e" if name == "e#1" else "" for name in names],
        source=[COVID] * 10 + ["ChestX-ray14"] * 2,
    )
    pairs = pd.DataFrame({"image_id_a": ["c"], "image_id_b": ["d"]})
    assert "".join(name[0] for name in splits.groups(images, pairs)) == "aaaaeefghijk"
    shuffled = images.sample(frac=1, random_state=1)
    pd.testing.assert_series_equal(splits.groups(shuffled, pairs).sort_index(), splits.groups(images, pairs))


def test_groups_refuses_pairs_of_another_table():
    """Pairs that name images the table lacks are stale, and said to be."""
    pairs = pd.DataFrame({"image_id_a": ["a"], "image_id_b": ["gone"]})
    with pytest.raises(DataError, match="find them again"):
        splits.groups(table([("a", "1", "")]), pairs)


@pytest.mark.parametrize("seed", range(3))
def test_split_meets_its_shares_without_dividing_a_patient(seed):
    """Each label of each source is divided 27 : 3 : 30 % to within two images, and no patient is divided."""
    result = splits.split(many(), no_pairs().iloc[:0], test=0.3, val=0.1, seed=seed)
    assert result.groupby("patient_id")["split"].nunique().max() == 1
    for _, rows in result.groupby(["label", "source"]):
        shares = rows["split"].value_counts()
        assert abs(shares["test"] - 0.3 * len(rows)) <= 2
        assert abs(shares["val"] - 0.07 * len(rows)) <= 2
    assert splits.check(result, no_pairs().iloc[:0]).empty


def test_split_depends_on_the_seed_and_not_on_the_order_of_rows():
    """One seed gives one split for any row order, another seed another."""
    images = many()
    first = splits.split(images, no_pairs(), seed=1)["split"]
    shuffled = splits.split(images.sample(frac=1, random_state=0), no_pairs(), seed=1)["split"]
    pd.testing.assert_series_equal(shuffled.sort_index(), first)
    assert (splits.split(images, no_pairs(), seed=2)["split"] != first).any()


def test_split_keeps_duplicates_of_two_patients_together():
    """Two patients who share an image land in one split, whatever the seed."""
    images = many()
    pairs = pd.DataFrame({"image_id_a": ["000-0"], "image_id_b": ["003-0"], "kind": "near", "distance": 3})
    for seed in range(10):
        result = splits.split(images, pairs, seed=seed).set_index("image_id")["split"]
        assert result["000-0"] == result["003-0"]


def test_split_puts_a_group_that_fits_nowhere_else_in_train():
    """A URL with 6 of 10 images cannot be 30 % of them, so it is train, and the shares are still met."""
    images = table([(f"{i}", f"{i}", "") for i in range(10)], url=["x.org"] * 6 + [""] * 4)
    result = splits.split(images, no_pairs(), test=0.3, val=0.1)
    assert set(result["split"][:6]) == {"train"}
    assert result["split"].value_counts().to_dict() == {"train": 6, "test": 3, "val": 1}


def test_split_gives_a_rare_label_to_every_split():
    """Three patients of a label are one each, though 30 % and 10 % of three would round to less."""
    rare = table([(f"r{i}", f"r{i}", "") for i in range(3)], label="non-COVID")
    common = table([(f"c{i}", f"c{i}", "") for i in range(50)])
    result = splits.split(pd.concat([rare, common], ignore_index=True), no_pairs())
    assert sorted(result["split"][:3]) == ["test", "train", "val"]


def test_split_comes_as_near_to_a_share_as_whole_groups_allow():
    """30 % of 9 images is 3, not the 2 that stay within 2.7."""
    images = table([(f"{i}", f"{i}", "") for i in range(9)])
    assert (splits.split(images, no_pairs(), test=0.3, val=0)["split"] == "test").sum() == 3


def test_split_tells_when_a_label_cannot_be_everywhere():
    """Two patients cannot be in three splits: the error gives the label and the counts."""
    rare = table([(f"r{i}", f"r{i // 2}", "") for i in range(4)], label="non-COVID")
    images = pd.concat([rare, table([(f"c{i}", f"c{i}", "") for i in range(50)])], ignore_index=True)
    message = r"'non-COVID' has no image in val: its 4 images are 2 group\(s\) .* test COVID-19 15"
    with pytest.raises(DataError, match=message):
        splits.split(images, no_pairs())
    assert set(splits.split(images, no_pairs(), val=0)["split"]) == {"train", "test"}


def test_split_keeps_augmented_images_in_train_or_out():
    """A copy follows its original in train, is in no split elsewhere, and counts for no share."""
    images = table([(f"{i:02}", f"{i}", "") for i in range(20)])
    many = pd.concat(
        [images[:6].assign(suffix=f"#aug{k}") for k in range(9)] + [images.assign(suffix="#aug9")]
    )
    copies = many.assign(parent_id=many["image_id"], image_id=many["image_id"] + many["suffix"])
    alone = splits.split(images, no_pairs())["split"]
    both = splits.split(pd.concat([images, copies], ignore_index=True), no_pairs())["split"]
    assert both[:20].tolist() == alone.tolist()
    kept = dict(zip(images["image_id"], alone, strict=True))
    assert both[20:].tolist() == [
        kept[name].replace("test", "").replace("val", "") for name in copies["parent_id"]
    ]


@pytest.mark.parametrize("name", ["test", "val"])
@pytest.mark.parametrize("share", [-0.1, 1.0, float("nan")])
def test_split_refuses_shares_out_of_range(name, share):
    """A share is at least 0 and below 1; the message gives the argument and the value."""
    with pytest.raises(ValueError, match=rf"`{name}` must be in \[0, 1\)\. Received: {share}"):
        splits.split(many(), no_pairs(), **{name: share})


def published():
    """Published split of 43 patients: patient 0, URL x.org/1 and one picture of two patients are in both."""
    rows = [(f"a{i:02}", f"{i}", "train") for i in range(40)] + [
        (f"t{i}", f"{i}", "test") for i in (0, 41, 42, 43)
    ]
    images = table(rows)
    images.loc[[1, 41], "url"] = "https://x.org/1"
    copies = images.iloc[:3].assign(parent_id=["a00", "a01", "a02"], image_id=["a00#1", "a01#1", "a02#1"])
    images = pd.concat([images, copies], ignore_index=True)
    images.loc[images["image_id"].isin(["a02", "t42"]), "phash"] = "3c" * 32
    return images


OVERLAPS = [
    ["patient", f"{COVID}:0", "a00", "train", "t0", "test"],
    ["url", "https://x.org/1", "a01", "train", "t41", "test"],
    ["near", "0 bits", "a02", "train", "t42", "test"],
]


def test_check_reports_a_published_splits_overlaps():
    """Each overlap of a published split is one row that names train first, and nothing is repaired."""
    images = published()
    report = splits.check(images, splits.duplicates(images), published=True)
    assert report.to_numpy().tolist() == OVERLAPS
    backwards = images.assign(image_id=images["image_id"].str.replace("t42", "A42"))
    report = splits.check(backwards, splits.duplicates(backwards), published=True)
    assert report.iloc[2].tolist() == [*OVERLAPS[2][:4], "A42", "test"]


@pytest.mark.parametrize("overlap", OVERLAPS, ids=["patient", "url", "near"])
def test_check_refuses_an_overlap_by_name(overlap):
    """In a split of ours each kind of overlap alone is an error with both images and their splits."""
    kind, value, first, _, second, _ = overlap
    images = published()
    keep = images["image_id"].isin([first, second]) | images["image_id"].between("a10", "a20")
    images = images[keep].reset_index(drop=True)
    with pytest.raises(DataError, match=rf"\({kind} {value}\): {first} is in train and {second} in test"):
        splits.check(images, splits.duplicates(images))


def test_check_lets_unknown_patients_and_unused_rows_be():
    """Blank patients are not one person, and rows without a split leak nothing."""
    rows = [("a", "unknown:a", "train"), ("b", "unknown:b", "test"), ("c", "9", "val"), ("d", "9", "")]
    assert splits.check(table(rows), no_pairs()).empty


def test_strict_takes_overlaps_out_of_train_only():
    """The strict variant unsplits the train rows and their copies, says why, and has no overlap left."""
    images = published()
    pairs = splits.duplicates(images)
    result, dropped = splits.strict(images, splits.check(images, pairs, published=True))
    assert dropped["image_id"].tolist() == ["a00", "a01", "a02", "a00#1", "a01#1", "a02#1"]
    assert dropped["reason"].tolist() == ["patient", "url", "near"] * 2
    assert set(result.loc[dropped.index, "split"]) == {""}
    others = ~result["image_id"].isin(dropped["image_id"])
    pd.testing.assert_frame_equal(result[others], images[others])
    assert splits.check(result, pairs).empty


def test_strict_refuses_to_empty_a_class():
    """If every train image of a label overlaps, there is no strict variant."""
    images = table([("a", "1", "train"), ("b", "1", "test")])
    with pytest.raises(DataError, match="'COVID-19' has no image in train"):
        splits.strict(images, splits.check(images, no_pairs(), published=True))


def test_add_val_takes_a_tenth_that_overlaps_with_nothing():
    """4 of 40 train images become val, none of them tied to test; test stays, copies of val are unused."""
    images = published()
    pairs = splits.duplicates(images)
    for seed in range(20):
        result = splits.add_val(images, pairs, seed=seed)
        val = result["split"] == "val"
        assert val.sum() == 4
        assert not result[val]["image_id"].isin(["a00", "a01", "a02"]).any()
        assert set(images[val]["split"]) == {"train"}
        assert splits.check(result, pairs, published=True).to_numpy().tolist() == OVERLAPS
    copies = images.assign(parent_id=images["image_id"], image_id=images["image_id"] + "#2")[:40]
    result = splits.add_val(pd.concat([images, copies], ignore_index=True), pairs)
    split = result.set_index("image_id")["split"]
    assert "val" in set(split)
    assert [split[f"a{i:02}#2"] for i in range(40)] == [
        split[f"a{i:02}"].replace("val", "") for i in range(40)
    ]


def test_add_val_leaves_unused_rows_unused():
    """A row without split stays so, even if its patient moves to val."""
    images = table([(f"{i}", f"{i // 2}", "" if i % 2 else "train") for i in range(20)])
    result = splits.add_val(images, no_pairs(), fraction=0.5)["split"]
    assert result[::2].value_counts().to_dict() == {"train": 5, "val": 5}
    assert set(result[1::2]) == {""}


@pytest.mark.parametrize("change", [{"train": "val"}, {"train": "test"}])
def test_add_val_needs_train_and_no_val(change):
    """A table that has a val, or nothing to take it from, is refused with its counts."""
    images = table([("a", "1", "train"), ("b", "2", "test")])
    with pytest.raises(DataError, match="train and without val was wanted"):
        splits.add_val(images.replace({"split": change}), no_pairs())


def unbalanced(positive=10, negative=25):
    """Train rows of both labels, and two rows each of test and of no split."""
    images = table([(f"{i:02}", str(i), "train") for i in range(positive + negative + 4)])
    images.loc[positive : positive + negative + 1, "label"] = "non-COVID"
    images.loc[positive + negative :, "split"] = ["test", "test", "", ""]
    return images


@pytest.mark.parametrize(
    ("how", "ratio", "shown"),
    [
        ("oversample", 1.0, (25, 25)),
        ("oversample", 0.5, (13, 25)),
        ("oversample", 1 / 3, (10, 30)),
        ("oversample", 0.4, (10, 25)),
        ("undersample", 1.0, (10, 10)),
        ("undersample", 0.5, (10, 20)),
        ("undersample", 1 / 3, (8, 25)),
        ("undersample", 2.0, (10, 5)),
        ("none", 1.0, (10, 25)),
    ],
)
def test_balance_reaches_the_ratio(how, ratio, shown):
    """Both classes are shown in the ratio to the nearest integer, spread evenly over their rows."""
    result = splits.balance(unbalanced(), how, ratio)
    train = result[result["split"] == "train"]
    assert tuple(train.groupby("label")["copies"].sum()) == shown
    assert (train.groupby("label")["copies"].agg(np.ptp) <= 1).all()
    assert train["copies"].max() == 1 or how == "oversample"
    assert result[result["split"] == "test"]["copies"].tolist() == [1, 1]
    assert result[result["split"] == ""]["copies"].tolist() == [0, 0]


@pytest.mark.parametrize(
    ("ratio", "shown"),
    [
        # 25 negatives stay 25, of which each of two sources has half; 10 positives become 25 of one source.
        (1.0, {("COVID-19", "x"): 25, ("non-COVID", "x"): 13, ("non-COVID", "y"): 12}),
        # 10 positives are enough, so negatives become 30, of which x has 5 rows and y 20.
        (1 / 3, {("COVID-19", "x"): 10, ("non-COVID", "x"): 15, ("non-COVID", "y"): 15}),
    ],
)
def test_balance_by_source_shows_the_sources_of_a_class_equally(ratio, shown):
    """A source with few images of a class is repeated, one with many thinned, totals are oversampling's."""
    images = unbalanced().assign(source="x")
    images.loc[15:34, "source"] = "y"
    train = splits.balance(images, "source", ratio)
    train = train[train["split"] == "train"]
    assert train.groupby(["label", "source"])["copies"].sum().to_dict() == shown
    assert (train.groupby(["label", "source"])["copies"].agg(np.ptp) <= 1).all()


@pytest.mark.parametrize("how", ["oversample", "undersample", "source"])
def test_balance_is_drawn_by_seed(how):
    """The rows that are shown once more or left out depend on the seed, not on the order of rows."""
    images = unbalanced()
    draws = [splits.balance(images, how, 0.9, seed=seed)["copies"] for seed in (0, 0, 1)]
    assert draws[0].equals(draws[1])
    assert not draws[0].equals(draws[2])
    shuffled = splits.balance(images.sample(frac=1, random_state=0), how, 0.9)["copies"]
    assert shuffled.sort_index().equals(draws[0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"how": "smote"}, "`how` must be one of .*'oversample'"),
        ({"ratio": 0.0}, r"`ratio` must be above 0\. Received: 0\.0"),
        ({"ratio": float("nan")}, "`ratio` must be above 0"),
        ({"label": "pneumonia"}, "train must hold both classes"),
        ({"how": "undersample", "ratio": 1e-9}, "leaves no row of one class"),
    ],
)
def test_balance_refuses(arguments, message):
    """Wrong arguments, an absent class and a ratio that empties one are errors."""
    with pytest.raises(ValueError, match=message):
        splits.balance(unbalanced(), **arguments)


def prepared_like(image):
    """Short side to 224 and centre crop, grey."""
    scale = 224 / min(image.size)
    image = image.convert("L").resize([round(side * scale) for side in image.size], Image.Resampling.BILINEAR)
    left, top = ((side - 224) // 2 for side in image.size)
    return image.crop((left, top, left + 224, top + 224))


@pytest.fixture(scope="module")
def real(real_data):
    """Sample of both sources with hashes, and the pictures of covid-chestxray-dataset by image_id."""
    parts = [(sources.read_covid_chestxray, COVID), (sources.read_chestxray14, "ChestX-ray14")]
    images = pd.concat([read(real_data / name)[0] for read, name in parts], ignore_index=True)
    files = [real_data / source / path for source, path in zip(images["source"], images["path"], strict=True)]
    pictures = {
        name: prepared_like(Image.open(file)) for name, file in zip(images["image_id"], files, strict=True)
    }
    images["sha256"] = [sha256(file) for file in files]
    images["phash"] = [str(imagehash.phash(pictures[name], hash_size=16)) for name in images["image_id"]]
    return images, pictures


def test_real_x_rays_have_no_false_duplicates_and_copies_are_found(real):
    """Of 813 real X-rays none is taken for another, but brighter, half-size copies of 59 are found."""
    images, pictures = real
    assert splits.duplicates(images).empty
    some = images[::14].reset_index(drop=True)
    copies = []
    for name in some["image_id"]:
        small = ImageEnhance.Brightness(pictures[name].resize((112, 112))).enhance(1.1).resize((224, 224))
        copies.append(str(imagehash.phash(small, hash_size=16)))
    both = pd.concat([images, some.assign(image_id=some["image_id"] + "-copy", phash=copies, sha256="")])
    pairs = splits.duplicates(both)
    assert (pairs["image_id_a"] + "-copy" == pairs["image_id_b"]).all()
    assert len(pairs) >= 0.95 * len(some)


def test_real_sample_is_split_as_asked(real):
    """Every label of every source is 30 % test and 7 % val to within an image, with no overlap."""
    images, _ = real
    pairs = splits.duplicates(images)
    result = splits.split(images, pairs, seed=0)
    for _, rows in result.groupby(["label", "source"]):
        assert abs((rows["split"] == "test").sum() - 0.3 * len(rows)) <= 1
        assert abs((rows["split"] == "val").sum() - 0.07 * len(rows)) <= 1
    assert splits.check(result, pairs).empty


def test_published_v3_has_no_patient_in_both_splits():
    """By patient id the published list does not overlap, and its four blank patients are not one person."""
    path = resources.files("covidtf.published") / "covid_xray_5k_v3.csv"
    images = pd.read_csv(path, dtype=str, keep_default_na=False)
    images["image_id"] = images["source"] + "/" + images["path"]
    unknown = images["patient_id"] == ""
    assert unknown.sum() == 4
    own = images["source"] + ":" + images["patient_id"]
    images["patient_id"] = own.mask(unknown, images["source"] + ":unknown:" + images["path"])
    images = images.assign(parent_id="", url="")
    assert splits.check(images, no_pairs()).empty
    result = splits.add_val(images, no_pairs())
    counts = result.groupby(["label", "split"]).size()
    assert counts["COVID-19"].to_dict() == {"test": 100, "train": 76, "val": 8}
    assert counts["non-COVID"].to_dict() == {"test": 3000, "train": 1800, "val": 200}
