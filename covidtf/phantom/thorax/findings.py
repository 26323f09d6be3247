"""Findings as physics: how much of each lung voxel is replaced, by what, and what survives there."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from covidtf.phantom.thorax.body import Lung


@dataclass(frozen=True)
class Change:
    """What a finding does to the lungs.

    Args:
        weight: Share of each voxel replaced, shape `(n,)`, in `[0, 1]`.
        hu: What replaces it, HU, a number or shape `(n,)`.
        airways: Whether bronchi stay filled with air inside it.
        pleural: Whether it fills the pleural space, so that neither lung nor vessels remain.
    """

    weight: np.ndarray
    hu: float | np.ndarray
    airways: bool = False
    pleural: bool = False


def _step(value: np.ndarray) -> np.ndarray:
    value = np.clip(value, 0, 1)
    return value * value * (3 - 2 * value)


def _distance(lung: Lung, index: int) -> np.ndarray:
    return np.sqrt(
        (lung.x - lung.x[index]) ** 2 + (lung.y - lung.y[index]) ** 2 + (lung.z - lung.z[index]) ** 2
    )


def _healthy(lung: Lung, noise: np.ndarray, severity: float, rng: np.random.Generator) -> Change:
    return Change(np.zeros_like(lung.x), 0.0)


def _covid(lung: Lung, noise: np.ndarray, severity: float, rng: np.random.Generator) -> Change:
    """Ground glass in both lungs: patches under the pleura, most of them low, some merging."""
    weight = np.zeros_like(lung.x)
    points, voxels = lung.scatter(3000, 0, rng)
    low = lung.z.min() + 0.35 * np.ptp(lung.z)
    chance = (lung.y / 90 - lung.depth / 4 - np.abs(lung.z - low) / 30)[voxels]
    # The highest of the chances with Gumbel noise are draws without replacement (Gumbel-top-k).
    voxels = voxels[np.argsort(np.log(-np.log(points[:, 3])) - chance)]
    for side in (-1, 1):
        radii, opacities = rng.uniform(22, 40, 9) * (0.75 + 0.5 * severity), rng.uniform(0.75, 1, 9)
        chosen = voxels[lung.x[voxels] * side > 0][: round(2.4 + 6.6 * severity)]
        for index, radius, opacity in zip(chosen, radii, opacities, strict=False):
            patch = _step((1.15 - _distance(lung, index) / float(radius) + 0.18 * noise) * 1.8)
            weight = 1 - (1 - weight) * (1 - float(opacity) * patch)
    weight *= np.exp(-((np.maximum(lung.depth, 0) / 42) ** 2)) * (0.7 + 0.3 * severity)
    return Change(weight, -270 + 60 * noise)


def _lobar_pneumonia(lung: Lung, noise: np.ndarray, severity: float, rng: np.random.Generator) -> Change:
    """Consolidation that spreads up to the fissures of its lobe; bronchi keep their air."""
    lobe = rng.choice([1, 2, 3, 4, 5], p=[0.2, 0.2, 0.25, 0.15, 0.2])
    _, voxels = lung.scatter(3000, 5, rng)
    start = voxels[lung.lobe[voxels] == lobe][0]
    weight = _step((25 + 45 * severity - _distance(lung, start) + 7 * noise) / 16)
    return Change(weight * (lung.lobe == lobe), 30 + 8 * noise, airways=True)


def _effusion(lung: Lung, noise: np.ndarray, severity: float, rng: np.random.Generator) -> Change:
    """Fluid of one side up to a level that climbs along the chest wall, in a patient who stands or sits."""
    one = lung.x * rng.choice([-1, 1]) > 0
    level = lung.z[one].min() + 30 + 95 * severity + 45 * np.exp(-np.maximum(lung.depth, 0) / 7)
    return Change(np.clip(0.5 + (level - lung.z) / 6, 0, 1) * one, 12, pleural=True)


def _nodule(lung: Lung, noise: np.ndarray, severity: float, rng: np.random.Generator) -> Change:
    """One to three solid spheres of 7 to 16 mm radius."""
    weight = np.zeros_like(lung.x)
    _, voxels = lung.scatter(3000, 10, rng)
    for index in voxels[: rng.integers(1, 4)]:
        radius = 6 + 10 * severity * rng.uniform(0.6, 1)
        weight = np.maximum(weight, np.clip(0.5 + (radius - _distance(lung, index)) / 2, 0, 1))
    return Change(weight, 35)


def _pneumothorax(lung: Lung, noise: np.ndarray, severity: float, rng: np.random.Generator) -> Change:
    """Air between lung and chest wall of one side, widest at the apex; the lung is denser."""
    one = lung.x * rng.choice([-1, 1]) > 0
    high = _step((lung.z - lung.z[one].max() + 170) / 150)
    below = lung.depth - (14 + 40 * severity) * (0.3 + 0.7 * high)
    air, pleura = np.clip(0.5 - below / 2, 0, 1), np.clip(1.5 - np.abs(below - 3) / 2, 0, 1)
    weight = np.maximum(np.maximum(air, 0.35 * pleura), 0.1 + 0.12 * severity)
    return Change(weight * one, np.where(below < 1, -995, -100), pleural=True)


def _edema(lung: Lung, noise: np.ndarray, severity: float, rng: np.random.Generator) -> Change:
    """Haze of both lungs around the hila that spares the periphery."""
    far = ((np.abs(lung.x) - 45) ** 2 + (lung.y - 8) ** 2 + ((lung.z + 15) / 1.3) ** 2) / 60**2
    return Change(np.clip((0.3 + 0.5 * severity) * np.exp(-far) * (1 + 0.3 * noise), 0, 1), -200)


FINDINGS: dict[str, Callable[[Lung, np.ndarray, float, np.random.Generator], Change]] = {
    "No Finding": _healthy,
    "COVID-19": _covid,
    "Lobar pneumonia": _lobar_pneumonia,
    "Pleural effusion": _effusion,
    "Cardiomegaly": _healthy,
    "Nodule": _nodule,
    "Pneumothorax": _pneumothorax,
    "Edema": _edema,
}
