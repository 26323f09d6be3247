"""Occlusion maps: how far a score falls where a grey square covers the image, exactly and not from scratch.

Reference: Zeiler and Fergus 2014, arXiv 1311.2901; used in Minaee et al. 2020, arXiv 2004.09363, which does
not say how large the square was and how far it moved.
"""

import importlib

import numpy as np
import numpy.typing as npt
from scipy.special import log_softmax, softmax

from covidtf.explain.windows import Segment, Span, segments
from covidtf.training.devices import keras
from covidtf.training.features import fold

__all__ = ["OF", "Occluder", "falls", "heat_map", "starts"]

OF = ("score", "log odds")
WINDOW, STRIDE = 32, 8
_TILE = 5  # squares along each side of a tile
# Share of a map's area from which cutting out and pasting in costs more than it saves.
_WORTH = 0.85


def starts(size: int, window: int = WINDOW, stride: int = STRIDE) -> npt.NDArray[np.int64]:
    """First rows (and columns) of the squares: 0, stride, ... and the last place inside of the image.

    Args:
        size: Side of the image in pixels.
        window: Side of the square in pixels, from 1 to `size`.
        stride: Pixels between squares, from 1 to `window`, so that every pixel is covered.
    Raises:
        ValueError: If an argument is out of its range.

    >>> len(starts(224)) ** 2
    625
    """
    if not 1 <= window <= size:
        raise ValueError(f"`window` must be in [1, {size}], the image's side. Received: {window}")
    if not 1 <= stride <= window:
        raise ValueError(f"`stride` must be in [1, {window}], the window's side. Received: {stride}")
    return np.unique([*range(0, size - window, stride), size - window])


def falls(
    whole: npt.NDArray, occluded: npt.NDArray, class_index: int, of: str = "score"
) -> npt.NDArray[np.float64]:
    """How far the score of a class falls: positive where the square covers evidence for it.

    Args:
        whole: Logits of the whole image, shape `(classes,)`.
        occluded: Logits of the occluded ones, shape `(..., classes)`.
        class_index: Place of the class.
        of: "score" is the softmax score, as in the paper; "log odds" is log(p / (1 - p)) of it, which still
            moves where the score is all but 0 or 1.
    Returns:
        Falls, shape `(...)`.
    Raises:
        ValueError: If `of` is neither.
    """
    if of not in OF:
        raise ValueError(f"`of` must be one of {OF}. Received: {of!r}")
    values = [_values(np.asarray(logits, np.float64), class_index, of) for logits in (whole, occluded)]
    return values[0] - values[1]


def heat_map(
    values: npt.NDArray, size: int, window: int = WINDOW, stride: int = STRIDE
) -> npt.NDArray[np.float64]:
    """Each pixel the mean over the squares that cover it.

    Args:
        values: One per square, shape `(len(starts), len(starts))`, rows first.
        size, window, stride: As in `starts`.
    Returns:
        Map of shape `(size, size)`.
    """
    first = starts(size, window, stride)
    if np.shape(values) != (len(first), len(first)):
        raise ValueError(f"`values` must be of shape {(len(first),) * 2}. Received: {np.shape(values)}")
    covers = (np.arange(size)[:, None] >= first) & (np.arange(size)[:, None] < first + window)
    count = covers.sum(axis=1)
    return covers @ values @ covers.T / np.outer(count, count)


