"""Tables as people read them, and documents filled from files."""

import pandas as pd
import pytest
from test_ablation import baseline, folds, run

from covidtf import report
from covidtf.files import DataError, write_csv
from covidtf.metrics import ablation, grouping
from covidtf.metrics.evaluation import METRICS


@pytest.fixture
def results(tmp_path, monkeypatch):
    """A repository with one document and one experiment of two runs, one of which has no AUROC."""
    row = {
        "run": "r",
        "network": "ResNet18",
        "start": "random weights",
        "n": 10,
        "patients": 4,
        "positives": 3,
    }
    row |= {"threshold": 0.25} | {f"{name}{end}": 0.5 for name in METRICS for end in ("", "_low", "_high")}
    untold = row | {"network": "mean and std", "auroc": None, "auroc_low": None, "auroc_high": None}
    folder = tmp_path / "results" / "tiny" / "06_report"
    folder.mkdir(parents=True)
    pd.DataFrame([row, untold]).to_csv(folder / "results.csv", index=False)
    (folder / "roc.png").touch()
    monkeypatch.setattr(report, "ROOT", tmp_path)
    monkeypatch.setattr(report, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(report, "DOCUMENTS", ("README.md",))
    return tmp_path


def test_summary_names_every_run_and_figure(results):
    """The printed summary holds one row per run, says what cannot be told, and where the figures are."""
    text = report.summary_text(results / "results" / "tiny")
    assert "| ResNet18 | random weights | 10 (4) | 3 | 0.500 (0.500 to 0.500) | 0.250 |" in text
    assert "| mean and std | random weights | 10 (4) | 3 | cannot be told |" in text
    assert str(results / "results" / "tiny" / "06_report" / "roc.png") in text


def test_documents_are_filled_once_and_kept(results):
    """Blocks are replaced in place, text around them stays, and a second call finds nothing to do."""
    document = results / "README.md"
    document.write_text(
        "a <!-- from: value tiny ResNet18 auroc --><!-- end --> b\n"
        "<!-- from: results tiny -->was<!-- end -->\n"
    )
    assert report.update_documents(check=True) == [document]
    assert "was" in document.read_text()
    assert report.update_documents() == [document]
    assert "a <!-- from: value tiny ResNet18 auroc -->0.500<!-- end --> b" in document.read_text()
    assert "was" not in document.read_text()
    assert report.update_documents() == []


def test_a_benchmark_is_the_latest_or_the_largest_of_several(results):
    """A name gives its last measurement, a beginning the largest of the last ones of each name."""
    (results / "benchmarks").mkdir()
    (results / "benchmarks" / "results.csv").write_text("name,value\na_1,9\na_1,2\na_2,3\nb,4\n")
    document = results / "README.md"
    document.write_text("<!-- from: benchmark a_1 --><!-- end --> <!-- from: benchmark a_* --><!-- end -->\n")
    report.update_documents()
    assert "a_1 -->2<!--" in document.read_text()
    assert "a_* -->3<!--" in document.read_text()


@pytest.mark.parametrize(
    "key", ["results absent", "nothing x", "value tiny ResNet99 auroc", "value tiny", "csv absent.csv"]
)
def test_unknown_keys_are_named(results, key):
    """A marker that no file can fill is an error with the document's name, and the document stays."""
    document = results / "README.md"
    document.write_text(f"<!-- from: {key} -->x<!-- end -->")
    with pytest.raises(DataError, match=r"README\.md"):
        report.update_documents()
    assert document.read_text() == f"<!-- from: {key} -->x<!-- end -->"


def test_missing_report_is_said(tmp_path):
    """Without a report there is an error that names the table and the notebook to run."""
    with pytest.raises(DataError, match=r"results\.csv: no such table; run notebook 06"):
        report.summary_text(tmp_path)


def test_published_numbers_stand_beside_those_of_the_same_network():
    """Each network has the paper's numbers with their letter; what the paper does not have is left out."""
    names = ["ResNet18", "SqueezeNet 1.0, seed 1", "DenseNet121", "mean and std (no network)"]
    row = {"start": "x", "n": 9, "patients": 5, "positives": 3, "threshold": 0.5}
    row |= {f"{name}{end}": 0.5 for name in METRICS for end in ("", "_low", "_high")}
    table = report.beside_published(pd.DataFrame([{"network": name, **row} for name in names]))
    assert table["Network"].tolist() == names[:3]
    assert table["Published AUROC v1"].tolist() == ["0.993 [A]", "0.996 [A]", "0.982 [A]"]
    wanted = [f"0.980 ± 0.027 [{letter}]" for letter in "MBM"]
    assert table["Published Sensitivity v3"].tolist() == wanted


def test_shares_of_evidence_are_those_of_all_images():
    """Not of those called COVID-19; what has no map with evidence, or no interval, says so."""
    row = {"network": "ResNet18", "method": "occlusion", "group": "all", "n": 8, "patients": 6}
    row |= {"images_left_out": 1}
    values = {"share": 0.5, "area": 0.25, "difference": 0.25}
    told = row | {f"{name}{end}": values[name] for name in values for end in ("", "_low", "_high")}
    few = told | {f"{name}{end}": None for name in values for end in ("_low", "_high")}
    untold = row | {f"{name}{end}": None for name in values for end in ("", "_low", "_high")}
    table = report.evidence(pd.DataFrame([told, told | {"group": "called COVID-19"}, few, untold]))
    assert table.iloc[0].tolist() == [
        *("ResNet18", "occlusion", "8 (6)", 1, "0.500 (0.500 to 0.500)", "0.250 (0.250 to 0.250)"),
        "+0.250 (+0.250 to +0.250)",
    ]
    assert table.iloc[1, 4:].tolist() == [
        "0.500 (no interval)",
        "0.250 (no interval)",
        "+0.250 (no interval)",
    ]
    assert table.iloc[2, 4:].tolist() == ["cannot be told", "cannot be told", ""]


def ablated(runs: list) -> pd.DataFrame:
    return ablation.table(runs, by=grouping.differing(runs), draws=50)


def test_an_ablation_shows_what_its_rows_differ_in(tmp_path):
    """Start, label noise and other settings have columns where they differ, also once read from the file."""
    runs = [run(), run("full", better=1.0), run("full", better=1.0, start="ImageNet", head_epochs=2)]
    runs += [run("class-balanced", label_noise=0.125), *folds(0), baseline()]
    for one in runs:
        one.config.setdefault("head_epochs", 0)
    table = ablated(runs)
    shown = report.ablation(table, "auroc", "case")
    assert list(shown) == [
        *("Part", "Method", "Started from", "Label noise", "Head epochs", "Seeds", "Cases (patients)"),
        *("Rule (one per seed)", "Macro AUROC (95 % CI)", "Within folds", "Lowest to highest seed"),
        *("Gain over cross-entropy (95 % CI)", "Gain over random weights (95 % CI)"),
        "Over best baseline (95 % CI)",
    ]
    assert shown["Label noise"].tolist() == ["0 %", "0 %", "0 %", "12.5 %", "", "0 %"]
    assert shown["Head epochs"].tolist() == ["0", "0", "2", "0", "", "0"]
    assert shown["Started from"].tolist()[2] == "ImageNet"
    last = shown.iloc[-1]
    assert (last["Part"], last["Method"]) == ("cross-validation, 3 folds", "cross-entropy")
    row = table.query("metric == 'auroc' and level == 'case'").iloc[1]
    cell = f"{row['value']:.3f} ({row['low']:.3f} to {row['high']:.3f})"
    assert shown["Macro AUROC (95 % CI)"].iloc[1] == cell
    gain = f"{row['gain']:+.3f} ({row['gain_low']:+.3f} to {row['gain_high']:+.3f})"
    assert shown["Gain over cross-entropy (95 % CI)"].tolist()[:2] == ["", gain]
    path = write_csv(table, tmp_path / "ablation.csv")
    pd.testing.assert_frame_equal(report.ablation(pd.read_csv(path), "auroc", "case"), shown)


def test_an_ablation_leaves_out_what_its_rows_share():
    """Of two methods alone there is no column of start, noise or folds; what is not there is an error."""
    table = ablated([run(), run("full")])
    shown = report.ablation(table, "f1", "slice")
    assert list(shown) == [
        *("Part", "Method", "Seeds", "Slices (patients)", "Macro F1 (95 % CI)", "Lowest to highest seed"),
        *("Gain over cross-entropy (95 % CI)", "Over best baseline (95 % CI)"),
    ]
    assert shown["Slices (patients)"].tolist() == ["72 (24)"] * 2
    assert set(shown["Over best baseline (95 % CI)"]) == {"cannot be told"}
    with pytest.raises(DataError, match=r"rows of \('ppv', 'slice'\) were wanted"):
        report.ablation(table, "ppv", "slice")


def test_documents_show_an_ablation(results):
    """The key names experiment, metric and level; without the file the error says what to run."""
    table = ablated([run(), run("full")])
    write_csv(table, results / "results" / "ct" / "10_ablation" / "ablation.csv")
    document = results / "README.md"
    document.write_text("<!-- from: ablation ct accuracy case --><!-- end -->\n")
    report.update_documents()
    assert report.markdown(report.ablation(table, "accuracy", "case")) in document.read_text()
    document.write_text("<!-- from: ablation tiny accuracy case --><!-- end -->\n")
    with pytest.raises(DataError, match="no such table; run notebook 10"):
        report.update_documents()


def test_a_number_without_interval_says_so():
    """A gain or score whose interval cannot be told is not shown with one of NaN."""
    table = ablated([run("full"), run()])
    table[["low", "high", "gain_low", "gain_high"]] = float("nan")
    found = report.ablation(table, "auroc", "slice")
    assert found["Macro AUROC (95 % CI)"].str.endswith("(no interval)").all()
    assert "nan" not in found.to_csv()
