"""Figures of a CT data set: what is drawn and which slices are shown."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from covidtf.figures import ct


def slices(sizes):
    """Manifest of slices: `sizes` is slices of each case by label."""
    rows = [
        {"label": label, "case_id": f"{label}{case}"}
        for label, counts in sizes.items()
        for case, count in enumerate(counts)
        for _ in range(count)
    ]
    return pd.DataFrame(rows)


def test_slices_per_case_has_a_mark_per_case_and_the_median():
    """Marks stand at the numbers of slices, the line at their median, classes from top to bottom."""
    figure, ax = plt.subplots()
    ct.slices_per_case(ax, slices({"Normal": [10, 12, 30], "COVID-19": [4, 4]}))
    marks = [line for line in ax.lines if line.get_marker() == "o"]
    assert [sorted(line.get_xdata()) for line in marks] == [[4, 4], [10, 12, 30]]
    medians = [line.get_xdata()[0] for line in ax.lines if line.get_marker() != "o"]
    assert medians == [4, 12]
    # Two cases of equal size do not hide each other.
    assert len(set(marks[0].get_ydata())) == 2
    assert [text.get_text() for text in ax.get_yticklabels()] == ["COVID-19\n2 cases", "Normal\n3 cases"]
    plt.close(figure)


def test_rows_show_one_case_from_head_to_feet_or_several_cases():
    """Evenly thinned slices of the largest case; where cases have one slice each, one of each case."""
    table = slices({"COVID-19": [11, 3], "non-COVID": [1, 1, 1, 1, 1, 1, 1]})
    chosen = ct.choose(table, 6)
    assert chosen[:6].tolist() == [0, 2, 4, 6, 8, 10]
    assert set(table["label"].iloc[chosen[6:]]) == {"non-COVID"}
    assert len(set(chosen[6:])) == 6


def test_a_small_class_shows_slices_again():
    """Three slices fill six places, each at least once."""
    chosen = ct.choose(slices({"COVID-19": [3], "Normal": [20]}), 6)
    assert np.unique(chosen[:6]).tolist() == [0, 1, 2]
