"""Which part of a network's activations a change inside a window of its input can reach."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from covidtf.training.devices import keras

_STEPPING = (keras.layers.Conv2D, keras.layers.MaxPooling2D, keras.layers.AveragePooling2D)
_PIXELWISE = (
    *(keras.layers.ReLU, keras.layers.BatchNormalization, keras.layers.Rescaling, keras.layers.Normalization),
    *(keras.layers.Dropout, keras.layers.Add, keras.layers.Concatenate),
)
# From and to (exclusive) along one axis, of each window: two integer arrays.
Span = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]


@dataclass(frozen=True)
class Segment:
    """Layers between two tensors through which everything flows.

    Attributes:
        entry, exit: The tensors.
        layers: In the order of computation.
        sizes: Side in pixels of each tensor, by its id.
    """

    entry: "keras.KerasTensor"
    exit: "keras.KerasTensor"
    layers: list["keras.Layer"]
    sizes: dict[int, int]

    @property
    def side(self) -> int:
        """Side of what comes in, in pixels."""
        return self.sizes[id(self.entry)]

    @property
    def stride(self) -> int:
        """Pixels of the entry per pixel of the exit."""
        steps = {id(self.entry): 1}
        for layer in self.layers:
            step = steps[id(_inputs(layer)[0])]
            steps[id(layer.output)] = step * (layer.strides[0] if isinstance(layer, _STEPPING) else 1)
        return steps[id(self.exit)]

    @property
    def is_local(self) -> bool:
        """Whether a pixel of the exit depends on more than one of the entry."""
        return any(isinstance(layer, _STEPPING) and _kernel(layer) > 1 for layer in self.layers)

    def reached(self, span: Span) -> Span:
        """The pixels of the exit that depend on these of the entry."""
        spans = {id(self.entry): span}
        for layer in self.layers:
            low, high = _union([spans[id(tensor)] for tensor in _inputs(layer)])
            if isinstance(layer, _STEPPING):
                before, step = self._before(layer), layer.strides[0]
                low, high = -((_kernel(layer) - 1 - low - before) // step), (high - 1 + before) // step + 1
            elif isinstance(layer, keras.layers.ZeroPadding2D):
                low, high = low + layer.padding[0][0], high + layer.padding[0][0]
            spans[id(layer.output)] = _clipped(low, high, self.sizes[id(layer.output)])
        return spans[id(self.exit)]

    def needed(self, span: Span) -> Span:
        """The pixels of the entry that these of the exit depend on."""
        spans = {id(self.exit): span}
        for layer in reversed(self.layers):
            low, high = spans[id(layer.output)]
            if isinstance(layer, _STEPPING):
                before, step = self._before(layer), layer.strides[0]
                low, high = low * step - before, (high - 1) * step - before + _kernel(layer)
            elif isinstance(layer, keras.layers.ZeroPadding2D):
                low, high = low - layer.padding[0][0], high - layer.padding[0][0]
            for tensor in _inputs(layer):
                found = _clipped(low, high, self.sizes[id(tensor)])
                spans[id(tensor)] = _union([found, spans.get(id(tensor), found)])
        return spans[id(self.entry)]

    def _before(self, layer) -> int:
        """Pixels of border before the first one."""
        if layer.padding == "valid":
            return 0
        side, step = self.sizes[id(layer.input)], layer.strides[0]
        return max((-(-side // step) - 1) * step + _kernel(layer) - side, 0) // 2


def segments(model: "keras.Model", side: int) -> list[Segment]:
    """The model from its input to where it stops to be local, cut wherever one tensor holds all that goes on.

    Segments whose outputs depend on single pixels are joined to the one before. What comes after the last of
    them (global averages, dense layers, whatever joins several stages) is not in the list.

    Args:
        model: Functional, with square kernels, strides and images.
        side: Height and width of its images in pixels.
    """
    last_use = {id(x): index for index, layer in enumerate(model.layers) for x in _inputs(layer)}
    sizes, found = {id(model.input): side}, []
    start, layers, live = model.input, [], {id(model.input)}
    for index, layer in enumerate(model.layers):
        if isinstance(layer, keras.layers.InputLayer):
            continue
        if not isinstance(layer, (*_STEPPING, *_PIXELWISE, keras.layers.ZeroPadding2D)):
            break
        output = layer.output
        if len(output.shape) != 4 or any(id(x) not in sizes for x in _inputs(layer)):
            break
        sizes[id(output)] = _side_after(layer, sizes[id(_inputs(layer)[0])])
        layers.append(layer)
        live = {x for x in live | {id(output)} if last_use.get(x, -1) > index}
        # A border of zeros belongs to the layer that reads it.
        if live == {id(output)} and not isinstance(layer, keras.layers.ZeroPadding2D):
            _append(found, Segment(start, output, layers, sizes))
            start, layers = output, []
    return found


def _append(found: list[Segment], segment: Segment) -> None:
    if found and not segment.is_local:
        before = found.pop()
        segment = Segment(before.entry, segment.exit, before.layers + segment.layers, segment.sizes)
    found.append(segment)


def _side_after(layer, side: int) -> int:
    if isinstance(layer, _STEPPING):
        step = layer.strides[0]
        return -(-side // step) if layer.padding == "same" else (side - _kernel(layer)) // step + 1
    return side + sum(layer.padding[0]) if isinstance(layer, keras.layers.ZeroPadding2D) else side


def _kernel(layer) -> int:
    return (layer.kernel_size if isinstance(layer, keras.layers.Conv2D) else layer.pool_size)[0]


def _inputs(layer) -> list:
    return keras.tree.flatten(layer.input)


def _union(spans: list[Span]) -> Span:
    return np.min([low for low, _ in spans], axis=0), np.max([high for _, high in spans], axis=0)


def _clipped(low: npt.NDArray, high: npt.NDArray, side: int) -> Span:
    return np.clip(low, 0, side), np.clip(high, 0, side)
