"""What is published: complete records, nothing that shows an image, and documents that agree with them."""

import json

import nbformat
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import confusion_matrix, roc_auc_score

from covidtf import html, report, runs
from covidtf.audit import checks
from covidtf.config import ROOT

RESULTS = ROOT / "results"
EXPERIMENTS = sorted(path.parent for path in RESULTS.glob("*/06_report"))
COMPARISONS = sorted(RESULTS.glob("*/09_transfer"))
ABLATIONS = sorted(RESULTS.glob("*/10_ablation"))
SHIPPED = ROOT / "covidtf" / "weights" / "shipped"


def test_documents_agree_with_the_results():
    """Every number between markers in README and cards is the one in the files."""
    assert report.update_documents(check=True) == []


def test_documents_are_filled():
    """README shows results; a document without a filled block would pass the comparison above."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "| ResNet18 | " in text
    assert "--><!--" not in text


@pytest.mark.parametrize("experiment", EXPERIMENTS, ids=lambda path: path.name)
def test_published_runs_are_whole(experiment):
    """Runs can be read, their predictions are those of the record, none is a smoke run or of a dirty tree."""
    found = runs.find(experiment)
    assert len(found) >= 3
    for run in found:
        assert run.provenance["smoke"] is False
        assert run.provenance["dirty"] is False
        assert len(run.provenance["commit"]) == 40


@pytest.mark.parametrize("experiment", EXPERIMENTS, ids=lambda path: path.name)
def test_metrics_follow_from_predictions(experiment):
    """Confusion matrix and AUROC of each run, computed anew with scikit-learn, are those published."""
    for run in runs.find(experiment):
        (folder,) = [
            path.parent for path in experiment.rglob("metrics.json") if path.parent.name == run.run_id
        ]
        metrics = json.loads((folder / "metrics.json").read_text())
        test = run.predictions[run.predictions["split"] == "test"]
        positive, score = test["label"] == "COVID-19", test["score_COVID-19"]
        assert metrics["test"]["auroc"]["value"] == pytest.approx(roc_auc_score(positive, score), abs=1e-9)
        called = score >= metrics["threshold"]["value"]
        (tn, fp), (fn, tp) = confusion_matrix(positive, called)
        assert metrics["test"]["confusion"] == {"tn": tn, "fp": fp, "fn": fn, "tp": tp}


@pytest.mark.parametrize("folder", COMPARISONS, ids=lambda path: path.parent.name)
def test_a_comparison_follows_from_its_scores(folder):
    """Each row comes out of the published scores, and no run was a smoke run or of a dirty tree."""
    scores, runs = (pd.read_csv(folder / f"{name}.csv", keep_default_na=False) for name in ("scores", "runs"))
    assert not runs["dirty"].any()
    assert not runs["smoke"].any()
    test = scores[scores["split"] == "test"]
    table = pd.read_csv(folder / "transfer.csv")
    assert len(table) > 10
    for row in table.itertuples():
        part = test if row.part == "all sources" else test[test["source"] == row.part]
        same = runs[(runs["network"] == row.network) & (runs["start"] == row.start)]
        same = same.loc[same["strategy"] == row.strategy, "run_id"]
        found = [roc_auc_score(part["label"] == "COVID-19", part[name].astype(float)) for name in same]
        assert (row.n, row.seeds) == (len(part), len(found))
        assert (row.auroc, row.lowest, row.highest) == pytest.approx((np.mean(found), min(found), max(found)))


@pytest.mark.parametrize("folder", ABLATIONS, ids=lambda path: path.parent.name)
def test_an_ablation_follows_from_its_scores(folder):
    """Each macro AUROC comes out of the published scores, fold by fold joined; no run was smoke or dirty."""
    table, listed, scores = (pd.read_csv(folder / f"{name}.csv") for name in ("ablation", "runs", "scores"))
    assert not listed["dirty"].any()
    assert not listed["smoke"].any()
    rows = table[(table["metric"] == "auroc") & table["level"].isin(scores["level"])]
    settings = [name for name in table if name in listed and name not in ("seeds", "folds")]
    assert len(rows) >= 3
    for row in rows.to_dict("records"):
        part = scores[(scores["part"] == row["part"]) & (scores["split"] == row["split"])]
        wanted = {name: row[name] for name in settings if pd.notna(row[name])} | {"method": row["method"]}
        own = listed[(listed["folds"].fillna(0) > 0) == (row["part"] != "split")]
        for name, value in wanted.items():
            own = own[own[name] == value]
        found = [_macro_auroc(part, of_seed["run_id"]) for _, of_seed in own.groupby("seed")]
        assert (len(found), len(part)) == (row["seeds"], row["n"])
        assert row["value"] == pytest.approx(np.mean(found), abs=1e-6)


@pytest.mark.parametrize(
    "folder",
    [path for path in ABLATIONS if (path / "confusion.csv").is_file()],
    ids=lambda path: path.parent.name,
)
def test_confusion_matrices_follow_from_the_scores(folder):
    """Counts of every group and its sensitivities come out of the scores of its runs, by slice."""
    names = ("confusion", "classes", "runs", "scores")
    counts, classes, listed, scores = (pd.read_csv(folder / f"{name}.csv") for name in names)
    assert set(scores["level"]) == {"slice"}
    settings = [name for name in counts if name in listed and name not in ("seeds", "folds")]
    by_slice = counts[counts["level"] == "slice"]
    groups = list(by_slice.groupby(["part", *settings], sort=False, dropna=False))
    assert len(groups) >= 7
    for (part, *values), rows in groups:
        own = listed[(listed["folds"].fillna(0) > 0) == (part != "split")]
        for name, value in zip(settings, values, strict=True):
            own = own[own[name].isna() if pd.isna(value) else own[name] == value]
        wanted = sum(_called(scores[scores["part"] == part], run_id) for run_id in own["run_id"])
        found = rows.pivot_table(index="label", columns="called", values="count")
        pd.testing.assert_frame_equal(found.astype(int), wanted, check_names=False)
        told = classes[(classes["part"] == part) & (classes["level"] == "slice")]
        for name, value in zip(settings, values, strict=True):
            told = told[told[name].isna() if pd.isna(value) else told[name] == value]
        told = told.set_index("class")["sensitivity"]
        shares = pd.Series(np.diagonal(wanted) / wanted.sum(axis=1), wanted.index)
        assert told[list(shares.index)].to_numpy() == pytest.approx(shares.to_numpy(), abs=1e-6)


def _called(part, run_id):
    """Confusion matrix of a run: of equal scores the first column's class is called."""
    names = [name for name in part if name.startswith(f"{run_id} ")]
    rows = part[part[names].notna().all(axis=1) & (part["split"] != "val")]
    rows = rows if len(rows) else part[part[names].notna().all(axis=1)]
    classes = [name.removeprefix(f"{run_id} ") for name in names]
    called = np.array(classes)[rows[names].to_numpy().argmax(axis=1)]
    ordered = sorted(classes)
    return pd.DataFrame(confusion_matrix(rows["label"], called, labels=ordered), ordered, ordered)


