"""The geometry of one thorax: where its borders are, in cm, for a patient, a projection and the findings.

Coordinates are those of the detector: x to the right of the image (the patient's left), y downwards, the midline at x = 0
and the seventh cervical vertebra near y = 0. Sizes vary a little between patients; the findings change them clearly.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from clinical_symile.simulation.law import CHANNEL_NAMES
from clinical_symile.simulation.plan import Severities

Grid = NDArray[np.floating[Any]]
"""Numbers on the film's grid, or along one of its axes; single precision where there are many."""

Side = Literal[-1, 1]
"""-1: the image's left, the patient's right lung."""
SIDES: Final[tuple[Side, Side]] = (-1, 1)


@dataclass(frozen=True)
class Thorax:
    """Everything that the drawing needs to know about one chest."""

    frontal: Literal["AP", "PA"]
    habitus: float
    """Soft tissue, about 0.85 (thin) to 1.25 (obese)."""
    half_width: float
    apex: float
    widest: float
    diaphragm: tuple[float, float]
    """Height of the right and the left dome."""
    curvature: float
    """Of the domes: 1 normal, near 0 flat."""
    heart: float
    """Linear size of the heart: 1 normal on a PA film."""
    aeration: float
    """How much air the lungs hold: 1 normal."""
    rotation: float
    """Shift of the mediastinum, in cm."""
    edema: float
    consolidation: float
    lobe: tuple[Side, float, float]
    """Side of the consolidation and its centre: share of the width, share of the height of the lung."""
    effusion: tuple[float, float]
    """Depth of the fluid on the right and the left, in cm above the dome."""
    devices: bool
    """Whether a central venous catheter and electrodes are seen."""


def draw_thorax(shows: Severities, frontal: Literal["AP", "PA"], devices: bool, rng: np.random.Generator) -> Thorax:
    """Draws a chest that has the given findings.

    Args:
        shows: severity of each channel's sign, 0 where absent.
        frontal: projection. In AP the heart is magnified, inspiration is shallower and the patient may be rotated.
        devices: whether a catheter and electrodes are on it.
        rng: source of randomness.
    """
    severity = dict(zip(CHANNEL_NAMES, shows, strict=True))
    supine = frontal == "AP"
    inflated = severity["hyperinflation"]
    heart = (1.08 if supine else 1.0) * float(rng.normal(0.97, 0.025))
    if severity["cardiomegaly"]:
        heart *= 1.22 + 0.28 * severity["cardiomegaly"]
    if inflated:
        heart *= 0.95 - 0.05 * inflated
    dome = float(rng.normal(23.6, 0.35)) - (0.7 if supine else 0.0) + (2.0 + 1.6 * inflated if inflated else 0.0)
    offset = float(rng.normal(1.0, 0.3)) * (0.5 if inflated else 1.0)
    return Thorax(
        frontal=frontal,
        habitus=float(np.clip(rng.normal(1.0, 0.1), 0.82, 1.28)),
        half_width=float(rng.normal(13.4, 0.35)),
        apex=float(rng.normal(3.4, 0.3)),
        widest=float(rng.normal(19.5, 0.5)),
        diaphragm=(dome, dome + offset),
        curvature=float(rng.normal(1.0, 0.08)) * (1.0 - (0.55 + 0.35 * inflated if inflated else 0.0)),
        heart=heart,
        aeration=float(rng.normal(1.0, 0.02)) + (0.1 + 0.12 * inflated if inflated else 0.0),
        rotation=float(rng.normal(0, 0.5 if supine else 0.2)),
        edema=severity["edema"],
        consolidation=severity["consolidation"],
        lobe=_draw_lobe(rng),
        effusion=_draw_effusion(severity["effusion"], rng),
        devices=devices,
    )


def lung_lateral(thorax: Thorax, y: Grid) -> Grid:
    """Distance of the lateral lung border from the midline at height y."""
    above = np.clip((thorax.widest - y) / (thorax.widest - thorax.apex), 0.0, 1.0)
    below = np.clip((y - thorax.widest) / 14.0, 0.0, 1.0)
    return 3.1 + (thorax.half_width - 3.1) * (1 - above**2.4) ** 0.55 * (1 - 0.10 * below**2)


