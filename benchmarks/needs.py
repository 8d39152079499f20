"""GPU memory that published models need in each memory mode: `python -m benchmarks.needs`.

Prints the tables of docs/GPUS.md, from sizes that `--write` works out of the models' public configs
(modules without storage: no weights are fetched) and lays into core/checkpoints/known_models.json.
"""

import argparse
import json
from collections.abc import Callable, Mapping
from typing import Any

from core.checkpoints.checkpoint import Checkpoint, component_of, judge_checkpoint
from core.checkpoints.known_models import FILE, known_checkpoint, to_json
from core.checkpoints.weights import Tensor
from core.devices.edit_models import JUDGE_DEMAND
from core.devices.memory_needs import GIB, gib, need_of
from core.devices.working_memory import Demand
from core.memory_modes import Mode

MODES: list[Mode] = ["full", "fp8", "fp8_cast", "int8", "nf4", "offload"]
MODES += ["group_offload", "sequential_offload"]
# Free GiB of cards: what a desktop and the driver take is gone from what is printed on them.
CARDS = {"8 GB": 7.5, "12 GB": 11.5, "16 GB": 15.5, "24 GB": 23.4, "32 GB": 31.3, "40 GB": 39.3}
CARDS |= {"48 GB": 47.3, "80 GB": 79.1, "141 GB": 139.5}
EXTRAS: list[Mode] = ["fp8", "int8", "nf4"]
ROWS: list[tuple[str, str, Demand]] = [
    ("Z-Image-Turbo", "Tongyi-MAI/Z-Image-Turbo", Demand(guided=False)),
    ("Z-Image-Turbo, 2048²", "Tongyi-MAI/Z-Image-Turbo", Demand(2048, 2048, guided=False)),
    ("Qwen-Image", "Qwen/Qwen-Image", Demand()),
    ("Qwen-Image-Edit-2511", "Qwen/Qwen-Image-Edit-2511", Demand(sources=1)),
    ("FLUX.1-dev", "black-forest-labs/FLUX.1-dev", Demand()),
    ("FLUX.1-Kontext-dev", "black-forest-labs/FLUX.1-Kontext-dev", Demand(sources=1)),
    ("SDXL", "stabilityai/stable-diffusion-xl-base-1.0", Demand()),
    ("Qwen3-VL-8B, one edit at once", "Qwen/Qwen3-VL-8B-Instruct", JUDGE_DEMAND),
]
KEPT_OF_CONFIG = (
    *(
        "architectures",
        "_class_name",
        "block_out_channels",
        "base_dim",
        "dim_mult",
        "temperal_downsample",
    ),
    *("latent_channels", "z_dim", "in_channels", "patch_size", "all_patch_size", "force_upcast"),
    *("num_hidden_layers", "num_layers", "num_key_value_heads", "num_attention_heads", "head_dim"),
    *("hidden_size", "intermediate_size", "spatial_merge_size"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--write", action="store_true", help="work the sizes out anew (with torch)")
    if parser.parse_args().write:
        FILE.write_text(json.dumps(published(), indent=1) + "\n", "utf-8")
    print(tables())


def tables() -> str:
    """Needs by mode, and the first mode that fits by card."""
    return f"{_needs()}\n\n{_by_card()}"


def _needs() -> str:
    lines = [f"| GiB | {' | '.join(MODES)} |", f"| --- |{' ---: |' * len(MODES)}"]
    for name, hub_id, demand in ROWS:
        checkpoint = _known(hub_id)
        needs = [gib(need_of(checkpoint, mode, demand).total) for mode in MODES]
        if checkpoint.of_kind("judge"):  # one component
            needs[MODES.index("offload")] = "-"
        lines.append(f"| {name} | {' | '.join(needs)} |")
    return "\n".join(lines)


def _by_card() -> str:
    lines = [f"| first that fits | {' | '.join(CARDS)} |", f"| --- |{' --- |' * len(CARDS)}"]
    for name, hub_id, demand in ROWS:
        found = [_first(_known(hub_id), demand, free) for free in CARDS.values()]
        lines.append(f"| {name} | {' | '.join(found)} |")
    return "\n".join(lines)


def _first(checkpoint: Checkpoint, demand: Demand, free: float) -> str:
    """Without optional packages, and with them where that is another one."""
    possible = [m for m in MODES if m != "offload" or not checkpoint.of_kind("judge")]
    fits = [m for m in possible if need_of(checkpoint, m, demand).total <= free * GIB]
    plain = next((m for m in fits if m not in EXTRAS), "none")
    extra = next((m for m in fits if m != "fp8_cast"), "none")
    return plain if extra not in EXTRAS else f"{plain}; {extra}"


def _known(hub_id: str) -> Checkpoint:
    found = known_checkpoint(hub_id)
    assert found is not None
    return found


def published() -> list[dict[str, Any]]:
    """Entries of known_models.json."""
    from benchmarks import published_models

    made: list[tuple[list[str], Callable[[], Any]]] = [
        (["Tongyi-MAI/Z-Image-Turbo", "Tongyi-MAI/Z-Image"], published_models.z_image),
        (
            [
                *("Qwen/Qwen-Image", "Qwen/Qwen-Image-Edit", "Qwen/Qwen-Image-Edit-2509"),
                *("Qwen/Qwen-Image-Edit-2511", "Qwen/Qwen-Image-2512"),
            ],
            published_models.qwen_image_edit,
        ),
        (
            [
                *("black-forest-labs/FLUX.1-dev", "black-forest-labs/FLUX.1-schnell"),
                "black-forest-labs/FLUX.1-Kontext-dev",
            ],
            published_models.flux,
        ),
        (["stabilityai/stable-diffusion-xl-base-1.0"], published_models.sdxl),
        (["Qwen/Qwen3-VL-8B-Instruct"], published_models.qwen3_vl),
    ]
    return [to_json(ids, checkpoint_of_modules(build())) for ids, build in made]


def checkpoint_of_modules(model: Any) -> Checkpoint:
    """The checkpoint that a pipeline, or a model of transformers, would be saved as."""
    parts = getattr(model, "components", None)
    if parts is None:
        return judge_checkpoint(_config(model), _tensors(model))
    made = [(n, part) for n, part in parts.items() if hasattr(part, "named_parameters")]
    components = tuple(
        component_of(name, type(part).__name__, _tensors(part), _config(part))
        for name, part in made
    )
    return Checkpoint(type(model).__name__, components)


def _tensors(module: Any) -> list[Tensor]:
    return [Tensor(n, "BF16", tuple(p.shape)) for n, p in module.named_parameters()]


def _config(module: Any) -> dict[str, Any]:
    config = module.config.to_dict() if hasattr(module.config, "to_dict") else dict(module.config)
    return _kept(config)


def _kept(config: Mapping[str, Any]) -> dict[str, Any]:
    kept = {k: config[k] for k in KEPT_OF_CONFIG if config.get(k) is not None}
    kept |= {k: _kept(config[k]) for k in ("text_config", "vision_config") if config.get(k)}
    return {k: list(v) if isinstance(v, tuple) else v for k, v in kept.items()}


if __name__ == "__main__":
    main()