def _macro_auroc(part, run_ids):
    """Of the runs of all folds of a seed, each of which judged its own rows."""
    areas = []
    for label in sorted(set(part["label"])):
        columns = part[[f"{run_id} {label}" for run_id in run_ids]]
        assert (columns.notna().sum(axis=1) == 1).all()
        areas.append(roc_auc_score(part["label"] == label, columns.sum(axis=1)))
    return np.mean(areas)


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*.json")), ids=lambda path: path.stem)
def test_weights_that_ship_have_their_run_published(path):
    """The record beside the weights agrees with the published record of the run that they come from."""
    record = json.loads(path.read_text())
    folder = RESULTS / "pretrain" / record["run_id"]
    published = json.loads((folder / "training.json").read_text())
    assert published["sha256"]["best.weights.h5"] == record["run_weights_sha256"]
    assert json.loads((folder / "metrics.json").read_text())["test"] == record["test"]
    assert json.loads((folder / "provenance.json").read_text())["dirty"] is False


def test_results_hold_no_images_and_no_weights():
    """Only tables, records, curves as SVG, notebooks and reports; of real data no picture but figures."""
    endings = {path.suffix for path in RESULTS.rglob("*") if path.is_file()}
    assert endings <= {".csv", ".json", ".svg", ".ipynb", ".html", ".png"}
    # What shows images shows phantoms; `publication.phantom_pictures` looks at more than is published.
    shown = {path.parent for path in RESULTS.rglob("*.png")}
    shown |= {path.parent for path in RESULTS.rglob("07_heat_maps/notebook.ipynb")}
    for folder in shown:
        assert folder.name == "07_heat_maps"
        for name in ("examples", "evidence_images"):
            assert set(pd.read_csv(folder / f"{name}.csv")["source"]) == {"phantom"}
    for path in RESULTS.rglob("*.svg"):
        # matplotlib embeds pixels as <image>; only matrices have them, of coloured squares.
        assert "<image" not in path.read_text() or path.stem.startswith(("confusion", "failures"))
    steps = {nbformat.read(path, as_version=4).cells[0].source[:4] for path in RESULTS.rglob("*.ipynb")}
    assert steps <= {f"# {number:02d}" for number in (4, *range(6, 14))}
    pages = [path.parent.name for path in RESULTS.rglob("*.html")]
    assert set(pages) <= set(html.STEPS)


