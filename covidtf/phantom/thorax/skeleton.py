"""Bones of the thorax, drawn over the soft tissue: ribs, spine, sternum, clavicles, scapulae, humeri."""

import numpy as np

from covidtf.phantom.thorax.body import Patient, cage_ratio, spine_middle
from covidtf.phantom.thorax.shapes import Canvas, tube

# Height of each vertebra's middle from T1 on, and beyond both ends, for a chest of height 1.
_NUMBERS = np.arange(-9, 25)
_LEVELS = 108 - 20 * (_NUMBERS - 1) - 0.25 * np.clip(_NUMBERS - 1, 0, None) * np.clip(_NUMBERS, 0, None)


def vertebra(z: np.ndarray, height: float) -> np.ndarray:
    """Vertebra number at height `z`, continuous: 1 in the middle of T1, 1.5 in the disc below it."""
    return np.interp(z / height, _LEVELS[::-1], _NUMBERS[::-1]).astype(np.float32)


def draw_ribs(canvas: Canvas, patient: Patient, depth: np.ndarray) -> None:
    """Twelve pairs in the cage's surface, each falling from its vertebra to the front.

    The distance to the nearest rib is periodic in the vertebra's number, so all ribs are drawn at once.
    """
    flat = np.flatnonzero(np.abs(depth) < 8)
    places = np.unravel_index(flat, canvas.shape)
    z, y, x = (axis[place] for axis, place in zip(canvas.axes, places, strict=True))
    fall = (0.656 - 0.0006 * z) * (patient.depth - y) + 0.1 * np.abs(x) + 0.25 * np.clip(-y, 0, None)
    number = vertebra(z + fall * patient.height, patient.height)
    rib = np.clip(np.round(number), 1, 12)
    off = 0.86 * (number - rib) * (20 + 0.5 * rib) * patient.height / np.where(y > 0, 5.6, 6.2)
    away = np.hypot(depth.ravel()[flat] / 4.8, off)
    # Voxels are longer from front to back: the rim is as soft as the voxel is wide along the rib's normal.
    step = np.hypot(x * canvas.spacing[2], y * canvas.spacing[1]) / (4.8 * np.hypot(x, y))
    cortex = np.clip(0.5 + (away - 0.65) / step, 0, 1)
    cartilage = (y < 0) & (np.abs(x) < 0.62 * patient.width - 3 * np.abs(rib - 3))
    value = np.where(
        cartilage, 90 + 1.5 * max(0, patient.age - 50), (250 + 900 * cortex) * np.where(y < 0, 0.75, 1)
    )
    floating = (rib > 10) & (y < 0)
    canvas.paint(flat, np.clip(0.5 + (1 - away) / step, 0, 1) * ~floating, value)


def draw_skeleton(canvas: Canvas, patient: Patient) -> None:
    """Spine, sternum, and the clavicle, scapula and humerus of each side."""
    _spine(canvas, patient)
    _sternum(canvas, patient)
    for side in (-1, 1):
        _girdle(canvas, patient, side)


def _spine(canvas: Canvas, patient: Patient) -> None:
    where, (z, y, x) = canvas.box((-55, -20, -300), (55, 300, 300))
    number = vertebra(z, patient.height)
    offset = (number - np.round(number)) * 24
    grown = 1 + 0.022 * (np.clip(number, 0, 14) - 6)
    middle_x, middle_y = spine_middle(z, patient)
    x, y = (x - middle_x) / grown, (y - middle_y) / grown
    within = 9.6 - np.abs(offset)
    waist = 15.5 - 2.5 * np.cos(np.clip(offset / 9.6, -1, 1) * np.pi)
    body = (1 - np.hypot(x / waist, y / 12.5)) * 12.5
    bone = np.where(np.minimum(body, within) < 1.5, 300, 130)
    canvas.paint(where, canvas.coverage(body), np.where(within < 0, 80, bone).astype(np.float32))
    canal = np.hypot(x, y - 20.5)
    arch = np.minimum(2.6 - np.abs(canal - 10.5), 8.6 - np.abs(offset))
    spinous = np.minimum(3 - np.abs(x), np.minimum(y - 29, 50 - y) - np.abs(0.58 * offset + 0.28 * (y - 35)))
    transverse = np.minimum(5 - np.abs(y - 21 - 0.2 * np.abs(x)), 9.5 - np.abs(np.abs(x) - 18.5))
    transverse = transverse - np.maximum(0, np.abs(offset + 2) - 4.5)
    for inside, value in ((arch, 300), (spinous, 140), (transverse, 110), (8 - canal, 25)):
        canvas.paint(where, canvas.coverage(inside), value)


