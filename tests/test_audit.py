"""The audit's rule, its leaks and its verdicts on scores, on numbers worked by hand."""

from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from covidtf import experiments, manifest, metrics
from covidtf.__main__ import main
from covidtf.audit import areas, checks, inputs, leaks, networks
from covidtf.config import ROOT, AuditConfig
from covidtf.figures import audit as figures
from covidtf.files import DataError
from covidtf.metrics.baselines import BASELINES
from tests.makers import predictions

OPTIONS = {"positive": "COVID-19", "draws": 200, "seed": 0}
SIDE, GAIN, LEAK, HOLDS = (
    checks.CHECKS[name]
    for name in ("mean and std", "gain over the best baseline", "patient", "labels shuffled")
)


def number(value, low=None, high=None) -> dict:
    """A metric with an interval, or without one."""
    limits = None if low is None else [low, high]
    return {"value": value, "ci95": limits, "method": "no interval", "n": 10, "patients": 5}


@pytest.mark.parametrize(
    ("check", "metric", "verdict"),
    [
        (SIDE, number(0.5, 0.4, 0.64), "passed"),
        (SIDE, number(0.6, 0.5, 0.65), "cannot be told"),
        (SIDE, number(0.9, 0.66, 0.95), "failed"),
        (SIDE, number(0.9), "cannot be told"),
        (GAIN, number(0.1, 0.01, 0.2), "passed"),
        (GAIN, number(0.1, -0.01, 0.2), "cannot be told"),
        (GAIN, number(-0.1, -0.2, -0.01), "failed"),
        (LEAK, number(0), "passed"),
        (LEAK, number(1), "failed"),
        (HOLDS, number(0.52, 0.49, 0.55), "passed"),
        (HOLDS, number(0.58, 0.551, 0.6), "failed"),
        (HOLDS, number(0.42, 0.4, 0.449), "failed"),
        (HOLDS, number(0.52, 0.501, 0.54), "cannot be told"),
        (HOLDS, number(0.48, 0.46, 0.499), "cannot be told"),
        (HOLDS, number(0.5, 0.3, 0.7), "cannot be told"),
        (HOLDS, number(0.5), "cannot be told"),
        (LEAK, None, "cannot be told"),
    ],
)
def test_verdict_follows_from_the_interval_and_the_threshold(check, metric, verdict):
    """Passed and failed need the whole interval on one side; the reason says why it cannot be told."""
    row = checks.judge(check, "data", metric, "" if metric else "nothing to tell it by")
    assert row["verdict"] == verdict
    assert bool(row["reason"]) == (verdict == "cannot be told")


def test_network_at_chance_passes_nothing():
    """What has no score cannot lose one; a failure stays a failure."""
    good, bad = number(0.0, -0.05, 0.05), number(0.3, 0.2, 0.4)
    chance, told = number(0.5, 0.4, 0.6), number(0.7, 0.6, 0.8)
    check = checks.CHECKS["robustness"]
    assert checks.judge(check, "a", good, base=chance)["verdict"] == "cannot be told"
    assert checks.judge(check, "a", good, base=told)["verdict"] == "passed"
    assert checks.judge(check, "a", bad, base=chance)["verdict"] == "failed"


def test_untold_without_a_reason_is_refused():
    """A verdict that nobody can follow is not given."""
    with pytest.raises(ValueError, match="must say why 'patient' cannot be told"):
        checks.judge(LEAK, "data", None)


def test_table_lists_checks_that_were_not_done_and_can_be_read_back(tmp_path):
    """No check is skipped silently, whatever was judged."""
    verdicts = checks.table([checks.judge(SIDE, "data", number(0.9, 0.8, 0.95))])
    assert list(verdicts["check"]) == list(checks.CHECKS)
    assert set(verdicts.loc[verdicts["check"] != SIDE.name, "reason"]) == {"not done"}
    assert (
        checks.words(verdicts)
        == f"{len(verdicts)} verdicts: 0 passed, 1 failed, {len(verdicts) - 1} cannot be told."
    )
    verdicts.to_csv(tmp_path / "checks.csv", index=False)
    pd.testing.assert_frame_equal(checks.read(tmp_path / "checks.csv"), verdicts, check_dtype=False)
    shown = checks.readable(verdicts).set_index("Check")
    assert shown.loc["mean and std", "Number (95 % CI)"] == "0.900 (0.800 to 0.950)"


