"""LoRAs in workers' memory, on the page: where they are, what is pinned, what a worker refused."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from playwright.sync_api import Locator, Page, expect

from apps.server.safety.keys import add_key
from tests.conftest import PROJECT, wait_until
from tests.server.browser import Watched
from tests.server.conftest import Daemon, finished
from tests.server.test_lora_names import write

OTHERS = 12  # LoRAs: more than are listed while no worker holds them


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Daemon, str, str, Path]]:
    """A daemon with two workers, the key of a user, that of an operator, and the file whose
    presence makes cpu1 fail."""
    folder = tmp_path_factory.mktemp("page-loras")
    for name in ("ink", "snow", "fog", *(f"style-{number:02}" for number in range(OTHERS))):
        write(folder / "loras" / f"{name}.safetensors", said=name)
    lost = folder / "lost"
    daemon = Daemon(
        folder, lora_dir=str(folder / "loras"), simulated={"lost_while": {"cpu1": str(lost)}}
    )
    user = add_key(daemon.output / "api-keys.json", "me")
    operator = add_key(daemon.output / "api-keys.json", "boss", operator=True)
    daemon.start("--cpu-workers", "2")
    yield daemon, user, operator, lost
    daemon.end()


def opened(pages: Watched, daemon: Daemon, key: str) -> Page:
    page = pages.open(daemon.url)
    page.get_by_label("Key", exact=True).fill(key)
    page.keyboard.press("Enter")
    workers = page.get_by_role("region", name="Workers")
    expect(workers.get_by_text("ready")).to_have_count(2)
    return page


def item(page: Page, name: str) -> Locator:
    """What the page says of a LoRA."""
    region = page.get_by_role("region", name="LoRAs in memory")
    return region.get_by_role("listitem").filter(has=page.get_by_title(name, exact=True))


def test_an_operator_loads_pins_and_unloads_and_everybody_sees_what_became_of_it(
    served: tuple[Daemon, str, str, Path], pages: Watched
) -> None:
    daemon, user, operator, lost = served
    page = opened(pages, daemon, user)
    expect(page.get_by_text(f"{OTHERS + 3} LoRAs on no worker")).to_be_visible()
    page.get_by_label("Find a LoRA").fill("INK")
    expect(item(page, "ink")).to_contain_text("on no worker")
    item(page, "ink").get_by_role("button", name="Pin ink").click()
    expect(item(page, "ink").get_by_role("alert")).to_contain_text("Your API key may not do this")

    page = opened(pages, daemon, operator)
    news = page.get_by_role("region", name="LoRAs in memory").get_by_role("status")
    page.get_by_label("Find a LoRA").fill("style")
    expect(page.get_by_text("… and 4 more.")).to_be_visible()
    expect(news).to_have_text("8 LoRAs shown.")
    page.get_by_label("Find a LoRA").fill("ink")
    page.get_by_role("button", name="Load ink", exact=True).focus()
    page.keyboard.press("Enter")
    expect(news).to_have_text("ink is on cpu0, cpu1.")
    expect(item(page, "ink")).to_contain_text("loaded")
    expect(item(page, "ink")).to_contain_text("on cpu0, cpu1")
    # What is done leaves, and the focus goes to what can be done next.
    expect(page.get_by_role("button", name="Pin ink")).to_be_focused()
    page.keyboard.press("Enter")
    expect(item(page, "ink")).to_contain_text("pinned")
    unload = page.get_by_role("button", name="Unload ink")
    expect(unload).to_be_focused()

    lost.touch()
    page.get_by_label("Find a LoRA").fill("snow")
    page.get_by_role("button", name="Load snow", exact=True).click()
    refusal = "cpu1: the worker died while it loaded it: The device failed: CUDA error: device lost"
    expect(item(page, "snow").get_by_text(refusal)).to_be_visible()
    expect(item(page, "snow")).to_contain_text("on cpu0")
    expect(news).to_have_text("snow is on cpu0; refused by cpu1.")
    lost.unlink()

    page.get_by_label("Find a LoRA").fill("")
    expect(item(page, "ink")).to_be_visible()
    expect(item(page, "fog")).to_have_count(0)
    with daemon.client(headers={"Authorization": f"Bearer {operator}"}) as client:
        tasks = [{"prompt": "a house", "lora_path": "fog"}]
        answer = client.post("/v1/jobs", json={"tasks": tasks}).raise_for_status()
        finished(client, answer.json()["id"])
        expect(item(page, "fog")).to_contain_text("loaded")  # by a task, and nobody asked the page
        unload.click()
        expect(news).to_have_text("ink is on no worker.")
        wait_until(lambda: not client.get("/v1/loras/ink").json()["loaded_on"], "the unloading")
    expect(item(page, "ink")).not_to_contain_text("pinned")
    expect(item(page, "ink").get_by_role("button", name="Load ink", exact=True)).to_be_visible()


def test_make_serve_offers_the_loras_of_the_demo_model(tmp_path: Path, pages: Watched) -> None:
    (tmp_path / "demo_model").symlink_to(PROJECT / "demo_model")  # it is started in the project
    recipe = subprocess.run(
        ["make", "-n", "serve"], cwd=PROJECT, capture_output=True, text=True, check=True
    )
    [line] = [line for line in recipe.stdout.splitlines() if "serve.py" in line]
    daemon = Daemon(tmp_path).start(*line.partition("serve.py ")[2].split())
    try:
        found = httpx2.get(f"{daemon.url}/v1/loras").json()["data"]
        assert [(lora["id"], lora["usable"]) for lora in found] == [
            ("neon", True), ("snow", True), ("watercolour", True)
        ]  # fmt: skip
        page = pages.open(daemon.url)
        expect(page.get_by_label("Add a LoRA")).to_have_attribute("placeholder", "Choose of 3")
    finally:
        daemon.end()


def test_a_folder_of_loras_is_named_by_an_option(tmp_path: Path) -> None:
    write(tmp_path / "mine" / "ink.safetensors", said="ink")
    daemon = Daemon(tmp_path, lora_dir="others").start("--lora-dir", "mine")
    try:
        found = httpx2.get(f"{daemon.url}/v1/loras").json()["data"]
        assert [lora["id"] for lora in found] == ["ink"]
    finally:
        daemon.end()