def _sternum(canvas: Canvas, patient: Patient) -> None:
    """Flat bone along the front of the cage, broad in the manubrium."""
    where, (z, y, x) = canvas.box((-45, -300, -80 * patient.height), (45, 0, 78 * patient.height))
    ratio = cage_ratio(z.ravel(), y.ravel(), np.zeros(1, np.float32), patient)
    surface = y[:, np.argmax(ratio < 1, axis=1)[:, 0]].reshape(-1, 1, 1)
    broad = 13 + 14 / (1 + np.exp((42 - z / patient.height) / 5))
    inside = np.minimum(broad - np.abs(x), 5 - np.abs(y - surface))
    value = np.where(inside < 2, 420, 140).astype(np.float32)
    canvas.paint(where, canvas.coverage(inside, canvas.spacing[1]), value)


def _girdle(canvas: Canvas, patient: Patient, side: int) -> None:
    def at(*points: tuple[float, float, float, float]) -> np.ndarray:
        """Points of the left side, fitted to the patient's width and shoulders, on either side."""
        x, y, z, radius = np.array(points, float).T
        share = np.minimum(1, x / 130)
        across = side * (x + (patient.width - 127) * share)
        return np.stack((across, y, (z + patient.shoulders * share) * patient.height, radius), axis=1)

    bones = (
        at(
            (20, -66, 84, 8), (45, -72, 88, 6.5), (85, -58, 99, 5.5), (120, -32, 109, 6), (148, -14, 112, 6.5)
        ),
        at((162, 6, 92, 22), (165, 6, 88, 21)),
        at((165, 6, 80, 14), (178, 6, 62, 11), (232, 6, -4, 11)),
        at((140, 22, 84, 9), (143, 18, 83, 10)),
        at((140, 22, 84, 6), (128, 52, 20, 5), (112, 74, -42, 4)),
        at((152, 4, 111, 5), (138, 36, 103, 4.5), (88, 84, 82, 3)),
        at((88, 78, 92, 3), (92, 86, 40, 3), (112, 76, -42, 4)),
    )
    part, where = canvas.crop(
        *(((-300, -120, -110), (-10, 130, 150)) if side < 0 else ((10, -120, -110), (300, 130, 150)))
    )
    inside = np.full(part.shape, -50, np.float32)
    for points in bones:
        tube(part, inside, points)
    tips = at((138, 26, 84, 0), (112, 75, -42, 0), (88, 79, 92, 0))[:, :3].astype(np.float32)
    low, high = tips.min(0) - 3, tips.max(0) + 3
    blade, mesh = part.box(low, high)
    np.maximum(inside[blade], _triangle(mesh, *tips), out=inside[blade])
    part.paint(..., part.coverage(inside), np.where(inside > 3, 220, 600).astype(np.float32))
    canvas.hu[where] = part.hu


def _triangle(mesh, a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """Signed distance into a plate 4 mm thick between three corners (x, y, z)."""
    z, y, x = mesh
    normal = np.cross(b - a, c - a)
    normal /= np.linalg.norm(normal)

    def along(direction: np.ndarray, start: np.ndarray) -> np.ndarray:
        return (x - start[0]) * direction[0] + (y - start[1]) * direction[1] + (z - start[2]) * direction[2]

    inside = 2 - np.abs(along(normal, a))
    for start, stop, other in ((a, b, c), (b, c, a), (c, a, b)):
        edge = np.cross(normal, stop - start)
        edge *= np.sign(edge @ (other - start)) / np.linalg.norm(edge)
        np.minimum(inside, along(edge, start), out=inside)
    return inside
