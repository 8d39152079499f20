"""The page for everybody: audited by axe-core, walked by keyboard, without motion, in any width,
and closed to what does not come from its server."""

import re
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from playwright.sync_api import Browser, Page, expect

from tests.server.accessibility import audit
from tests.server.browser import Watched, picture, shown
from tests.server.conftest import finished
from tests.server.in_process import Application, data_url
from tests.server.sketching import Sketching
from tests.server.test_lora_names import write as write_lora

PHONE, DESKTOP = (360, 740), (1440, 900)
LONG = "a house with many windows, " * 60
ONE_WORD = "w" * 3000
ARABIC = "بيت أحمر صغير بجانب البحيرة عند غروب الشمس " * 5
FAMILY = "🏠 👩‍👩‍👧‍👦 🇩🇪 " * 20
MARKUP = "<b>bold</b> <script>window.hacked = 1</script> &amp;"
PROMPTS = (LONG, ONE_WORD, ARABIC, FAMILY, MARKUP)
LONG_LORA = "a_lora_whose_file_says_everything_" * 6
REFUSED = {"worker": "cpu0", "kind": "generate", "message": ONE_WORD}

FOCUSABLE = """() => [...document.querySelectorAll(
        "a[href], button, input, select, textarea, summary, [tabindex='0']")]
    .filter(one => one.checkVisibility() && !one.disabled && one.tabIndex >= 0)
    .filter(one => one.type !== "radio" || one.checked)
    .map(one => one.dataset.walk = one.dataset.walk ?? String(Math.random()))"""
FOCUSED = """() => {
    const one = document.activeElement;
    const shape = getComputedStyle(one);
    const parent = one.nextElementSibling && getComputedStyle(one.nextElementSibling);
    const label = one.parentElement && getComputedStyle(one.parentElement);
    const seen = [shape, parent, label].some(style => style && style.outlineStyle !== "none");
    return [one.dataset.walk ?? null, seen, one.outerHTML.slice(0, 90)];
}"""
MOVING = """() => [...document.querySelectorAll("*")].filter(one => {
    const style = getComputedStyle(one);
    const times = `${style.transitionDuration},${style.animationDuration}`.split(",");
    return times.some(time => parseFloat(time) > 0) || style.scrollBehavior === "smooth";
}).map(one => one.outerHTML.slice(0, 90))"""
BEYOND = """() => [...document.querySelectorAll("body *")].filter(one => {
    if (!one.checkVisibility() || one.closest(".unseen, .skip")) return false;
    return one.getBoundingClientRect().right > innerWidth + 1;
}).map(one => one.outerHTML.slice(0, 90))"""


@pytest.fixture(scope="module")
def played() -> Sketching:
    return Sketching()


@pytest.fixture(scope="module")
def client(played: Sketching, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx2.Client]:
    """Of a server with pictures, failures, LoRAs, a picture on its way and a job that waits."""
    folder = tmp_path_factory.mktemp("access")
    for name in ("ink", LONG_LORA):
        write_lora(folder / "loras" / f"{name}.safetensors", said=name)
    write_lora(folder / "loras" / "whole.safetensors", {"a.weight": [2, 2]})
    # The task on its way is on its way until the last test has ended.
    patient = {"task_timeout": 3600}
    given: dict[str, Any] = {"supervision": patient, "lora_dir": str(folder / "loras")}
    with Application(folder, 1, played.workers.backend, **given) as application:
        with application.client() as client:
            tasks: list[dict[str, Any]] = [{"prompt": prompt} for prompt in PROMPTS]
            tasks += [{"prompt": f"house {number}"} for number in range(6)]
            tasks += [{"prompt": prompt, "width": 17} for prompt in PROMPTS]
            played.turns.release(len(tasks) + 1)
            finished(client, create(client, *tasks))
            edit = {"instruction": "make it snow", "source_images": [data_url()]}
            finished(client, create(client, edit))
            while played.turns.acquire(blocking=False):
                pass
            for kind in ("generate", "edit"):
                pin = {"name": LONG_LORA, "action": "pin", "kind": kind}
                client.post("/v1/loras", json=pin).raise_for_status()
            create(client, {"prompt": LONG}, previews=3)
            create(client, {"prompt": ONE_WORD}, {"prompt": ARABIC})
            yield client
        played.turns.release(1000)


def create(client: httpx2.Client, *tasks: dict[str, Any], **job: Any) -> str:
    answer = client.post("/v1/jobs", json={"tasks": tasks, **job}).raise_for_status()
    return str(answer.json()["id"])


