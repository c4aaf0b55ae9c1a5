"""A lateral chest X-ray, simple: the cohort must recognise it by its view and leave it out."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from clinical_symile.simulation.cxr import ellipsoid
from clinical_symile.simulation.thorax import Grid

LATERAL_SIZE = (614, 512)


def render_lateral(rng: np.random.Generator) -> NDArray[np.uint8]:
    """Draws one lateral chest X-ray: spine behind, sternum in front, heart, two domes. Returns (614, 512) grey."""
    height, width = LATERAL_SIZE
    x = np.linspace(-16, 16, width, dtype=np.float32)[None, :] + float(rng.normal(0, 0.4))
    y = np.linspace(0, 38, height, dtype=np.float32)[:, None] + float(rng.normal(0, 0.4))
    trunk = np.sqrt(np.clip(1 - (x / 13.0) ** 4, 0, None)) * np.clip((y + 3) / 12, 0.2, 1)
    lung = 10.5 * ellipsoid(x, y, (0.4, 17.5), (9.6, 15.0), -4.0)
    # Two domes, the patient's left a little higher here; behind, the recess reaches deep.
    for top in (24.0, 25.2):
        base = top + 0.075 * (x + 2.5) ** 2 * np.where(x > -2.5, 0.75, 0.4)
        lung = lung * (0.35 + 0.65 / (1 + np.exp(np.clip((y - base) / 0.15, -30, 30))))
    heart = 8.0 * ellipsoid(x, y, (-3.9, 20.5), (5.6, 4.6), -32.0)
    vessels = 4.5 * np.exp(-(((x + 0.5 - 0.12 * (y - 10)) / 2.6) ** 2) - ((y - 10.5) / 4.5) ** 2)
    room = lung + 1.5
    organs = room * (1 - np.exp(-(heart + vessels) / room))
    bend = 6.6 + 1.5 * np.sin((y - 6) / 13)
    spine = np.exp(-(((x - bend) / 1.6) ** 6)) * (1.6 + 0.7 * np.cos(2 * np.pi * y / 2.4))
    arm = 4.0 * np.clip((9 - y) / 7, 0, 1) * np.exp(-(((x + 1) / 7) ** 4))
    absorbed = 17 * trunk - lung + organs + spine + arm + _ribs(height, width)
    grey = 245 / (1 + np.exp((12.5 - absorbed) / 4.0)) + 3 + rng.standard_normal((height, width), dtype=np.float32) * 3
    return np.clip(np.round(grey), 0, 255).astype(np.uint8)


def _ribs(height: int, width: int) -> Grid:
    canvas = Image.new("L", (width, height), 0)
    pen = ImageDraw.Draw(canvas)
    for number in range(9):
        top = 0.14 * height + 0.055 * height * number
        points = [(width * (0.70 - 0.46 * t), top + height * (0.26 * t**1.5 - 0.04 * t)) for t in np.linspace(0, 1, 20)]
        pen.line(points, fill=60, width=round(width * 0.03))
        pen.line(points, fill=38, width=round(width * 0.018))
    return np.asarray(canvas.filter(ImageFilter.GaussianBlur(1.5)), dtype=np.float32) / 70
