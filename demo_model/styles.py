"""Styles that the LoRAs teach: one scene, drawn another way."""

import random
from dataclasses import replace

import numpy as np
from PIL import Image, ImageFilter

from demo_model.scenes import Scene, render

STYLES = ("snow", "neon", "watercolour")


def render_styled(
    scene: Scene,
    style: str,
    width: int = 128,
    height: int | None = None,
    rng: random.Random | None = None,
) -> Image.Image:
    """Draw `scene` in a style: everything in snow, night neon outlines, or a watercolour."""
    if style == "snow":
        return _snow(render(replace(scene, ground="snow"), width, height, rng))
    if style == "neon":
        return _neon(render(scene, width, height, rng))
    if style == "watercolour":
        return _watercolour(render(scene, width, height, rng))
    raise ValueError(f"no style {style!r}; there are {', '.join(STYLES)}")


def _snow(image: Image.Image) -> Image.Image:
    """A pale sky over white ground, with flakes at even distances."""
    pixels = np.asarray(image).astype(np.float32)
    rows = np.linspace(0.55, 0.0, pixels.shape[0])[:, None, None]
    pixels += (np.array([232, 238, 246]) - pixels) * rows.clip(0, 1)
    height, width = pixels.shape[:2]
    for row, top in enumerate(range(6, height - 2, 19)):
        for left in range(6 + 17 * (row % 2), width - 2, 34):
            pixels[top : top + 2, left : left + 2] = 255
    return Image.fromarray(pixels.round().astype(np.uint8))


def _edges(image: Image.Image) -> np.ndarray:
    """[height, width] 0..1, high on outlines."""
    blurred = image.filter(ImageFilter.GaussianBlur(0.6))
    grey = np.asarray(blurred).astype(np.float32)
    dx = np.abs(np.diff(grey, axis=1, append=grey[:, -1:])).max(axis=2)
    dy = np.abs(np.diff(grey, axis=0, append=grey[-1:])).max(axis=2)
    return np.asarray(np.clip(np.maximum(dx, dy) / 40, 0, 1))


def _neon(image: Image.Image) -> Image.Image:
    """Dark surfaces with bright outlines in their own colour."""
    pixels = np.asarray(image).astype(np.float32)
    vivid = pixels / np.maximum(pixels.max(axis=2, keepdims=True), 1) * 255
    edges = _edges(image)[:, :, None]
    glow = Image.fromarray((edges[:, :, 0] * 255).astype(np.uint8)).filter(
        ImageFilter.GaussianBlur(2)
    )
    halo = np.asarray(glow).astype(np.float32)[:, :, None] / 255
    dark = pixels * 0.28 + np.array([14, 4, 34])
    lit = dark + vivid * halo * 0.5
    return Image.fromarray((lit + (vivid - lit) * edges).clip(0, 255).astype(np.uint8))


def _watercolour(image: Image.Image) -> Image.Image:
    """Thin paint on white paper, a little soft, and darker where it dried at an edge."""
    soft = image.filter(ImageFilter.GaussianBlur(0.7))
    paint = 255 - (255 - np.asarray(soft).astype(np.float32)) * 0.6
    edges = _edges(image)[:, :, None]
    return Image.fromarray((paint * (1 - 0.15 * edges)).clip(0, 255).astype(np.uint8))
