"""What training minimises and how: loss, optimiser and learning rate of a stage."""

from covidtf.training.devices import keras

WARM_UP = 0.05  # share of a cosine's steps that the learning rate rises


def compile_model(model: "keras.Model", config, epochs: int, steps: int, at_once: int = 1) -> None:
    """Give `model` a fresh optimiser for one stage.

    Args:
        model: Its trained part is chosen already (`networks.set_trained_part`).
        config: A `covidtf.config.TrainConfig`.
        epochs: Of this stage.
        steps: Of each epoch.
        at_once: Steps that one call executes; callbacks see the last of them.
    Raises:
        ValueError: Unknown optimiser or schedule.
    """
    rate = _schedule(config, epochs, steps)
    optimizers = {
        # Epsilon as in PyTorch, which the published results come from.
        "adam": lambda: keras.optimizers.Adam(rate, epsilon=1e-8),
        "sgd": lambda: keras.optimizers.SGD(rate, momentum=0.9),
    }
    if config.optimizer not in optimizers:
        raise ValueError(f"`optimizer` must be one of {list(optimizers)}. Received: {config.optimizer!r}")
    model.compile(
        optimizers[config.optimizer](),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        # XLA halves the speed of TensorFlow's CPU steps and is not deterministic on its GPU.
        jit_compile=False if keras.backend.backend() == "tensorflow" else "auto",
        steps_per_execution=at_once,
    )
    model.optimizer.build(model.trainable_variables)


def _schedule(config, epochs: int, steps: int):
    """A number, or a function of the optimiser's steps, so that a checkpoint holds where it is."""
    rate, last = config.learning_rate, epochs * steps
    if config.schedule == "constant":
        return rate
    if config.schedule == "step":
        # PyTorch's StepLR(7, 0.1), of the published code.
        ends = list(range(7 * steps, last, 7 * steps))
        # Keras' boundary belongs to the interval before it.
        return keras.optimizers.schedules.PiecewiseConstantDecay(
            [end - 1 for end in ends] or [last], [rate * 0.1**i for i in range(max(len(ends), 1) + 1)]
        )
    if config.schedule == "cosine":
        rise = max(1, round(WARM_UP * last))
        return keras.optimizers.schedules.CosineDecay(
            rate / rise, max(1, last - rise), warmup_target=rate, warmup_steps=rise
        )
    raise ValueError(f"`schedule` must be constant, step or cosine. Received: {config.schedule!r}")
