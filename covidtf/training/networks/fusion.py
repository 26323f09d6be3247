"""The outputs of all heads in one tensor, and one score out of them."""

from covidtf.training.devices import keras

# How much faster log c_m moves than a network's weights: Adam moves each by its learning rate, and log c_m
# would hardly leave 0 in the thousand steps of a small data set.
SPEED = 10.0


class Heads(keras.layers.Layer):
    """The logits of all heads in one output, and with them what weights their losses.

    So the loss is a function of labels and outputs, and whatever is trained is a weight of the model, which
    optimiser and checkpoints know already.

    Args:
        names: Of the heads, the main one first.
        shares: Weights of their losses; `()` trains them.
    """

    def __init__(self, names: list[str], shares: list[float] = (), **options):
        super().__init__(**options)
        self.names, self.shares, self.learned = list(names), list(shares), not shares

    def build(self, input_shape) -> None:
        """Make what is trained, `log c_m / SPEED`, which is 0 at first."""
        if self.learned:
            self.slow = self.add_weight(shape=(len(self.names),), initializer="zeros", name="slow_log_c")

    @property
    def log_c(self):
        """`log c_m` of each head."""
        return SPEED * self.slow

    def call(self, logits):
        """Of each head `(n, classes)`: `(n, heads, classes + 1)`, the last column `log c_m`, or the share."""
        ops = keras.ops
        stacked = ops.stack(logits, axis=1)
        last = ops.convert_to_tensor(self.log_c if self.learned else self.shares, dtype=stacked.dtype)
        column = ops.zeros_like(stacked[:, :, :1]) + ops.reshape(last, (1, -1, 1))
        return ops.concatenate([stacked, column], axis=-1)

    def get_config(self) -> dict:
        """For a copy of the layer."""
        return super().get_config() | {"names": self.names, "shares": self.shares}


class Fusion(keras.layers.Layer):
    """From the outputs of `Heads` to the logarithms of one score per class, as `scorer` describes."""

    def __init__(self, fusion: str, **options):
        super().__init__(**options)
        self.fusion = fusion

    def call(self, outputs):
        """`(n, heads, classes + 1)` to `(n, classes)`."""
        return fuse(outputs, self.fusion)

    def get_config(self) -> dict:
        """For a copy of the layer."""
        return super().get_config() | {"fusion": self.fusion}


def fuse(outputs, fusion: str):
    """Logarithms of scores `(n, classes)`; of the main head alone its logits."""
    ops = keras.ops
    if fusion == "main":
        return outputs[:, 0, :-1]
    last = outputs[..., -1]
    # Along the last axis: along the middle one OpenVINO's export gave other numbers.
    weights = ops.log_softmax(-2 * last if fusion == "learned" else ops.zeros_like(last), axis=-1)
    logs = ops.log_softmax(outputs[..., :-1], axis=-1) + ops.expand_dims(weights, -1)
    return ops.logsumexp(logs, axis=1)
