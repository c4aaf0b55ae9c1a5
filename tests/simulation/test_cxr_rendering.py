"""The chest X-ray: each finding changes what a radiologist would measure, and nothing else on purpose."""

from __future__ import annotations

import numpy as np
import pytest

from clinical_symile.simulation.cxr import SHORT_SIDE, ellipsoid, frontal_size, render_frontal
from clinical_symile.simulation.lateral import LATERAL_SIZE, render_lateral
from clinical_symile.simulation.law import CHANNEL_NAMES
from clinical_symile.simulation.thorax import Thorax, dome, draw_thorax, fluid_level, lung_lateral

SEEDS = range(5)


def thorax(seed: int, view: str = "PA", **severities: float) -> Thorax:
    shows = tuple(severities.get(name, 0.0) for name in CHANNEL_NAMES)
    return draw_thorax(shows, view, False, np.random.default_rng(seed))


def film(seed: int, view: str = "PA", **severities: float) -> np.ndarray:
    shows = tuple(severities.get(name, 0.0) for name in CHANNEL_NAMES)
    return render_frontal(shows, view, (614, 512), False, np.random.default_rng(seed)).astype(float)


@pytest.mark.parametrize("seed", SEEDS)
def test_heart_is_larger_with_cardiomegaly_than_any_projection_makes_it(seed: int) -> None:
    assert thorax(seed, "PA").heart < thorax(seed, "AP").heart < 1.2
    assert thorax(seed, "PA", cardiomegaly=0.5, hyperinflation=1.0).heart > 1.15


@pytest.mark.parametrize("seed", SEEDS)
def test_hyperinflation_lowers_and_flattens_the_diaphragm(seed: int) -> None:
    normal, inflated = thorax(seed), thorax(seed, hyperinflation=0.5)
    assert min(inflated.diaphragm) > max(normal.diaphragm)
    x = np.linspace(2, 13, 50)
    assert np.ptp(dome(inflated, -1, x)) < 0.6 * np.ptp(dome(normal, -1, x))


@pytest.mark.parametrize("seed", SEEDS)
def test_effusion_climbs_along_the_chest_wall(seed: int) -> None:
    chest = thorax(seed, effusion=0.5)
    assert max(chest.effusion) > 0
    for side in (-1, 1):
        level = fluid_level(chest, side, np.linspace(1, 13, 30))
        if level is not None:
            assert (np.diff(level) < 0).all(), "y points down: the meniscus is highest at the wall"
            assert level[-1] < chest.diaphragm[0]
    assert thorax(seed).effusion == (0.0, 0.0)


def test_lungs_widen_downwards() -> None:
    chest = thorax(0)
    assert (np.diff(lung_lateral(chest, np.linspace(chest.apex, chest.widest, 40))) >= 0).all()


@pytest.mark.parametrize("finding", CHANNEL_NAMES[1:4])
@pytest.mark.parametrize("seed", SEEDS)
def test_findings_whiten_the_lung(seed: int, finding: str) -> None:
    """Same chest, same noise, one finding more: somewhere a large area becomes clearly brighter, none darker."""
    before, after = film(seed), film(seed, **{finding: 0.6})
    change = (after - before)[: 600 // 20 * 20, : 500 // 20 * 20].reshape(30, 20, 25, 20).mean((1, 3))
    assert np.sort(change.ravel())[-6] > 15, f"{finding} is too faint"
    assert np.median(change) == pytest.approx(0, abs=3)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_chest_looks_like_a_chest(seed: int) -> None:
    """Outside air is black, lungs are dark, the middle and the abdomen are bright."""
    image = film(seed, "AP")
    corner, lung, heart, abdomen = image[:30, :30], image[210:290, 90:150], image[340:390, 240:270], image[520:600, 120:200]
    assert corner.mean() < 40
    assert corner.mean() < lung.mean() < heart.mean()
    assert lung.mean() + 40 < abdomen.mean()
    assert image.max() <= 255


@pytest.mark.parametrize("view", ["AP", "PA"])
def test_sizes(view: str) -> None:
    sizes = {frontal_size(view, np.random.default_rng(seed)) for seed in range(40)}
    assert {min(size) for size in sizes} == {SHORT_SIDE}
    assert len(sizes) > 2, "the aspect varies"
    size = (600, 512)
    assert render_frontal((0,) * 5, view, size, True, np.random.default_rng(0)).shape == size


def test_lateral() -> None:
    image = render_lateral(np.random.default_rng(0))
    assert image.shape == LATERAL_SIZE
    assert image.dtype == np.uint8


def test_ellipsoid_is_a_sphere_in_its_middle() -> None:
    x, y = np.linspace(-2, 2, 41)[None, :], np.linspace(-2, 2, 41)[:, None]
    ball = ellipsoid(x, y, (0.0, 0.0), (1.0, 1.0), 25.0)
    np.testing.assert_allclose(ball, np.sqrt(np.clip(1 - x**2 - y**2, 0, None)), atol=1e-6)
    assert (ellipsoid(x, y + 50, (0.0, 0.0), (1.0, 1.0)) == 0).all()
