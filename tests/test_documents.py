"""The cards answer every item of their checklists, and what REPRODUCING.md names is there."""

import re

import pytest

from covidtf.config import ROOT

CARDS = {
    "TRIPOD+AI": (["MODEL_CARD.md"], range(1, 28)),
    "CLAIM": (["MODEL_CARD.md", "DATA_CARD.md"], range(1, 45)),
}


@pytest.mark.parametrize("checklist", CARDS)
def test_every_item_of_a_checklist_is_answered_once(checklist):
    """The cards hold each item's number once, with an answer or with what is open."""
    documents, wanted = CARDS[checklist]
    found = []
    for name in documents:
        for section in (ROOT / name).read_text(encoding="utf-8").split("\n## ")[1:]:
            if section.startswith(checklist):
                found += re.findall(r"^\| (\d+) [^|]+ \| [^|]{4,} \|$", section, re.MULTILINE)
    assert sorted(map(int, found)) == list(wanted)


def test_what_is_named_for_the_papers_figures_is_there():
    """Experiment files of REPRODUCING.md exist, and each numbered notebook of its tables."""
    text = (ROOT / "REPRODUCING.md").read_text(encoding="utf-8")
    named = set(re.findall(r"notebooks/[\w/-]+\.(?:yaml|ipynb)", text))
    assert named and all((ROOT / path).is_file() for path in named)
    tables = re.findall(r"^\| in the (?:paper|publication) .*\n(?:\|.*\n)+", text, re.MULTILINE)
    rows = [row.split(" | ") for table in tables for row in table.splitlines()[2:]]
    assert len(tables) == 2 and {len(row) for row in rows} == {4}
    for number in {number for row in rows for number in re.findall(r"\d\d", row[-1])}:
        assert len(list((ROOT / "notebooks").glob(f"{number}_*.ipynb"))) == 1, number


@pytest.mark.parametrize("experiment", ["xray-sample", "phantom-networks"])
def test_published_files_have_the_names_that_are_listed(experiment):
    """Of the report's files that REPRODUCING.md names, none is called otherwise in what was published."""
    text = (ROOT / "REPRODUCING.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("|") and "`06_report/" in line]
    named = {name for row in rows for name in re.findall(r"`(?:06_report/)?([\w<>]+\.(?:csv|svg))`", row)}
    folder = ROOT / "results" / experiment / "06_report"
    assert len(named) >= 8
    for name in named:
        assert list(folder.glob(re.sub(r"<\w+>", "*", name))), name
