"""Metrics without a question: pixels against figures by hand, embeddings on tiny checkpoints."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from apps.edit_benchmark.command import main as benchmark
from apps.edit_benchmark.score_names import decimals, explain
from apps.edit_benchmark.settings import load_benchmark_settings
from core.devices.edit_models import judge_model
from core.errors import InputError
from core.judge import load_judge
from core.judges.i2ebench import REGION, RIGHT
from core.judges.lpips import LPIPS
from core.judges.metrics import NAMES
from core.messages import Lease
from core.tasks import ScoreTask
from tests.inline_backend import InlineBackend
from tests.test_judge_models import JUDGE, NEIGHBOURS, build_clip
from tests.test_native_image_generator import spec_for
from workers.judges.pixel_metrics import pixel_metrics


def grey(value: int, size: tuple[int, int] = (16, 12)) -> Image.Image:
    return Image.new("RGB", size, (value, value, value))


def noise(size: tuple[int, int] = (24, 20)) -> Image.Image:
    return Image.effect_noise(size, 60).convert("RGB")


# -- pixels --------------------------------------------------------------------


def test_two_grey_pictures_by_hand() -> None:
    found = pixel_metrics(grey(51), grey(102))  # 0.2 and 0.4
    assert found["l1"] == pytest.approx(0.2) and found["l2"] == pytest.approx(0.04)
    assert found["psnr"] == pytest.approx(10 * np.log10(255**2 / 51**2))
    # Of two flat windows only the means count: (2 a b + c) / (a2 + b2 + c), c = (0.01 L) ** 2.
    c = 2.55**2
    assert found["ssim"] == pytest.approx((2 * 51 * 102 + c) / (51**2 + 102**2 + c), abs=1e-6)


def test_the_same_picture_is_as_like_as_can_be() -> None:
    picture = noise()
    assert pixel_metrics(picture, picture) == pytest.approx(
        {"l1": 0.0, "l2": 0.0, "psnr": 100.0, "ssim": 1.0}
    )


def test_outside_of_a_mask_only_what_may_not_change_counts() -> None:
    source, edit, mask = noise(), noise(), Image.new("L", (24, 20), 255)
    mask.paste(0, (0, 0, 12, 20))  # the left half may not change
    edit.paste(source.crop((0, 0, 12, 20)), (0, 0))
    found = pixel_metrics(edit, source, mask)
    assert (found["l1"], found["l2"], found["psnr"]) == (0.0, 0.0, 100.0)
    assert found["ssim"] > pixel_metrics(edit, source)["ssim"]
    flipped = mask.point(lambda value: 255 - value)
    assert pixel_metrics(edit, source, flipped)["l1"] > 0.05
    assert pixel_metrics(edit, source, Image.new("L", (24, 20), 255)) == {}


def test_a_mask_may_be_the_source_with_a_white_area() -> None:
    """As MagicBrush has them: all that is light in the photo is not the mask."""
    source = Image.merge("RGB", [Image.effect_noise((24, 20), 60).point(lambda v: 140 + v // 3)] * 2
                         + [Image.effect_noise((24, 20), 90)])  # fmt: skip
    mask, edit = source.copy(), source.copy()
    mask.paste((255, 255, 255), (12, 0, 24, 20))
    edit.paste((0, 0, 0), (12, 0, 24, 20))
    assert pixel_metrics(edit, source, mask)["l1"] == 0.0
    edit.paste((0, 0, 0), (0, 0, 12, 20))
    assert pixel_metrics(edit, source, mask)["l1"] > 0.3


def test_an_edit_of_another_size_is_brought_to_the_references() -> None:
    found = pixel_metrics(grey(51, (8, 8)), grey(51, (16, 12)))
    assert (found["l1"], found["psnr"]) == (0.0, 100.0)
    assert "ssim" not in pixel_metrics(grey(0, (10, 30)), grey(9, (10, 30))), (
        "smaller than a window"
    )


# -- embeddings ----------------------------------------------------------------


def build_dino(folder: Path) -> None:
    import torch
    from transformers import BitImageProcessorPil, Dinov2Config, Dinov2Model

    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    Dinov2Model(Dinov2Config(**sizes, image_size=28, patch_size=14)).save_pretrained(folder)
    BitImageProcessorPil(
        size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}
    ).save_pretrained(folder)


Load = Callable[..., Any]


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Load:
    folders: dict[str, Path] = {}

    def loaded(model: str, kind: str = "metrics") -> Any:
        from workers.judges.registry import create_judge

        if model not in folders:
            folders[model] = tmp_path_factory.mktemp("models") / model
            {"clip": build_clip, "dino": build_dino}[model](folders[model])
        judge = load_judge(JUDGE.model_copy(update={"type": kind, "prompts": None}))
        spec = replace(spec_for(str(folders[model])), role="score", judge=judge)
        family = create_judge(spec, lambda level, text: None)
        family.load()
        return family

    return loaded


@pytest.fixture
def tasks(tmp_path: Path) -> list[ScoreTask]:
    """An edit of a source; one that has a target; one with a mask, too; and the source itself."""
    files = {}
    for name in ("source", "edited", "target"):
        files[name] = str(tmp_path / f"{name}.png")
        noise((48, 40)).save(files[name])
    mask = tmp_path / "mask.png"
    Image.new("L", (48, 40), 0).save(mask)
    edit = ScoreTask("make it night", (files["source"],), files["edited"])
    right = replace(edit, target_images=(files["target"],))
    return [
        edit,
        right,
        replace(right, mask=str(mask)),
        replace(edit, edited_image=files["source"]),
    ]


def scores(judge: Any, tasks: list[ScoreTask]) -> list[dict[str, float]]:
    leases = [Lease(str(i), 1, task, None, "f", "x") for i, task in enumerate(tasks)]
    found = [verdict.used["scores"] for verdict in judge.run(leases)]
    assert all(set(one) <= {*NAMES, *LPIPS.score_names} for one in found)
    return found


@pytest.mark.parametrize(
    ("model", "names"), [("clip", ["clip_t", "clip_i_source"]), ("dino", ["dino_source"])]
)
def test_each_pair_gets_what_its_pictures_allow(
    load: Load, tasks: list[ScoreTask], model: str, names: list[str]
) -> None:
    judge = load(model)
    plain, right, masked, same = scores(judge, tasks)
    pixels = ["l1", "l2", "psnr", "ssim"]
    to_target = names[-1].replace("source", "target")
    assert list(plain) == [f"{name}_source" for name in pixels] + names
    assert list(right) == [f"{name}_target" for name in pixels] + [*names, to_target]
    assert list(masked)[4:8] == [f"{name}_outside" for name in pixels]
    assert masked["l1_outside"] == pytest.approx(plain["l1_source"]), "its mask is black all over"
    assert same[names[-1]] == pytest.approx(1, abs=1e-5) and same["psnr_source"] == 100
    assert plain[names[-1]] < 0.9999
    alone = scores(judge, tasks[1:2])[0]
    assert right == pytest.approx(alone, abs=NEIGHBOURS)


def test_clip_metrics_are_those_of_the_clip_judge(load: Load, tasks: list[ScoreTask]) -> None:
    [ours] = scores(load("clip"), tasks[:1])
    lease = Lease("1", 1, tasks[0], None, "f", "x")
    theirs = load("clip", "clip").run([lease])[0].used["scores"]
    assert (ours["clip_t"], ours["clip_i_source"]) == pytest.approx(
        (theirs["text_image"], theirs["image_image"])
    )


def test_captions_are_what_edit_and_change_are_compared_with(
    load: Load, tasks: list[ScoreTask]
) -> None:
    """CLIP-T to the right result's caption; and as InstructPix2Pix has it, cos(edit - source,
    caption - caption) of unit vectors. Without a change of either there is no direction."""
    judge = load("clip")
    captions = {"input_caption": "a cat", "output_caption": "a dog in the night"}
    both = replace(tasks[0], fields=captions)
    one = replace(tasks[0], fields={"output_caption": "a dog in the night"})
    same_words = replace(tasks[0], fields=dict.fromkeys(captions, "a cat"))
    same_picture = replace(tasks[3], fields=captions)
    found = scores(judge, [both, tasks[1], one, same_words, same_picture])
    texts = judge.embed_texts(list(captions.values())).double()
    pictures = [Image.open(f).convert("RGB") for f in (both.source_images[0], both.edited_image)]
    source, edit = judge.embed_images(pictures).double()
    change, words = (edit - source).numpy(), (texts[1] - texts[0]).numpy()
    cosine = change @ words / np.linalg.norm(change) / np.linalg.norm(words)
    assert found[0]["clip_dir"] == pytest.approx(float(cosine), abs=1e-4)
    assert found[0]["clip_t_caption"] == pytest.approx(float(texts[1] @ edit), abs=NEIGHBOURS)
    assert found[2]["clip_t_caption"] == pytest.approx(found[0]["clip_t_caption"], abs=NEIGHBOURS)
    assert [set(f) & {"clip_dir", "clip_t_caption"} for f in found[1:]] == [
        set(), {"clip_t_caption"}, {"clip_t_caption"}, {"clip_t_caption"},
    ]  # fmt: skip
    assert not any("caption" in name for name in scores(load("dino"), [both])[0])


def test_a_model_without_texts_is_no_clip_judge(load: Load) -> None:
    with pytest.raises(InputError, match="embeds no texts; a judge of type clip takes a CLIP"):
        load("dino", "clip")


def test_a_missing_package_is_named_before_anything_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core.judge.find_spec", lambda name: None)
    with pytest.raises(InputError, match="metrics needs a package: pip install scikit-image"):
        load_judge(JUDGE.model_copy(update={"type": "metrics"}))


# -- LPIPS ---------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", ["alex", "vgg"])
def test_lpips_is_torchmetrics_own(tmp_path: Path, name: str) -> None:
    """The network of the checkpoint stands where torchmetrics has torchvision's."""
    import torch
    from safetensors.torch import save_file

    from workers.judges.lpips import _alexnet, _vgg16
    from workers.judges.registry import create_judge

    torch.manual_seed(0)
    network = {"alex": _alexnet, "vgg": _vgg16}[name]()
    weights = {f"features.{key}": value for key, value in network.state_dict().items()}
    save_file({**weights, "head.fc.bias": torch.zeros(3)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text('{"architecture": "a network"}')
    judge = load_judge(JUDGE.model_copy(update={"type": "lpips"}))
    spec = replace(spec_for(str(tmp_path)), role="score", judge=judge)
    family: Any = create_judge(spec, print)
    assert family.load() == f"LPIPS ({name})"
    files = {n: str(tmp_path / f"{n}.png") for n in ("source", "edited", "target")}
    for file in files.values():
        noise((80, 64)).save(file)
    task = ScoreTask("x", (files["source"],), files["edited"], target_images=(files["target"],))
    found, same = scores(family, [task, replace(task, edited_image=files["source"])])

    reference = family.model
    pixels = [
        torch.from_numpy(np.array(Image.open(files[n]))).permute(2, 0, 1)[None] / 127.5 - 1
        for n in ("edited", "source", "target")
    ]
    for place, against in ((1, "lpips_source"), (2, "lpips_target")):
        own = float(reference(pixels[0], pixels[place]).squeeze())
        assert found[against] == pytest.approx(own, rel=1e-4) and own > 0
    assert same["lpips_source"] == pytest.approx(0, abs=1e-6)

    # As PIE-Bench's own code has it: both pictures times the mask of what may not change, and from
    # there on as ever.
    half = Image.new("L", (80, 64), 0)
    half.paste(255, (0, 0, 40, 64))
    half.save(tmp_path / "mask.png")
    masked = replace(task, mask=str(tmp_path / "mask.png"))
    white = tmp_path / "white.png"
    Image.new("L", (80, 64), 255).save(white)
    [outside, nothing] = scores(family, [masked, replace(masked, mask=str(white))])
    kept = torch.from_numpy(np.asarray(half) == 0)
    own = reference(*((each + 1) / 2 * kept * 2 - 1 for each in pixels[:2])).squeeze()
    assert outside["lpips_outside"] == pytest.approx(float(own), rel=1e-4)
    assert 0 < outside["lpips_outside"] < outside["lpips_source"]
    assert "lpips_outside" not in nothing, "an edit that may change everything"
    heads = [lin.model[-1].weight for lin in reference.lins]
    assert all(bool((head >= 0).all()) for head in heads), "trained, and not at random"


def test_a_checkpoint_of_another_kind_is_no_network_for_lpips(tmp_path: Path) -> None:
    from workers.judges.registry import create_judge

    build_dino(tmp_path)
    judge = load_judge(JUDGE.model_copy(update={"type": "lpips"}))
    family = create_judge(replace(spec_for(str(tmp_path)), role="score", judge=judge), print)
    with pytest.raises(InputError, match="is no VGG16 and no AlexNet"):
        family.load()


# -- a run ---------------------------------------------------------------------


def test_metrics_are_columns_of_the_table_beside_a_judge(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run with targets and masks, in real worker processes with a tiny DINO."""
    monkeypatch.chdir(tmp_path)
    data = tmp_path / "data"
    data.mkdir()
    for name, size in (("a", 48), ("b", 32), ("right", 48), ("mask", 48)):
        Image.effect_noise((size, size), 60).convert("RGB").save(data / f"{name}.png")
    rows = [
        {"input_file_name": "a.png", "target_file_name": "right.png", "mask_file_name": "mask.png"},
        {"input_file_name": "b.png"},
    ]
    rows = [{**row, "instruction": "make it night", "category": "sky"} for row in rows]
    (data / "metadata.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows), "utf-8")
    build_dino(tmp_path / "dino")
    config = {
        "data": "data", "output_dir": "out", "gallery": False, "use_server": "never",
        "editor": {"model": "simulated"}, "judge": {"model": "simulated"}, "cpu_workers": 1,
        "bootstrap_samples": 100,
    }  # fmt: skip
    file = tmp_path / "bench.yaml"
    file.write_text(yaml.safe_dump(config), "utf-8")
    assert benchmark(["--config", str(file)], backend=InlineBackend()) == 0
    config["judge"] = {"type": "metrics", "model": str(tmp_path / "dino")}
    file.write_text(yaml.safe_dump(config), "utf-8")
    capsys.readouterr()
    assert benchmark(["--config", str(file)]) == 0
    summary = json.loads((tmp_path / "out/data/summary.json").read_text("utf-8"))
    assert summary["names"][-2:] == ["dino_source", "dino_target"]
    assert {"ssim_target", "psnr_outside", "l1_outside"} <= set(summary["names"])
    assert [j["judged_by"]["judge"] for j in summary["judges"]] == [
        "metrics-similarity-dino", "vlm-viescore-simulated",
    ]  # fmt: skip
    shown = capsys.readouterr().out
    assert "psnr_outside" in shown and "to the source, outside of the mask" in shown
    assert benchmark(["--config", str(file)]) == 0
    assert "are there already" in capsys.readouterr().err


def test_every_metric_is_explained() -> None:
    names = (*NAMES, RIGHT, REGION)
    assert len(explain(names)) == len(names) and decimals(REGION) == 4
    assert [decimals(name) for name in ("ssim_target", "psnr_target", "O", "clip_t")] == [
        4,
        2,
        2,
        4,
    ]


@pytest.mark.parametrize(
    ("kind", "networks"),
    [
        ("clip", "a CLIP or SigLIP, such as"),
        ("metrics", "a CLIP, SigLIP or DINO, such as"),
        ("i2ebench", "a CLIP, such as"),
        ("lpips", "a VGG16 or AlexNet, such as timm/vgg16.tv_in1k."),
    ],
)
def test_a_metric_without_a_model_says_which_it_takes(kind: str, networks: str) -> None:
    settings = load_benchmark_settings({"judge": {"type": kind, "model": "auto"}})
    with pytest.raises(InputError, match=f"for {kind} name {networks}"):
        judge_model(settings, [])
