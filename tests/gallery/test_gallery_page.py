"""The page of an output folder, as its users see it: in a real browser, opened as a file."""

import json
import shlex
import shutil
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from apps.edit_images.command import main as edit_images
from apps.gallery.places import HIDDEN, INDEX
from apps.gallery.states import States
from apps.gallery.writer import GalleryWriter
from core.store.ledger import Ledger
from core.store.ledger_reading import read_record
from tests.gallery.conftest import PROMPTS, QUOTES, SCRIPT, SEED, Open
from tests.inline_backend import InlineBackend
from tests.server.accessibility import audit
from tests.server.browser import shown
from tests.server.test_page_access import DESKTOP, PHONE

LISTEN = """() => {
    window.said = [];
    new MutationObserver((changes) => {
        for (const { target } of changes) window.said.push(target.textContent);
    }).observe(document.body, { childList: true, subtree: true });
}"""


def copied(page: Page, words: str) -> str:
    """What is in the clipboard after a press of a button, which said so for a moment."""
    page.evaluate(LISTEN)
    page.get_by_role("dialog").get_by_role("button", name=words).click()
    expect(page.locator("#news")).to_have_text(f"{words}: copied.")
    assert "Copied" in page.evaluate("window.said")
    text: str = page.evaluate("navigator.clipboard.readText()")
    return text


def names(page: Page) -> list[str]:
    """What the tiles show, in their order."""
    return [tile.get_attribute("title") or "" for tile in page.locator(".tile").all()]


def test_all_pictures_are_shown_and_words_of_users_stay_words(
    drawn: Path, open_page: Open, watched: object
) -> None:
    page = open_page(drawn)
    expect(page.locator("#results")).to_have_text("28 pictures")
    assert page.locator("h1").inner_text() == "a_b"
    for prompt in PROMPTS:
        expect(page.get_by_title(prompt, exact=True)).to_have_count(1)
    shown(page.get_by_role("img", name="house number 3", exact=True))
    shown(page.get_by_role("img", name="a wide lake", exact=True))
    assert page.evaluate("window.hacked") is None
    asked = getattr(watched, "asked", [])
    assert asked and all(HIDDEN in one or one.endswith((".png", INDEX)) for one in asked)


def test_failures_come_first_with_their_reasons(drawn: Path, open_page: Open) -> None:
    page = open_page(drawn)
    failures = page.get_by_role("region", name="Failed: 3")
    reason = failures.get_by_role("button", name="2 × a simulated failure that a retry would")
    expect(failures.get_by_role("button")).to_have_count(2)
    assert set(names(page)[:3]) == {"!nan one", "!nan two", "a_b_27"}
    reason.click()
    expect(page.locator("#results")).to_have_text("2 of 28 pictures")
    reason.click()
    page.get_by_label("Order").select_option("Order of the input")
    expect(page.locator(".tile").first).to_have_attribute("title", SCRIPT)
    page.get_by_label("State").select_option("Failed (3)")
    expect(page.locator("#results")).to_have_text("3 of 28 pictures")


def test_a_search_finds_prompts_seeds_and_reasons(drawn: Path, open_page: Open) -> None:
    page = open_page(drawn)
    page.keyboard.press("/")
    search = page.get_by_label("Search")
    expect(search).to_be_focused()
    for words, found in (("HOUSE 19", 2), (str(SEED), 4), ("!nan retry", 2), ("multiple of 16", 1)):
        search.fill(words)
        expect(page.locator("#results")).to_have_text(f"{found} of 28 pictures")
    search.fill("wash")  # the folder of a LoRA of PEFT
    expect(page.locator("#results")).to_have_text("1 of 28 pictures")
    search.fill("nothing like it")
    expect(page.get_by_text("No picture fits this.")).to_be_visible()