class Occluder:
    """Logits of one image under a square at every place, without computing again what a square cannot reach.

    A square changes only part of the activations: they are computed once of the whole image, and for each
    square only the part it reaches, cut out with as much around it as the layers look at, and pasted in
    (`windows`). Neighbouring squares go together, since they reach about as far. From where the parts are
    most of the map on, whole maps go through the rest. The result is that of the model on each occluded
    image, up to rounding.

    Args:
        model: Functional, pixels to logits, of `networks.build` or `supervised.scorer`. Weights are copied.
        window, stride: As in `starts`.
    Attributes:
        size: Side of the images in pixels.
        window, stride: As given.
        starts: First rows and columns of the squares.
    Raises:
        ValueError: If `window` or `stride` is out of its range, or the model is not in float32.
    """

    def __init__(self, model: "keras.Model", window: int = WINDOW, stride: int = STRIDE):
        policies = {layer.dtype_policy.name for layer in model.layers}
        if policies != {"float32"}:
            raise ValueError(f"`model` must be in float32. Received: {sorted(policies)}")
        self.size, self.window, self.stride = model.input.shape[1], window, stride
        self.starts = starts(self.size, window, stride)
        # Tiles of squares that are computed together.
        self._tiles = np.array_split(np.arange(len(self.starts)), -(-len(self.starts) // _TILE))
        model = _any_size(fold(model))
        self._parts, last = self._plan(model)
        self._rest = Compiled(keras.Model(last, model.output))
        cuts = [*(part.segment.exit for part in self._parts), model.output]
        self._whole = Compiled(keras.Model(model.input, cuts))

    def __call__(self, image: npt.NDArray, fill: float | None = None) -> tuple[npt.NDArray, npt.NDArray]:
        """Logits of the whole image and of each occluded one.

        Args:
            image: Shape `(size, size, channels)`, values in [0, 255].
            fill: Grey value of the square; None takes the image's mean.
        Returns:
            Shapes `(classes,)` and `(len(starts), len(starts), classes)`, the square's row first.
        """
        image = np.asarray(image, np.float32)
        fill = float(image.mean()) if fill is None else fill
        *cached, logits = (x[0] for x in self._whole(image[None]))
        found = np.empty((len(self.starts), len(self.starts), len(logits)), np.float32)
        for rows in self._tiles:
            for columns in self._tiles:
                values = self._forward([image, *cached], rows, columns, fill)
                found[np.ix_(rows, columns)] = values.reshape(len(rows), len(columns), -1)
        return logits, found

    def _plan(self, model: "keras.Model") -> tuple[list["_Part"], "keras.KerasTensor"]:
        """The parts that are cut out, and the tensor where the rest begins."""
        parts, last, span = [], model.input, (self.starts, self.starts + self.window)
        for segment in segments(model, self.size):
            part = _Part(segment, span, self._tiles)
            if part.share > _WORTH:
                break
            parts.append(part)
            last, span = segment.exit, part.reached
        return parts, last

    def _forward(self, cached: list, rows: npt.NDArray, columns: npt.NDArray, fill: float) -> npt.NDArray:
        """Logits under the squares of a tile."""
        places = np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1).reshape(-1, 2)
        patches = np.full((len(places), self.window, self.window, cached[0].shape[-1]), fill, np.float32)
        origins, span = self.starts[places], (self.starts, self.starts + self.window)
        for part, whole in zip(self._parts, cached, strict=False):
            corners = part.corners[places]
            sides = part.sides[rows[0]], part.sides[columns[0]]
            cut = _pasted(whole, corners, sides, patches, origins, (span[0][places], span[1][places]))
            patches = part.compute(cut)
            origins, span = corners // part.segment.stride, part.reached
        whole, corners = cached[len(self._parts)], np.zeros_like(places)
        changed = span[0][places], span[1][places]
        return self._rest(_pasted(whole, corners, whole.shape[:2], patches, origins, changed))


class _Part:
    """A segment, and the windows of its entry that are cut out for the squares; along one axis, both alike.

    Attributes:
        reached: Span of the exit that each square changes.
        corners, sides: First pixel and side of each square's window; squares of a tile have one side.
        share: Mean share of the map's area that is computed.
    """

    def __init__(self, segment: Segment, span: Span, tiles: list[npt.NDArray]):
        self.segment, stride = segment, segment.stride
        self.reached = segment.reached(span)
        low, high = segment.needed(self.reached)
        # The layers of a cut must step on the same pixels as in the whole, and at its far edge end there too.
        low = low // stride * stride
        widest = np.concatenate([np.full(len(tile), (high - low)[tile].max()) for tile in tiles])
        if keras.backend.backend() != "tensorflow":
            # What compiles anew for every shape gets one.
            widest[:] = widest.max()
        self.sides = np.minimum(widest + (segment.side - widest) % stride, segment.side)
        self.corners = np.minimum(low, segment.side - self.sides)
        self.share = float((self.sides / segment.side).mean() ** 2)
        self.compute = Compiled(keras.Model(segment.entry, segment.exit))


class Compiled:
    """A model in inference mode as a function of arrays `(n, ...)` of any height and width.

    Args:
        model: Its inputs leave height and width open.
    """

    def __init__(self, model: "keras.Model"):
        self._model = model
        if keras.backend.backend() == "tensorflow":
            tensorflow = importlib.import_module("tensorflow")
            # One trace for all shapes. XLA, which would want each shape, halves the speed on CPUs anyway.
            signature = [tensorflow.TensorSpec((None, *model.input.shape[1:]), "float32")]
            # The concrete function, because TensorFlow warns of many functions made of the same lines.
            self._run = tensorflow.function(self._infer, input_signature=signature).get_concrete_function()
        else:
            model.compile()
            self._run = model.predict_on_batch

    def __call__(self, batch: npt.NDArray) -> npt.NDArray | list[npt.NDArray]:
        """Outputs of a float32 batch; of several outputs a list."""
        outputs = self._run(keras.ops.convert_to_tensor(batch))
        if isinstance(outputs, list | tuple):
            return [np.asarray(output) for output in outputs]
        return np.asarray(outputs)

    def _infer(self, batch):
        return self._model(batch, training=False)


def _pasted(whole, corners, sides: tuple[int, int], patches, origins, changed: Span) -> npt.NDArray:
    """Windows of the activations of the whole image, with what the squares change pasted in.

    Args:
        whole: Activations, shape `(side, side, channels)`.
        corners: First row and column of each window, shape `(n, 2)`.
        sides: Height and width of the windows.
        patches: What holds the changed pixels, shape `(n, ?, ?, channels)`.
        origins: Where on the map each patch begins, shape `(n, 2)`.
        changed: First and last row and column (exclusive) that are taken from it, shapes `(n, 2)`.
    """
    cut = np.empty((len(corners), *sides, whole.shape[-1]), np.float32)
    low, high = (np.clip(limit, corners, corners + sides) for limit in changed)
    for index, (top, left) in enumerate(corners):
        cut[index] = whole[top : top + sides[0], left : left + sides[1]]
        rows, columns = zip(low[index], high[index], strict=True)
        (y, x), patch = origins[index], patches[index]
        cut[index, rows[0] - top : rows[1] - top, columns[0] - left : columns[1] - left] = patch[
            rows[0] - y : rows[1] - y, columns[0] - x : columns[1] - x
        ]
    return cut


def _any_size(model: "keras.Model") -> "keras.Model":
    """A copy that takes images of any size."""
    pixels = keras.Input((None, None, model.input.shape[-1]), dtype="float32", name="pixels")
    copy = keras.models.clone_model(model, input_tensors=pixels)
    copy.set_weights(model.get_weights())
    return copy


def _values(logits: npt.NDArray, class_index: int, of: str) -> npt.NDArray:
    if of == "score":
        return softmax(logits, axis=-1)[..., class_index]
    logs = log_softmax(logits, axis=-1)
    others = np.delete(logs, class_index, axis=-1)
    return logs[..., class_index] - np.logaddexp.reduce(others, axis=-1)
