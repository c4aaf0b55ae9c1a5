"""What the documents show runs: the Python of the README, the examples in docstrings, and the links between files."""

from __future__ import annotations

import doctest
import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
ROOMS = sorted((ROOT / "clinical_symile").rglob("README.md"))


def blocks(language: str, text: str = README) -> list[str]:
    """The fenced code blocks of a document in one language."""
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


def modules_with_examples() -> list[str]:
    """Modules whose docstrings hold examples that run without data."""
    example = re.compile(r">>> (?!.*\+SKIP)")
    files = (ROOT / "clinical_symile").rglob("*.py")
    found = (file.relative_to(ROOT).with_suffix("") for file in files if example.search(file.read_text(encoding="utf-8")))
    return sorted(".".join(path.parts).removesuffix(".__init__") for path in found)


@pytest.mark.parametrize("number", range(len(blocks("python"))))
def test_the_python_of_the_readme_runs(number: int) -> None:
    exec(compile(blocks("python")[number], f"README.md, block {number}", "exec"), {})


@pytest.mark.parametrize("document", ROOMS, ids=lambda path: path.parent.name)
def test_the_python_of_a_rooms_readme_runs(document: Path) -> None:
    code = blocks("python", document.read_text(encoding="utf-8"))
    assert code
    for block in code:
        exec(compile(block, str(document), "exec"), {})


@pytest.mark.parametrize("document", ROOMS, ids=lambda path: path.parent.name)
def test_files_that_a_rooms_readme_names_exist(document: Path) -> None:
    names = re.findall(r"`(\w+\.py)`", document.read_text(encoding="utf-8"))
    assert names
    assert [name for name in names if not (document.parent / name).exists()] == []


@pytest.mark.parametrize("module", modules_with_examples())
def test_examples_in_docstrings_give_what_they_say(module: str) -> None:
    result = doctest.testmod(importlib.import_module(module))
    assert result.attempted > 0
    assert result.failed == 0


def test_the_readme_has_the_examples_that_these_tests_look_for() -> None:
    assert len(blocks("python")) >= 1
    assert len(blocks("sh")) >= 2


def test_links_between_files_lead_somewhere() -> None:
    for document in (ROOT / "README.md", *ROOT.glob("*/README.md"), *ROOT.glob("*/*/README.md")):
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", document.read_text(encoding="utf-8")):
            assert (document.parent / target).exists(), f"{document.name}: {target}"


def test_paths_that_the_readme_names_exist() -> None:
    for path in re.findall(r"`((?:clinical_symile|pipelines|app|tests|governance)/[A-Za-z0-9_./²-]+)`", README):
        assert (ROOT / path).exists(), path
