"""I2EBench as its scripts judge it: questions to a chat model, SSIM, and CLIP, by two judges."""

import json
import math
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml
from PIL import Image

from tests import published_sets
from tests.conftest import BENCHMARK, Project
from tests.edit_world import settings
from tests.test_judge_models import build_clip
from workers.judges.padded_ssim import padded_ssim

# -- SSIM ------------------------------------------------------------------------


def by_the_scripts_steps(a: torch.Tensor, b: torch.Tensor) -> float:
    """SSIM of [1, 3, height, width] by convolutions that fill up with zeros, meant over all."""
    line = torch.tensor([math.exp(-((x - 5) ** 2) / (2 * 1.5**2)) for x in range(11)])
    line = line / line.sum()
    window = torch.outer(line, line).expand(3, 1, 11, 11).to(a.dtype)

    def blurred(x: torch.Tensor) -> torch.Tensor:
        return F.conv2d(x, window, padding=5, groups=3)

    ma, mb = blurred(a), blurred(b)
    va, vb = blurred(a * a) - ma**2, blurred(b * b) - mb**2
    both = blurred(a * b) - ma * mb
    c1, c2 = 0.01**2, 0.03**2
    alike = (2 * ma * mb + c1) * (2 * both + c2) / ((ma**2 + mb**2 + c1) * (va + vb + c2))
    return float(alike.mean())


def values(picture: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.asarray(picture) / 255.0).permute(2, 0, 1)[None]


def noise(size: tuple[int, int], seed: int) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    return Image.fromarray(pixels)


@pytest.mark.parametrize("size", [(48, 40), (8, 6)])
def test_ssim_is_that_of_the_script_up_to_the_border(size: tuple[int, int]) -> None:
    right, edit = noise(size, 1), Image.blend(noise(size, 1), noise(size, 2), 0.3)
    found = padded_ssim(edit, right)
    assert found == pytest.approx(by_the_scripts_steps(values(right), values(edit)), abs=1e-6)
    assert 0.2 < found < 0.99 and padded_ssim(right, right) == pytest.approx(1)
    larger = edit.resize((96, 90))
    fitted = by_the_scripts_steps(values(right), values(larger.resize(size)))
    assert padded_ssim(larger, right) == pytest.approx(fitted, abs=1e-6)


def test_under_a_mask_both_pictures_have_the_masks_own_values() -> None:
    """Which are up to 255, beside pictures from 0 to 1: the script does not divide them."""
    grey = Image.new("RGB", (48, 40), "gray")
    source, edit = (Image.blend(grey, noise((48, 40), seed), 0.1) for seed in (1, 2))
    mask = Image.new("L", (48, 40))
    mask.paste(255, (0, 0, 20, 40))
    mask.paste(7, (20, 0, 24, 40))
    filled = torch.from_numpy(np.asarray(mask, np.float64)).expand(1, 3, 40, 48)
    both = [torch.where(filled > 0, filled, values(picture)) for picture in (source, edit)]
    own = by_the_scripts_steps(*both)
    assert padded_ssim(edit, source, mask) == pytest.approx(own, abs=1e-7), "its window's sum shows"
    edit.paste(source.crop((24, 0, 48, 40)), (24, 0))
    assert padded_ssim(edit, source, mask) == pytest.approx(1)
    assert padded_ssim(edit, source) < 0.9


# -- a run -----------------------------------------------------------------------


