"""A frontal chest X-ray: thickness of tissue along the beam, then the film's response.

Everything that absorbs is added up in cm of water; lung takes its thickness away, bone counts more than once. The film
turns the sum ``A`` into grey by a sigmoid, ``255 / (1 + exp(-(A - centre) / latitude))``, whose centre and latitude are
the exposure. Soft shapes are computed at half the resolution, lines (ribs, vessels) at the full one.
"""

from __future__ import annotations

from math import cos, radians, sin
from typing import Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from clinical_symile.simulation import findings, skeleton
from clinical_symile.simulation.plan import Severities
from clinical_symile.simulation.thorax import SIDES, Grid, Side, Thorax, dome, draw_thorax, lung_lateral

SHORT_SIDE: Final = 512
COARSE: Final = 2
"""Soft shapes are computed on a grid that is coarser by this factor."""


class Field(NamedTuple):
    """What the detector covers: the grid in cm and its size in pixels."""

    x: Grid
    """(1, w) coarse grid."""
    y: Grid
    """(h, 1) coarse grid."""
    width: int
    height: int
    per_cm: float
    left: float
    top: float

    def pixels(self, points: Grid) -> list[tuple[float, float]]:
        """Points in cm as pixel coordinates of the full grid."""
        shifted = (points - np.array([self.left, self.top])) * self.per_cm
        return [(float(x), float(y)) for x, y in shifted]


def frontal_size(view: Literal["AP", "PA"], rng: np.random.Generator) -> tuple[int, int]:
    """Height and width of a film: portrait or landscape, short side 512."""
    landscape = rng.random() < (0.6 if view == "AP" else 0.1)
    long_side = 2 * round(SHORT_SIDE * float(rng.choice([1.0, 1.16, 1.2])) / 2)
    return (SHORT_SIDE, long_side) if landscape else (long_side, SHORT_SIDE)


