"""Batch normalisation as PyTorch computes it, in one operation where TensorFlow has one.

In TensorFlow Keras' own layer is a chain of operations on whole feature maps, its gradient a longer one.
"""

import math

from covidtf.training.devices import fused_batch_norm, keras


class Normalisation(keras.layers.BatchNormalization):
    """Batch normalisation over the channels of `(n, height, width, channels)`.

    As in PyTorch a batch is normalised by its biased variance (over n * height * width pixels), and the
    unbiased one is averaged into `moving_variance`; Keras averages the biased. Statistics and parameters stay
    in float32 under any dtype policy.

    Reference: Ioffe and Szegedy 2015, arXiv 1502.03167; torch.nn.BatchNorm2d.
    """

    def __init__(self, **options):
        super().__init__(**options, autocast=False)

    def call(self, inputs, training=None):
        """Outputs of the shape and type of `inputs`."""
        if not (training and self.trainable):
            return super().call(inputs, training=False)
        normalise = _in_one if keras.backend.backend() == "tensorflow" else _in_parts
        outputs, mean, variance = normalise(self, inputs)
        self.moving_mean.assign(mean)
        self.moving_variance.assign(variance)
        return outputs


def _in_one(layer: Normalisation, x) -> tuple:
    """Outputs, and the next moving mean and variance."""
    outputs, mean, variance, *_ = fused_batch_norm(
        x=x,
        scale=layer.gamma.value,
        offset=layer.beta.value,
        mean=layer.moving_mean.value,
        variance=layer.moving_variance.value,
        epsilon=layer.epsilon,
        exponential_avg_factor=1 - layer.momentum,
    )
    return outputs, mean, variance


def _in_parts(layer: Normalisation, x) -> tuple:
    wide = keras.ops.cast(x, "float32")
    mean, variance = keras.ops.moments(wide, (0, 1, 2))
    outputs = keras.ops.batch_normalization(wide, mean, variance, -1, layer.beta, layer.gamma, layer.epsilon)
    count = math.prod(x.shape[:3])
    unbiased = variance * (count / max(count - 1, 1))
    new = 1 - layer.momentum
    return (
        keras.ops.cast(outputs, x.dtype),
        layer.moving_mean * layer.momentum + mean * new,
        layer.moving_variance * layer.momentum + unbiased * new,
    )
