"""Sources told apart, left out and looked into, on made-up features and scores."""

import numpy as np
import pandas as pd

from covidtf import manifest
from covidtf.audit import sources
from covidtf.duplicates import URL_SOURCE
from tests.makers import predictions

OPTIONS = {"positive": "COVID-19", "draws": 200, "seed": 0}


def data(n: int = 400, **columns) -> pd.DataFrame:
    """A manifest of two sources and two labels in all combinations, half of it train, the rest test."""
    index = np.arange(n)
    rows = pd.DataFrame(
        {
            "path": [f"{i}.png" for i in index],
            "label": np.where(index % 2 == 0, "COVID-19", "non-COVID"),
            "source": np.where(index // 2 % 2 == 0, "a", "b"),
            "patient_id": [f"p:{i}" for i in index],
            "view": "PA",
            "split": np.where(index // 4 % 2 == 0, "train", "test"),
        }
    )
    return manifest.make(rows.assign(**columns), "made")


def features(*told: np.ndarray, noise: float = 1.0) -> np.ndarray:
    """A column per thing that an image tells, with noise, and one that tells nothing."""
    rng = np.random.default_rng(0)
    columns = [np.asarray(one, float) for one in told] + [np.zeros(len(told[0]))]
    return np.stack(columns, axis=1) + rng.normal(0, noise, (len(told[0]), len(columns)))


def test_sources_that_look_different_are_told_apart():
    """A feature of the source fails the check in both labels, one of the label does not."""
    table = data()
    seen = sources.told_apart(features(3.0 * (table["source"] == "a")), table, 200)
    assert [row["verdict"] for row in seen] == ["failed", "failed"]
    assert seen[0]["part"] == "COVID-19: a against b"
    alike = sources.told_apart(features(3.0 * (table["label"] == "COVID-19")), table, 200)
    assert all(row["verdict"] != "failed" and row["value"] < 0.62 for row in alike)


def test_one_source_of_a_label_cannot_be_told():
    """Nothing to tell apart is said, with the label."""
    table = data()
    table.loc[table["label"] == "COVID-19", "source"] = "a"
    rows = sources.told_apart(features(table["source"] == "a"), table, 50)
    assert [row["verdict"] for row in rows[:1]] == ["cannot be told"]
    assert rows[0]["reason"] == "train and test share 1 source of COVID-19"


def test_label_is_told_in_a_source_that_was_left_out_where_it_is_the_same_there():
    """The same sign in both sources carries over; one that is turned round gives less than 0.5."""
    table = data()
    sick, side = (table["label"] == "COVID-19").to_numpy(), np.where(table["source"] == "a", 1, -1)
    row, scored = sources.left_out(features(2.0 * sick), table, **OPTIONS)
    assert row["verdict"] == "passed" and row["value"] > 0.85
    assert set(scored["place"]) == {"a", "b"} and len(scored) == len(table)
    row, _ = sources.left_out(features(2.0 * sick * side), table, **OPTIONS)
    assert row["verdict"] == "failed" and row["value"] < 0.2


def test_what_is_left_out_takes_its_patients_along():
    """Train never holds an image of a patient who is judged."""
    table = data(80)
    table.loc[table["patient_id"] == "p:2", "patient_id"] = "p:0"
    seen = []

    def scores(values, rows, labels):
        seen.append(rows)
        rows = rows[rows["split"] == "test"].reset_index(drop=True)
        keys = ["image_id", "patient_id", "case_id", "source", "view", "finding", "split"]
        made = predictions(np.full(len(rows), 0.5), rows["label"] == "COVID-19")
        return made.assign(**{key: rows[key] for key in keys})

    sources.left_out(np.zeros((80, 1)), table, scores=scores, **OPTIONS)
    for rows in seen:
        parts = rows.groupby("split")["patient_id"].agg(set)
        assert not parts["train"] & parts["test"]
    assert len(seen) == 2


def test_sites_take_the_place_of_sources_with_one_label():
    """Where only one source has both labels its sites are left out; those with one label have no pairs."""
    index = np.arange(240)
    hosts = np.array(["https://a.org/", "https://www.b.org/x/", "https://c.org/"])[index // 2 % 3]
    urls = [f"{host}{i}" for host, i in zip(hosts, index, strict=True)]
    table = data(240, source=URL_SOURCE, url=urls)
    table = table[(table["label"] == "COVID-19") | ~table["url"].str.contains("c.org")].reset_index(drop=True)
    others = data(100, source="other", label="non-COVID", path=[f"o{i}.png" for i in range(100)])
    others["patient_id"] = "o" + others["patient_id"]
    table = pd.concat([table, others], ignore_index=True)
    assert set(sources.sites(table)) == {"a.org", "b.org", "c.org", ""}
    row, scored = sources.left_out(features(2.0 * (table["label"] == "COVID-19")), table, **OPTIONS)
    assert set(scored["place"]) == {"a.org", "b.org"}
    assert row["verdict"] == "passed" and row["part"] == "by site"
    assert "2 sites with both labels: a.org (80), b.org (80)" in row["reason"]


def test_one_source_without_sites_cannot_be_left_out():
    """What there is nothing to leave out of cannot be told."""
    row, scored = sources.left_out(np.zeros((40, 2)), data(40, source="a"), **OPTIONS)
    assert row["verdict"] == "cannot be told" and scored.empty


def test_network_that_reads_the_source_falls_within_it():
    """All COVID-19 from a, most others from b: the score tells a from b, and within a nothing."""
    rng = np.random.default_rng(0)
    sick, source = np.arange(300) < 100, np.where(np.arange(300) < 150, "a", "b")
    score = np.where(source == "a", 0.8, 0.2) + rng.uniform(-0.1, 0.1, 300)
    rows = sources.of_networks({"net": predictions(score, sick, source=source)}, {"a", "b"}, **OPTIONS)
    found = {row["check"]: row for row in rows}
    assert found["fall within source"]["verdict"] == "failed"
    assert found["within source"]["verdict"] != "passed" and found["within source"]["part"] == "a"
    assert found["external source"]["verdict"] == "cannot be told"
    assert found["fall within source"]["n"] == 150


def test_source_that_train_lacks_is_an_external_test():
    """Both sources are told well, and one is new."""
    rng = np.random.default_rng(0)
    sick, source = np.arange(200) % 2 == 0, np.where(np.arange(200) < 100, "a", "b")
    score = np.where(sick, 0.6, 0.4) + rng.uniform(-0.15, 0.15, 200)
    rows = sources.of_networks({"net": predictions(score, sick, source=source)}, {"a"}, **OPTIONS)
    (external,) = (row for row in rows if row["check"] == "external source")
    assert (external["part"], external["verdict"]) == ("b", "passed")
    assert [row["verdict"] for row in rows if row["check"] == "fall within source"] == ["passed", "passed"]


def test_one_source_cannot_be_looked_into():
    """A perfect score over the only source says nothing about the source, unless train lacks it."""
    sick = np.arange(200) % 2 == 0
    table = predictions(np.where(sick, 0.9, 0.1), sick, source="a")
    rows = {row["check"]: row for row in sources.of_networks({"net": table}, {"a"}, **OPTIONS)}
    inner = rows["within source"]
    assert (inner["verdict"], inner["subject"], inner["part"]) == ("cannot be told", "net", "a")
    assert inner["reason"] == "all images are of this source" and np.isnan(inner["value"])
    assert rows["fall within source"]["verdict"] == "cannot be told"
    new = {row["check"]: row for row in sources.of_networks({"net": table}, {"b"}, **OPTIONS)}
    assert (new["external source"]["verdict"], new["external source"]["n"]) == ("passed", 200)


def test_val_is_judged_where_there_is_no_test():
    """As for CT data sets whose test is not at hand."""
    table = data()
    assert sources.judged_split(table) == "test"
    assert sources.judged_split(table.assign(split=table["split"].replace("test", "val"))) == "val"
