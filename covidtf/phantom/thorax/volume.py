"""One phantom: a made-up chest in Hounsfield units, healthy or with a finding, at any voxel size."""

from dataclasses import dataclass, replace

import numpy as np

from covidtf.phantom.thorax.body import Lung, Patient, cage_depth, draw_body, draw_patient
from covidtf.phantom.thorax.findings import FINDINGS, Change
from covidtf.phantom.thorax.shapes import Canvas, smooth_noise
from covidtf.phantom.thorax.skeleton import draw_ribs, draw_skeleton
from covidtf.phantom.thorax.vessels import vessel_shares
from covidtf.phantom.thorax.viscera import draw_viscera

SPACING = (2.0, 4.0, 2.0)


@dataclass(frozen=True)
class Volume:
    """A phantom.

    Args:
        hu: int16, shape (z, y, x): z upwards, y to the back, x to the patient's left.
        spacing: Voxel sides along z, y and x, mm.
        parts: uint8, index into `covidtf.phantom.thorax.body.PARTS` per voxel.
        lesion: bool, the voxels the finding changed by more than a quarter; the heart in cardiomegaly.
        patient: Proportions, sex and age.
        finding, severity: Its name; 0 to 1, 0 where there is none.
    """

    hu: np.ndarray
    spacing: tuple[float, float, float]
    parts: np.ndarray
    lesion: np.ndarray
    patient: Patient
    finding: str
    severity: float

    @property
    def lungs(self) -> np.ndarray:
        """True in the five lobes, diseased or not, without fluid or air in the pleural space."""
        return (self.parts >= 1) & (self.parts <= 5)


def thorax(seed: int, finding: str = "No Finding", severity: float | None = None, inspiration: float = 1.0,
           spacing: tuple[float, float, float] = SPACING) -> Volume:  # fmt: skip
    """Phantom of one patient at one moment.

    Args:
        seed: Which patient; anatomy and the finding's place depend on it alone, so the same seed with another
            severity or inspiration is the same patient at a later visit.
        finding: A key of `FINDINGS`.
        severity: In [0, 1]; drawn from `seed` if None. Without meaning for "No Finding".
        inspiration: 1 at full breath, 0 at rest: higher domes, denser lungs, wider heart.
        spacing: Voxel sides along z, y and x, mm. The default suits projection from front to back; a CT wants
            fine x and y instead, e.g. `(2.5, 1, 1)`.
    Raises:
        ValueError: Unknown finding, or a number out of its range.
    """
    if finding not in FINDINGS:
        raise ValueError(f"`finding` must be one of {tuple(FINDINGS)}. Received: {finding!r}")
    drawn = float(np.clip(np.random.default_rng([seed, 2]).beta(2, 2), 0.12, 1))
    severity = 0.0 if finding == "No Finding" else drawn if severity is None else float(severity)
    for name, value in (("severity", severity), ("inspiration", inspiration)):
        if not 0 <= value <= 1:
            raise ValueError(f"`{name}` must be in [0, 1]. Received: {value}")
    swell = {"Cardiomegaly": 1.15 + 0.25 * severity, "Edema": 1.05 + 0.1 * severity}.get(finding, 1.0)
    patient = draw_patient(seed)
    patient = replace(patient, heart=patient.heart * swell, inspiration=inspiration)
    canvas = Canvas.empty(spacing)
    draw_body(canvas, patient)
    lesion = _chest(canvas, patient, finding, severity, seed)
    draw_skeleton(canvas, patient)
    hu = np.rint(np.clip(canvas.hu, -1024, 3000)).astype(np.int16)
    return Volume(hu, spacing, canvas.parts, lesion, patient, finding, severity)


def _chest(canvas: Canvas, patient: Patient, finding: str, severity: float, seed: int) -> np.ndarray:
    """Draw the rib cage and what it holds; the lesion's mask."""
    reach = np.array([patient.width + 13, patient.depth + 13, 300])
    chest, where = canvas.crop(-reach, reach)
    depth = cage_depth(chest, patient)
    lung = draw_viscera(chest, patient, depth)
    noise = smooth_noise(chest, 14, np.random.default_rng([seed, 3])).ravel()[lung.flat]
    change = FINDINGS[finding](lung, noise, severity, np.random.default_rng([seed, 4]))
    _fill_lungs(patient, lung, noise, change, 1.25 if finding == "Edema" else 1.0, seed)
    draw_ribs(chest, patient, depth)
    found = np.zeros(chest.hu.size, bool)
    found[lung.flat] = (change.weight > 0.25) & (lung.inside > 0)
    found = chest.parts == 6 if finding == "Cardiomegaly" else found.reshape(chest.shape)
    if change.pleural:
        chest.parts[found] = 8
    canvas.hu[where], canvas.parts[where] = chest.hu, chest.parts
    lesion = np.zeros(canvas.shape, bool)
    lesion[where] = found
    return lesion


def _fill_lungs(
    patient: Patient, lung: Lung, noise: np.ndarray, change: Change, swell: float, seed: int
) -> None:
    """Parenchyma with its gradient and grain, then the finding, then vessels and bronchi."""
    hu = patient.density + 70 * (1 - patient.inspiration) + 0.23 * lung.y + 12 * noise
    hu += change.weight * (change.hu - hu)
    vessels = vessel_shares(lung, swell, 0.0, np.random.default_rng([seed, 5]))
    hu += vessels * (1 - change.weight * change.pleural) * (40 - hu)
    if change.airways:
        bronchi = vessel_shares(lung, 0.8, 1.3, np.random.default_rng([seed, 5]))
        hu += bronchi * change.weight * (-900 - hu)
    view = lung.canvas.hu.ravel()
    view[lung.flat] += lung.canvas.coverage(lung.inside) * (hu - patient.density)
