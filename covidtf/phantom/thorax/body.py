"""A patient's proportions, body wall and rib cage, and the table of lung voxels."""

from dataclasses import dataclass

import numpy as np
from scipy.interpolate import PchipInterpolator

from covidtf.phantom.thorax.shapes import Canvas, corners, ellipsoid, tube, union

PARTS = (
    "other", "right upper lobe", "right middle lobe", "right lower lobe", "left upper lobe",
    "left lower lobe", "heart and great vessels", "abdomen", "pleural space",
)  # fmt: skip


@dataclass(frozen=True)
class Patient:
    """Proportions of one patient.

    Args:
        sex, age: `"F"` or `"M"`; years.
        width, depth: Half the rib cage from side to side and from front to back, mm.
        height: Length of the chest as a multiple of 1.
        fat, muscle: Thickness of the body wall's layers, mm.
        shoulders: How much the shoulders are raised, mm.
        heart, mediastinum: Size as a multiple of 1.
        domes: Height of the right and left dome of the diaphragm at full breath, mm.
        aorta: Widening and unfolding with age, 0 to 1.5.
        scoliosis, kyphosis: Bends of the spine, mm.
        breast: Thickness, mm; 0 in men.
        density: Lung at full breath, HU.
        gas: Size of the gas bubble in the stomach as a multiple of 1.
        inspiration: 1 at full breath, 0 at rest.
    """

    sex: str
    age: int
    width: float
    depth: float
    height: float
    fat: float
    muscle: float
    shoulders: float
    heart: float
    mediastinum: float
    domes: tuple[float, float]
    aorta: float
    scoliosis: float
    kyphosis: float
    breast: float
    density: float
    gas: float
    inspiration: float


