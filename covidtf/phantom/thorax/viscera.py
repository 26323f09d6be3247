"""What fills a healthy rib cage: heart, great vessels, airways, diaphragm, upper abdomen, lungs."""

import numpy as np

from covidtf.phantom.thorax.body import Lung, Patient, spine_middle
from covidtf.phantom.thorax.shapes import Canvas, corners, ellipsoid, tube, union

_CHAMBERS = (
    ((22, -26, -56), (74, 38), (0.8, -0.35, -0.46)),
    ((-8, -26, -48), (54, 34), (-0.12, -0.1, 1.0)),
    ((2, 14, -14), (33, 24), (1.0, 0.0, 0.0)),
    ((20, -32, -22), (46, 26), (-0.25, 0.0, 1.0)),
)
_VESSELS = (
    ((12, -40, -8, 14), (22, -22, 20, 13), (38, 2, 27, 10), (47, 14, 16, 8)),
    ((14, -14, 17, 11), (-26, -2, 12, 10), (-44, 6, 4, 8)),
    ((-26, -14, 108, 5), (-25, -18, 70, 8), (-30, -20, 0, 10)),
    ((-4, -12, 55, 6), (-20, -8, 110, 4), (-26, -6, 190, 3.5)),
    ((14, 4, 60, 5), (26, 6, 112, 4)),
    ((0, 14, 190, 6), (3, 26, 40, 6), (-2, 26, -40, 7), (10, 10, -100, 8)),
)
_BRONCHI = (
    ((1, 13, 36, 7), (-22, 17, 16, 6), (-36, 20, 2, 4)),
    ((1, 13, 36, 6.5), (26, 20, 14, 5.5), (42, 24, 2, 4)),
)


def draw_viscera(canvas: Canvas, patient: Patient, depth: np.ndarray) -> Lung:
    """Draw everything inside the rib cage but the vessels within the lungs.

    Args:
        canvas: Part of the volume that holds the rib cage; body wall already drawn.
        patient: Proportions.
        depth: Distance inward from the ribs, the canvas' shape, mm.
    Returns:
        The lungs' voxels, painted with the patient's `density`.
    """
    dome = _diaphragm(canvas, patient)
    below = canvas.mesh[0] < dome
    canvas.paint(..., canvas.coverage(depth - 2), np.where(below, np.float32(-70), np.float32(-20)))
    _abdomen(canvas, patient, depth, dome)
    organs = _mediastinum(canvas, patient)
    canvas.parts[below & (depth > 0)] = 7
    inside = _lungs(canvas, patient, depth, dome, organs)
    return _voxels(canvas, patient, depth, inside)


def _diaphragm(canvas: Canvas, patient: Patient) -> np.ndarray:
    """Height of its upper surface, shape (y, x), mm: one dome a side, steep towards back and sides."""
    _, y, x = (part[0] for part in canvas.mesh)
    surfaces = []
    for side, height in zip((-1, 1), patient.domes, strict=True):
        top = (height + 34 * (1 - patient.inspiration)) * patient.height
        out = side * x - 62
        across = np.where(out > 0, out / (0.5 * patient.width), out / 95)
        along = (y + 12) / (np.where(y > -12, 0.95, 0.85) * patient.depth)
        surfaces.append(top - 40 * (across**2 + along**2) ** 1.15)
    share = np.clip(0.5 + x / 60, 0, 1)
    return (surfaces[0] * (1 - share) + surfaces[1] * share).astype(np.float32)


def _abdomen(canvas: Canvas, patient: Patient, depth: np.ndarray, dome: np.ndarray) -> None:
    """Liver under the right dome, stomach with gas and spleen under the left one, fat between."""
    where, (z, _, x) = canvas.box((-300, -300, -300), (300, 300, float(dome.max()) + 3))
    under = np.minimum(depth[where] - 3, dome - z)
    canvas.paint(where, canvas.coverage(under), 20 + 36 * np.clip(0.5 + (20 - x) / 90, 0, 1))
    left, gas = (patient.domes[1] + 34 * (1 - patient.inspiration)) * patient.height, patient.gas
    organs = (
        ((66, -8, left - 45), (46, 50, 46), 25),
        ((92, 45, left - 45), (28, 36, 40), 48),
        ((60 - 8 * gas, -25, left - 24), (27 * gas + 1, 30 * gas + 1, 11 * gas + 1), -980),
    )
    for centre, radii, value in organs:
        part, mesh = canvas.box(*corners(centre, radii, 4))
        solid = np.minimum(ellipsoid(mesh, centre, radii), depth[part] - 5)
        np.minimum(solid, dome[part[1:]] - mesh[0] - 4, out=solid)
        canvas.paint(part, canvas.coverage(solid), value)


