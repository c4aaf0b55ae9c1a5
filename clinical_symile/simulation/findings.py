"""What the findings add to the lungs, in cm of water: oedema, consolidation and effusion.

A large heart and hyperinflation change the shape of the chest itself (``thorax.py``); Kerley lines are drawn with the other
lines (``skeleton.py``).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from clinical_symile.simulation.thorax import SIDES, Grid, Thorax, fluid_level, lung_lateral


def draw(thorax: Thorax, x: Grid, y: Grid, lungs: Sequence[Grid], rng: np.random.Generator) -> Grid:
    """Absorption of all findings, (h, w) on the grid of x and y.

    Args:
        thorax: the chest.
        x: (1, w) in cm.
        y: (h, 1) in cm.
        lungs: absorption that each lung lacks, (h, w), right and left; nothing can fill more than that.
        rng: source of randomness.
    """
    total = np.zeros(np.broadcast_shapes(x.shape, y.shape), dtype=np.float32)
    coarse = cloud(total.shape, 14, rng)
    fine = cloud(total.shape, 40, rng)
    for side, lung in zip(SIDES, lungs, strict=True):
        distance = x * side - side * thorax.rotation
        filled = np.zeros_like(total)
        if thorax.edema:
            filled = np.maximum(filled, _edema(thorax, distance, y, coarse, fine))
        if thorax.consolidation and thorax.lobe[0] == side:
            filled = np.maximum(filled, _consolidation(thorax, distance, y, coarse, fine))
        level = fluid_level(thorax, side, np.abs(distance))
        if level is not None:
            filled = np.maximum(filled, 0.95 / (1 + np.exp(np.clip((level - y) / 0.22, -30, 30))))
        total += filled * lung
    return total


def _edema(thorax: Thorax, distance: Grid, y: Grid, coarse: Grid, fine: Grid) -> Grid:
    """Bat wings: both lungs filled around the hila, the periphery spared. Share of the air that is replaced."""
    wing = np.exp(-(np.abs((distance - 5.0) / 3.7) ** 2.6) - np.abs((y - 15.8) / 5.0) ** 2.6)
    texture = 0.9 + 0.16 * coarse + 0.14 * fine
    return np.clip((0.26 + 0.42 * thorax.edema) * wing * texture, 0, 0.85)


def _consolidation(thorax: Thorax, distance: Grid, y: Grid, coarse: Grid, fine: Grid) -> Grid:
    """One lobe without air but for its bronchi. Share of the air that is replaced."""
    _, across, down = thorax.lobe
    height = thorax.diaphragm[0] - thorax.apex
    centre_y = thorax.apex + down * height
    centre_x = across * float(lung_lateral(thorax, np.array([centre_y]))[0])
    size = 2.9 + 1.5 * thorax.consolidation
    radius = np.sqrt(((distance - centre_x) / (1.05 * size)) ** 2 + ((y - centre_y) / (0.85 * size)) ** 2)
    inside = 1 / (1 + np.exp(np.clip((radius - 0.9 - 0.14 * coarse - 0.06 * fine) / 0.13, -30, 30)))
    # Air bronchograms: dark branches that run outwards from the hilum.
    angle = np.arctan2(y - 14.0, np.maximum(distance - 2.5, 0.2))
    bronchi = np.exp(-((np.sin(6.0 * angle + 0.3 * coarse) / 0.13) ** 2)) * np.clip(1 - radius, 0, 1)
    return inside * (0.80 - 0.28 * bronchi + 0.05 * fine)


def cloud(shape: tuple[int, ...], cells: int, rng: np.random.Generator) -> Grid:
    """Smooth noise of about unit size with ``cells`` cells across."""
    small = rng.standard_normal((cells, cells)).astype(np.float32)
    image = Image.fromarray(small).resize((shape[1], shape[0]), Image.Resampling.BICUBIC)
    return np.asarray(image)
