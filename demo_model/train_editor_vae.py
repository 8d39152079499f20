"""Trains the editor's autoencoder: `python -m demo_model.train_editor_vae --out FOLDER`."""

import argparse
from pathlib import Path

import torch

from demo_model.editor_parts import build_vae
from demo_model.qwen_vae import FrameVae, flat_convolutions
from demo_model.train_vae import encode, psnr, train, training_pictures
from demo_model.tune_decoder import tune


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=5_000)
    parser.add_argument("--decoder-steps", type=int, default=2_000)
    parser.add_argument("--pictures", type=int, default=8_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    pictures = training_pictures(options.pictures, options.seed)
    vae = build_vae()
    with flat_convolutions():
        frames = FrameVae(vae)
        train(frames, options.steps, pictures)
        latents = encode(frames, pictures[:2000])
        mean, deviation = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
        tune(frames, pictures, options.decoder_steps, options.seed, float(deviation.mean()))
    # The pipeline brings latents to zero mean and unit deviation by these.
    vae.register_to_config(latents_mean=mean.tolist(), latents_std=deviation.tolist())
    unseen = training_pictures(300, options.seed + 1)
    print(f"PSNR on unseen scenes: {psnr(frames, unseen):.2f} dB", flush=True)
    vae.save_pretrained(options.out)


if __name__ == "__main__":
    main()