def _mediastinum(canvas: Canvas, patient: Patient) -> tuple[np.ndarray, tuple]:
    """Draw heart, great vessels and airways; what the lungs must leave to them, and the slices it lies in."""
    part, where = canvas.crop((-110, -100, -300), (125, 90, 300))
    organs = np.full(part.shape, -50, np.float32)
    size = patient.heart * (1 + 0.05 * (1 - patient.inspiration))
    sink = 0.6 * min(0.0, float(np.mean(patient.domes)) + 88)
    for centre, radii, axis in _CHAMBERS:
        middle = (centre[0] * size, centre[1], (centre[2] + sink) * patient.height)
        scaled = [radius * size for radius in radii]
        box, mesh = part.box(*corners(middle, [max(scaled)] * 3, 8))
        union(organs[box], ellipsoid(mesh, middle, scaled, axis), 14)
    _tubes(part, organs, patient, (_aorta(patient.aorta), *_VESSELS))
    part.paint(..., part.coverage(organs), 42)
    part.parts[organs > 0] = 6
    canvas.hu[where], canvas.parts[where] = part.hu, part.parts
    organs += 2.5
    chest, inner = part.crop((-60, -40, -20), (60, 50, 300))
    airways = np.full(chest.shape, -50, np.float32)
    bend = (-1 - 2 * patient.aorta, 8, 60, 8)
    _tubes(chest, airways, patient, (((0, -14, 190, 8), (0, -4, 110, 8), bend, (1, 13, 36, 8)), *_BRONCHI))
    chest.paint(..., chest.coverage(airways + 1.5), 20)
    chest.paint(..., chest.coverage(airways), -990)
    canvas.hu[where][inner] = chest.hu
    np.maximum(organs[inner], airways + 2, out=organs[inner])
    return organs, where


def _tubes(canvas: Canvas, inside: np.ndarray, patient: Patient, tubes) -> None:
    for points in tubes:
        tube(canvas, inside, np.array(points) * (1, 1, patient.height, 1))


def _aorta(old: float) -> tuple[tuple[float, float, float, float], ...]:
    """Ascending part, arch and descending part, wider and further left with age."""
    return (
        (-8, -32, -20, 15), (-18 - 4 * old, -32, 18, 16), (-8, -20, 46 + 4 * old, 14 + old),
        (10, 0, 58 + 5 * old, 13 + old), (20 + 4 * old, 20, 46, 12 + 1.5 * old),
        (22 + 4 * old, 34, 18, 11.5 + old), (20 + 2 * old, 40, -40, 11 + old), (12, 38, -110, 11),
        (6, 36, -220, 10),
    )  # fmt: skip


def _lungs(canvas: Canvas, patient: Patient, depth: np.ndarray, dome: np.ndarray,
           organs: tuple[np.ndarray, tuple]) -> np.ndarray:  # fmt: skip
    """Signed distance into the lungs: the rib cage less diaphragm, mediastinum and spine."""
    z, y, x = canvas.mesh
    inside = depth - 5
    np.minimum(inside, 0.8 * (z - dome - 2), out=inside)
    half = patient.mediastinum * (13 + 13 * np.exp(-(((y - 2) / 30) ** 2)))
    half = half * (0.62 + 0.5 / (1 + np.exp((15 - z) / 25)) + 0.25 * np.clip((z - 70) / 60, 0, 1) ** 2)
    np.minimum(inside, np.abs(x) - half.astype(np.float32), out=inside)
    solid, where = organs
    np.minimum(inside[where], -solid, out=inside[where])
    where, (z, y, x) = canvas.box((-45, 0, -300), (45, 300, 300))
    middle_x, middle_y = spine_middle(z, patient)
    spine = np.hypot(x - middle_x, 0.9 * (y - middle_y)) - 21
    np.minimum(inside[where], spine, out=inside[where])
    return inside


def _voxels(canvas: Canvas, patient: Patient, depth: np.ndarray, inside: np.ndarray) -> Lung:
    """Collect the lungs' voxels, divide them into lobes by the fissures' planes, and paint them."""
    flat = np.flatnonzero(inside > -0.5 * canvas.spacing[2])
    places = np.unravel_index(flat, canvas.shape)
    z, y, x = (axis[place] for axis, place in zip(canvas.axes, places, strict=True))
    rim = inside.ravel()[flat]
    oblique = z / patient.height - 18 - 0.85 * y
    horizontal = z / patient.height - 4 + 0.1 * y
    right = np.where(oblique < 0, 3, np.where(horizontal < 0, 2, 1))
    lobe = (np.where(x > 0, np.where(oblique < 0, 5, 4), right) * (rim > 0)).astype(np.uint8)
    canvas.parts.ravel()[flat] = np.where(lobe > 0, lobe, canvas.parts.ravel()[flat])
    canvas.paint(flat, canvas.coverage(rim), patient.density)
    return Lung(flat, x, y, z, rim, depth.ravel()[flat] - 5, lobe, canvas)