def filled(pages: Watched, client: httpx2.Client, size: tuple[int, int], **options: Any) -> Page:
    """The page with all its parts shown."""
    page = pages.open(str(client.base_url), *size, **options)
    expect(page.locator("#pictures li").first).to_be_visible()
    expect(page.locator("#failures li").first).to_be_visible()
    expect(page.locator("#queue li").nth(1)).to_be_visible()
    shown(page.locator("#pictures [data-state=running] img"))
    for part in ("workers-part", "holdings-part"):
        page.evaluate("id => document.getElementById(id).open = true", part)
    expect(page.locator("#holdings li .pill").first).to_have_text("pinned")
    return page


# Contrast is by the scheme, places and sizes are by the width: each is seen once.
@pytest.mark.parametrize(
    ("size", "scheme"), [(PHONE, "dark"), (DESKTOP, "light")], ids=["phone", "desktop"]
)
def test_an_audit_finds_nothing_in_any_view(
    client: httpx2.Client, pages: Watched, size: tuple[int, int], scheme: str
) -> None:
    page = filled(pages, client, size, color_scheme=scheme)
    views = {"main": audit(page)}
    page.get_by_text("Options").click()
    page.get_by_text("Edit", exact=True).first.click()
    page.locator("#upload").set_input_files(
        {"name": "red.png", "mimeType": "image/png", "buffer": b"no picture"}
    )
    page.get_by_role("button", name="Edit", exact=True).click()
    expect(page.get_by_text("Say what to change.")).to_be_visible()
    views["form"] = audit(page)
    page.get_by_label("Search in prompts").fill("snow")
    picture(page, "make it snow").click()
    shown(page.get_by_role("dialog").get_by_role("img", name="make it snow"))
    views["details"] = audit(page)
    page.keyboard.press("Escape")
    page.get_by_label("Search in prompts").fill("nothing like it")
    expect(page.get_by_text("No picture fits this search.")).to_be_visible()
    page.route("**/v1/**", lambda route: route.fulfill(status=401, json=refusal("No such key.")))
    # Not a real click: the page may have asked before, and the dialog be over the button.
    page.locator("#queue button").first.dispatch_event("click")
    expect(page.get_by_role("dialog", name="API key")).to_be_visible()
    views["key"] = audit(page)
    assert views == {name: [] for name in views}


def refusal(message: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": "invalid_request_error", "code": "invalid"}}


def test_the_audit_sees_a_fault(client: httpx2.Client, pages: Watched) -> None:
    page = pages.open(str(client.base_url))
    page.evaluate("""() => {
        document.getElementById("summary").style.color = "#e8e8e8";
        document.getElementById("words").labels[0].remove();
        document.getElementById("words").placeholder = "";
    }""")
    expect(page.locator("#summary")).not_to_be_empty()
    faults = " ".join(audit(page))
    assert 'color-contrast: ["#summary"]' in faults and 'label: ["#words"]' in faults


def test_tab_reaches_everything_in_view_and_leaves_it_again(
    client: httpx2.Client, pages: Watched
) -> None:
    page = filled(pages, client, DESKTOP)
    page.evaluate("""() => {
        document.getElementById("more").open = true;
        document.querySelector("[value=edit]").click();
    }""")
    everything = set(page.evaluate(FOCUSABLE))
    reached: list[str | None] = []
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the pictures")).to_be_focused()
    for _ in range(2 * len(everything)):
        walk, seen, element = page.evaluate(FOCUSED)
        assert seen, f"nobody sees that the focus is on {element}"
        reached.append(walk)
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement === document.body"):
            break  # all of it, and on to the browser's own
    missed = everything - set(reached)
    assert not missed, page.evaluate(
        "ids => ids.map(id => document.querySelector(`[data-walk='${id}']`).outerHTML)",
        sorted(missed),
    )
    assert len(reached) == len(set(reached))  # each once: the gallery is one stop


def test_the_keyboard_does_all_that_the_mouse_does(
    client: httpx2.Client, pages: Watched, played: Sketching
) -> None:
    page = filled(pages, client, DESKTOP)
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")  # skip to the pictures
    for _ in range(3):  # search, kind, the gallery
        page.keyboard.press("Tab")
    focused = page.locator(":focus")
    expect(focused).to_have_attribute("data-state", "running")
    page.keyboard.press("Enter")  # there is nothing to open yet
    expect(page.get_by_role("dialog")).to_have_count(0)
    page.keyboard.press("ArrowRight")
    expect(focused).to_have_attribute("title", "make it snow")
    page.keyboard.press("ArrowDown")
    below = focused.get_attribute("title")
    page.keyboard.press("ArrowUp")
    expect(focused).to_have_attribute("title", "make it snow")
    assert below is not None and below.startswith("house")

    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog")
    expect(dialog).to_be_visible()
    page.keyboard.press("ArrowRight")
    expect(dialog.locator(".prompt")).to_have_text("house 5")
    page.keyboard.press("ArrowLeft")
    expect(dialog.locator(".prompt")).to_have_text("make it snow")
    for _ in range(12):  # round and round: the page behind it is out of reach
        page.keyboard.press("Tab")
        assert page.evaluate(
            "document.activeElement === document.body || !!document.activeElement.closest('dialog')"
        )
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Escape")
    expect(focused).to_have_attribute("title", "house 5")

    drain = page.get_by_role("button", name="Drain cpu0")
    drain.focus()
    page.keyboard.press("Space")
    resume = page.get_by_role("button", name="Resume cpu0")
    expect(resume).to_be_focused()
    page.keyboard.press("Enter")
    expect(drain).to_be_focused()
    hide = page.get_by_role("button", name="Hide these")
    hide.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("region", name="Failed")).to_be_hidden()
    expect(page.get_by_role("region", name="Pictures")).to_be_focused()


