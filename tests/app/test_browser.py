"""The dashboard as a clinician meets it: served as ``review`` serves it, over a small simulated hospital, in Chromium.

The model is untrained and its report invented, so that this takes seconds; what is retrieved means nothing here.
``CLINICAL_SYMILE_SCREENSHOTS=DIR`` keeps a picture of each step.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
import sqlite3
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from app.components.notice import RESEARCH_USE_ONLY, SIMULATED
from app.server import streamlit_command
from clinical_symile.config import CohortConfig, ExperimentConfig, ModelConfig, SimulationConfig
from clinical_symile.stage import RunOptions, Stage, Workspace, digest_file, write_json
from clinical_symile.types import ECG_LEADS

pytestmark = [pytest.mark.browser, pytest.mark.slow]

CONFIG = ExperimentConfig(
    simulation=SimulationConfig(admissions=60, seed=5),
    cohort=CohortConfig(val_fraction=0.2, test_fraction=0.4, candidates=3),
    model=ModelConfig(cxr_encoder="small", ecg_encoder="small", labs_hidden=(8,), embed_dim=16),
)
QUIET = RunOptions(quiet=True, jobs=1)
PATIENCE_MS = 60_000


def write_workspace(workspace: Workspace) -> None:
    """Every stage's output, up to a registered champion and its gallery."""
    from clinical_symile.cohort import build_cohort
    from clinical_symile.dataset import ArrayStore, prepare
    from clinical_symile.modalities.ecg import examine
    from clinical_symile.models import SymileModel, save_model
    from clinical_symile.retrieval import build_index
    from clinical_symile.simulation import simulate
    from clinical_symile.tracking import promote, register

    simulate(CONFIG, workspace, QUIET)
    build_cohort(CONFIG, workspace, QUIET, examine_ecg=examine)
    prepare(CONFIG, workspace, QUIET)
    store = ArrayStore.open(workspace.dataset)
    with Stage("train", workspace.run("symile"), inputs={}, config={}, options=QUIET).writing() as writing:
        torch.manual_seed(0)
        statistics = json.loads((workspace.dataset / "labs_statistics.json").read_text())
        facts = {"loss": "symile", "access": store.access, "dataset": store.digest}
        save_model(SymileModel(CONFIG.model), writing.output / "model", facts, statistics)
    report: dict[str, Any] = {
        "run": "symile",
        "split": "test",
        "candidates": 10,
        "metrics": {"symile": {"accuracy_10way": {"value": 0.4, "low": 0.3, "high": 0.5, "n": 20}}},
        "chance": {"accuracy_10way": 0.1},
        "data": {"dataset_digest": store.digest},
        "losses": {"symile": "symile"},
    }
    with Stage("evaluate", workspace.report("symile"), inputs={}, config={}, options=QUIET).writing() as writing:
        write_json(writing.output / "report.json", report)
    card = "A model card."
    subject = {
        "model": digest_file(workspace.run("symile") / "model" / "SHA256SUMS"),
        "report": digest_file(workspace.report("symile") / "report.json"),
        "card": hashlib.sha256(card.encode()).hexdigest(),
    }
    verdict = {"action": "register", "passed": True, "subject": subject, "results": []}
    promote(workspace, CONFIG, register(workspace, CONFIG, "symile", card=card, verdict=verdict).version, "champion")
    build_index(CONFIG, workspace, QUIET, "symile")