def table(**columns) -> pd.DataFrame:
    """A manifest of six images of six patients, two per split, without any tie."""
    rows = pd.DataFrame(
        {
            "path": [f"{index}.png" for index in range(6)],
            "label": ["COVID-19", "non-COVID"] * 3,
            "source": "covid-chestxray-dataset",
            "patient_id": [f"p:{index}" for index in range(6)],
            "case_id": [f"c:{index}" for index in range(6)],
            "view": "PA",
            "split": ["train", "train", "val", "val", "test", "test"],
            "sha256": [f"{index:064x}" for index in range(6)],
            "url": [f"https://a.org/{index}" for index in range(6)],
            "phash": [f"{2**index - 1:064x}" + "" for index in (0, 50, 100, 150, 200, 250)],
        }
    )
    return manifest.make(rows.assign(**columns), "made")


@pytest.mark.parametrize(
    ("column", "check"),
    [("patient_id", "patient"), ("case_id", "case"), ("url", "source URL"), ("sha256", "exact duplicate")],
)
def test_each_tie_is_found_by_its_check_alone(column, check):
    """One value shared by a train and a val image is one leak of that kind and of no other."""
    tied = table()
    tied.loc[2, column] = tied.loc[0, column]
    rows = {row["check"]: row for row in leaks.rows(tied)}
    assert rows[check]["value"] == 1
    assert [name for name, row in rows.items() if row["verdict"] == "failed"] == [check]


def test_near_duplicate_of_a_copy_is_a_leak_of_its_twin():
    """An image of test that resembles one of val counts both, four bits apart."""
    near = table()
    near.loc[4, "phash"] = f"{2**100 - 1 - 15:064x}"
    rows = {row["check"]: row["value"] for row in leaks.rows(near)}
    assert rows["near duplicate"] == 2
    assert rows["exact duplicate"] == 0


def test_clean_split_passes_and_unknown_is_not_clean():
    """Nothing shared is a pass; nothing known cannot be told, and part of it is said."""
    clean = {row["check"]: row for row in leaks.rows(table())}
    assert {row["verdict"] for row in clean.values()} == {"passed", "cannot be told"}
    assert clean["augmented copy"]["verdict"] == "cannot be told"
    unknown = table(case_id="", sha256="", url="", patient_id=[f"p:unknown:{i}" for i in range(5)] + ["p:5"])
    rows = {row["check"]: row for row in leaks.rows(unknown.drop(columns="phash"))}
    assert rows["patient"]["verdict"] == "passed"
    assert rows["patient"]["reason"] == "3 could not be told"
    assert {row["verdict"] for name, row in rows.items() if name != "patient"} == {"cannot be told"}


def test_copy_outside_train_is_a_leak():
    """A copy in test, or in train with its original in val, counts; one beside its original does not."""
    copies = table().iloc[[0, 2, 5]].assign(split=["train", "train", "test"])
    copies = copies.assign(parent_id=copies["image_id"], image_id=["x", "y", "z"])
    (row,) = (
        row for row in leaks.rows(pd.concat([table(), copies], ignore_index=True)) if "copy" in row["check"]
    )
    assert (row["value"], row["n"], row["verdict"]) == (2, 3, "failed")


def test_pooled_auroc_counts_pairs_within_strata():
    """By hand: 3 of 4 pairs and 0.5 of 1 are 0.7; a stratum of one class has no pair."""
    rows = predictions([0.9, 0.3, 0.5, 0.1, 0.6, 0.6, 0.99], [True, True, False, False, True, False, False])
    area = areas.within(rows, pd.Series(list("aaaabbc")), draws=50)
    assert area.value == pytest.approx(3.5 / 5)
    assert (area.n, area.patients, area.smaller) == (6, 6, 3)
    assert areas.within(rows, pd.Series(["", "", "", "", "", "", "c"]), draws=50) is None


def test_pooled_auroc_of_one_stratum_is_the_auroc():
    """Value and draws are those of `metrics.auroc_draws`, and equal scores lose nothing to themselves."""
    rng = np.random.default_rng(3)
    patient = [f"p{i // 2}" for i in range(80)]
    rows = predictions(np.round(rng.random(80), 1), rng.random(80) < 0.4, patient_id=patient)
    area = areas.within(rows, None, "COVID-19", 100, 1)
    value, draws, smaller = metrics.auroc_draws(rows, "COVID-19", 100, 1)
    assert (area.value, area.smaller) == (pytest.approx(value), smaller)
    np.testing.assert_allclose(area.draws, draws)
    assert areas.lost(area, area)["ci95"] == [0.0, 0.0]


