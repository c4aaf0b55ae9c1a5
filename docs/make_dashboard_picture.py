"""Makes the README's picture of the dashboard: serves a finished workspace, drives Chromium, saves a PNG.

    clinical-symile demo --no-serve --workspace workspace-demo
    python docs/make_dashboard_picture.py --workspace workspace-demo

Needs the extra ``dev`` and a Chromium (``chromium`` on the path, or ``playwright install chromium``). Only a workspace of
simulated data is photographed: a picture of real data must not lie in a repository.
"""

from __future__ import annotations

import argparse
import io
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # app/ lies in the checkout, not in the package

from app.server import ADDRESS, streamlit_command
from clinical_symile.config import load_config
from clinical_symile.errors import ClinicalSymileError, GateRefused
from clinical_symile.resources import preset
from clinical_symile.stage import Workspace, require_complete

WIDTH, HEIGHT = 1440, 1220
"""High enough for the first row of X-rays with its scores, above the notice."""
MAX_BYTES = 700_000
PATIENCE_MS = 60_000


def main() -> None:
    """Reads the options, makes the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workspace", type=Path, required=True, help="with a champion and its gallery")
    parser.add_argument("--patient", type=int, default=9, help="number of the held-out patient, from 1")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "images" / "dashboard.png")
    options = parser.parse_args()
    try:
        workspace = Workspace(options.workspace.expanduser().resolve())
        if require_complete(workspace.dataset, "prepare").get("access") != "synthetic":
            raise GateRefused(f"{workspace.root}: only simulated data may be photographed")
        with served(workspace) as url:
            picture = small_png(photograph(url, options.patient))
    except ClinicalSymileError as error:
        sys.exit(f"error: {error}")
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_bytes(picture)
    print(f"wrote {options.output} ({len(picture) / 1000:.0f} kB)")


@contextmanager
def served(workspace: Workspace) -> Iterator[str]:
    """The address of the dashboard, served as ``clinical-symile review`` serves it, on a free port."""
    with socket.socket() as probe:
        probe.bind((ADDRESS, 0))
        port = probe.getsockname()[1]
    command, environment = streamlit_command(workspace, load_config(preset("demo")), port)
    url = f"http://{ADDRESS}:{port}"
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        try:
            wait_until_healthy(url, process)
            yield url
        finally:
            process.terminate()
            process.wait(timeout=20)


def wait_until_healthy(url: str, process: subprocess.Popen[bytes]) -> None:
    """Returns when the server answers."""
    for _ in range(300):
        if process.poll() is not None:
            break
        try:
            with urllib.request.urlopen(f"{url}/_stcore/health", timeout=2):  # our own server
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise ClinicalSymileError("the dashboard did not start; 'clinical-symile review' on this workspace says why")


def photograph(url: str, patient: int) -> bytes:
    """The Retrieve page after Retrieve: ECG, measured labs, the first row of X-rays."""
    from playwright.sync_api import Error

    try:
        return _photograph(url, patient)
    except Error as error:
        first_line = str(error).partition("\n")[0]
        raise ClinicalSymileError(f"Chromium did not get the picture ({first_line}); is there a patient {patient}?") from None


def _photograph(url: str, patient: int) -> bytes:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome"),
            args=["--no-sandbox", "--disable-gpu"],
        )
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        page.set_default_timeout(PATIENCE_MS)
        page.goto(url)
        retrieve = page.get_by_role("button", name="Retrieve", exact=True)
        retrieve.wait_for()
        page.get_by_role("combobox").first.click()
        page.get_by_role("combobox").first.fill(f"Patient {patient} ")
        page.get_by_role("option").first.click()
        page.locator(f"img[alt^='12-lead ECG of Patient {patient} ']").wait_for()
        page.get_by_text("Measured", exact=True).click()
        page.get_by_role("combobox").last.click()  # how many: one row
        page.get_by_role("option", name="4", exact=True).click()
        retrieve.click()
        page.get_by_role("button", name="Enlarge").nth(3).wait_for()
        page.get_by_text("Searching the gallery").wait_for(state="detached")
        page.mouse.move(WIDTH - 5, 5)  # nothing is hovered over
        page.wait_for_function("[...document.images].every(image => image.complete)")
        page.wait_for_timeout(1000)  # Streamlit fades its elements in
        picture = page.screenshot(animations="disabled")
        browser.close()
    return bytes(picture)


def small_png(picture: bytes) -> bytes:
    """The picture as it is if it is small enough, else with 256 colours, which a page in greys and pinks hardly shows."""
    if len(picture) <= MAX_BYTES:
        return picture
    from PIL import Image

    smaller = io.BytesIO()
    with Image.open(io.BytesIO(picture)) as image:
        image.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(smaller, "PNG", optimize=True)
    return smaller.getvalue()


if __name__ == "__main__":
    main()
