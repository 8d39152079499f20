"""Trains the editor's autoencoder: `python -m demo_model.train_editor_vae --out FOLDER`."""

import torch

from demo_model.editor_parts import TRAINED, build_vae
from demo_model.qwen_vae import FrameVae, flat_convolutions
from demo_model.stage import begin, publish, stage_parser
from demo_model.train_vae import course_ends, encode, psnr, train, training_pictures
from demo_model.tune_decoder import tune


def main() -> None:
    parser = stage_parser(__doc__)
    parser.add_argument("--steps", type=int, default=6_000)
    parser.add_argument("--decoder-steps", type=int, default=3_000)
    parser.add_argument("--pictures", type=int, default=12_000)
    options = begin(parser)
    seed, out, ends = options.seed, options.out, course_ends(options.until)
    pictures = training_pictures(options.pictures, seed, options.threads).to(options.device)
    torch.manual_seed(seed)
    vae = build_vae(TRAINED.vae_base, TRAINED.vae_multipliers, TRAINED.latent_channels)
    with flat_convolutions():
        frames = FrameVae(vae.to(options.device))
        train(frames, options.steps, pictures, seed, out, ends[0])
        latents = encode(frames, pictures[:2000])
        mean, deviation = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
        noise_unit = float(deviation.mean())
        tune(frames, pictures, options.decoder_steps, seed, out, ends[1], noise_unit)
        unseen = training_pictures(300, seed + 1, options.threads)
        print(f"PSNR on unseen scenes: {psnr(frames, unseen):.2f} dB", flush=True)
    # The pipeline brings latents to zero mean and unit deviation by these.
    vae.register_to_config(latents_mean=mean.tolist(), latents_std=deviation.tolist())
    publish(vae.cpu().save_pretrained, out)


if __name__ == "__main__":
    main()