def test_nothing_moves_for_whoever_wants_no_motion(client: httpx2.Client, pages: Watched) -> None:
    still = filled(pages, client, DESKTOP, reduced_motion="reduce")
    picture(still, "make it snow").click()
    assert still.evaluate(MOVING) == []
    usual = filled(pages, client, DESKTOP, reduced_motion="no-preference")
    assert usual.evaluate(MOVING) != []


@pytest.mark.parametrize("width", [320, 800, 1440])
def test_nothing_is_wider_than_the_window(
    client: httpx2.Client, pages: Watched, width: int
) -> None:
    page = filled(pages, client, (width, 900))

    def with_long_names(route: Any) -> None:
        answer = route.fetch()
        body = answer.json()
        for worker in body["data"]:
            worker.update(loras=[LONG_LORA, "ink"], model=LONG_LORA, reason=ONE_WORD)
        route.fulfill(response=answer, json=body)

    def with_refusals(route: Any) -> None:
        answer = route.fetch()
        body = answer.json()
        for lora in body["data"]:
            lora.update(load_errors=[REFUSED])
        route.fulfill(response=answer, json=body)

    page.route("**/v1/loras", with_refusals)
    page.route("**/v1/workers", with_long_names)
    expect(page.get_by_role("region", name="Workers")).to_contain_text(LONG_LORA)
    expect(page.get_by_role("region", name="LoRAs in memory")).to_contain_text(ONE_WORD)
    page.get_by_text("Options").click()
    assert page.evaluate(BEYOND) == []
    page.locator("#failures").get_by_role("button", name="Change").first.click()
    assert page.evaluate(BEYOND) == []
    for words in ("www", "بيت", "🏠"):
        page.get_by_label("Search in prompts").fill(words)
        tile = page.locator("#pictures [data-state=done]")
        expect(tile.first).to_have_attribute("title", re.compile(f"^{words}"))
        tile.first.click()
        expect(page.get_by_role("dialog")).to_be_visible()
        assert page.evaluate(BEYOND) == []
        page.keyboard.press("Escape")


def test_the_browser_lets_the_page_ask_and_run_nothing_from_elsewhere(
    client: httpx2.Client, browser: Browser
) -> None:
    watched = Watched(browser)
    page = filled(watched, client, DESKTOP)
    refused = page.evaluate("""async () => {
        const refused = [];
        document.addEventListener("securitypolicyviolation",
            event => refused.push(event.effectiveDirective));
        const add = (tag, set) => document.head.append(Object.assign(
            document.createElement(tag), set));
        await fetch("http://127.0.0.1:1/").catch(() => {});
        new Image().src = "http://127.0.0.1:1/a.png";
        add("link", { rel: "stylesheet", href: "http://127.0.0.1:1/a.css" });
        add("style", { textContent: "body { display: none }" });
        try { document.body.innerHTML = "<b>text</b>"; } catch { refused.push("trusted-types"); }
        while (new Set(refused).size < 5) await new Promise(resolve => setTimeout(resolve, 10));
        return refused;
    }""")
    assert set(refused) == {
        "connect-src",
        "img-src",
        "style-src-elem",
        "require-trusted-types-for",
        "trusted-types",
    }
    assert page.evaluate("getComputedStyle(document.body).display") != "none"
    watched.close()  # its problems are those that this makes
