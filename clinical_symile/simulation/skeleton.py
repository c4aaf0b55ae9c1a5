"""Lines of the chest X-ray, drawn at full resolution: ribs, clavicles, scapulae, the vessels of the lung, devices."""

from __future__ import annotations

from math import cos, radians, sin
from typing import TYPE_CHECKING, Final

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from clinical_symile.simulation.thorax import SIDES, Grid, Side, Thorax, clavicle_line, lung_lateral, rib_line

if TYPE_CHECKING:
    from clinical_symile.simulation.cxr import Field

_LEVELS: Final = 60
"""Grey levels of the drawing canvas per cm of water; a canvas has 8 bits."""
_BLADE: Final = np.array([[15.4, 4.6], [10.6, 6.6], [11.2, 11.5], [12.3, 15.8], [13.6, 14.6], [14.6, 10.2], [16.0, 7.0]])
_BLADE_EDGE: Final = np.array([[10.7, 6.8], [11.2, 11.5], [12.4, 15.6]])


class Canvas:
    """Draws in cm; where shapes of one canvas overlap the last one counts, canvases add up."""

    def __init__(self, field: Field) -> None:
        self.field = field
        self.image = Image.new("L", (field.width, field.height), 0)
        self._pen = ImageDraw.Draw(self.image)

    def line(self, points: Grid, width_cm: float, water_cm: float) -> None:
        """A line through points (p, 2) that absorbs like ``water_cm`` of water."""
        width = max(1, round(width_cm * self.field.per_cm))
        self._pen.line(self.field.pixels(points), fill=round(water_cm * _LEVELS), width=width)

    def tube(self, points: Grid, width_cm: float, cortex: float, marrow: float) -> None:
        """A bone seen from the side: its cortex absorbs more than its marrow."""
        self.line(points, width_cm, cortex)
        self.line(points, width_cm - 0.34, marrow)

    def polygon(self, points: Grid, water_cm: float) -> None:
        """A filled shape."""
        self._pen.polygon(self.field.pixels(points), fill=round(water_cm * _LEVELS))

    def disc(self, centre: Grid, radius_cm: float, water_cm: float) -> None:
        """A filled circle."""
        corners = self.field.pixels(np.stack([centre - radius_cm, centre + radius_cm]))
        self._pen.ellipse([corners[0], corners[1]], fill=round(water_cm * _LEVELS))


def draw(thorax: Thorax, field: Field, rng: np.random.Generator) -> Grid:
    """Bones, devices and Kerley lines, in cm of water: (h, w) at full resolution."""
    layers = [_posterior_ribs(thorax, field), _anterior_ribs_and_clavicles(thorax, field), _scapulae(thorax, field, rng)]
    if thorax.devices:
        layers.append(_devices(thorax, field, rng))
    if thorax.edema:
        layers.append(_kerley(thorax, field, rng))
    return _absorption(layers, 0.08 * field.per_cm)


def draw_vessels(thorax: Thorax, field: Field, rng: np.random.Generator) -> Grid:
    """Arteries and veins that leave the hila and branch, thinner and fainter outwards: (h, w) in cm of water."""
    canvas = Canvas(field)
    congestion = 1.0 + 0.35 * thorax.edema
    trunks = 7 if thorax.aeration > 1.05 else 10
    for side in SIDES:
        hilum = (side * 3.3 + thorax.rotation, 13.9)
        for angle in np.linspace(-75, 80, trunks) + rng.normal(0, 5, trunks):
            _branch(canvas, hilum, radians(float(angle)), side, 0.36 * congestion, 0, rng)
    return _absorption([canvas], 0.07 * field.per_cm)


def _branch(
    canvas: Canvas,
    start: tuple[float, float],
    angle: float,
    side: Side,
    width_cm: float,
    depth: int,
    rng: np.random.Generator,
) -> None:
    """One vessel and, at its end, two thinner ones."""
    half = 0.5 * 3.3 * 0.82**depth * (0.75 + 0.4 * rng.random())
    spread = 0.24 + 0.28 * rng.random()
    middle = (start[0] + half * side * cos(angle), start[1] + half * sin(angle))
    bent = angle + 0.12 * rng.standard_normal()
    end = (middle[0] + half * side * cos(bent), middle[1] + half * sin(bent))
    canvas.line(np.array([start, middle, end]), width_cm, min(1.2, 0.2 + 2.6 * width_cm))
    if depth < 3:
        _branch(canvas, end, bent - spread, side, 0.66 * width_cm, depth + 1, rng)
        _branch(canvas, end, bent + spread * (0.6 + 0.5 * rng.random()), side, 0.66 * width_cm, depth + 1, rng)