def test_what_readme_says_of_xray_sample_holds():
    """No network is above the best baseline; within one source every interval of the AUROC holds 0.5."""
    table = pd.read_csv(RESULTS / "xray-sample" / "06_report" / "within_source.csv")
    rows = table[table["source"] == "covid-chestxray-dataset"]
    assert len(rows) == 9
    assert ((rows["auroc_low"] < 0.5) & (rows["auroc_high"] > 0.5)).all()
    whole = pd.read_csv(RESULTS / "xray-sample" / "06_report" / "results.csv")
    networks = whole[whole["beats"].notna()]
    assert len(networks) == 4 and (networks["beats"] == "no").all()
    assert set(networks["best_baseline"]) == {"file properties (no network)"}


def test_what_readme_says_of_the_audit_of_xray_sample_holds():
    """No leak; what fails is the source, of the data and of each network; two checks in doubt do not fail."""
    table = checks.read(RESULTS / "xray-sample" / "08_audit" / "checks.csv")
    assert (table.loc[table["group"] == "leaks", "verdict"] == "passed").all()
    failed = table[table["verdict"] == "failed"]
    assert failed["check"].value_counts().to_dict() == {
        "file properties": 1,
        "lungs blacked out, retrained": 1,
        "border only, retrained": 1,
        "lungs blacked out, tested only": 1,
        "border only, tested only": 1,
        "sources told apart": 1,
        "fall within source": 4,
    }
    tested = failed[failed["group"] == "controls, tested only"]
    assert set(tested["subject"]) == {"DenseNet121"}
    within = table[table["check"] == "within source"]
    assert len(within) == 4 and (within["verdict"] == "cannot be told").all()
    assert within["value"].between(0.4, 0.6).all()
    others = table[~table["check"].isin(failed["check"]) & (table["group"] != "leaks")]
    assert (others["verdict"] == "cannot be told").mean() > 0.5
    flat = table[table["check"].isin(["robustness", "loss to equalised"])]
    assert len(flat) == 8 and (flat["verdict"] == "passed").sum() == 6 and (flat["value"] < 0.1).all()