def test_a_picture_tells_all_and_its_texts_can_be_copied(drawn: Path, open_page: Open) -> None:
    page = open_page(drawn, permissions=["clipboard-read", "clipboard-write"])
    page.get_by_title(QUOTES, exact=True).click()
    dialog = page.get_by_role("dialog")
    for text in (QUOTES, str(SEED), "32 × 32", "cpu0"):
        expect(dialog.get_by_text(text, exact=True)).to_be_visible()
    assert copied(page, "Copy the prompt") == QUOTES
    command = shlex.split(copied(page, "Copy the command"))
    assert command[2:] == ["--from-png", str(drawn / "a_b_03.png")]
    task = json.loads(copied(page, "Copy the task"))
    assert (task["prompt"], task["seed"], task["width"]) == (QUOTES, SEED, 32)


def test_a_picture_that_failed_has_a_command_with_its_task(drawn: Path, open_page: Open) -> None:
    page = open_page(drawn, permissions=["clipboard-read", "clipboard-write"])
    page.get_by_title("!nan one", exact=True).click()
    command = shlex.split(copied(page, "Copy the command"))
    [task] = json.loads(command[2])  # of: printf %s TASK > again.json && python …
    assert (task["prompt"], task["seed"], task["width"]) == ("!nan one", 42 + 25, 32)


def test_an_edit_has_the_command_that_makes_it_again(
    edited: Path, open_page: Open, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = open_page(edited, permissions=["clipboard-read", "clipboard-write"])
    page.get_by_title("make it night", exact=True).first.click()
    python, script, *arguments = shlex.split(copied(page, "Copy the command"))
    assert (python, script, arguments[0]) == ("python", "edit_images.py", "--from-png")
    config = tmp_path / "settings.yaml"
    config.write_text("{model: simulated, gallery: false, editor: {model: simulated}}")
    line = [*arguments, "--config", str(config), "--output-dir", str(tmp_path / "out")]
    assert edit_images([*line, "--num-gpus", "1"], backend=InlineBackend()) == 0
    assert "1 the same byte for byte" in capsys.readouterr().out


def test_keys_lead_from_picture_to_picture_and_enlarge_one(drawn: Path, open_page: Open) -> None:
    page = open_page(drawn)
    page.get_by_label("Order").select_option("Order of the input")
    expect(page.locator(".tile").first).to_have_attribute("title", SCRIPT)
    page.locator(".tile").first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    title = page.locator("#viewer-title")
    expect(title).to_have_text("a_b_01")
    page.keyboard.press("ArrowRight")
    expect(title).to_have_text("a_b_02")
    page.keyboard.press("+")
    expect(page.locator("#viewer .stage.enlarged")).to_have_count(1)
    page.keyboard.press("0")
    expect(page.locator("#viewer .stage.enlarged")).to_have_count(0)
    page.keyboard.press("Escape")
    expect(page.locator("li[data-id='a_b_02.png'] button")).to_be_focused()


def test_two_marked_pictures_are_compared(drawn: Path, open_page: Open) -> None:
    page = open_page(drawn)
    page.get_by_title("house number 1", exact=True).focus()
    page.keyboard.press("c")
    expect(page.locator("#marked")).to_contain_text("Mark another picture")
    page.get_by_title("house number 2", exact=True).click()
    page.get_by_role("button", name="Compare with another").click()
    dialog = page.get_by_role("dialog", name="Two pictures")
    expect(dialog.locator(".stage img")).to_have_count(2)
    expect(dialog.get_by_role("row", name="Prompt")).to_contain_text("house number 1house number 2")
    page.keyboard.press("+")
    expect(dialog.locator(".enlarged")).to_have_count(2)
    dialog.get_by_role("button", name="With a slider").click()
    expect(dialog.get_by_role("slider")).to_have_value("50")
    page.keyboard.press("Escape")
    expect(page.locator("#marked")).to_be_hidden()


def test_the_workers_time_is_told_in_figures(drawn: Path, open_page: Open) -> None:
    page = open_page(drawn, "#workers")
    row = page.get_by_role("row", name="cpu0")
    expect(row.get_by_role("cell").first).to_have_text("25")
    expect(page.get_by_role("img", name="What 1 workers did")).to_be_visible()


def test_an_edit_shows_its_source_its_scores_and_the_judges_words(
    edited: Path, open_page: Open
) -> None:
    page = open_page(edited)
    page.get_by_label("Order").select_option("O, lowest first")
    expect(page.locator(".tile").last).to_have_attribute("title", "!unparsed it")
    badges = [float(b) for b in page.locator(".badge:visible").all_inner_texts()]
    assert badges == sorted(badges) and len(badges) == 4
    page.get_by_title("!unparsed it", exact=True).click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_text("no JSON object")).to_be_visible()
    expect(dialog.get_by_text("no idea", exact=True)).to_be_visible()
    slider = dialog.get_by_role("slider", name="How much of the picture before is seen")
    slider.focus()
    page.keyboard.press("Home")
    expect(slider).to_have_value("0")
    assert "--cut: 0%" in (dialog.locator(".stage").get_attribute("style") or "")
    for image in dialog.locator(".stage img").all():
        shown(image)
    dialog.get_by_role("button", name="Side by side").click()
    expect(dialog.get_by_text("Before", exact=True)).to_be_visible()
    page.keyboard.press("Escape")
    page.get_by_role("link", name="Scores").click()
    chart = page.locator(".chart").first
    expect(chart.get_by_role("listitem")).to_have_count(2)
    chart.get_by_role("button", name="ground & <b>").click()
    expect(page.locator("#results")).to_have_text("2 of 5 pictures")