def dome(thorax: Thorax, side: Side, x: Grid) -> Grid:
    """Height of a hemidiaphragm at distance x >= 0 from the midline: highest in its middle, steep to the lateral angle."""
    top = thorax.diaphragm[0 if side < 0 else 1]
    centre = 0.46 * thorax.half_width
    medial = np.clip((centre - x) / centre, 0, None)
    lateral = np.clip((x - centre) / (thorax.half_width - centre), 0, None)
    return top + thorax.curvature * (1.5 * medial**2 + 1.2 * lateral**2 + 3.3 * lateral**5)


def fluid_level(thorax: Thorax, side: Side, x: Grid) -> Grid | None:
    """Upper border of an effusion: level in the middle, climbing along the chest wall (the meniscus)."""
    depth = thorax.effusion[0 if side < 0 else 1]
    if depth == 0:
        return None
    top = thorax.diaphragm[0 if side < 0 else 1] + 0.8
    lateral = np.clip(x / thorax.half_width, 0, 1.05)
    return top + 1.5 - depth * (0.45 + 0.95 * lateral**3)


def rib_line(thorax: Thorax, number: int, side: Side, part: Literal["posterior", "anterior"]) -> Grid:
    """Centre line of a rib as points (p, 2): an inclined ellipse around the chest, its back half or its front half.

    Ribs 1 to 10 start at the spine, sink towards the side, and the front part sinks on to the cartilage, which is not seen.
    """
    stretch = (thorax.diaphragm[0] - thorax.apex) / 20.2
    start = thorax.apex - 0.3 + stretch * 2.05 * (number - 1)
    width = float(lung_lateral(thorax, np.array([start + 2.5]))[0]) + 0.35
    width = max(width, 4.6)
    drop = (4.0 + 0.75 * min(number, 7)) * (0.95 if thorax.frontal == "AP" else 1.05)
    span = (0.0, 0.5) if part == "posterior" else (0.5, 0.80 if number > 1 else 0.9)
    angle = np.pi * np.linspace(*span, 30)
    x = 1.6 + (width - 1.6) * np.sin(angle) ** 0.85
    y = start + drop * (1 - np.cos(angle)) / 2 - 0.9 * np.sin(angle) * (angle < np.pi / 2) * np.cos(angle)
    return np.stack([side * x + 0.3 * thorax.rotation, y], axis=1)


def clavicle_line(thorax: Thorax, side: Side) -> Grid:
    """Centre line of a clavicle, an S from the manubrium to the shoulder: points (p, 2)."""
    t = np.linspace(0, 1, 24)
    high = 0.7 if thorax.frontal == "AP" else 0.0
    x = 1.9 + 13.2 * t
    y = thorax.apex + 3.9 - high - 2.4 * t - 0.7 * np.sin(2 * np.pi * t)
    return np.stack([side * x + thorax.rotation, y], axis=1)


def _draw_lobe(rng: np.random.Generator) -> tuple[Side, float, float]:
    """An upper or a middle-to-lower lobe; kept off the lateral angle, which belongs to the effusion."""
    side: Side = -1 if rng.random() < 0.55 else 1
    if rng.random() < 0.5:
        return side, float(rng.uniform(0.5, 0.62)), float(rng.uniform(0.28, 0.36))
    return side, float(rng.uniform(0.5, 0.6)), float(rng.uniform(0.58, 0.66))


def _draw_effusion(severity: float, rng: np.random.Generator) -> tuple[float, float]:
    kind = rng.choice(3, p=[0.38, 0.32, 0.3])
    depth = 2.8 + 4.2 * severity
    other = depth * rng.uniform(0.7, 1.0)
    if severity == 0:
        return 0.0, 0.0
    return ((depth, 0.0), (0.0, depth), (depth, other))[kind]