def test_what_readme_says_of_the_audit_of_slices_holds():
    """No failure, no leak; what may be told without lungs; the networks; one source."""
    table = checks.read(RESULTS / "covid-ct" / "08_audit" / "checks.csv")
    assert not (table["verdict"] == "failed").any()
    verdicts = table[table["subject"] == "data"].set_index("check")["verdict"]
    leaks = verdicts[["patient", "case", "exact duplicate", "near duplicate", "file properties"]]
    assert (leaks == "passed").all()
    untold = ["mean and std", "histogram", "border strip"]
    untold += ["lungs blacked out, retrained", "border only, retrained"]
    assert (verdicts[untold] == "cannot be told").all()
    networks = table[table["subject"] != "data"].groupby("check")["verdict"]
    gains = networks.get_group("gain over the best baseline")
    assert (len(gains), (gains == "passed").sum()) == (18, 14)
    assert (
        table.loc[table["check"] == "gain over the best baseline", "reason"].str.contains("histogram").all()
    )
    assert (networks.get_group("lungs over surroundings") == "cannot be told").all()
    assert (networks.get_group("robustness") == "cannot be told").sum() == 16
    assert len(networks.get_group("within source")) == 18
    assert (networks.get_group("within source") == "cannot be told").all()
    judged = table[table["check"] == "gain over the best baseline"]
    assert set(judged["n"]) == {118} and set(judged["patients"]) == {56}
    assert verdicts["burned-in marks"] == "cannot be told"
    assert (verdicts[["sources told apart", "source left out", "external source"]] == "cannot be told").all()


def test_what_readme_says_of_use_holds():
    """Of xray-sample and covid-ct: differences, thresholds from val, predictive values, calibration."""
    read = {
        experiment: {
            name: pd.read_csv(RESULTS / experiment / "13_use" / f"{name}.csv")
            for name in ("differences", "operating_points", "predictive_values", "calibration", "subgroups")
        }
        for experiment in ("xray-sample", "covid-ct")
    }
    rays, slices = read["xray-sample"], read["covid-ct"]
    both = rays["differences"]["told_by_bootstrap"] == rays["differences"]["told_by_delong"]
    assert (rays["differences"].loc[both, "told_by_delong"] == "not told from 0").all()
    points = rays["operating_points"]
    points = points[(points["rule"] == "sensitivity>=0.95") & ~points["baseline"]]
    assert len(points) == 4 and (points["sensitivity"] < 0.95).sum() == 3
    assert set(points["val_positive_patients"]) == {5}
    values = rays["predictive_values"]
    rare = values[values["prevalence"] == 0.01]
    assert rare.loc[~rare["baseline"], "ppv"].max() < 0.07
    assert rare.loc[~rare["baseline"], "ppv_high"].max().round(2) == 0.1
    assert (rare.loc[rare["network"].str.startswith("file"), "ppv"].round(2) == 0.1).all()
    scaled = rays["calibration"][~rays["calibration"]["baseline"]].set_index("scores")
    beyond = scaled["ece"] > scaled["if_calibrated_95"]
    assert beyond["as they come"].all() and beyond["scaled"].sum() == 3
    assert len(scaled) == 8 and (scaled["slope_high"] < 1).all()
    over = slices["differences"][slices["differences"]["kind"] == "over the best baseline"]
    assert over["p_holm"].min() > 0.1
    split = over.loc[over["part"] == "split", "p_holm"]
    assert len(split) == 6 and 0.185 < split.min() < 0.195


def test_what_readme_says_of_slices_over_the_best_baseline_holds():
    """Out of fold, from Tiny ImageNet: all layers by slice and the last layer by patient, and no other."""
    found = {}
    for experiment in ("covid-ct", "covid-ct-frozen"):
        table = pd.read_csv(RESULTS / experiment / "10_ablation" / "ablation.csv")
        own = table[(table["part"] != "split") & (table["metric"] == "auroc")]
        own = own[own["start"] == "Tiny ImageNet"].set_index("level")["beats"]
        found |= {(experiment, level): beats for level, beats in own.items()}
    assert len(found) == 4
    won = {key for key, beats in found.items() if beats == "yes"}
    assert won == {("covid-ct", "slice"), ("covid-ct-frozen", "case")}


