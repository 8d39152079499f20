"""Trains the generator's autoencoder: `python -m demo_model.train_generator_vae --out FOLDER`."""

import torch

from demo_model.architecture import TRAINED, build_vae
from demo_model.stage import begin, publish, stage_parser
from demo_model.train_vae import course_ends, encode, psnr, train, training_pictures, whiten
from demo_model.tune_decoder import tune


def main() -> None:
    parser = stage_parser(__doc__)
    parser.add_argument("--steps", type=int, default=6_000)
    parser.add_argument("--decoder-steps", type=int, default=5_000)
    parser.add_argument("--pictures", type=int, default=12_000)
    options = begin(parser)
    seed, out, ends = options.seed, options.out, course_ends(options.until)
    pictures = training_pictures(options.pictures, seed, options.threads).to(options.device)
    torch.manual_seed(seed)
    vae = build_vae(TRAINED.vae_widths, TRAINED.latent_channels).to(options.device)
    train(vae, options.steps, pictures, seed, out, ends[0])
    whiten(vae, encode(vae, pictures[:2000]))
    tune(vae, pictures, options.decoder_steps, seed, out, ends[1])
    unseen = training_pictures(300, seed + 1, options.threads)
    print(f"PSNR on unseen scenes: {psnr(vae, unseen):.2f} dB", flush=True)
    publish(vae.cpu().save_pretrained, out)


if __name__ == "__main__":
    main()
