"""Settings of the heat maps."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from covidtf.settings import Config, at_least


@dataclass(frozen=True, kw_only=True)
class HeatMapConfig(Config):
    """Notebook 07: where networks find what they score, and how much of it lies in the lungs.

    Args:
        run_ids: As in `ReportConfig`.
        method: Grad-CAM is of all judged images, occlusion of `most` and of the examples.
        window: Side of the grey square in pixels, ours: the paper does not say; at most the image's side.
        stride: Pixels from one square to the next, ours as well; at most `window`.
        of: What an occlusion map shows the fall of, see `explain.occlusion.falls`.
        examples: Images shown of each kind (true and false positives and negatives) and network.
        most: Images drawn for occlusion.
        draws: Bootstrap draws of patients.
        seed: Of the drawn images and the draws of patients.
    """

    step: ClassVar[str] = "07_heat_maps"
    reads: ClassVar[tuple[str, ...]] = (
        *("01_xray_dataset", "02_ct_dataset", "03_augmentation"),
        *("04_transfer_learning", "05_deep_supervision"),
    )
    smoke_values: ClassVar[dict[str, object]] = {
        **{"draws": 100, "most": 2, "examples": 1},
        **{"window": 32, "stride": 32},
    }

    run_ids: str = "*"
    method: Literal["both", "Grad-CAM", "occlusion"] = "both"
    window: int = at_least(32, 1)
    stride: int = at_least(8, 1)
    of: Literal["score", "log odds"] = "score"
    examples: int = at_least(2, 1)
    most: int = at_least(16, 1)
    draws: int = at_least(2000, 50)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.stride > self.window:
            raise ValueError(f"`stride` must be at most `window`. Received: {self.stride} > {self.window}")