def test_two_patients_of_a_class_have_no_interval():
    """Neither an AUROC nor a loss of it can then be told."""
    rows = predictions([0.9, 0.4, 0.5, 0.3, 0.2], [True, True, False, False, False])
    area = areas.within(rows, draws=200)
    assert area.metric["ci95"] is None and areas.lost(area, area)["ci95"] is None
    (gain,) = networks.gains({"net": rows, "base": rows}, ["base"], **OPTIONS)
    assert gain["verdict"] == "cannot be told" and "2 patients" in gain["reason"]


def test_constant_score_is_at_chance_for_certain():
    """File properties that are all alike tell nothing, however few the patients."""
    rows = predictions([0.5] * 12, [True] * 4 + [False] * 8)
    assert areas.within(rows, draws=50).metric["ci95"] == [0.5, 0.5]


def many(noise: float, seed: int = 0, **columns) -> pd.DataFrame:
    """Scores of 200 images, the label with noise: 0 is perfect, 9 is next to chance."""
    rng = np.random.default_rng(seed)
    positive = np.arange(200) % 2 == 0
    score = positive + rng.normal(0, noise, 200)
    return predictions((score - score.min()) / np.ptp(score), positive, **columns)


def test_baselines_and_gains_are_judged():
    """A telling border fails, an absent baseline cannot be told, and the best one is to be beaten."""
    tables = {BASELINES["border-strip"]: many(0.5), BASELINES["mean-std"]: many(9.0), "good": many(0.01)}
    rows = {row["check"]: row for row in networks.baselines(tables, **OPTIONS)}
    assert rows["border strip"]["verdict"] == "failed"
    assert rows["mean and std"]["verdict"] == "passed"
    assert rows["histogram"]["reason"] == "no such run"
    (gain,) = networks.gains(tables, list(BASELINES.values())[0:4:3], **OPTIONS)
    assert (gain["subject"], gain["verdict"]) == ("good", "passed")
    assert "border strip" in gain["reason"]


def test_shortcut_controls_are_judged():
    """A network that does without lungs fails, and one that tells more from lungs alone passes."""
    good, chance = many(0.3), many(9.0)
    tables = dict.fromkeys(("original", "lungs blacked out", "equalised"), good)
    tables |= dict.fromkeys(("lungs only", "border only", "patches shuffled"), chance)
    rows = {row["check"]: row["verdict"] for row in networks.tested(tables, "net", **OPTIONS)}
    assert rows["lungs blacked out, tested only"] == rows["lungs over surroundings"] == "failed"
    assert rows["border only, tested only"] == rows["loss to equalised"] == "passed"
    swapped = tables | {"lungs only": good, "lungs blacked out": chance}
    rows_of = {row["check"]: row for row in networks.tested(swapped, "net", **OPTIONS)}
    assert rows_of["lungs over surroundings"]["verdict"] == "passed"
    assert rows_of["lungs over surroundings"]["value"] == pytest.approx(
        metrics.auroc(good)["value"] - metrics.auroc(chance)["value"]
    )
    rows = {row["check"]: row["verdict"] for row in networks.retrained(tables, **OPTIONS)}
    assert rows["probe on whole images"] == rows["border only, retrained"] == "passed"
    assert rows["lungs blacked out, retrained"] == "failed"
    listed = networks.controls(tables, "net", **OPTIONS).set_index("control")
    assert listed.loc["border only", "loss"] == pytest.approx(
        listed.loc["original", "auroc"] - listed.loc["border only", "auroc"]
    )
    with pytest.raises(DataError, match="the 200 images of 'original' were wanted"):
        networks.tested(tables | {"equalised": good.head(150)}, "net", **OPTIONS)


def run(name: str, seed: int, **config) -> SimpleNamespace:
    """What is read of a run's folder, as far as names and seeds go."""
    return SimpleNamespace(
        run_id=f"{name}-seed{seed}-{len(config)}",
        name=name,
        start="random weights",
        config={"network": name, "seed": seed, **config},
        provenance={"commit": "c", "dirty": False, "smoke": True, "sha256": {"predictions": "p"}},
    )