def test_what_readme_says_of_heat_maps_holds():
    """Grad-CAM of two networks is above the lungs' share of the area, of one below, of one untold."""
    folder = RESULTS / "phantom-networks"
    table = pd.read_csv(folder / "07_heat_maps" / "evidence.csv")
    rows = table[(table["method"] == "Grad-CAM") & (table["group"] == "all")].set_index("network")
    above, below = rows.index[rows["difference_low"] > 0], rows.index[rows["difference_high"] < 0]
    assert (set(above), set(below)) == ({"ResNet18", "SqueezeNet 1.0"}, {"ResNet50"})
    assert (rows["n"] + rows["images_left_out"] == 150).all()
    others = table[(table["method"] == "occlusion") & (table["group"] == "all")]
    assert (others["n"] + others["images_left_out"] == 8).all()
    results = pd.read_csv(folder / "06_report" / "results.csv").set_index("network")["auroc"]
    assert results[list(rows.index)].idxmax() == "DenseNet121"
    real = pd.read_csv(RESULTS / "xray-sample" / "07_heat_maps" / "evidence.csv")
    own = real[(real["network"] == "SqueezeNet 1.0") & (real["group"] == "all")].set_index("method")
    ratio = own["share"] / own["area"]
    assert 1.8 < ratio["Grad-CAM"] < 2 and 0.45 < ratio["occlusion"] < 0.55
    assert own.loc["Grad-CAM", "difference_low"] > 0 > own.loc["occlusion", "difference_high"]
    assert own.loc["occlusion", "n"] == 8


def test_what_readme_says_of_the_heat_maps_of_slices_holds():
    """Above the area for the called class, but not where the full method calls COVID-19."""
    table = pd.read_csv(RESULTS / "phantom-ct" / "07_heat_maps" / "evidence.csv")
    whole = table[table["group"] == "all"]
    assert len(whole) == 4 and (whole["difference_low"] > 0).all()
    rows = table.set_index(["network", "method", "group"])
    called = rows.loc[("ResNet18, full", "Grad-CAM", "called COVID-19")]
    assert called["difference_low"] < 0 < called["difference_high"] and called["n"] == 30
    single = rows.loc[("ResNet18, full", "occlusion", "called COVID-19")]
    assert single["n"] == 1 and abs(single["difference"]) < 0.001
    calls = pd.read_csv(RESULTS / "phantom-ct" / "10_ablation" / "confusion.csv")
    plain = calls[(calls["method"] == "cross-entropy") & (calls["count"] > 0)]
    assert set(plain["called"]) == {"Normal"}
    gains = pd.read_csv(RESULTS / "phantom-ct" / "10_ablation" / "ablation.csv")
    told = gains[gains["method"] == "full"].set_index(["level", "metric"])["gain_is"]
    assert (told.xs("auroc", level="metric") == "not told from 0").all()
    assert (told.xs("f1", level="metric") == "above 0").all()


def test_every_published_audit_has_the_checks_there_are():
    """No verdict is of a check that was replaced since, and none is absent."""
    for path in RESULTS.glob("*/08_audit/checks.csv"):
        assert set(checks.read(path)["check"]) == set(checks.CHECKS), path


def test_what_readme_says_of_the_data_of_covid_ct_holds():
    """Audited without networks the data have the verdicts that they have with them."""
    alone, beside = (
        checks.read(RESULTS / name / "08_audit" / "checks.csv").set_index(["check", "part", "subject"])
        for name in ("covid-ct-data", "covid-ct")
    )
    columns = ["value", "low", "high", "n", "patients", "verdict"]
    common = [key for key in alone.index if key in beside.index and beside.loc[key, "n"]]
    assert len(common) == 13
    pd.testing.assert_frame_equal(alone.loc[common, columns], beside.loc[common, columns])
    assert alone.loc[("burned-in marks", "", "data"), "verdict"] == "cannot be told"


