"""What a model is made of, block by block, read from its graph of layers."""

import re
from itertools import groupby

import pandas as pd

from covidtf.training.devices import keras
from covidtf.training.networks import AUXILIARY, NETWORKS
from covidtf.training.networks.fusion import Fusion, Heads

__all__ = ["stages"]

_WORDS = {
    "AveragePooling2D": "average pool",
    "Dense": "linear",
    "Dropout": "dropout",
    "GlobalAveragePooling2D": "global average",
    "MaxPooling2D": "max pool",
    "Normalisation": "batch norm",
    "ReLU": "ReLU",
}


def stages(model: "keras.Model") -> pd.DataFrame:
    """One row per run of equal blocks, from the image to the logits, then what deep supervision adds.

    Known beforehand are only the names of the layers that end a stage (`Network.stages`) and that auxiliary
    heads have in common. A layer is of the first stage whose end depends on it. Within a stage a block ends
    with a pool, or where paths meet (a sum, a concatenation); neighbours made alike are one row.

    Args:
        model: Of `networks.build`, or of `supervised.extend`, `restore` or `scorer`.
    Returns:
        Columns part (input, stage, head, auxiliary head, heads, fusion), stage (number from 1, of an
        auxiliary head that of the stage it reads, else NA), block (what it is, with the sides of its kernels
        in pixels), repeats, height, width (of the last output in pixels, of vectors NA), channels, parameters
        (of all repeats, with those that training leaves alone), heads (names of the auxiliary heads that read
        here). The parameters add up to `model.count_params()`.
    Raises:
        ValueError: If the model's name is not one of `NETWORKS`.
    """
    if model.name not in NETWORKS:
        raise ValueError(f"`model` must be one of {list(NETWORKS)}. Received: {model.name!r}")
    graph, ends = _Graph(model), NETWORKS[model.name].stages
    rows = [_row("input", None, _image(model), graph.take(model.get_layer("imagenet")))]
    for number, end in enumerate(ends, start=1):
        rows += _stage(graph, number, graph.take(model.get_layer(end)))
    numbers = {name: index for index, name in enumerate(ends, start=1)}
    auxiliary, places = [], {}
    for name in dict.fromkeys(re.findall(rf"\b{AUXILIARY}\d+\b", " ".join(graph.left))):
        layers = graph.take(model.get_layer(name))
        place = next(numbers[source.name] for source in graph.sources[layers[0].name])
        auxiliary.append(_row("auxiliary head", place, _path(layers), layers))
        places.setdefault(place, []).append(name)
    joins = [layer for layer in graph.left.values() if isinstance(layer, Heads | Fusion)]
    for layer in joins:
        del graph.left[layer.name]
    main = list(graph.left.values())
    rows += [_row("head", None, _path(main), main), *auxiliary, *(_join(layer) for layer in joins)]
    return _table(rows, places)


class _Graph:
    """Which layer reads which, and which of them are not in a row yet."""

    def __init__(self, model: "keras.Model"):
        made_by = {id(layer.output): layer for layer in model.layers}
        self.sources = {
            layer.name: [made_by[id(x)] for x in keras.tree.flatten(layer.input) if id(x) in made_by]
            for layer in model.layers
            if not isinstance(layer, keras.layers.InputLayer)
        }
        self.left = {layer.name: layer for layer in model.layers}

    def take(self, end: "keras.Layer", among: set[str] | None = None) -> list["keras.Layer"]:
        """What `end` depends on, itself included, of what is left, sources before what reads them."""
        found, waiting = set(), [end]
        while waiting:
            layer = waiting.pop()
            inside = layer.name in self.left and (among is None or layer.name in among)
            if inside and layer.name not in found:
                found.add(layer.name)
                waiting += self.sources.get(layer.name, [])
        return [self.left.pop(name) for name in list(self.left) if name in found]


