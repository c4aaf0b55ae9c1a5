"""The script that makes the README's picture of the dashboard; the picture itself is looked at by people."""

from __future__ import annotations

import importlib.util
import io
import sys
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from clinical_symile.resources import resource_root
from clinical_symile.stage import RunOptions, Stage, Workspace


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "make_dashboard_picture", resource_root() / "docs" / "make_dashboard_picture.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_only_simulated_data_is_photographed(script, tmp_path, monkeypatch):
    workspace = Workspace(tmp_path)
    with Stage("prepare", workspace.dataset, inputs={}, config={}, options=RunOptions(quiet=True)).writing() as writing:
        writing.facts["access"] = "credentialed"
    output = tmp_path / "picture.png"
    monkeypatch.setattr(sys, "argv", ["make", "--workspace", str(tmp_path), "--output", str(output)])
    with pytest.raises(SystemExit, match="only simulated data"):
        script.main()
    assert not output.exists()


def test_a_large_picture_is_made_small_and_a_small_one_is_kept(script, monkeypatch):
    pixels = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    assert script.small_png(buffer.getvalue()) == buffer.getvalue()
    monkeypatch.setattr(script, "MAX_BYTES", 1000)
    smaller = script.small_png(buffer.getvalue())
    assert len(smaller) < len(buffer.getvalue())
    with Image.open(io.BytesIO(smaller)) as image:
        assert image.size == (64, 64)
