"""What a user would write instead: `python -m benchmarks.plain_loop TWEETS FOLDER`.

Started by accelerate's launcher, each process draws its part of the tweets
(`split_between_processes`).
"""

import json
import sys
from pathlib import Path

import torch
from accelerate import PartialState
from diffusers import ZImagePipeline

from core.devices.model_choice import DEMO_MODEL


def main() -> None:
    tweets, folder = json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    pipeline = ZImagePipeline.from_pretrained(DEMO_MODEL, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    with PartialState(cpu=True).split_between_processes(list(enumerate(tweets))) as share:
        for number, tweet in share:
            picture = pipeline(
                prompt=tweet["prompt"],
                width=128,
                height=128,
                num_inference_steps=8,
                guidance_scale=0.0,
                generator=torch.Generator().manual_seed(42 + number),
            ).images[0]
            picture.save(folder / f"{number}.png")


if __name__ == "__main__":
    main()