def test_readme_lists_every_notebook():
    """By its name."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        assert f"`{path.stem}`" in text, path


def test_what_readme_says_of_the_audits_trial_holds():
    """All shortcuts are found, the marker by one check alone; the border strip accuses one clean set."""
    rates = pd.read_csv(RESULTS / "audit-trial" / "11_audit_trial" / "rates.csv")
    assert set(rates["seeds"]) == {20}
    found = rates[rates["check"] == "one of the expected"].set_index("condition")["failed"]
    assert found.tolist() == [20] * 5
    counts = rates.set_index(["condition", "check"])["failed"]
    inner = rates[rates["check"] == "within source"]
    assert len(inner) == 6 and (inner["untold"] == 20).all()
    assert counts["burned-in marker", "burned-in marks"] == 20
    assert (
        counts["burned-in marker"].drop(["burned-in marks", "one of the expected", "any check"]) < 2
    ).all()
    assert counts["clean"].drop("any check").sum() == counts["clean", "border strip"] == 1
    table = pd.read_csv(RESULTS / "audit-trial" / "11_audit_trial" / "trial.csv")
    accused = table[(table["condition"] == "clean") & (table["verdict"] == "failed")]
    assert round(accused["low"].item(), 4) == 0.6504
    values = pd.read_csv(RESULTS / "audit-trial" / "11_audit_trial" / "values.csv")
    mean = values.set_index(["check", "condition"])["mean"]
    assert (
        0 < mean["probe on whole images", "burned-in marker"] - mean["probe on whole images", "clean"] < 0.01
    )
    assert round(mean["border strip", "clean"], 2) == 0.63


def test_what_readme_says_of_the_recipe_holds():
    """The fall within source shrinks, for the probe by more than its interval; no other gain is told."""
    tried, networks = (
        pd.read_csv(RESULTS / "xray-recipe" / "12_recipe" / f"{name}.csv") for name in ("probe", "networks")
    )
    rows = tried.set_index(["variant", "measure"])
    whole = rows.loc["lungs, equalised, sources balanced"]
    assert whole.loc["all sources", "gain_high"] < 0 and whole.loc["fall within source", "gain_high"] < 0
    fall = rows.xs("fall within source", level="measure")["gain"]
    assert fall["lungs"] / fall["lungs, equalised, sources balanced"] > 0.5
    inner = tried[tried["measure"].isin(["within source", "source left out"])].dropna(subset="gain")
    assert len(inner) == 14 and (inner["gain"] > 0).all()
    assert (inner["gain_low"] < 0).all() and (inner["gain_high"] > 0).all()
    after = networks[networks["variant"] == "after"].set_index(["measure", "network"])
    shrunk = after.loc["fall within source"]
    assert (shrunk["gain"] < 0).all() and (shrunk["gain_high"] > 0).all()
    assert sorted(np.sign(after.loc["within source", "gain"])) == [-1, 1]


def test_what_readme_says_of_phantoms_holds():
    """SqueezeNet and the thumbnail are above chance, and no network is above the thumbnail."""
    table = pd.read_csv(RESULTS / "phantom-xray" / "06_report" / "results.csv").set_index("network")
    above = ["SqueezeNet 1.0", "16x16 thumbnail (no network)"]
    assert (table.loc[above, "auroc_low"] > 0.5).all()
    others = table.drop(index=above)
    assert len(others) == 5
    assert ((others["auroc_low"] < 0.5) & (others["auroc_high"] > 0.5)).all()
    networks = table[table["beats"].notna()]
    assert len(networks) == 2 and (networks["beats"] == "no").all()
    assert set(networks["best_baseline"]) == {above[1]}
    slices = pd.read_csv(RESULTS / "phantom-ct" / "10_ablation" / "ablation.csv")
    cases = slices[(slices["metric"] == "auroc") & (slices["level"] == "case")].set_index("method")["value"]
    assert cases.idxmax() == "intensity histogram (no network)"


def transfer_table(experiment):
    """Rows of a published comparison, over all sources and within one."""
    table = pd.read_csv(RESULTS / experiment / "09_transfer" / "transfer.csv")
    return [table[table["part"] == part] for part in ("all sources", "covid-chestxray-dataset")]


def test_what_readme_says_of_transfer_holds():
    """Tiny ImageNet, also before phantoms, gains over all sources, ChestX-ray14 not; within one none does."""
    overall, within = transfer_table("xray-transfer")
    for rows, best in ((overall, "file properties (no network)"), (within, "16x16 thumbnail (no network)")):
        networks = rows[rows["beats"].notna()]
        assert len(networks) == 10 and (networks["beats"] == "no").all()
        assert set(networks["best_baseline"]) == {best}
    gains = overall["start"].isin(["Tiny ImageNet", "phantom after Tiny ImageNet"])
    assert gains.sum() == 6
    assert (overall.loc[gains, "gain_low"] > 0).all()
    chest = overall.loc[overall["start"].str.startswith("ChestX-ray14"), "gain_low"]
    assert len(chest) == 3
    assert (chest < 0).all()
    assert (within["auroc_low"] < 0.5).all()
    assert (within["auroc_high"] < 0.5).sum() == 1
    assert not (within["gain_low"] > 0).any()
    means = overall.pivot_table(index="start", columns="strategy", values="auroc").dropna(subset="last layer")
    assert len(means) == 3
    assert ((means["last layer"] - means["all layers"]).abs() < 0.02).all()


def test_what_readme_says_of_resnet18s_transfer_holds():
    """No gain over all sources, none within one; from random weights as good as SqueezeNet's best start."""
    overall, within = transfer_table("xray-transfer-resnet18")
    for rows, best in ((overall, "file properties (no network)"), (within, "16x16 thumbnail (no network)")):
        networks = rows[rows["beats"].notna()]
        assert len(networks) == 10 and (networks["beats"] == "no").all()
        assert set(networks["best_baseline"]) == {best}
    for rows in (overall, within):
        assert rows["gain"].notna().sum() == 9
        assert not (rows["gain_low"] > 0).any()
    assert (within["auroc_low"] < 0.5).all()
    worse = within[within["gain_high"] < 0]
    assert worse[["start", "strategy"]].to_numpy().tolist() == [["phantom after Tiny ImageNet", "last layer"]]
    assert (within["auroc_high"] > 0.5).all()
    scratch = overall.set_index("start").loc["random weights", "auroc"]
    other = transfer_table("xray-transfer")[0]
    assert scratch >= other.loc[other["strategy"] != "nothing", "auroc"].max()
    means = overall.pivot_table(index="start", columns="strategy", values="auroc").dropna(subset="last layer")
    assert len(means) == 3
    assert ((means["last layer"] - means["all layers"]).abs() < 0.04).all()


