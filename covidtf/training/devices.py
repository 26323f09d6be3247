"""The device and the numerics: Keras without start-up noise, determinism, precision, what ran."""

import contextlib
import ctypes
import importlib
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator

import numpy as np

_NOISE = re.compile(
    rb"([IWE]\d{4} |\d{4}-\d\d-\d\d .*: [IWE] |WARNING: All log messages before|To enable the foll)"
)


@contextlib.contextmanager
def _without_startup_noise() -> Iterator[None]:
    """Drop what TensorFlow's libraries log while they load, before they read TF_CPP_MIN_LOG_LEVEL.

    Such lines go to file descriptor 2, not to `sys.stderr`, and would land in notebooks. Everything else
    that was written is passed on, and all of it if the import fails.
    """
    sys.stderr.flush()
    terminal = os.dup(2)
    noise = _NOISE
    with tempfile.TemporaryFile() as log:
        os.dup2(log.fileno(), 2)
        try:
            yield
        except BaseException:
            noise = re.compile(rb"(?!)")
            raise
        finally:
            sys.stderr.flush()
            os.dup2(terminal, 2)
            os.close(terminal)
            log.seek(0)
            os.write(2, b"".join(line for line in log if not noise.match(line)))


# Whoever needs Keras imports it from here, so that the first import is always the quiet one.
with _without_startup_noise():
    import keras


def make_deterministic() -> None:
    """Make every operation give the same bits again on the same device, CPU cores and versions.

    TensorFlow's determinism is a switch of the whole process that cannot be turned off again; it also turns
    off XLA. JAX is deterministic on a CPU; on a GPU it needs `XLA_FLAGS=--xla_gpu_deterministic_ops=true`
    in the environment before Python starts. No global random seed is set: every random number here comes
    from a generator with a seed of its own.
    """
    if keras.backend.backend() == "tensorflow":
        _backend_module().config.experimental.enable_op_determinism()


def keep_memory() -> None:
    """Let glibc, where it is the allocator, keep what is freed for what comes next.

    It otherwise gives large arrays back to the kernel, which hands them out again page by page, zeroed: 17
    thousand pages in each step of ResNet18. It lasts for the process.
    """
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        # M_MMAP_MAX and M_TRIM_THRESHOLD of malloc.h.
        mallopt(-4, 0)
        mallopt(-1, 2**31 - 1)


def precision(mixed: bool) -> str:
    """Keras dtype policy: `float32`, or mixed with variables and logits in float32.

    Mixed is `mixed_float16` with loss scaling on a GPU, since every card with tensor cores has it, and
    `mixed_bfloat16` on a CPU, where float16 is slow and bfloat16 is in hardware on recent ones.
    """
    if not mixed:
        return "float32"
    return "mixed_float16" if _on_gpu() else "mixed_bfloat16"


def environment(mixed: bool = False) -> dict[str, object]:
    """What a run is computed with, for its provenance.

    Returns:
        `backend`, `backend_version`, `keras`, `numpy` (versions), `devices` (Keras' names; the GPUs where
        there are any), `cards` (the GPUs' names as their makers give them), `precision`.
    """
    return {
        "backend": keras.backend.backend(),
        "backend_version": _backend_module().__version__,
        "keras": keras.version(),
        "numpy": np.__version__,
        "devices": keras.distribution.list_devices(),
        "cards": _cards() if _on_gpu() else [],
        "precision": precision(mixed),
    }


def feed(work: Callable, batches, together: int = 1, **options):
    """Call `fit` or `predict` on batches, without tf.data's tuner.

    The datasets that Keras makes for TensorFlow are tuned by a thread that sleeps 10, 20, 40 and so on
    milliseconds, and the end of an epoch waits for it to wake: an epoch could take twice as long as its work.

    Args:
        work: A model's `fit` or `predict`.
        batches: `training.batches.Batches`; shown in its order.
        together: Batches that are read at once and divided then, for those that take longer to read than to
            learn from. JAX reads each alone.
        options: Further arguments of `work`.
    Returns:
        What `work` returns.
    Raises:
        Exception: What reading a batch raised, which TensorFlow would turn into an error of its own.
    """
    if keras.backend.backend() != "tensorflow":
        return work(batches, **options)
    failed: list[Exception] = []
    dataset = _dataset(batches, batches.enlarged(together), failed)
    try:
        return work(dataset, **options)
    except Exception as error:
        if failed:
            raise failed[0] from error
        raise


def _dataset(batches, read, failed: list[Exception]):
    """Batches as a TensorFlow dataset, read from larger ones; an error of reading is kept in `failed`."""
    tensorflow = _backend_module()
    data = tensorflow.data

    def generate():
        try:
            yield from (read[index] for index in range(len(read)))
        except Exception as error:
            failed.append(error)
            raise

    arrays = batches.images, batches.labels
    signature = tuple(tensorflow.TensorSpec((None, *array.shape[1:]), array.dtype) for array in arrays)
    dataset = data.Dataset.from_generator(generate, output_signature=signature)
    if read is not batches:
        dataset = dataset.flat_map(
            lambda x, y: data.Dataset.from_tensor_slices((x, y)).batch(batches.batch_size)
        )
    options = data.Options()
    options.autotune.enabled = False
    counted = dataset.apply(data.experimental.assert_cardinality(len(batches)))
    return counted.prefetch(2).with_options(options)


def fused_batch_norm(**arguments):
    """TensorFlow's FusedBatchNormV3, which no Keras operation reaches; its gradient is one operation too."""
    return _backend_module().raw_ops.FusedBatchNormV3(**arguments)


def _on_gpu() -> bool:
    # Without a device type Keras lists the GPUs, or the CPU if there is none; asking JAX for "gpu" may fail.
    return keras.distribution.list_devices()[0].startswith("gpu")


def _cards() -> list[str]:
    backend = _backend_module()
    if keras.backend.backend() == "jax":
        return [device.device_kind for device in backend.devices("gpu")]
    details = backend.config.experimental.get_device_details
    return [details(card).get("device_name", "") for card in backend.config.list_physical_devices("GPU")]


def _backend_module():
    return importlib.import_module(keras.backend.backend())