@pytest.fixture
def server() -> Iterator[tuple[str, list[list[dict[str, Any]]]]]:
    """A chat model that answers questions about pictures, and then says that it was right, but for
    the dog of the second round, of which it does not say."""
    heard: list[list[dict[str, Any]]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            heard.append(body["messages"][0]["content"])
            answer = "<think>two?</think>There is one cat."
            if len(heard[-1]) == 1:
                asked = heard[-1][0]["text"]
                answer = "As a model of language I see no picture." if "dogs" in asked else "Yes."
            choice = {"message": {"role": "assistant", "content": answer}, "finish_reason": "stop"}
            content = json.dumps({"model": "m", "choices": [choice], "usage": {}}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            pass

    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=running.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{running.server_port}/v1", heard
    running.shutdown()
    thread.join()
    running.server_close()


@pytest.mark.slow
def test_two_judges_give_the_figures_of_all_tasks(
    tmp_path: Path, server: tuple[str, list[list[dict[str, Any]]]]
) -> None:
    address, heard = server
    project = Project(tmp_path)
    project.environment = {"JUDGE_KEY": "k", "NO_PROXY": "*", "no_proxy": "*"}
    data = published_sets.i2ebench(tmp_path / "data")
    for number, file in enumerate(sorted(data.rglob("*.*g"))):
        noise((48, 40), number).save(file)
    Image.new("L", (48, 40)).save(data / "EditData/RegionAccuracy/mask/0000.png")
    build_clip(tmp_path / "clip")
    config, out = tmp_path / "bench.yaml", tmp_path / "out"

    def run(judge: dict[str, Any], *more: str) -> dict[str, Any]:
        told = settings(data=str(data), judge=judge, cpu_workers=1, use_server="never")
        config.write_text(yaml.safe_dump({**told, "workers": {"start_method": "auto"}}), "utf-8")
        options = ["--config", str(config), "--output-dir", str(out), "--layout", "i2ebench"]
        done = project.execute(BENCHMARK, [*options, *more], kind="models")
        assert done.process.wait(120) == (judge["type"] == "openai"), done.errors
        summary: dict[str, Any] = json.loads((out / "data/summary.json").read_text("utf-8"))
        return summary

    api = {"base_url": address, "key_variable": "JUDGE_KEY", "timeout": 30}
    asks = {"type": "openai", "model": "judge", "prompts": "i2ebench.yaml", "api": api}
    asked = run(asks, "--subset", "questions", "--subset", "original,rounds")
    assert asked["names"] == ["correct"]
    original = asked["official"]["original"]
    assert original["tasks"] == {"Counting": 1.0}
    assert [r["tasks"]["Counting"] for r in original["rounds"].values()] == [0.0, 1.0]
    assert original["rounds"]["2"]["unread_counted_as_wrong"] == 1
    through = [original[name]["tasks"]["Counting"] for name in ("rounds_2_to_5", "all_rounds")]
    assert through == [0.0, 1 / 3], "what follows a wrong edit is wrong"
    [question, comparison] = [said for said in heard if "How many cats" in said[0]["text"]]
    assert [part["type"] for part in question] == ["text", "image_url"], "the edit alone"
    assert question[0]["text"] == "How many cats are there?"
    assert 'right answer is: "One"' in comparison[0]["text"]
    assert 'was given is: "There is one cat."' in comparison[0]["text"], "without its thought"

    number = len(heard)
    i2ebench = {"type": "i2ebench", "model": str(tmp_path / "clip")}
    whole = run(i2ebench, "--subset", "original,rounds")
    assert {"ssim_padded_target", "ssim_padded_outside", "clip_t_caption"} <= set(whole["names"])
    official = whole["official"]
    assert official["from_other_judges"] == {"accuracy": ["openai-i2ebench-judge"]}
    assert official["original"]["rounds"] == original["rounds"]
    tasks = official["original"]["tasks"]
    assert tasks["Counting"] == 1.0 and official["original"]["scored"] == 4
    assert set(tasks) == {"Counting", "HazeRemoval", "RegionAccuracy", "StyleAlteration"}
    edits, source = out / "data/edits", data / "EditData"
    for task, place in (("HazeRemoval/1", "gt/0001.png"), ("RegionAccuracy/0", "input/0000.jpg")):
        name = task.partition("/")[0]
        pictures = [Image.open(f) for f in (source / name / place, edits / f"{task}.png")]
        right, edit = (picture.convert("RGB") for picture in pictures)
        own = by_the_scripts_steps(values(right), values(edit.resize(right.size)))
        assert tasks[name] == round(own, 4)
    for end, said in (("", "Yes"), ("_2nd", "No"), ("_3nd", "Yes")):
        assert (out / f"data.i2ebench/EditResult_ori{end}/Counting/data/COCO_1.jpg").is_file()
        written = f"data.i2ebench/scores_of_this_run/EditEval_ori{end}/Counting/data.json"
        assert json.loads((out / written).read_text())["1"]["final_judgement"] == said
    assert len(heard) == number, "what is there is not asked again"
