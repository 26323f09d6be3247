"""Diagrams of the networks: what stands in them is what the models are."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from covidtf import files
from covidtf.figures import architecture, style
from covidtf.training.devices import keras
from covidtf.training.networks import NETWORKS, build, summary, supervised

DEEP = {"auxiliary": "learned", "stages": "", "auxiliary_weight": 0.3, "auxiliary_width": 16, "folded": True}
# Blocks per stage, as the papers print them: He et al. 2016, table 1; Huang et al. 2017, table 1; Iandola
# et al. 2016, figure 2.
REPEATS = {
    "ResNet18": {"basic block: 3×3, 3×3": [2, 2, 2, 2]},
    "ResNet50": {"bottleneck block: 1×1, 3×3, 1×1": [3, 4, 6, 3]},
    "SqueezeNet1_0": {"fire module: 1×1, 1×1 beside 3×3": [3, 4, 1]},
    "SqueezeNet1_1": {"fire module: 1×1, 1×1 beside 3×3": [2, 2, 4]},
    "DenseNet121": {"dense layer: 1×1, 3×3": [6, 12, 24, 16], "1×1 convolution, average pool": [1, 1, 1]},
}
by_network = pytest.mark.parametrize("network", NETWORKS)


@pytest.fixture(scope="module")
def models():
    """Each network, plain and deep-supervised with a fused score, by name."""
    style.use()
    plain = {name: build(name, 3, size=96) for name in NETWORKS}
    deep = {
        f"{name} deep": supervised.scorer(supervised.extend(model, DEEP), "mean")
        for name, model in plain.items()
    }
    return plain | deep


@by_network
def test_parameters_add_up_and_blocks_are_the_papers(models, network):
    """No parameter is lost or counted twice; each stage has as many blocks as published."""
    for model in (models[network], models[f"{network} deep"]):
        table = summary.stages(model)
        assert table["parameters"].sum() == model.count_params()
        for block, repeats in REPEATS[network].items():
            assert table.loc[table["block"] == block, "repeats"].tolist() == repeats
        assert table["block"].str.contains("max pool").sum() == (3 if "Squeeze" in network else 1)


@by_network
def test_sizes_are_those_of_the_layers_that_end_the_stages(models, network):
    """Height, width and channels at the end of each stage, and the classes, are the outputs' shapes."""
    model = models[network]
    table = summary.stages(model)
    ends = table[table["part"] == "stage"].groupby("stage").last()
    shapes = [model.get_layer(name).output.shape[1:] for name in NETWORKS[network].stages]
    assert ends[["height", "width", "channels"]].to_numpy(int).tolist() == [list(shape) for shape in shapes]
    head = table[table["part"] == "head"].iloc[0]
    assert head["channels"] == 3 and pd.isna(head["height"])
    assert head["parameters"] == model.get_layer(NETWORKS[network].head).count_params()


@by_network
def test_auxiliary_heads_stand_at_the_stage_that_they_read(models, network):
    """Which heads there are, where they branch off and what they hold is read from the layers."""
    model = models[f"{network} deep"]
    table = summary.stages(model)
    numbers = supervised.stage_numbers(network)
    marked = table[table["heads"] != ""]
    assert marked["heads"].tolist() == [f"auxiliary{number}" for number in numbers]
    assert marked["stage"].tolist() == numbers
    heads = table[table["part"] == "auxiliary head"]
    assert heads["stage"].tolist() == numbers
    for number, count in zip(numbers, heads["parameters"], strict=True):
        named = [x for x in model.layers if x.name.split(".")[0] == f"auxiliary{number}"]
        assert count == sum(layer.count_params() for layer in named)
    assert table["block"].iloc[-2:].tolist() == [
        "3 heads, learned weights of their losses",
        "score: mean of heads",
    ]


def test_the_image_is_named_as_the_model_reads_it(models):
    """A folded first layer reads grey; otherwise a grey channel is repeated; colour stays colour."""
    colour = summary.stages(build("ResNet18", 2, channels=3, size=32))
    images = [summary.stages(models[name])["block"].iloc[0] for name in ("ResNet18", "ResNet18 deep")]
    assert images == ["grey image, repeated to RGB, normalised", "grey image, normalised"]
    assert colour["block"].iloc[0] == "RGB image, normalised"


def test_another_model_is_refused():
    """The stages of a model that is not ours are not known."""
    pixels = keras.Input((8, 8, 1))
    with pytest.raises(ValueError, match=r"`model` must be one of .* Received: 'mine'"):
        summary.stages(keras.Model(pixels, pixels, name="mine"))


@pytest.mark.parametrize("name", [*NETWORKS, *(f"{name} deep" for name in NETWORKS)])
def test_diagram_shows_every_row_inside_of_the_figure(models, name, tmp_path):
    """Every number of the table is in the picture, no text leaves it or meets another; also of the CSV."""
    table = summary.stages(models[name])
    path = files.write_csv(table, tmp_path / "architecture.csv")
    texts = []
    for drawn in (table, pd.read_csv(path)):
        figure = Figure(figsize=(7.0, architecture.height(table)))
        ax = figure.subplots()
        architecture.draw(ax, drawn)
        figure.draw_without_rendering()
        texts.append([text.get_text() for text in ax.texts if text.get_text()])
    assert texts[0] == texts[1]
    shown = " ".join(texts[0])
    for count in table.loc[table["parameters"] > 0, "parameters"]:
        assert f"{count:,}" in shown
    # Heads and fusion share a box.
    assert sum(isinstance(patch, FancyBboxPatch) for patch in ax.patches) == len(table) - ("deep" in name)
    boxes = [text.get_window_extent() for text in ax.texts if text.get_text()]
    width, height = figure.canvas.get_width_height()
    assert all(box.x0 >= 0 and box.x1 <= width and box.y0 >= 0 and box.y1 <= height for box in boxes)
    overlaps = [box.count_overlaps([other for other in boxes if other is not box]) for box in boxes]
    assert not np.any(overlaps)


def test_a_table_without_a_head_is_refused():
    """What is no network is not drawn."""
    with pytest.raises(ValueError, match="must have an input and a head"):
        architecture.draw(Figure().gca(), pd.DataFrame({"part": ["stage"], "heads": [""]}))