@pytest.mark.parametrize(("size", "scheme"), [(PHONE, "dark"), (DESKTOP, "light")])
def test_the_page_is_accessible_and_fits_in_every_view(
    edited: Path, drawn: Path, open_page: Open, size: tuple[int, int], scheme: str
) -> None:
    for folder, part in ((drawn, ""), (edited, "#workers"), (edited, "#scores")):
        page = open_page(folder, part, width=size[0], height=size[1], color_scheme=scheme)
        expect(page.locator("#results")).not_to_be_empty()
        assert audit(page) == []
        assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
        for choice in page.locator(".choice select").all():
            box = choice.bounding_box()
            assert box is None or box["x"] + box["width"] <= size[0], "nothing is cut at the edge"
    page.evaluate("location.hash = 'pictures'")
    page.locator(".tile").nth(2).click()
    assert audit(page) == []


def test_a_page_follows_the_data_beside_it_while_a_run_goes_on(
    drawn: Path, open_page: Open, tmp_path: Path
) -> None:
    folder = tmp_path / "live"
    shutil.copytree(drawn, folder)
    (folder / INDEX).unlink()
    record = read_record(folder)
    assert record is not None
    first, *others = [task.entry for task in record.tasks if task.entry.state == "done"]
    ledger = Ledger.open(folder)
    try:
        ledger.forget([entry.key for entry in others])
        States(folder).note("cpu0", "ready")
        writer = GalleryWriter(folder)
        writer.write(running=True)
        page = open_page(folder)
        expect(page.get_by_text("The run goes on; this page follows it")).to_be_visible()
        expect(page.locator("#results")).to_contain_text("4 pictures")
        ledger.begin_batch(others)
        writer.write(running=True)
        expect(page.locator("#results")).to_contain_text("27 pictures")
        writer.write()
        expect(page.locator("#notice")).to_be_hidden()
    finally:
        ledger.close()
    assert first.output_path is not None


def test_a_page_without_its_data_says_what_is_missing(
    drawn: Path, open_page: Open, tmp_path: Path
) -> None:
    folder = tmp_path / "moved"
    folder.mkdir()
    shutil.copy(drawn / INDEX, folder)
    page = open_page(folder)
    expect(page.locator("#results")).to_have_text("28 pictures")  # a finished run's holds it all
    GalleryWriter(drawn).write(running=True)
    try:
        shutil.copy(drawn / INDEX, folder)
        page.reload()
        expect(page.get_by_text("copy the whole folder")).to_be_visible()
    finally:
        GalleryWriter(drawn).write()