def _stage(graph: _Graph, number: int, layers: list["keras.Layer"]) -> list[dict]:
    inside = {layer.name for layer in layers}
    graph.left.update({layer.name: layer for layer in layers})
    kinds = keras.layers.Add | keras.layers.Concatenate | keras.layers.MaxPooling2D
    cuts = [layer for layer in layers if isinstance(layer, kinds | keras.layers.AveragePooling2D)]
    blocks = [graph.take(cut, inside) for cut in cuts]
    rest = [graph.left.pop(layer.name) for layer in layers if layer.name in graph.left]
    if rest and blocks and not any(layer.weights for layer in rest):
        # The rectifier after the last sum belongs to its block.
        blocks[-1] += rest
    elif rest:
        blocks.append(rest)
    named = [(_block(graph, block), block) for block in blocks]
    return [
        _row("stage", number, words, *(block for _, block in run))
        for words, run in groupby(named, key=lambda pair: pair[0])
    ]


def _block(graph: _Graph, layers: list["keras.Layer"]) -> str:
    """What a block is, by how its paths meet and by the kernels on the longest of them."""
    cut = next((layer for layer in layers if isinstance(layer, keras.layers.Add)), layers[-1])
    inside = {layer.name for layer in layers}
    sources = graph.sources[cut.name]
    paths = [[_side(x) for x in _back(graph, source, inside) if _is_conv(x)] for source in sources]
    longest = max(paths, key=len)
    if isinstance(cut, keras.layers.Add):
        return f"{'basic' if len(longest) == 2 else 'bottleneck'} block: {', '.join(longest)}"
    if isinstance(cut, keras.layers.Concatenate):
        if min(map(len, paths)) == 0:
            return f"dense layer: {', '.join(longest)}"
        ends = " beside ".join(path[-1] for path in paths)
        return f"fire module: {longest[0]}, {ends}"
    return _path([layer for layer in layers if not _follows_conv(layer, layers)])


def _back(graph: _Graph, layer: "keras.Layer", inside: set[str]) -> list["keras.Layer"]:
    """The chain of layers that ends with this one, within a block, first to last."""
    chain = []
    while layer.name in inside:
        chain.insert(0, layer)
        layer = graph.sources[layer.name][0]
    return chain


def _path(layers: list["keras.Layer"]) -> str:
    """A chain in words: "3×3 convolution, batch norm, ReLU"."""
    words = [f"{_side(x)} convolution" if _is_conv(x) else _WORDS.get(type(x).__name__) for x in layers]
    return ", ".join(word for word in words if word)


def _follows_conv(layer: "keras.Layer", layers: list["keras.Layer"]) -> bool:
    """Batch normalisation and ReLU beside a convolution go without saying."""
    plain = type(layer).__name__ in ("Normalisation", "ReLU")
    return plain and any(_is_conv(other) for other in layers)


def _is_conv(layer: "keras.Layer") -> bool:
    return isinstance(layer, keras.layers.Conv2D)


def _side(layer: "keras.Layer") -> str:
    return "×".join(str(side) for side in layer.kernel_size)


def _image(model: "keras.Model") -> str:
    grey = model.input.shape[-1] == 1
    repeated = any(layer.name == "rgb" for layer in model.layers)
    return f"{'grey' if grey else 'RGB'} image{', repeated to RGB' if repeated else ''}, normalised"


def _join(layer: "keras.Layer") -> dict:
    if isinstance(layer, Heads):
        weights = "learned" if layer.learned else "fixed"
        return _row("heads", None, f"{len(layer.names)} heads, {weights} weights of their losses", [layer])
    return _row(
        "fusion", None, f"score: {'mean of heads' if layer.fusion == 'mean' else layer.fusion}", [layer]
    )


def _row(part: str, stage: int | None, block: str, *blocks: list["keras.Layer"]) -> dict:
    shape = blocks[-1][-1].output.shape[1:]
    height, width = shape[:2] if len(shape) == 3 else (None, None)
    return {
        "part": part,
        "stage": stage,
        "block": block,
        "repeats": len(blocks),
        "height": height,
        "width": width,
        "channels": shape[-1],
        "parameters": sum(layer.count_params() for layers in blocks for layer in layers),
    }


def _table(rows: list[dict], places: dict[int, list[str]]) -> pd.DataFrame:
    """With the names of auxiliary heads beside the last block of the stage that they read."""
    table = pd.DataFrame(rows)
    numbers = [name for name in table if name not in ("part", "block")]
    table = table.astype(dict.fromkeys(numbers, "Int64")).assign(heads="")
    for stage, names in places.items():
        last = table.index[(table["part"] == "stage") & (table["stage"] == stage)][-1]
        table.loc[last, "heads"] = " ".join(names)
    return table