def ablation_rows(experiment, metric="auroc", part="split"):
    """Rows of a published ablation on the data set's split, without baselines."""
    table = pd.read_csv(RESULTS / experiment / "10_ablation" / "ablation.csv")
    return table[(table["metric"] == metric) & (table["part"] == part) & table["loss"].notna()]


def test_what_readme_says_of_the_ablation_on_phantoms_holds():
    """Full gains without and with 20 % of noise, learned weights by slice too; the single parts do not."""
    table = ablation_rows("phantom-ct-ablation")
    networks = table[table["beats"].notna()]
    assert len(networks) == 30 and (networks["beats"] == "no").all()
    assert set(networks["best_baseline"]) == {"intensity histogram (no network)"}
    worst = networks[(networks["level"] == "case") & (networks["label_noise"] == 0.2)]
    assert len(worst) == 5 and (worst["over_baseline_high"] < 0).all()
    rows = table.set_index(["level", "method", "label_noise"])["gain_is"]
    assert rows["case", "class-balanced", 0.1] == "above 0"
    assert len(rows) == 30
    learned = "deep supervision, learned weights"
    for noise, told in ((0.0, "above 0"), (0.1, "not told from 0"), (0.2, "above 0")):
        assert rows["slice", "full", noise] == rows["case", "full", noise] == told
        assert rows["slice", learned, noise] == told
        for single in ("class-balanced", "deep supervision"):
            assert rows["slice", single, noise] == "not told from 0"
    assert rows["case", learned, 0.0] == "above 0" and rows["case", learned, 0.2] == "not told from 0"
    values = ablation_rows("phantom-ct-ablation").query("level == 'slice'")
    plain = values[values["method"] == "cross-entropy"].set_index("label_noise")["value"]
    assert plain[0.0] - plain[0.2] > values["gain"].max()
    assert values["value"].max() < 0.75
    noisy = values[values["label_noise"] > 0]
    assert (noisy["highest"] - noisy["lowest"]).max() > values["gain"].max()
    calls = pd.read_csv(RESULTS / "phantom-ct-ablation" / "10_ablation" / "confusion.csv")
    calls = calls[(calls["level"] == "slice") & (calls["label_noise"] == 0)]
    hits = calls[calls["label"] == calls["called"]].groupby("method")["count"].sum()
    assert (hits["cross-entropy"], hits["full"]) == (339, 334)
    assert hits.idxmax() == "deep supervision" and hits.max() == 384
    totals = calls[calls["method"] == "full"].groupby("label")["count"].sum()
    assert (totals.sum(), totals["Normal"], values["n"].iloc[0]) == (810, 342, 270)