def test_seeds_are_compared_within_one_network():
    """Two seeds give a range, one cannot be told; other settings are another network."""
    runs = [run("A", 0), run("A", 1), run("A", 0, epochs=3)]
    rows = networks.seeds(runs, [many(0.3), many(0.3, seed=1), many(0.3)], **OPTIONS)
    assert [row["verdict"] for row in rows] == ["passed", "cannot be told"]
    assert rows[0]["reason"] == "seeds 0, 1" and rows[1]["reason"] == "one seed: 0"
    assert rows[0]["value"] >= 0


def changes(**losses: tuple[float, float, float]) -> dict[str, dict]:
    """As `robustness.losses` gives them: value and interval of each change's loss."""
    return {name: {"loss": number(*loss), "auroc": number(0.9)} for name, loss in losses.items()}


def test_robustness_is_the_worst_change():
    """The reason names it; of equal verdicts it is the one that costs most."""
    losses = changes(a=(0.0, -0.01, 0.01), b=(0.2, 0.19, 0.21), c=(0.3, 0.05, 0.5))
    row = networks.robust(losses, "net", many(0.3), **OPTIONS)
    assert (row["verdict"], row["value"], row["reason"]) == ("failed", 0.2, "worst of 3: b")
    row = networks.robust(changes(a=(0.0, 0.0, 0.0), b=(0.04, 0.03, 0.05)), "net", many(0.3), **OPTIONS)
    assert (row["verdict"], row["value"]) == ("passed", 0.04)


def test_robustness_passes_only_if_every_change_does():
    """The largest loss is known well and passes; a smaller one is not."""
    losses = changes(a=(0.05, 0.04, 0.06), b=(0.03, -0.1, 0.16))
    row = networks.robust(losses, "net", many(0.3), **OPTIONS)
    assert (row["verdict"], row["value"]) == ("cannot be told", 0.03)
    assert row["reason"].endswith("worst of 2: b")


def test_folds_are_listed_and_left_out():
    """Runs on a fold have another test; the table says so, and names tell runs apart."""
    runs = [run("base", 0, baseline=True), run("A", 0), run("A", 1), run("A", 0, folds=5, fold=1)]
    kept, listed = inputs.audited(runs)
    assert inputs.labels(kept) == ["A, seed 0", "A, seed 1", "base"]
    assert [audited[:3] for audited in listed["audited"]] == ["yes", "yes", "yes", "no:"]
    with pytest.raises(DataError, match="own split were wanted"):
        inputs.audited(runs[3:])


def test_figures_show_every_verdict_in_words():
    """Each row of a group has its words and, where it has a number, its mark."""
    rows = [
        checks.judge(SIDE, "data", number(0.9, 0.8, 0.95)),
        checks.judge(GAIN, "net", None, "no baseline"),
    ]
    verdicts = pd.DataFrame(rows)
    _, axes = plt.subplots()
    figures.verdicts(axes, verdicts)
    words = [text.get_text() for text in axes.texts]
    assert words == ["failed: 0.90, n = 10", "cannot be told"]
    marks = [line for line in axes.lines if line.get_marker() == figures.VERDICTS["failed"]["marker"]]
    assert [float(mark.get_xdata()[0]) for mark in marks] == [0.9]
    plt.close("all")


def test_audit_is_added_to_an_experiment_and_reads_its_runs():
    """The command's last step is the audit, of the runs of this very plan."""
    configs = experiments.plan(ROOT / "notebooks" / "params" / "phantom-xray.yaml", {}, last=AuditConfig.step)
    assert isinstance(configs[-1], AuditConfig)
    trained = [config.run_id for config in configs if hasattr(config, "run_id")]
    assert configs[-1].run_ids.split()[: len(trained)] == trained
    assert "01_xray_dataset/baseline-border-strip" in configs[-1].run_ids


@pytest.mark.parametrize(("low", "status"), [(0.5, 0), (0.8, 4)])
def test_command_ends_with_4_if_a_check_failed(low, status, tmp_path, monkeypatch, capsys):
    """The verdicts are printed either way."""
    config = AuditConfig(out=str(tmp_path))
    checks_csv = config.folder / "checks.csv"
    checks_csv.parent.mkdir(parents=True)
    checks.table([checks.judge(SIDE, "data", number(0.9, low, 0.95))]).to_csv(checks_csv, index=False)
    monkeypatch.setattr("covidtf.reproduce.run", lambda *arguments: [config])
    assert main(["audit", "any.yaml"]) == status
    assert "| baselines | mean and std | data | 0.900" in capsys.readouterr().out