@dataclass
class Served:
    """A running dashboard."""

    url: str
    workspace: Workspace
    log: Path

    def audited(self) -> list[str]:
        if not self.workspace.audit_log.exists():
            return []
        with sqlite3.connect(self.workspace.audit_log) as connection:
            return [json.loads(body)["event"] for (body,) in connection.execute("SELECT body FROM audit ORDER BY seq")]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The dashboard on a free port of this machine."""
    folder = tmp_path_factory.mktemp("dashboard")
    workspace = Workspace(folder / "workspace")
    write_workspace(workspace)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command, environment = streamlit_command(workspace, CONFIG, port)
    log = folder / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, env={**environment, "OMP_NUM_THREADS": "1"}, cwd=folder, stdout=output, stderr=output)
    try:
        url = f"http://127.0.0.1:{port}"
        wait_until_healthy(url, process, log)
        yield Served(url, workspace, log)
    finally:
        process.terminate()
        process.wait(timeout=20)


def wait_until_healthy(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(300):
        assert process.poll() is None, log.read_text()
        try:
            with urllib.request.urlopen(f"{url}/_stcore/health", timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    pytest.fail(f"the dashboard did not start: {log.read_text()}")


@dataclass
class Browser:
    """One page, and every address that it asked for."""

    page: Any
    requests: list[str] = field(default_factory=list)

    def snapshot(self, name: str) -> None:
        folder = os.environ.get("CLINICAL_SYMILE_SCREENSHOTS")
        if folder:
            self.page.screenshot(path=str(Path(folder) / f"{name}.png"))

    def retrieve(self) -> None:
        self.page.get_by_role("button", name="Retrieve", exact=True).click()
        self.page.get_by_role("button", name="Enlarge").nth(7).wait_for()
        self.page.get_by_text("Searching the gallery").wait_for(state="detached")

    def xrays(self) -> list[dict[str, Any]]:
        """The X-rays on the page: address, whether the browser could decode them, and their text for screen readers."""
        found: list[dict[str, Any]] = self.page.eval_on_selector_all(
            "img[alt^='Chest X-ray']", "all => all.map(img => ({src: img.src, width: img.naturalWidth, alt: img.alt}))"
        )
        return found


@pytest.fixture
def browser(served: Served) -> Iterator[Browser]:
    """A fresh Chromium."""
    sync_api = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("there is no Chromium on this machine")
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        page = started.new_page(viewport={"width": 1440, "height": 1000})
        page.set_default_timeout(PATIENCE_MS)
        seen = Browser(page)
        page.on("request", lambda request: seen.requests.append(request.url))
        yield seen
        started.close()


def require_notice(browser: Browser) -> None:
    """The notice is inside the window, not somewhere below it."""
    for text in (RESEARCH_USE_ONLY, SIMULATED):
        box = browser.page.get_by_text(text, exact=True).first.bounding_box()
        assert box is not None, f"{text!r} is not shown"
        assert 0 <= box["y"] <= browser.page.viewport_size["height"] - box["height"], f"{text!r} is outside the window"


def require_private(browser: Browser, served: Served) -> None:
    """Nothing left the machine, and no picture was put where anyone may fetch it."""
    fetched = [url for url in browser.requests if not url.startswith("data:")]
    assert [url for url in fetched if not url.startswith((served.url, served.url.replace("http", "ws")))] == []
    assert [url for url in fetched if url.startswith(f"{served.url}/media/")] == []


def test_notice_is_on_the_first_page_that_a_fresh_server_is_asked_for(served, browser):
    browser.page.goto(f"{served.url}/about")
    browser.page.get_by_text("How to read a result").wait_for()
    require_notice(browser)
    browser.page.get_by_text("Digest").first.wait_for()
    browser.snapshot("about")
    require_private(browser, served)


def test_patient_of_the_dataset(served, browser):
    before = len(served.audited())
    browser.page.goto(served.url)
    browser.page.get_by_role("button", name="Retrieve", exact=True).wait_for()
    ecg = browser.page.locator("img[alt^='12-lead ECG']")
    assert ecg.evaluate("img => img.naturalWidth") > 500
    browser.page.get_by_text("not measured").first.wait_for()
    require_notice(browser)
    browser.snapshot("patient")

    browser.page.get_by_text("Evaluation mode").click()
    browser.retrieve()
    xrays = browser.xrays()
    assert len(xrays) == 8
    assert all(xray["width"] >= 320 and xray["src"].startswith("data:image/png") for xray in xrays)
    assert browser.page.get_by_text("Gallery percentile").count() == 8
    require_notice(browser)
    browser.snapshot("retrieved")

    browser.page.get_by_text("Reveal the patient's own X-ray").click()
    browser.page.get_by_text("has rank").wait_for()
    browser.page.locator("img[alt*='own X-ray']").wait_for()
    browser.snapshot("revealed")
    assert served.audited()[before:] == ["query"]
    require_private(browser, served)


def test_enlarged_xray_can_be_inverted(served, browser):
    before = len(served.audited())
    browser.page.goto(served.url)
    browser.retrieve()
    browser.page.get_by_role("button", name="Enlarge").nth(1).click()
    large = browser.page.get_by_role("dialog").locator("img")
    large.wait_for()
    original = large.get_attribute("src")
    browser.page.get_by_role("dialog").get_by_text("Invert").click()
    browser.page.wait_for_function(
        "original => document.querySelector('[role=dialog] img')?.src !== original", arg=original, timeout=PATIENCE_MS
    )
    browser.page.get_by_text("Only the two together").wait_for()
    assert browser.page.get_by_role("dialog").get_by_text(RESEARCH_USE_ONLY).is_visible()
    browser.snapshot("enlarged")
    assert served.audited()[before:] == ["query", "view"]
    require_private(browser, served)


def upload(browser: Browser, ecg: list[Path], labs: Path) -> None:
    browser.page.get_by_text("Upload files").click()
    browser.page.locator("input[type=file]").nth(1).wait_for(state="attached")
    if ecg:
        choose_files(browser, 0, ecg)
    choose_files(browser, 1, [labs])


def choose_files(browser: Browser, uploader: int, files: list[Path]) -> None:
    """A person whose click came to nothing clicks again: Streamlit replaces an input while it draws the page anew."""
    from playwright.sync_api import TimeoutError as PlaywrightTimeoutError

    for _ in range(4):
        browser.page.locator("input[type=file]").nth(uploader).set_input_files(files)
        try:
            browser.page.get_by_text(files[-1].name).first.wait_for(timeout=PATIENCE_MS / 4)
        except PlaywrightTimeoutError:
            continue
        return
    pytest.fail(f"the page never showed {files[-1].name}")


def check_upload(served: Served, browser: Browser, ecg: list[Path], labs: Path, name: str) -> None:
    browser.page.goto(served.url)
    upload(browser, ecg, labs)
    browser.page.locator("img[alt^='12-lead ECG of Uploaded patient']").wait_for()
    browser.page.get_by_text("5 of 50 tests measured").wait_for()
    browser.retrieve()
    assert len(browser.xrays()) == 8
    assert all(xray["width"] >= 320 for xray in browser.xrays())
    assert browser.page.get_by_text("Evaluation mode").count() == 0, "nobody knows the X-ray of an uploaded patient"
    require_notice(browser)
    browser.snapshot(name)
    require_private(browser, served)
    assert not list((served.workspace.root / "tmp").iterdir()), "an uploaded ECG stayed on the disk"


@pytest.fixture
def labs_csv(tmp_path) -> Path:
    file = tmp_path / "labs.csv"
    file.write_text(
        "name,value,unit\nCreatinine,2.9,mg/dL\nPotassium,6.1,mmol/L\nHemoglobin,8.4,g/dL\nSodium,139,mEq/L\n"
        "White Blood Cells,12.4,K/uL\nTroponin T,0.05,ng/mL\n"
    )
    return file


def test_uploaded_ecg_and_labs(served, browser, labs_csv, tmp_path):
    import wfdb

    beats = np.sin(np.arange(5000)[:, None] * 2 * np.pi / 450) ** 60 * np.linspace(0.3, 1.4, 12)
    wfdb.wrsamp(
        "mine", fs=500, units=["mV"] * 12, sig_name=list(ECG_LEADS), p_signal=beats, fmt=["16"] * 12, write_dir=str(tmp_path)
    )
    check_upload(served, browser, [tmp_path / "mine.hea", tmp_path / "mine.dat"], labs_csv, "uploaded")


@pytest.mark.realdata
def test_uploaded_real_ecg_and_labs(served, browser, labs_csv, real_data):
    header = sorted((real_data / "ecg" / "ludb").rglob("*.hea"))[0]
    check_upload(served, browser, [header, header.with_suffix(".dat")], labs_csv, "uploaded_real")


def test_hostile_cell_fetches_nothing(served, browser, tmp_path):
    """Markdown in a data cell would make the browser fetch an address, and so tell somebody what is being looked at."""
    file = tmp_path / "hostile.csv"
    file.write_text(
        "name,value\nCreatinine,1\n![x](http://127.0.0.1:9/stolen.png),1\n<img src=http://127.0.0.1:9/stolen2.png>,2\n"
    )
    browser.page.goto(served.url)
    upload(browser, [], file)
    browser.page.get_by_text("stolen.png").first.wait_for()
    browser.page.wait_for_timeout(500)
    assert [url for url in browser.requests if "stolen" in url] == []
    assert browser.page.locator("img[src*=stolen]").count() == 0


def test_unusable_upload_gives_a_message(served, browser, tmp_path):
    file = tmp_path / "bad.csv"
    file.write_text("itemid,value,unit\n50912,120,umol/L\n")
    browser.page.goto(served.url)
    upload(browser, [], file)
    browser.page.get_by_text("convert it first").wait_for()
    require_notice(browser)
    browser.snapshot("refused")


def test_no_error_reached_the_log(served):
    """Last in the file: whatever the tests above did, the server met no exception that it did not expect."""
    assert "Traceback" not in served.log.read_text()