def test_what_readme_says_of_real_slices_holds():
    """Tiny ImageNet gains on val and, by patient, out of fold; no part of the method does."""
    table = pd.read_csv(RESULTS / "covid-ct" / "10_ablation" / "ablation.csv")
    started = table[table["start_gain"].notna()].set_index(["part", "level", "metric"])["start_gain_low"]
    assert len(started) == 12 and (started["split"] > 0).all()
    told = started["cross-validation, 5 folds"]
    assert told[told > 0].index.tolist() == [("case", "auroc")]
    gains = table[table["gain"].notna()].set_index(["level", "metric", "method"])["gain_is"]
    assert len(gains) == 24 and not (gains == "above 0").any()
    assert gains[gains == "below 0"].index.tolist() == [
        ("slice", "f1", "deep supervision"),
        ("slice", "f1", "full"),
        ("slice", "accuracy", "deep supervision"),
    ]
    slices = ablation_rows("covid-ct").query("level == 'slice'")
    assert (slices["value"] < 0.94).all()
    by_case = ablation_rows("covid-ct").query("level == 'case'")
    assert (by_case["value"].to_numpy() > slices["value"].to_numpy()).all()
    assert (slices["ensemble"] > slices["value"]).all()
    folds = ablation_rows("covid-ct", part="cross-validation, 5 folds").set_index(["level", "start"])["value"]
    on_val = ablation_rows("covid-ct")
    plain = on_val[on_val["method"] == "cross-entropy"].set_index(["level", "start"])["value"]
    from_natural = plain.xs("Tiny ImageNet", level="start")
    assert (folds.xs("Tiny ImageNet", level="start") < from_natural).all()
    baseline = table[(table["part"] != "split") & (table["metric"] == "auroc")]
    baseline = baseline[baseline["loss"].isna()]
    assert (baseline["low"] > 0.5).all() and folds.min() > baseline["value"].max()


def test_what_readme_says_of_frozen_backbones_holds():
    """Out of fold both starts are below what they reach on val, and above the baseline out of fold."""
    parts = [ablation_rows("covid-ct-frozen", part=part) for part in ("split", "cross-validation, 5 folds")]
    on_val, out_of_fold = (rows.set_index(["level", "start"])["value"] for rows in parts)
    assert len(on_val) == len(out_of_fold) == 4
    assert (out_of_fold < on_val[out_of_fold.index]).all()
    table = pd.read_csv(RESULTS / "covid-ct-frozen" / "10_ablation" / "ablation.csv")
    baseline = table[table["loss"].isna() & (table["part"] != "split") & (table["metric"] == "auroc")]
    assert out_of_fold.min() > baseline["value"].max()