def _posterior_ribs(thorax: Thorax, field: Field) -> Canvas:
    canvas = Canvas(field)
    for side in SIDES:
        for number in range(1, 11):
            canvas.tube(rib_line(thorax, number, side, "posterior"), 1.24, 1.2, 0.8)
    return canvas


def _anterior_ribs_and_clavicles(thorax: Thorax, field: Field) -> Canvas:
    canvas = Canvas(field)
    for side in SIDES:
        for number in range(1, 8):
            canvas.tube(rib_line(thorax, number, side, "anterior"), 1.36, 0.75, 0.5)
        canvas.tube(clavicle_line(thorax, side), 1.16, 2.4, 1.75)
    return canvas


def _scapulae(thorax: Thorax, field: Field, rng: np.random.Generator) -> Canvas:
    """Shoulder blades: over the outer upper lungs in AP, rotated out of them in PA; and the heads of the humeri."""
    canvas = Canvas(field)
    out = 0.0 if thorax.frontal == "AP" else 2.4
    for side in SIDES:
        shift = np.array([out + float(rng.normal(0, 0.3)), 0.0])
        mirror = np.array([side, 1.0])
        canvas.polygon((_BLADE + shift) * mirror, 0.55)
        canvas.line((_BLADE_EDGE + shift) * mirror, 0.3, 1.05)
        canvas.disc(np.array([side * (16.6 + 0.5 * out), 6.2]), 2.1, 1.5)
    return canvas


def _devices(thorax: Thorax, field: Field, rng: np.random.Generator) -> Canvas:
    """A catheter from the right jugular vein to the superior vena cava, and three electrodes with their leads."""
    canvas = Canvas(field)
    t = np.linspace(0, 1, 20)
    tip = float(rng.uniform(12.5, 16.0))
    canvas.line(np.stack([-4.4 + 2.2 * t**0.6 + thorax.rotation, -3 + (tip + 3) * t], axis=1), 0.16, 1.9)
    for x, y in ((-9.5, 6.0), (9.8, 6.5), (8.5, 21.0)):
        outwards = 1.0 if x > 0 else -1.0
        electrode = np.array([x, y]) + rng.normal(0, 0.9, 2)
        loop = electrode + np.array([outwards * 4, 12]) + rng.normal(0, 2.0, 2)
        end = np.array([outwards * 9, 42])
        # A quadratic Bezier curve.
        lead = np.outer((1 - t) ** 2, electrode) + np.outer(2 * t * (1 - t), loop) + np.outer(t**2, end)
        canvas.line(lead, 0.12, 1.4)
        canvas.disc(electrode, 0.55, 1.5)
    return canvas


def _kerley(thorax: Thorax, field: Field, rng: np.random.Generator) -> Canvas:
    """Kerley B lines: short horizontal septa at the chest wall above the bases."""
    canvas = Canvas(field)
    for side in SIDES:
        heights = thorax.diaphragm[0] - 0.6 - 0.75 * np.arange(8) + rng.uniform(-0.15, 0.15, 8)
        walls = lung_lateral(thorax, heights) - 0.15
        for height, wall, length in zip(heights, walls, rng.uniform(1.0, 1.9, 8), strict=True):
            canvas.line(np.array([[side * wall, height], [side * (wall - length), height + 0.1]]), 0.14, 1.3 * thorax.edema)
    return canvas


def _absorption(layers: list[Canvas], blur_px: float) -> Grid:
    """Adds up the layers and blurs them a little: focal spot, motion, scatter."""
    total = layers[0].image
    for layer in layers[1:]:
        total = ImageChops.add(total, layer.image)
    return np.asarray(total.filter(ImageFilter.GaussianBlur(blur_px)), dtype=np.float32) / _LEVELS
