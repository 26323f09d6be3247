"""The audit on trial: planted shortcuts are found, clean phantoms are not accused, and rates are counted."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt

from covidtf import report
from covidtf.audit import probe, trial, trials
from covidtf.audit.checks import CHECKS
from covidtf.config import TrialConfig
from covidtf.figures import trial as figure
from covidtf.metrics.baselines import _thumbnail
from covidtf.phantom import planted


def thumbnails(images: np.ndarray) -> np.ndarray:
    """Features without a network: means of 16 x 16 areas."""
    return _thumbnail(images[..., 0].astype(float) / 255)


@pytest.fixture(scope="module")
def clean() -> planted.Set:
    """A hundred small phantoms, 40 of them test."""
    return trial.draw(seed=0, patients=100, size=64)


@pytest.fixture(scope="module")
def verdicts(clean):
    """Rows of three conditions; lungs are a box, because to find them takes longer than all else."""
    box = np.zeros((64, 64), bool)
    box[16:48, 14:50] = True
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trial, "lung_mask", lambda image: box)
        trial._lung.cache_clear()
        tables = [
            trial.trial(clean, name, 0, thumbnails, draws=200, shuffles=3)
            for name in ("clean", "border", "duplicate patients")
        ]
        trial._lung.cache_clear()
    return pd.concat(tables, ignore_index=True)


def test_split_is_by_patient_and_holds_both_labels(clean):
    """40 % of each label are test."""
    counts = pd.crosstab(clean.manifest["split"], clean.manifest["label"])
    assert counts.loc["test"].tolist() == [20, 20] and counts.loc["train"].tolist() == [30, 30]


def test_every_check_has_a_verdict(verdicts):
    """None is left out, and what cannot be told says why."""
    for _, rows in verdicts.groupby("condition"):
        assert set(rows["check"]) == set(CHECKS)
    untold = verdicts[verdicts["verdict"] == "cannot be told"]
    assert (untold["reason"] != "").all()


def test_planted_shortcuts_fail_the_checks_that_were_named(verdicts):
    """A border fails the border strip, duplicates the leak check alone, and clean phantoms neither."""
    found = verdicts.set_index(["condition", "check"])["verdict"]
    assert found["border", "border strip"] == "failed"
    assert found["border", "border only, retrained"] == "failed"
    assert found["border", "near duplicate"] == "passed"
    assert found["duplicate patients", "near duplicate"] == "failed"
    assert found["duplicate patients", "patient"] == "passed"
    for check in ("near duplicate", "border strip", "border only, retrained"):
        assert found["clean", check] != "failed"
    copied = verdicts[
        (verdicts["condition"] == "duplicate patients") & (verdicts["check"] == "near duplicate")
    ]
    assert copied["value"].tolist() == [4]


def test_expected_checks_exist_and_every_condition_has_its_own():
    """The names are those of the audit and of the phantoms."""
    assert list(trials.EXPECTED) == list(planted.CONDITIONS)
    assert {check for checks in trials.EXPECTED.values() for check in checks} <= set(CHECKS)
    assert trials.expected()["expected"].iloc[0] == "none"


def test_changed_images_are_scored_by_the_probe_of_whole_ones(clean):
    """In one go or each version alone, with the unchanged features of train: the same scores."""
    table, whole = clean.manifest, thumbnails(clean.images)
    test = (table["split"] == "test").to_numpy()
    rng = np.random.default_rng(0)
    changed = {name: whole[test] + rng.normal(0, 0.1, whole[test].shape) for name in ("one", "other")}
    found = trial._of_network(whole, table, changed)
    for name, values in changed.items():
        replaced = whole.copy()
        replaced[test] = values
        alone = probe.scores(replaced, table)
        assert found[name]["image_id"].tolist() == table.loc[test, "image_id"].tolist()
        np.testing.assert_allclose(found[name]["score_COVID-19"], alone["score_COVID-19"], atol=1e-12)


def test_features_of_an_image_are_computed_once(monkeypatch, tmp_path):
    """Images seen before, or twice in a call, are not sent to the backbone again, and order is kept."""
    sent = []

    def features(images, folder, network, weights):
        sent.append(len(images))
        return images[:, 0, 0, :1].astype(np.float32)

    monkeypatch.setattr(probe, "features", features)
    images = np.arange(5, dtype=np.uint8)[:, None, None, None] * np.ones((1, 4, 4, 1), np.uint8)
    known = trial.remembered(tmp_path)
    assert known(images[[3, 1, 3]]).ravel().tolist() == [3, 1, 3]
    assert known(images[[1, 4, 0]]).ravel().tolist() == [1, 4, 0]
    assert sent == [2, 2]


def made_up(verdicts: dict[tuple[int, str, str], str]) -> pd.DataFrame:
    """Rows from (seed, condition, check) to verdict."""
    rows = [dict(zip(("seed", "condition", "check"), key, strict=True)) for key in verdicts]
    return pd.DataFrame(rows).assign(verdict=list(verdicts.values()))


def test_rates_are_counted_by_seed():
    """By hand: of four seeds a border is found in three, by two checks; once a clean set is accused."""
    of_border = {"border strip": "ffpu", "border only, retrained": "fpfu", "mean and std": "pppf"}
    of_clean = {"border strip": "pppp", "mean and std": "fupp"}
    words = {"f": "failed", "p": "passed", "u": "cannot be told"}
    rows = {
        (seed, condition, check): words[letter]
        for condition, checks in (("border", of_border), ("clean", of_clean))
        for check, letters in checks.items()
        for seed, letter in enumerate(letters)
    }
    rates = trials.rates(made_up(rows)).set_index(["condition", "check"])
    assert rates.columns.tolist() == list(trials.RATES[2:])
    counts = rates[["seeds", "passed", "failed", "untold"]]
    assert counts.loc["border", "border strip"].tolist() == [4, 1, 2, 1]
    assert counts.loc["border", trials.EXPECTED_ONES].tolist() == [4, 0, 3, 1]
    assert counts.loc["border", trials.ANY].tolist() == [4, 0, 4, 0]
    assert counts.loc["clean", "mean and std"].tolist() == [4, 2, 1, 1]
    assert counts.loc["clean", trials.ANY].tolist() == [4, 3, 1, 0]
    assert ("clean", trials.EXPECTED_ONES) not in rates.index
    assert rates["expected"].sum() == 3
    # Clopper-Pearson of 3 in 4, from tables.
    limits = rates.loc[("border", trials.EXPECTED_ONES), ["low", "high"]].to_numpy(float)
    np.testing.assert_allclose(limits, [0.1941, 0.9937], atol=1e-4)
    order = [check for condition, check in rates.index if condition == "border"]
    assert order[0] == "mean and std" and order[-2:] == [trials.EXPECTED_ONES, trials.ANY]
    found = report.detected(rates.reset_index())
    assert found.to_numpy().tolist() == [
        ["border", "border strip; border only, retrained", 4, 3, "0.75 (0.19 to 0.99)"]
    ]
    alarms = report.false_alarms(rates.reset_index()).set_index("Check")
    assert alarms.index.tolist() == ["mean and std", "border strip", trials.ANY]
    assert alarms.loc["mean and std"].tolist() == [1, 2, 1, "0.25 (0.01 to 0.81)"]
    assert alarms.loc[trials.ANY, "Passed"] == ""


def test_parts_of_a_check_fail_together():
    """Of two rows of one check one that failed is enough; both must pass."""
    rows = made_up({(0, "clean", "within source"): "passed", (1, "clean", "within source"): "passed"})
    others = rows.assign(verdict=["failed", "cannot be told"])
    rate = trials.rates(pd.concat([rows, others])).iloc[0]
    assert (rate["passed"], rate["failed"], rate["untold"]) == (0, 1, 1)


def test_finished_trials_are_not_done_again(monkeypatch, tmp_path):
    """A second call adds what is missing; another design begins anew; phantoms are drawn once a seed."""
    drawn, tried = [], []

    def one(clean, condition, seed, features, **options):
        tried.append((seed, condition))
        row = {"seed": seed, "condition": condition, "check": "border strip", "value": np.nan}
        return pd.DataFrame([row | {"verdict": "passed", "reason": ""}])

    monkeypatch.setattr(trial, "draw", lambda seed, *rest: drawn.append(seed))
    monkeypatch.setattr(trial, "trial", one)
    design = trials.Design(patients=24)
    trials.run(tmp_path, [0], ["border"], design)
    rows = trials.run(tmp_path, [0, 1], ["clean", "border"], design)
    assert tried == [(0, "border"), (0, "clean"), (1, "clean"), (1, "border")] and drawn == [0, 0, 1]
    assert list(zip(rows["seed"], rows["condition"], strict=True)) == [
        *[(0, "clean"), (0, "border")],
        *[(1, "clean"), (1, "border")],
    ]
    assert len(trials.run(tmp_path, [1], ["border"], design)) == 1 and len(tried) == 4
    trials.run(tmp_path, [0], ["border"], replace(design, draws=200))
    assert len(tried) == 5 and len(pd.read_csv(tmp_path / "trial.csv")) == 1


def test_unknown_conditions_are_refused(tmp_path):
    """Before anything is drawn or written."""
    with pytest.raises(ValueError, match=r"`conditions` must be some of .* Received: \['glare'\]"):
        trials.run(tmp_path, [0], ["clean", "glare"], trials.Design())
    assert not list(tmp_path.iterdir())


def test_design_of_the_notebook_is_that_of_the_module():
    """Settings and `Design` have the same defaults."""
    config, design = TrialConfig(), trials.Design()
    same = ("patients", "size", "network", "weights", "draws")
    assert [getattr(config, name) for name in same] == [getattr(design, name) for name in same]
    assert (config.of_covid, config.of_others) == design.strength


def test_figure_shows_the_share_of_each_cell(verdicts):
    """A number per cell, a dash where no seed could tell, a frame around what was expected."""
    rates = trials.rates(verdicts)
    shown, ax = plt.subplots()
    figure.failures(ax, rates)
    texts = [text.get_text() for text in ax.texts]
    assert len(texts) == len(rates) and len(ax.patches) == rates["expected"].sum()
    assert texts.count("–") == (rates["untold"] == rates["seeds"]).sum()
    assert texts.count("1.00") == (rates["share_failed"] == 1).sum()
    assert [label.get_text() for label in ax.get_yticklabels()][-1] == trials.ANY
    plt.close(shown)
