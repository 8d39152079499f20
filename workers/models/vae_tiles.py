"""A VAE that runs out of memory works on tiles of the picture that it has at hand.

diffusers' own tiles are settings of each model: FLUX's and Z-Image's are 1024 pixels wide, and
only a larger picture is cut. Here they are half of the picture that did not fit, then a quarter.
Tiles overlap and are blended, so pixels change a little: the picture says so.
"""

from typing import Any

LEAST_TILE = 256  # pixels: seams show in smaller ones; diffusers' own choice for Qwen-Image
GRID = 64  # pixels: a multiple of every VAE's patches, and of four latents, which blending quarters
OVERLAP = 0.25  # of a tile, as in diffusers


class VaeTiles:
    """Watches a VAE, and cuts its work once it is asked to.

    Attributes:
        side: pixels of a tile's side; None while nothing is cut.
        used: pictures went through in tiles since this was last set to False.
    """

    def __init__(self, vae: Any) -> None:
        self._vae = vae
        self.side: int | None = None
        self.used = False
        self._working_on: int | None = None  # the picture's longer side in pixels
        if hasattr(vae, "use_tiling"):
            self._watch("encode", 1)
            self._watch("decode", pixels_per_latent(vae))

    @property
    def short(self) -> bool:
        """The newest failure came while the VAE worked."""
        return self._working_on is not None

    def begin(self) -> None:
        """Begin anew with what is drawn next: nothing has failed, and nothing is cut."""
        self._working_on, self.used = None, False

    def slice(self) -> bool:
        """Decode pictures of a group one by one; False if that is so already, or cannot be."""
        if getattr(self._vae, "use_slicing", True):
            return False
        self._vae.enable_slicing()
        return True

    def cut(self) -> int | None:
        """Cut the picture that did not fit into tiles, or into smaller ones.

        Returns:
            A tile's side in pixels; None if that cannot help.
        """
        if self._working_on is None:
            return None
        before = self._working_on if self.side is None else min(self.side, self._working_on)
        side = max(LEAST_TILE, before // 2 // GRID * GRID)
        if side >= before:
            return None
        _set_tiles(self._vae, side)
        self.side = side
        return side

    def _watch(self, name: str, pixels: int) -> None:
        call = getattr(self._vae, name)

        def watched(tensor: Any, *args: Any, **given: Any) -> Any:
            self._working_on = max(tensor.shape[-2:]) * pixels
            self.used |= self.side is not None and self._working_on > self.side
            result = call(tensor, *args, **given)
            self._working_on = None
            return result

        setattr(self._vae, name, watched)


def pixels_per_latent(vae: Any) -> int:
    """Side in pixels of what one latent stands for."""
    for name in ("spatial_compression_ratio", "spatial_scale_factor"):
        ratio = getattr(vae, name, None) or vae.config.get(name)
        if ratio is not None:
            return int(ratio)
    return int(2 ** (len(vae.config.block_out_channels) - 1))


def _set_tiles(vae: Any, side: int) -> None:
    """Set a VAE's tiles: square ones, or with sides and strides of their own."""
    if hasattr(vae, "tile_sample_min_height"):
        step = int(side * (1 - OVERLAP))
        vae.enable_tiling(
            tile_sample_min_height=side,
            tile_sample_min_width=side,
            tile_sample_stride_height=step,
            tile_sample_stride_width=step,
        )
        return
    vae.enable_tiling()
    vae.tile_sample_min_size = side
    vae.tile_latent_min_size = side // pixels_per_latent(vae)
    vae.tile_overlap_factor = OVERLAP
