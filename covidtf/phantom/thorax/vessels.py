"""Blood vessels and bronchi of the lungs: trees that branch and taper from the hilum to the pleura."""

import numpy as np

from covidtf.phantom.thorax.body import Lung

_ROOT = np.array([40.0, 8.0, 8.0])
_TARGETS = 260


def vessel_shares(lung: Lung, swell: float, offset: float, rng: np.random.Generator) -> np.ndarray:
    """Share of each of the lungs' voxels that lies inside a vessel, shape `(n,)`.

    Args:
        lung: The voxels asked for.
        swell: Factor on the vessels' radius.
        offset: Shift of the trees along each axis in radii of the branch; bronchi run beside their arteries.
        rng: Grows the trees; the same state gives the same trees at any spacing, but for rounding.
    """
    canvas = lung.canvas
    corner = np.array([axis[0] for axis in canvas.axes[::-1]], float)
    spacing = np.array(canvas.spacing[::-1])
    targets = lung.scatter(3000, 5, rng)[0][:, :3]
    shares = np.zeros(canvas.shape, np.float32)
    for side in (-1, 1):
        nodes, parent = grow(targets[targets[:, 0] * side > 0][:_TARGETS], _ROOT * (side, 1, 1))
        points, volumes = _points(nodes, parent, radii(parent, 1.05 * swell), offset, spacing.prod() / 8, rng)
        _deposit(shares, (points - corner) / spacing, volumes / spacing.prod())
    return np.minimum(shares.ravel()[lung.flat], 1)


def grow(targets: np.ndarray, root: np.ndarray, straightness: float = 0.45) -> tuple[np.ndarray, np.ndarray]:
    """Tree that joins all targets, near ones first, at the least added length plus path back to the root.

    Args:
        targets: Points to reach, shape `(n, 3)`, mm.
        root: Where the tree starts, shape `(3,)`, mm.
        straightness: Weight of the path to the root; 0 gives the shortest tree, 1 nearly a star.
    Returns:
        Nodes, shape `(m, 3)`, and the index of each node's parent, shape `(m,)`; the root is its own.
    Reference: Cuntz et al. 2010, One rule to grow them all, doi:10.1371/journal.pcbi.1000877.
    """
    targets = targets[np.argsort(((targets - root) ** 2).sum(1), kind="stable")]
    room = 24 * len(targets) + 1
    nodes, path, parent = np.empty((room, 3)), np.zeros(room), np.zeros(room, int)
    nodes[0], count = root, 1
    for target in targets:
        gap = np.sqrt(((nodes[:count] - target) ** 2).sum(1))
        best = int(np.argmin(gap + straightness * path[:count]))
        steps = int(np.clip(gap[best] / 9, 1, 24))
        shares = np.arange(1, steps + 1)[:, None] / steps
        new = slice(count, count + steps)
        nodes[new] = nodes[best] + shares * (target - nodes[best])
        path[new] = path[best] + shares[:, 0] * gap[best]
        parent[new] = [best, *range(count, count + steps - 1)]
        count += steps
    return nodes[:count], parent[:count]


def radii(parent: np.ndarray, twig: float, law: float = 2.7) -> np.ndarray:
    """Radius of each node of a tree of `grow`, mm: `twig * leaves ** (1 / law)`.

    Reference: Murray 1926, doi:10.1073/pnas.12.3.207, whose law is 3; measured values lie between 2.3 and 3.

    >>> radii(np.array([0, 0, 1, 1]), twig=1.0, law=1.0).tolist()
    [2.0, 2.0, 1.0, 1.0]
    """
    leaves = np.ones(len(parent))
    leaves[parent[1:]] = 0
    for node in range(len(parent) - 1, 0, -1):
        leaves[parent[node]] += leaves[node]
    return twig * leaves ** (1 / law)


def _points(nodes, parent, radius, offset: float, grain: float, rng) -> tuple[np.ndarray, np.ndarray]:
    """Points (x, y, z) spread evenly through the branches, and the volume each stands for, mm³."""
    start, way, thick = nodes[parent[1:]], nodes[1:] - nodes[parent[1:]], radius[1:]
    volume = np.pi * thick**2 * np.linalg.norm(way, axis=1)
    count = np.ceil(volume / grain + 3).astype(int)
    branch = np.repeat(np.arange(len(count)), count)
    way, thick = way[branch], thick[branch][:, None]
    spread = rng.normal(size=way.shape)
    spread -= way * ((spread * way).sum(1) / ((way**2).sum(1) + 1e-9))[:, None]
    spread *= np.sqrt(rng.random((len(branch), 1))) / np.linalg.norm(spread, axis=1)[:, None]
    points = start[branch] + rng.random((len(branch), 1)) * way + thick * (spread + offset)
    return points, (volume / count)[branch]


def _deposit(field: np.ndarray, places: np.ndarray, weight: np.ndarray) -> None:
    """Add each weight to the eight voxels around its place (x, y, z in voxels), linearly."""
    places = places[:, ::-1]
    base = np.floor(places).astype(int)
    keep = ((base >= 0) & (base < np.array(field.shape) - 1)).all(1)
    base, part, weight = base[keep], (places - base)[keep], weight[keep]
    strides = np.array([field.shape[1] * field.shape[2], field.shape[2], 1])
    for corner in np.ndindex(2, 2, 2):
        share = weight * np.prod(np.where(corner, part, 1 - part), axis=1)
        np.add.at(field.ravel(), (base + corner) @ strides, share.astype(np.float32))
