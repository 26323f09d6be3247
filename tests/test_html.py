"""The page of a report: whole in one file, nothing fetched, and every run it rests on named."""

import base64
import re
from html.parser import HTMLParser

import nbformat
import numpy as np
import pandas as pd
import pytest

from covidtf import files, html, predictions, runs
from covidtf.config import DataConfig, RecipeConfig, ReportConfig, TrainConfig, TrialConfig
from covidtf.files import DataError

STARTED = "2020-01-01T00:00:00+00:00"
MADE = {"time": STARTED, "command": "as typed", "commit": "c0ffee", "dirty": False}
# One grey pixel.
PNG = base64.b64encode(bytes.fromhex("89504e470d0a1a0a")).decode()
VOID = {"meta", "img", "br", "hr", "link", "input"}


class Page(HTMLParser):
    """What a page holds: tags with their attributes, text, and whether every tag is closed in order."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.words, self.open = [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert tag in VOID or self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def executed(cells: list) -> nbformat.NotebookNode:
    """A notebook as papermill leaves it."""
    notebook = nbformat.v4.new_notebook(cells=cells)
    notebook.metadata["papermill"] = {"start_time": STARTED}
    return notebook


def code(source: str, *outputs) -> nbformat.NotebookNode:
    """An executed cell."""
    return nbformat.v4.new_code_cell(source, outputs=list(outputs))


def picture() -> nbformat.NotebookNode:
    """A figure as a kernel shows it."""
    return nbformat.v4.new_output("display_data", {"image/png": PNG, "text/plain": "<Figure>"})


def write_run(out, seed: int) -> runs.Run:
    """A finished run of four images from two sources."""
    config = TrainConfig(out=str(out), epochs=1, seed=seed)
    table = pd.DataFrame({"image_id": list("abcd"), "patient_id": list("wxyz"), "label": ["x", "y"] * 2})
    table = table.assign(case_id="", source=["A & B", "C", "C", "C"], view="PA", finding="", split="test")
    table = table.assign(score_x=np.linspace(0.1, 0.7, 4), score_y=np.linspace(0.9, 0.3, 4))
    predictions.write(table, config.folder / "predictions.csv")
    record = runs.provenance(config, {"predictions": config.folder / "predictions.csv"}, 1.0)
    runs.write(config, config.folder, record | {"commit": f"c0ffee{seed}", "dirty": bool(seed)})
    return runs.read(config.folder)


@pytest.fixture
def report(tmp_path):
    """Settings of a report whose notebook was executed, on two runs, with figures saved as SVG."""
    config = ReportConfig(out=str(tmp_path))
    for seed in (0, 1):
        write_run(tmp_path, seed)
    config.folder.mkdir()
    for name in ("roc", "histogram_a", "histogram_b"):
        (config.folder / f"{name}.svg").write_text(f"<svg>{name}</svg>")
    table = nbformat.v4.new_output("execute_result", {"text/html": "<table><tr><td>0.833</td></tr></table>"})
    cells = [
        nbformat.v4.new_markdown_cell("# 06 · Report\n\n**Question.** Which?"),
        code("import this_is_hidden"),
        code("show(table)", table, nbformat.v4.new_output("stream", name="stderr", text="progress 100 %")),
        code('saved = style.save(figure, config.folder / "roc")', picture()),
        code('style.save(figure, config.folder / f"histogram_{runs.slug(name)}")', picture(), picture()),
        code("show(other)", picture()),
    ]
    nbformat.write(executed(cells), config.folder / "notebook.ipynb")
    return config


def test_page_is_whole_and_asks_no_network(report):
    """Well-formed; no script, no frame; images are data; the browser is told to load nothing."""
    page = Page(html.write(report, MADE).read_text())
    assert not page.open
    tags = {tag for tag, _ in page.tags}
    assert not tags & {"script", "link", "iframe", "object", "embed", "video", "audio", "base", "form"}
    for tag, attributes in page.tags:
        for name in ("src", "srcset", "href", "data", "poster", "background", "action"):
            value = attributes.get(name) or ""
            assert value.startswith("data:") or (tag == "a" and name == "href") or not value
    text = " ".join(page.words)
    assert not re.search(r"url\(|@import", text)
    policy = {"http-equiv": "Content-Security-Policy", "content": html._POLICY}
    assert ("meta", policy) in page.tags and "default-src 'none'" in html._POLICY


def test_page_shows_results_and_no_code(report):
    """Text and tables stand in it with the notice; code and progress bars do not."""
    text = " ".join(Page(html.write(report, MADE).read_text()).words)
    assert "06 · Report: phantom-xray" in text and html.NOTICE in text and "0.833" in text
    assert "this_is_hidden" not in text and "progress 100" not in text
    assert "smoke run" not in text


def test_saved_figures_take_the_place_of_bitmaps_in_their_order(report):
    """The SVG that a cell saved, those of a loop as they were written; what was not saved stays a bitmap."""
    page = Page(html.write(report, MADE).read_text())
    images = [attributes["src"] for tag, attributes in page.tags if tag == "img"]
    kinds, data = zip(*(image.split(";base64,") for image in images), strict=True)
    assert kinds == (*["data:image/svg+xml"] * 3, "data:image/png")
    shown = [base64.b64decode(text).decode() for text in data[:3]]
    assert shown == [f"<svg>{name}</svg>" for name in ("roc", "histogram_a", "histogram_b")]


@pytest.mark.parametrize("change", ["a figure is left from before", "one is missing", "no start is known"])
def test_a_figure_that_cannot_be_told_stays_a_bitmap(report, change):
    """Rather the bitmap of the notebook itself than the wrong curve."""
    notebook = nbformat.read(report.folder / "notebook.ipynb", as_version=4)
    if change == "one is missing":
        (report.folder / "histogram_a.svg").unlink()
    elif change == "no start is known":
        del notebook.metadata["papermill"]
    else:
        notebook.metadata["papermill"]["start_time"] = "2999-01-01T00:00:00+00:00"
    nbformat.write(notebook, report.folder / "notebook.ipynb")
    text = html.write(report, MADE).read_text()
    assert text.count("data:image/png") == (3 if change == "one is missing" else 4)
    assert text.count("data:image/svg+xml") == (1 if change == "one is missing" else 0)


def test_every_run_is_named_with_what_it_came_from(report):
    """Run id, seed, commit, state of the code, sources with their images and the whole sha256, escaped."""
    found = runs.find(report.experiment_folder)
    table = html.sources(found)
    assert table["run"].tolist() == [run.run_id for run in found]
    assert sorted(table["seed"]) == [0, 1]
    assert sorted(table["commit"] + " " + table["clean"]) == ["c0ffee0 yes", "c0ffee1 no"]
    assert set(table["sources"]) == {"A & B (1), C (3)"}
    text = html.write(report, MADE).read_text()
    for run in found:
        assert files.sha256(report.experiment_folder / run.run_id / "predictions.csv") in text
        assert run.run_id in text
    assert "A &amp; B (1)" in text and "A & B" not in text
    assert report.digest() in text
    assert all(text.count(f"<td>{word}</td>") == 1 for word in ("c0ffee", "as typed", STARTED))


def test_smoke_runs_are_called_so(report):
    """A page of a smoke run cannot be taken for a result."""
    notebook = executed([nbformat.v4.new_markdown_cell("# 06 · Report")])
    facts = {"Experiment": "<tiny>"}
    text = html.page(notebook, report.folder, facts, pd.DataFrame({"run": ["a"]}), smoke=True)
    assert "its numbers mean nothing" in text and "&lt;tiny&gt;" in text and "<tiny>" not in text


def test_a_trial_has_no_runs_and_a_recipe_those_it_names(report, tmp_path):
    """The trial's page says that no run is behind it; the recipe's lists the runs before and after."""
    found = runs.find(report.experiment_folder)
    before, after = (str(report.experiment_folder / run.folder) for run in found)
    for config in (
        TrialConfig(out=str(tmp_path)),
        RecipeConfig(out=str(tmp_path), before=before, after=after),
    ):
        config.folder.mkdir(parents=True)
        nbformat.write(executed([nbformat.v4.new_markdown_cell("# x")]), config.folder / "notebook.ipynb")
        text = html.write(config, MADE).read_text()
        assert ("<p>No run:" in text) == (config.step == "11_audit_trial")
        assert all((run.run_id in text) == (config.step == "12_recipe") for run in found)


def test_what_is_no_report_has_no_page(report, tmp_path):
    """Steps that may show patients are refused, and a step that was not run."""
    with pytest.raises(DataError, match="01_xray_dataset"):
        html.write(DataConfig(out=str(tmp_path)), MADE)
    (report.folder / "notebook.ipynb").unlink()
    with pytest.raises(DataError, match="run the step first"):
        html.write(report, MADE)
    assert not list(tmp_path.rglob("report.html"))