@dataclass(frozen=True)
class Lung:
    """Voxels that hold lung, one entry each, so that findings cost nothing elsewhere.

    Args:
        flat: Index into the raveled canvas.
        x, y, z: Coordinates, mm.
        inside: Distance below the lung's surface, mm; from -1 at its rim.
        depth: Distance below the chest wall's part of that surface, mm.
        lobe: Index into `PARTS`, 1 to 5; 0 on the rim.
        canvas: Volume the lungs were drawn in.
    """

    flat: np.ndarray
    x: np.ndarray
    y: np.ndarray
    z: np.ndarray
    inside: np.ndarray
    depth: np.ndarray
    lobe: np.ndarray
    canvas: Canvas

    def scatter(self, count: int, below: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Points spread evenly through the lungs, at the same places at any spacing but for rounding.

        Args:
            count: Points drawn in the box around the lungs, most of which lie outside them.
            below: Least distance from the lungs' surface, mm.
            rng: The same state gives the same points.
        Returns:
            Points (x, y, z, u), shape `(n, 4)`, mm, with `u` a draw in [0, 1) that belongs to the point; and
            their voxels' positions in this table.
        """
        points = rng.uniform([-150, -110, -170, 0], [150, 110, 125, 1], (count, 4))
        corner = np.array([axis[0] for axis in self.canvas.axes])
        places = np.rint((points[:, 2::-1] - corner) / self.canvas.spacing).astype(int)
        within = ((places >= 0) & (places < self.canvas.shape)).all(1)
        points, places = points[within], places[within]
        table = np.full(self.canvas.shape, -1, np.int32)
        table.ravel()[self.flat] = np.where(self.inside > below, np.arange(len(self.flat)), -1)
        found = table[tuple(places.T)]
        return points[found >= 0], found[found >= 0]


def draw_patient(seed: int) -> Patient:
    """Patient whose proportions are drawn from `seed` alone, at full breath; no finding enters into them."""
    rng = np.random.default_rng([seed, 1])

    def normal(mean: float, spread: float, low: float = -np.inf, high: float = np.inf) -> float:
        return float(np.clip(rng.normal(mean, spread), low, high))

    male = bool(rng.random() < 0.55)
    age = round(normal(56, 17, 18, 92))
    size = normal(1.03 if male else 0.95, 0.035, 0.89, 1.06)
    habitus = float(np.clip(rng.gamma(4, 0.25), 0.35, 2.3))
    right = normal(-80, 8)
    return Patient(
        sex="M" if male else "F",
        age=age,
        width=127 * size * normal(1, 0.03, 0.95, 1.05),
        depth=86 * size * normal(1 + 0.001 * (age - 55), 0.05, 0.88, 1.07),
        height=size * normal(1, 0.025, 0.95, 1.05),
        fat=14 * habitus * (0.85 if male else 1.1),
        muscle=normal(17 if male else 13, 2.5, 9, 24),
        shoulders=normal(0, 7),
        heart=normal(0.89 + 0.0012 * (age - 55), 0.045, 0.78, 1.02),
        mediastinum=normal(1, 0.1, 0.8, 1.3),
        domes=(right, right - normal(10, 4)),
        aorta=normal(0.5 + (age - 50) / 50, 0.2, 0, 1.5),
        scoliosis=normal(0, 4),
        kyphosis=normal(10 + 0.1 * (age - 55), 4, 0, 25),
        breast=0.0 if male else normal(17, 6, 6, 30) * habitus**0.5,
        density=normal(-855, 18),
        gas=normal(0.6, 0.5, 0, 1.4),
        inspiration=1.0,
    )


def draw_body(canvas: Canvas, patient: Patient) -> None:
    """Skin, fat and muscle as layers under the surface of trunk, breasts, shoulders and neck."""
    wide, deep, back = _outline(canvas.z / patient.height, patient)
    ratio = ((np.abs(canvas.x) / wide) ** 2.5)[:, None, :] + ((np.abs(canvas.y - back) / deep) ** 2.5)[
        :, :, None
    ]
    np.sqrt(ratio, out=ratio)
    radius = np.hypot(canvas.x, canvas.y[:, None])
    inside = radius / np.maximum(ratio, 0.05, out=ratio)
    inside -= radius
    _add_arms(canvas, patient, inside)
    _add_breasts(canvas, patient, inside)
    edge, fat = canvas.spacing[1] / 2, 0.75 * patient.fat + 4
    plane = fat + 0.55 * patient.muscle
    layers = (
        (-edge, -1000), (edge, -40), (2 + edge, -50), (3.5 + edge, -100), (fat, -104), (fat + 2, 45),
        (plane, 45), (plane + 1.5, -30), (plane + 3, 45),
    )  # fmt: skip
    depths, values = zip(*layers, strict=True)
    # A table in quarter millimetres is several times faster than interpolating every voxel.
    table = np.interp(np.arange(-16, 256) / 4, depths, values).astype(np.float32)
    inside *= 4
    inside += 16.5
    np.take(table, inside.astype(np.int16), mode="clip", out=canvas.hu)


def _outline(z: np.ndarray, patient: Patient) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Half-width, half-depth and middle (y) of the body at relative heights `z`, as columns."""
    wall, lift = patient.muscle + patient.fat, patient.shoulders
    side, trunk = patient.width + wall, patient.depth + 0.75 * wall
    wide = (
        (-220, side + 2), (-60, side), (10, side + 4), (50, side + 22), (82 + lift, 186), (100 + lift, 182),
        (118 + lift, 150), (135 + lift, 105), (152 + lift, 72), (180, 60), (240, 59),
    )  # fmt: skip
    deep = ((-220, trunk + 4), (-40, trunk), (50, trunk - 2), (100, 84), (150, 66), (240, 60))
    back = ((-220, 0), (40, 0), (100, 10), (240, 12))
    return tuple(PchipInterpolator(*zip(*knots, strict=True))(z).astype(np.float32)[:, None]
                 for knots in (wide, deep, back))  # fmt: skip


def _add_arms(canvas: Canvas, patient: Patient, inside: np.ndarray) -> None:
    """Upper arms held away from the trunk, so that they leave the field of view."""
    thick, out, lift = 38 + 0.4 * patient.fat, patient.width - 127, patient.shoulders
    for side in (-1, 1):
        shoulder = (side * (158 + out), 6, (68 + lift) * patient.height, thick)
        tube(canvas, inside, [shoulder, (side * (232 + out), 6, (-4 + lift) * patient.height, thick)])


def _add_breasts(canvas: Canvas, patient: Patient, inside: np.ndarray) -> None:
    if patient.breast == 0:
        return
    front = 4 - (patient.depth + 0.6 * (patient.muscle + patient.fat))
    for side in (-1, 1):
        centre, radii = (side * 78, front, -48 * patient.height), (52, 0.8 * patient.breast + 9, 52)
        where, mesh = canvas.box(*corners(centre, radii, 20))
        union(inside[where], ellipsoid(mesh, centre, radii), 16)


def cage_ratio(z: np.ndarray, y: np.ndarray, x: np.ndarray, patient: Patient) -> np.ndarray:
    """1 on the middle of the rib cage, less inside, more outside; axes 1-D, result (z, y, x).

    Sections parallel to the ribs, which fall to the front, are ovals; they shrink to the apex as a dome does.
    """
    z, y = z[:, None], y[None, :]
    share = (114 * patient.height - z + 0.55 * y) / (250 * patient.height)
    closed = np.clip(share / 0.72, 0.0006, 1)
    breadth = np.sqrt(1 - (1 - closed) ** 3) * (1 - 0.06 * np.clip(share - 0.95, 0, 1))
    breadth *= 1 + 0.02 * (patient.inspiration - 1)
    along = (np.abs(y) / (patient.depth * breadth**0.75)) ** 2.5
    ratio = (np.abs(x / patient.width) ** 2.4) * (breadth**-2.4).astype(np.float32)[:, :, None]
    ratio += along.astype(np.float32)[:, :, None]
    return np.sqrt(ratio, out=ratio)


def cage_depth(canvas: Canvas, patient: Patient) -> np.ndarray:
    """Distance inward from the middle of the ribs, mm, shape (z, y, x)."""
    ratio = cage_ratio(canvas.z, canvas.y, canvas.x, patient)
    radius = np.hypot(canvas.x, canvas.y[:, None])
    depth = radius / np.maximum(ratio, 0.05, out=ratio)
    depth -= radius
    # The radius lies in the axial plane, but the normal of the dome points up: distances there are shorter.
    share = (114 * patient.height - canvas.z[:, None] + 0.55 * canvas.y) / (250 * patient.height)
    depth *= np.clip(0.35 + 2.2 * share, 0.35, 1).astype(np.float32)[:, :, None]
    return depth


def spine_middle(z: np.ndarray, patient: Patient) -> tuple[np.ndarray, np.ndarray]:
    """x and y of the vertebral bodies' middle at heights `z`, bent by scoliosis and kyphosis."""
    x = patient.scoliosis * np.sin((z + 60) / 70)
    y = 0.97 * patient.depth - 32 - patient.kyphosis * (z / 150) ** 2
    return x.astype(np.float32), np.asarray(y, np.float32)
