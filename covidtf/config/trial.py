"""Settings of the audit's own trial."""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from covidtf.settings import NAME, Config, at_least


@dataclass(frozen=True, kw_only=True)
class TrialConfig(Config):
    """Notebook 11: the audit on phantoms without a shortcut, and with one planted.

    Args:
        seeds: How many sets of phantoms, the first of `seed`, the next of `seed` + 1, and so on.
        conditions: Of `audit.trials.EXPECTED`, separated by commas; `*` takes all.
        patients: Phantoms of one set, an image each; 40 % are test.
        size: Side of an image in pixels.
        of_covid: Probability that an image of COVID-19 gets what is planted.
        of_others: The same of any other image.
        network: Backbone of the probe.
        weights: What the backbone starts from, as in `TrainConfig`.
        draws: Bootstrap draws of patients.
    """

    step: ClassVar[str] = "11_audit_trial"
    smoke_values: ClassVar[dict[str, object]] = {
        "seeds": 1,
        "conditions": "clean, border",
        "patients": 48,
        "size": 64,
        "draws": 100,
    }

    experiment: str = field(default="audit-trial", metadata={"pattern": NAME})
    seeds: int = at_least(20, 1)
    conditions: str = "*"
    patients: int = at_least(600, 24)
    size: int = at_least(128, 64)
    of_covid: float = field(default=0.95, metadata={"minimum": 0.0, "maximum": 1.0})
    of_others: float = field(default=0.03, metadata={"minimum": 0.0, "maximum": 1.0})
    network: Literal["ResNet18", "ResNet50", "SqueezeNet1_0", "SqueezeNet1_1", "DenseNet121"] = (
        "SqueezeNet1_0"
    )
    weights: str = "tiny-imagenet"
    draws: int = at_least(1000, 50)