def render_frontal(
    shows: Severities, view: Literal["AP", "PA"], size: tuple[int, int], devices: bool, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Draws one frontal chest X-ray.

    Args:
        shows: severity of each channel's sign, 0 where absent.
        view: projection.
        size: height and width in pixels, both even; the short side covers about 33 cm.
        devices: whether a catheter and electrodes are seen.
        rng: source of randomness.

    Returns:
        (h, w) grey, bright where the beam was absorbed.
    """
    # Every part has a stream of its own: the same chest with another finding differs in nothing else.
    of_chest, of_field, of_gas, of_findings, of_lung, of_lines, of_vessels, of_film = rng.spawn(8)
    thorax = draw_thorax(shows, view, devices, of_chest)
    field = _field(size, of_field)
    lungs = [_lung(thorax, field, side) for side in SIDES]
    air = lungs[0] + lungs[1]
    organs = _organs(thorax, field)
    # Heart and vessels take the place of lung: they add little more than the lung would lack there.
    room = air + 2.0
    taken = 1 - np.exp(-organs / room)
    x, y = field.x - thorax.rotation, field.y
    coarse = _body(thorax, field) - air + room * taken + _spine(x, y) - _airway(x, y) - _gas(thorax, field, of_gas)
    coarse += findings.draw(thorax, field.x, field.y, [lung * (1 - taken) for lung in lungs], of_findings)
    aerated = np.clip(air / 6.0, 0, 1)
    coarse += aerated * _parenchyma(coarse.shape, of_lung)
    absorbed = _enlarge(coarse, field) + skeleton.draw(thorax, field, of_lines)
    absorbed += _enlarge(aerated, field) * skeleton.draw_vessels(thorax, field, of_vessels)
    return _expose(absorbed, thorax, of_film)


def ellipsoid(x: Grid, y: Grid, centre: tuple[float, float], axes: tuple[float, float], tilt_deg: float = 0.0) -> Grid:
    """Relative thickness ``sqrt(1 - r^2)`` of an ellipsoid seen along the beam, 0 outside; x (1, w), y (h, 1)."""
    thickness = np.zeros(np.broadcast_shapes(x.shape, y.shape), dtype=np.float32)
    rows = np.flatnonzero(np.abs(y[:, 0] - centre[1]) < max(axes))
    if len(rows):
        angle = radians(tilt_deg)
        across, down = x - centre[0], y[rows[0] : rows[-1] + 1] - centre[1]
        u = (across * cos(angle) + down * sin(angle)) / axes[0]
        v = (down * cos(angle) - across * sin(angle)) / axes[1]
        thickness[rows[0] : rows[-1] + 1] = np.sqrt(np.clip(1 - u * u - v * v, 0, None))
    return thickness


def _field(size: tuple[int, int], rng: np.random.Generator) -> Field:
    height, width = size
    per_cm = min(size) / float(rng.normal(33.5, 0.5))
    left = -width / per_cm / 2 + float(rng.normal(0, 0.35))
    top = float(rng.normal(0.2, 0.35)) - max(0.0, (height / per_cm - 34.0) * 0.35)
    x = left + (np.arange(width // COARSE, dtype=np.float32) + 0.5) * COARSE / per_cm
    y = top + (np.arange(height // COARSE, dtype=np.float32) + 0.5) * COARSE / per_cm
    return Field(x[None, :], y[:, None], width, height, per_cm, left, top)


def _smooth(value: Grid) -> Grid:
    """0 below 0, 1 above 1, smooth between."""
    t = np.clip(value, 0, 1)
    return t * t * (3 - 2 * t)


def _body(thorax: Thorax, field: Field) -> Grid:
    """Soft tissue from skin to skin: trunk, neck, shoulders and the upper arms."""
    x, y = np.abs(field.x), field.y
    wall = (thorax.half_width + 2.7 * thorax.habitus) * (1 - 0.03 * _smooth((y - 10) / 20))
    trunk = np.sqrt(np.clip(1 - (x / wall) ** 4, 0, None)) * (0.5 + 0.5 * _smooth((y + 2) / 15))
    # Trapezius and acromion: the skin line falls steeply from the neck, then slowly to the shoulder.
    beside_neck = np.clip(x - 5.0, 0, None)
    skin = -6.0 + 8.6 * (1 - np.exp(-beside_neck / 2.1)) + 0.16 * beside_neck
    below_skin = _smooth((y - skin) / 3.5)
    shoulder = 0.66 * _smooth((17.0 - y) / 10.0)
    arm = 0.5 * np.sqrt(np.clip(1 - ((x - wall - 3.4) / 3.6) ** 2, 0, None)) * _smooth((19 - y) / 8)
    abdomen = 0.12 * _smooth((y - thorax.diaphragm[0] - 1) / 6) * (x < wall)
    return 17.0 * thorax.habitus * (np.maximum(np.maximum(trunk, shoulder), arm) * below_skin + abdomen)


def _lung(thorax: Thorax, field: Field, side: Side) -> Grid:
    """Water that one lung lacks: its depth along the beam times its share of air."""
    x = field.x * side - 0.4 * side * thorax.rotation
    y = field.y
    lateral = lung_lateral(thorax, y)
    medial = 0.9 + 2.0 * np.exp(-np.clip(y - thorax.apex, 0, None) / 2.5)
    across = np.clip((x - medial) / np.maximum(lateral - medial, 0.1), -1, 2)
    depth = np.sqrt(np.clip(1 - across * across * across, 0, None)) * _smooth(across / 0.26)
    depth = depth * (0.62 + 0.38 * _smooth((y - thorax.apex) / 10)) * _smooth((y - thorax.apex) / 0.5)
    base = dome(thorax, side, np.abs(x))
    above = 1 / (1 + np.exp(np.clip((y - base) / 0.10, -30, 30)))
    # The posterior recess reaches below the dome and shows faintly through the liver.
    recess = 0.16 * _smooth((base + 4.5 - y) / 4.0)
    return 10.2 * thorax.aeration * depth * np.maximum(above, recess)


def _organs(thorax: Thorax, field: Field) -> Grid:
    """Heart, great vessels and hila, in cm of water."""
    x, y = field.x - thorax.rotation, field.y
    size = thorax.heart
    floor = thorax.diaphragm[1] + 0.3  # the heart lies on the diaphragm and grows upwards and sideways from there
    middle = floor - 4.3 * (0.35 + 0.65 * size)
    heart = np.maximum(
        9.5 * ellipsoid(x, y, (2.1 * size, middle), (6.4 * size, 4.5 * (0.3 + 0.7 * size)), 33.0),
        8.6 * ellipsoid(x, y, (-1.0 * size, middle - 0.6), (3.3 * size, 4.7 * (0.4 + 0.6 * size))),
    )
    # Below the domes heart and liver cannot be told apart.
    heart = heart * (1 - 0.8 * _smooth((y - thorax.diaphragm[0] - 0.2) / 1.6))
    column = 3.4 * _smooth((2.9 - np.abs(x + 0.1)) / 1.6) * _smooth((y - 2) / 7) * _smooth((middle + 2 - y) / 3)
    vessels = np.maximum(column, 5.2 * ellipsoid(x, y, (1.7, 10.4), (1.8, 1.9)))
    vessels = np.maximum(vessels, 4.8 * ellipsoid(x, y, (1.9, 13.6), (2.0, 2.7), 10.0))
    descending = 1.6 * _smooth((0.9 - np.abs(x - 1.7 + 0.02 * (y - 12))) / 0.5) * _smooth((y - 11) / 2) * _smooth((24 - y) / 3)
    hila = 2.2 * ellipsoid(x, y, (-3.6, 14.6), (1.25, 2.3), 15.0) + 2.2 * ellipsoid(x, y, (3.8, 13.8), (1.15, 2.1), -15.0)
    return np.maximum(heart, vessels) + descending + hila


def _spine(x: Grid, y: Grid) -> Grid:
    """Vertebral bodies with their discs, pedicles and spinous processes."""
    phase = 2 * np.pi * (y - 1.0) / 2.25
    body = 0.5 + 0.5 * np.cos(phase)
    column = (1.2 + 0.45 * body**0.5) * _smooth((1.9 - 0.15 * body - np.abs(x)) / 0.45)
    pedicles = 0.5 * np.exp(-(((np.abs(x) - 1.2) / 0.3) ** 2)) * body**3
    process = 0.45 * np.exp(-((x / 0.3) ** 2)) * (0.5 + 0.5 * np.cos(phase + 2.0)) ** 2
    return column + pedicles + process


def _airway(x: Grid, y: Grid) -> Grid:
    """Air in the trachea and the main bronchi."""
    trachea = 1.5 * _smooth((0.95 - np.abs(x + 0.15)) / 0.4) * _smooth((12.4 - y) / 1.2)
    down = y - 11.4
    inside = _smooth(down) * _smooth((15.2 - y) / 1.5)
    for side, slope in ((-1, 0.55), (1, 1.0)):
        bronchus = _smooth((0.75 - np.abs(x + 0.15 - side * slope * down)) / 0.4)
        trachea = np.maximum(trachea, 1.4 * bronchus * inside)
    return trachea


def _gas(thorax: Thorax, field: Field, rng: np.random.Generator) -> Grid:
    """The stomach's bubble under the left dome."""
    centre = (float(rng.normal(6.3, 0.8)), thorax.diaphragm[1] + float(rng.uniform(2.6, 3.4)))
    axes = (float(rng.uniform(1.6, 3.0)), float(rng.uniform(1.0, 1.7)))
    return 4.2 * ellipsoid(field.x, field.y, centre, axes, -12.0) ** 1.5


def _parenchyma(shape: tuple[int, ...], rng: np.random.Generator) -> Grid:
    """The fine mesh of the lung: noise of two sizes, in cm of water."""
    return 0.2 * findings.cloud(shape, 30, rng) + 0.16 * findings.cloud(shape, 100, rng)


def _enlarge(coarse: Grid, field: Field) -> Grid:
    image = Image.fromarray(np.ascontiguousarray(coarse, dtype=np.float32))
    return np.asarray(image.resize((field.width, field.height), Image.Resampling.BILINEAR))


def _expose(absorbed: Grid, thorax: Thorax, rng: np.random.Generator) -> NDArray[np.uint8]:
    """The film: exposure, quantum noise that is stronger where few photons arrive, and the scanner's grain."""
    centre = 12.9 * (0.55 + 0.45 * thorax.habitus) + float(rng.normal(0, 0.5))
    latitude = 4.0 * float(rng.uniform(0.92, 1.1))
    grey = 245.0 / (1.0 + np.exp((centre - absorbed) / latitude)) + 3.0
    grain = rng.standard_normal(absorbed.shape, dtype=np.float32)
    grey = grey + grain * (float(rng.uniform(1.2, 3.5)) * (0.5 + grey / 255.0))
    return np.clip(np.round(grey), 0, 255).astype(np.uint8)
