"""The pages, run by Streamlit's own test driver: what is on the screen, and that nothing ever ends in a traceback."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
import streamlit.config
from streamlit.testing.v1 import AppTest

from app import session
from app.components.notice import RESEARCH_USE_ONLY, SIMULATED
from app.server import HARDENED
from clinical_symile.errors import GateRefused, IncompleteStage
from clinical_symile.resources import resource_root

MAIN = resource_root() / "app" / "main.py"


@pytest.fixture
def hardened() -> Iterator[None]:
    """The options under which the dashboard agrees to run."""
    before = {name: streamlit.config.get_option(name) for name in HARDENED}
    for name, value in HARDENED.items():
        streamlit.config.set_option(name, value)
    yield
    for name, value in before.items():
        streamlit.config.set_option(name, value)


@pytest.fixture
def app(hardened, review, monkeypatch) -> Iterator[AppTest]:
    """The dashboard over the made-up review."""
    monkeypatch.setattr(session, "open_review", lambda: review)
    monkeypatch.setattr("app.services.known_access", lambda: "synthetic")
    session.shared_review.clear()
    yield AppTest.from_file(str(MAIN), default_timeout=60)
    session.shared_review.clear()


def texts(app: AppTest) -> str:
    """Everything that Markdown shows in the main part, the sidebar and at the lower edge."""
    elements = [*app.markdown, *app.caption, *app.title, *app.subheader, *app.info, *app.error, *app.sidebar.markdown]
    return "\n".join(element.value for element in elements)


def press(app: AppTest) -> AppTest:
    return app.button(key="retrieve").click().run()


def audited(folder: Path) -> list[str]:
    if not (folder / "audit.db").exists():
        return []
    with sqlite3.connect(folder / "audit.db") as connection:
        return [json.loads(body)["event"] for (body,) in connection.execute("SELECT body FROM audit ORDER BY seq")]


def cards(app: AppTest) -> list[str]:
    return [element.value for element in app.markdown if element.value.startswith("Score **")]


def test_first_page_shows_the_patient_and_asks_nothing_yet(app, tmp_path):
    app.run()
    assert not app.exception
    assert app.selectbox(key="patient").options[0] == "Patient 1 – 52 y, F"
    (ecg,) = app.image
    assert ecg.proto.imgs[0].url.startswith("data:image/svg+xml")
    assert "12-lead ECG" in ecg.proto.imgs[0].alt
    assert len(app.table) == 3, "blood gas, chemistry and haematology"
    assert not cards(app)
    assert audited(tmp_path) == []


def test_notice_is_there_before_and_after_retrieving(app):
    for run in (app.run, lambda: press(app)):
        run()
        assert RESEARCH_USE_ONLY in texts(app)
        assert SIMULATED in texts(app)


def test_retrieving_shows_ranked_cards_and_one_record(app, tmp_path):
    press(app.run())
    assert not app.exception
    assert len(cards(app)) == 8
    assert all("Gallery percentile" in card for card in cards(app))
    assert "no probability" in texts(app)
    pictures = [picture for element in app.image for picture in element.proto.imgs]
    assert len(pictures) == 9
    assert all(picture.url.startswith("data:image/") and picture.alt for picture in pictures), (
        "a picture is served without a check"
    )
    for _ in range(3):
        app.run()
    assert audited(tmp_path) == ["query"], "a page that runs again is not a new query"


def test_changed_question_hides_the_old_answer(app):
    press(app.run())
    app.selectbox(key="patient").set_value(3).run()
    assert not cards(app), "the answer for one patient is shown beside another"
    assert "Press Retrieve" in texts(app)
    press(app)
    assert len(cards(app)) == 8


def test_returning_to_the_asked_question_shows_its_answer_again(app, tmp_path):
    press(app.run())
    shown = cards(app)
    app.selectbox(key="k").set_value(4).run()
    app.selectbox(key="k").set_value(8).run()
    assert cards(app) == shown
    assert audited(tmp_path) == ["query"]


def test_how_many_and_which_views(app):
    app.run()
    app.selectbox(key="k").set_value(4)
    app.button_group(key="views").set_value(["PA"])
    press(app)
    assert len(cards(app)) == 4
    headings = [element.value for element in app.markdown if element.value.startswith("**1** ")]
    assert headings == ["**1** :gray[PA]"]


def test_without_a_view_the_page_says_what_to_choose(app):
    press(app.run())
    app.button_group(key="views").set_value([]).run()
    assert "Choose at least one view." in texts(app)
    assert "Press Retrieve" not in texts(app)
    assert app.button(key="retrieve").disabled


def test_own_xray_is_marked_only_when_it_is_revealed(app):
    app.run()
    app.toggle(key="evaluation").set_value(True)
    press(app)
    assert "own X-ray" not in "".join(element.value for element in app.markdown)
    (reveal,) = app.checkbox
    reveal.set_value(True).run()
    assert sum("own X-ray" in element.value for element in app.markdown) >= 1
    assert any("has rank" in element.value for element in app.info)


def test_without_evaluation_mode_there_is_nothing_to_reveal(app):
    press(app.run())
    assert not app.checkbox


def test_enlarging_opens_the_large_view_and_is_recorded(app, tmp_path):
    press(app.run())
    button = next(button for button in app.button if button.label == "Enlarge")
    button.click().run()
    assert not app.exception
    assert {slider.label for slider in app.slider} == {"Level", "Window"}
    assert audited(tmp_path) == ["query", "view"]


def test_labs_table_tells_flags_in_letters_and_absent_results_in_words(app):
    app.run()
    shown = "\n".join(table.value.to_csv() for table in app.table)
    assert "not\N{NO-BREAK SPACE}measured" in shown
    assert "\N{NO-BREAK SPACE}mg\\/dL" in shown, "a unit may not leave its number"
    assert "**L**" in shown
    assert "**H**" in shown


def test_labs_can_be_narrowed_to_what_is_outside_the_range(app):
    app.run()
    app.button_group(key="labs_shown").set_value("Outside the range").run()
    for table in app.table:
        assert set(table.value["Flag"]) <= {":blue-badge[**L**]", ":orange-badge[**H**]"}


def test_uploaded_labs_without_an_ecg(app):
    app.run()
    app.button_group(key="source").set_value("Upload files").run()
    assert not app.exception
    app.file_uploader(key="labs_file").set_value(("labs.csv", b"itemid,value,unit\n50912,1.3,mg/dL\n", "text/csv")).run()
    assert not app.exception
    assert "No ECG was uploaded" in texts(app)
    press(app)
    assert len(cards(app)) == 8


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"itemid,value\n50912,much", b"name,value\n![x](http://127.0.0.1:9/),1"])
def test_unusable_upload_gives_a_message(app, content):
    app.run()
    app.button_group(key="source").set_value("Upload files").run()
    app.file_uploader(key="labs_file").set_value(("labs.csv", content, "text/csv")).run()
    assert not app.exception
    assert len(app.error) == 1
    assert "![x](" not in app.error[0].value
    assert RESEARCH_USE_ONLY in texts(app)


@pytest.mark.parametrize(
    "error", [IncompleteStage("nothing is registered; run 'clinical-symile registry register'"), GateRefused("no")]
)
def test_what_cannot_be_opened_gives_a_message(app, monkeypatch, error):
    def refuse():
        raise error

    monkeypatch.setattr(session, "open_review", refuse)
    app.run()
    assert not app.exception
    assert len(app.error) == 1
    assert RESEARCH_USE_ONLY in texts(app)


def test_audit_log_that_cannot_be_written_shows_nothing(app, tmp_path):
    press(app.run())
    (tmp_path / "audit.key").unlink()
    app.selectbox(key="patient").set_value(3).run()
    press(app)
    assert not app.exception
    assert not cards(app), "X-rays are shown although nothing was recorded"
    assert "audit log" in texts(app)


def test_softer_profile_is_refused(app):
    streamlit.config.set_option("client.showErrorLinks", "auto")
    app.run()
    assert not app.selectbox
    assert "clinical" in app.error[0].value
    assert "showErrorLinks" in app.error[0].value


def test_sidebar_names_model_data_and_gallery(app):
    app.run()
    sidebar = "\n".join(element.value for element in app.sidebar.caption)
    for part in ("symile\\-mimic, version 3", "Symile", "a" * 12, "d" * 12, "9" * 12, "24 X-rays", "simulated"):
        assert part in sidebar


def test_about_page_says_what_it_is_for_and_what_not():
    def script():
        from app.screens.about import about

        about()

    page = AppTest.from_function(script, default_timeout=60).run()
    assert not page.exception
    shown = "\n".join(element.value for element in page.markdown).lower()
    for word in ("research use only", "diagnosis", "percentile"):
        assert word in shown
