"""Pictures as people have them: their colours, depths and formats, read by what they say."""

import struct
import subprocess
import sys
import zlib
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pillow_heif
import pytest
from loguru import logger
from PIL import Image, ImageCms

from core.checkpoints.lora_files import LoraInspector
from core.errors import InputError
from core.intake.admission import Admission, Admitted
from core.intake.kinds.edit import EditKind
from core.intake.task_kinds import LoraFinder
from core.pictures.source_images import inspect_image, read_image
from core.store.outputs import OutputRoot
from tests.conftest import PROJECT
from tests.icc_profiles import (
    ADOBE_RGB,
    DISPLAY_P3,
    SRGB,
    SRGB_CURVE,
    cmyk_profile,
    grey_profile,
    rgb_profile,
)

pillow_heif.register_heif_opener()

P3_PROFILE = rgb_profile(DISPLAY_P3, name="a telephone")
PIL_SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
LOSSLESS: dict[str, dict[str, Any]] = {
    "png": {},
    "tif": {},
    "webp": {"lossless": True},
    "avif": {"quality": 100, "subsampling": "4:4:4"},
    "heic": {"quality": -1, "chroma": 444},
    "jpg": {"quality": 95, "subsampling": 0},
}


def colours(side: int = 16) -> Image.Image:
    """Every hue, from dark to bright."""
    random = np.random.default_rng(1)
    return Image.fromarray(random.integers(0, 256, (side, side, 3), np.uint8)).resize(
        (side * 8, side * 8), Image.Resampling.NEAREST
    )


def pixels(image: Image.Image) -> "np.ndarray[Any, np.dtype[np.float64]]":
    return np.asarray(image.convert("RGB"), float)


def difference(a: Image.Image, b: Image.Image) -> float:
    return float(np.abs(pixels(a) - pixels(b)).max())


# -- colour profiles -----------------------------------------------------------


def through(image: Image.Image, columns: Any, decode: Any) -> Image.Image:
    """What the numbers of `image` are in sRGB, by the textbook: curve, matrix, matrix, curve."""
    linear = decode(pixels(image) / 255) @ np.array(columns)
    linear = np.clip(linear @ np.linalg.inv(np.array(SRGB)), 0, 1)
    encoded = np.where(linear > 0.0031308, 1.055 * linear ** (1 / 2.4) - 0.055, 12.92 * linear)
    return Image.fromarray(np.rint(encoded * 255).astype(np.uint8))


def srgb_curve(values: Any) -> Any:
    return np.where(values > 0.04045, ((values + 0.055) / 1.055) ** 2.4, values / 12.92)


@pytest.mark.parametrize("suffix", LOSSLESS)
def test_a_wide_gamut_picture_is_seen_as_a_browser_shows_it(tmp_path: Path, suffix: str) -> None:
    plain, tagged = tmp_path / f"plain.{suffix}", tmp_path / f"tagged.{suffix}"
    colours().save(plain, **LOSSLESS[suffix])
    colours().save(tagged, icc_profile=P3_PROFILE, **LOSSLESS[suffix])
    right = through(read_image(plain), DISPLAY_P3, srgb_curve)
    assert difference(read_image(tagged), right) <= 2
    assert difference(right, read_image(plain)) > 30, "the profile matters"


def test_adobe_rgb_is_seen_as_a_browser_shows_it(tmp_path: Path) -> None:
    gamma = 2.19921875
    profile = rgb_profile(ADOBE_RGB, (gamma,))
    colours().save(tmp_path / "a.png", icc_profile=profile)
    right = through(colours(), ADOBE_RGB, lambda v: v**gamma)
    assert difference(read_image(tmp_path / "a.png"), right) <= 2


@pytest.mark.parametrize("profile", [PIL_SRGB, rgb_profile(SRGB), rgb_profile(SRGB, SRGB_CURVE)])
@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P"])
def test_a_picture_that_says_it_is_srgb_keeps_every_value(
    tmp_path: Path, mode: str, profile: bytes
) -> None:
    picture = colours().convert(mode)
    picture.save(tmp_path / "plain.png")
    picture.save(tmp_path / "tagged.png", icc_profile=profile)
    plain, tagged = read_image(tmp_path / "plain.png"), read_image(tmp_path / "tagged.png")
    assert tagged.tobytes() == plain.tobytes() == picture.convert("RGB").tobytes()


def test_a_grey_picture_has_a_profile_of_greys(tmp_path: Path) -> None:
    Image.frombytes("L", (256, 1), bytes(range(256))).save(
        tmp_path / "a.png", icc_profile=grey_profile(1.8)
    )
    read = np.asarray(read_image(tmp_path / "a.png"), float)[0]
    linear = (np.arange(256) / 255) ** 1.8
    right = np.where(linear > 0.0031308, 1.055 * linear ** (1 / 2.4) - 0.055, 12.92 * linear) * 255
    assert np.abs(read - right[:, None]).max() <= 2


def test_a_grey_picture_may_have_the_profile_of_colours(tmp_path: Path) -> None:
    profile = rgb_profile(SRGB, (1.8,))
    grey = Image.frombytes("L", (256, 1), bytes(range(256)))
    grey.save(tmp_path / "grey.jpg", icc_profile=profile, quality=100)
    grey.convert("RGB").save(tmp_path / "rgb.png", icc_profile=profile)
    assert difference(read_image(tmp_path / "grey.jpg"), read_image(tmp_path / "rgb.png")) <= 3
    assert difference(read_image(tmp_path / "rgb.png"), grey) > 10


def test_inks_are_seen_as_their_profile_says(tmp_path: Path) -> None:
    picture = Image.new("CMYK", (2, 1), (0, 0, 0, 0))
    picture.putpixel((1, 0), (255, 0, 0, 0))
    picture.save(tmp_path / "a.tif", icc_profile=cmyk_profile())
    read = read_image(tmp_path / "a.tif")
    assert read.getpixel((0, 0)) == (255, 255, 255)
    # Lightness 75 in grey; without the profile the ink would be cyan.
    assert np.abs(np.array(read.getpixel((1, 0))) - 185).max() <= 2


@pytest.mark.parametrize("mode", ["RGBA", "P"])
def test_transparency_of_a_wide_gamut_picture_lies_on_white(tmp_path: Path, mode: str) -> None:
    picture = Image.new("RGBA", (2, 1), (200, 100, 50, 255))
    picture.putpixel((1, 0), (0, 0, 0, 0))
    picture.convert(mode).save(tmp_path / "a.png", icc_profile=P3_PROFILE)
    read = read_image(tmp_path / "a.png")
    right = through(Image.new("RGB", (1, 1), (200, 100, 50)), DISPLAY_P3, srgb_curve)
    assert difference(read.crop((0, 0, 1, 1)), right) <= 2
    assert read.getpixel((1, 0)) == (255, 255, 255)


def test_a_profile_of_megabytes_is_followed(tmp_path: Path) -> None:
    colours().save(tmp_path / "a.png", icc_profile=P3_PROFILE + bytes(3_000_000))
    colours().save(tmp_path / "b.png", icc_profile=P3_PROFILE)
    assert inspect_image(tmp_path / "a.png").reading
    assert difference(read_image(tmp_path / "a.png"), read_image(tmp_path / "b.png")) == 0


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp"])
@pytest.mark.parametrize("left", [0.6, 0.97])
def test_a_picture_that_is_cut_is_refused_before_the_run(
    tmp_path: Path, suffix: str, left: float
) -> None:
    """By a dry run, too; it would only be seen when its worker decodes it."""
    file = tmp_path / f"a.{suffix}"
    thumbnail = BytesIO()
    Image.new("RGB", (8, 8)).save(thumbnail, "JPEG")  # which has an end of its own
    options: dict[str, Any] = (
        {"exif": b"Exif\0\0" + thumbnail.getvalue()} if suffix == "jpg" else {}
    )
    Image.effect_noise((96, 96), 90).convert("RGB").save(file, **options)
    whole = file.read_bytes()
    for more in (b"", bytes(2_000_000)):  # as phones append a film
        file.write_bytes(whole + more)
        assert inspect_image(file).width == 96
    file.write_bytes(whole[: int(len(whole) * left)])
    with pytest.raises(InputError, match=r"is damaged or cut short|cannot be read"):
        inspect_image(file)


def test_a_picture_that_lacks_only_the_mark_of_its_end_is_taken(tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    colours().save(file)
    file.write_bytes(file.read_bytes()[:-12])
    assert inspect_image(file).width == colours().width
    assert read_image(file).tobytes() == colours().tobytes()


BROKEN = {
    "no profile": b"not a profile at all" * 20,
    "cut short": P3_PROFILE[:300],
    "for other colours": cmyk_profile(),
    "for greys": grey_profile(1.8),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_profile_of_no_use_is_passed_over_and_named_once(tmp_path: Path, fault: str) -> None:
    file = tmp_path / f"{fault}.png"
    colours().save(file, icc_profile=BROKEN[fault])
    lines: list[str] = []
    sink = logger.add(lines.append, format="{message}")
    for _ in range(2):  # once for the edit, once for its score
        known = inspect_image(file)
    logger.remove(sink)
    assert read_image(file, known.sha256).tobytes() == colours().tobytes()
    assert len(lines) == 1 and str(file) in lines[0] and "colour profile is passed over" in lines[0]


def test_only_pictures_that_are_read_in_another_way_are_edited_again(tmp_path: Path) -> None:
    """Plain ones keep the fingerprints that earlier versions gave them."""
    file = tmp_path / "a.png"

    def fingerprint(**tagged: Any) -> str:
        colours().save(file, **tagged)
        kind = EditKind([], LoraFinder([tmp_path], LoraInspector()))
        admission = Admission(kind, "m", "float32", OutputRoot(tmp_path), lambda _: "e.png", 42)
        job = admission.admit(0, {"instruction": "i", "source_images": str(file)})
        assert isinstance(job, Admitted)
        return job.fingerprint

    def by_content() -> str:
        """As it was before colours were looked at."""
        from core.intake.admission import fingerprint as of
        from core.intake.task_kinds import Contents
        from core.tasks import EditTask

        known = inspect_image(file)
        task = EditTask("i", (str(file),), seed=42)
        return of(task, Contents(None, {str(file): known.sha256}), "m", "float32")

    assert fingerprint() == by_content()
    assert fingerprint(icc_profile=PIL_SRGB) == by_content()
    assert fingerprint(icc_profile=P3_PROFILE) != by_content()


# -- more than 8 bits ----------------------------------------------------------


def tiff(
    samples: "np.ndarray[Any, Any]", bits: int, kind: int, photometric: int, order: str = "<"
) -> bytes:
    """A TIFF as scanners and microscopes write it: `kind` 1 unsigned, 2 signed, 3 float."""
    height, width = samples.shape[:2]
    bands = samples.shape[2] if samples.ndim == 3 else 1
    if bits == 12:
        flat = samples.astype(np.uint16).reshape(height, -1)
        text = "".join(f"{v:012b}" for v in flat.ravel())
        data = int(text, 2).to_bytes(len(text) // 8, "big")
    else:
        letter = {1: "u", 2: "i", 3: "f"}[kind]
        data = samples.astype(f"{order}{letter}{bits // 8}").tobytes()
    count = 10
    after = 8 + 2 + count * 12 + 4
    extra = struct.pack(order + "HHH", bits, bits, bits) + struct.pack(order + "HHH", *[kind] * 3)
    strip = after + len(extra)

    def entry(tag: int, form: int, number: int, value: int) -> bytes:
        packed = struct.pack(order + ("I" if form == 4 or number > 2 else "HH"), value, *(
            [] if form == 4 or number > 2 else [0]
        ))  # fmt: skip
        return struct.pack(order + "HHI", tag, form, number) + packed

    fields = [
        entry(256, 4, 1, width), entry(257, 4, 1, height),
        entry(258, 3, bands, bits if bands == 1 else after), entry(259, 3, 1, 1),
        entry(262, 3, 1, photometric), entry(273, 4, 1, strip), entry(277, 3, 1, bands),
        entry(278, 4, 1, height), entry(279, 4, 1, len(data)),
        entry(339, 3, bands, kind if bands == 1 else after + 6),
    ]  # fmt: skip
    head = (b"II" if order == "<" else b"MM") + struct.pack(order + "HI", 42, 8)
    table = struct.pack(order + "H", count) + b"".join(fields) + struct.pack(order + "I", 0)
    return head + table + extra + data


def ramp(lowest: float, highest: float) -> "np.ndarray[Any, np.dtype[np.float64]]":
    """From black to white in 256 steps."""
    return np.linspace(lowest, highest, 256)[None]


def assert_ramp(file: Path, inverted: bool = False) -> None:
    read = np.asarray(read_image(file), int)[0]
    right = np.arange(256)[:, None]
    assert np.abs(read - (255 - right if inverted else right)).max() <= 1


@pytest.mark.parametrize(
    ("lowest", "highest"),
    [
        (0, 1), (0, 255), (0, 1023), (0, 4095), (0, 65535), (0, 1e6), (0, 4e9), (-1, 1),
        (-70_000, 90_000),
    ],
)  # fmt: skip
@pytest.mark.parametrize("order", ["<", ">"])
def test_a_picture_of_floats_has_its_greys(
    tmp_path: Path, lowest: float, highest: float, order: str
) -> None:
    (tmp_path / "a.tif").write_bytes(tiff(ramp(lowest, highest), 32, 3, 1, order))
    assert_ramp(tmp_path / "a.tif")


def test_highlights_and_what_is_no_number_spoil_no_picture_of_floats(tmp_path: Path) -> None:
    values = ramp(0, 1)
    values[0, [3, 4, 5, 6, 7]] = [np.nan, np.inf, -np.inf, 2.5, -0.1]
    Image.fromarray(values.astype(np.float32)).save(tmp_path / "a.tif")
    read = np.asarray(read_image(tmp_path / "a.tif"), int)[0, :, 0]
    assert read[[3, 4, 5, 6, 7]].tolist() == [0, 255, 0, 255, 0]
    assert read[[2, 8, 128, 255]].tolist() == [2, 8, 128, 255]
    Image.fromarray(np.full((4, 4), np.nan, np.float32)).save(tmp_path / "b.tif")
    assert read_image(tmp_path / "b.tif").getextrema() == ((0, 0),) * 3


def test_a_dark_picture_stays_dark(tmp_path: Path) -> None:
    Image.fromarray(ramp(0, 40).astype(np.float32)).save(tmp_path / "a.tif")
    assert read_image(tmp_path / "a.tif").getextrema() == ((0, 40),) * 3
    Image.fromarray(np.zeros((2, 2), np.float32)).save(tmp_path / "b.tif")
    assert read_image(tmp_path / "b.tif").getextrema() == ((0, 0),) * 3


@pytest.mark.parametrize(
    ("highest", "bits", "kind"),
    [
        (255, 32, 2), (65535, 32, 2), (2**31 - 1, 32, 2), (2**32 - 1, 32, 1),
        (65535, 32, 1), (4095, 32, 2), (4095, 12, 1), (65535, 16, 1),
    ],
)  # fmt: skip
def test_a_picture_of_integers_has_its_greys(
    tmp_path: Path, highest: int, bits: int, kind: int
) -> None:
    (tmp_path / "a.tif").write_bytes(tiff(np.floor(ramp(0, highest)), bits, kind, 1))
    assert_ramp(tmp_path / "a.tif")


@pytest.mark.parametrize(("highest", "bits", "kind"), [(65535, 16, 1), (1, 32, 3)])
def test_white_may_be_zero(tmp_path: Path, highest: int, bits: int, kind: int) -> None:
    (tmp_path / "a.tif").write_bytes(tiff(ramp(0, highest), bits, kind, 0))
    assert_ramp(tmp_path / "a.tif", inverted=True)


@pytest.mark.parametrize("order", ["<", ">"])
def test_16_bit_colour_is_read_by_its_high_bytes(tmp_path: Path, order: str) -> None:
    values = (np.asarray(colours(), np.uint16) << 8) + 77
    (tmp_path / "a.tif").write_bytes(tiff(values, 16, 1, 2, order))
    assert difference(read_image(tmp_path / "a.tif"), colours()) == 0
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", *colours().size, 16, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(map(_chunk, chunks)))
    assert difference(read_image(tmp_path / "a.png"), colours()) == 0


def _chunk(part: tuple[bytes, bytes]) -> bytes:
    name, data = part
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def test_lab_is_seen_in_its_colours(tmp_path: Path) -> None:
    # CIE L*a*b* of red, white and a grey under D50; Pillow counts a and b from 128.
    given = {(54.3, 80.8, 69.9): (255, 0, 0), (100, 0, 0): (255,) * 3, (53.6, 0, 0): (128,) * 3}
    for (lightness, a, b), right in given.items():
        value = (round(lightness * 2.55), round(a) + 128, round(b) + 128)
        Image.new("LAB", (2, 2), value).save(tmp_path / "a.tif")
        read = np.array(read_image(tmp_path / "a.tif").getpixel((0, 0)))
        assert np.abs(read - right).max() <= 6


# -- formats -------------------------------------------------------------------


def jp2(image: Image.Image, profile: bytes | None = None, **options: Any) -> bytes:
    """JPEG 2000; with a profile, in the box of its header where others write it."""
    stream = BytesIO()
    image.save(stream, "JPEG2000", **options)
    data = stream.getvalue()
    if profile is None:
        return data
    start = data.index(b"jp2h") - 4
    box = data.index(b"colr") - 4
    old = int.from_bytes(data[box : box + 4], "big")
    new = struct.pack(">I4sBBB", 11 + len(profile), b"colr", 2, 0, 0) + profile
    size = int.from_bytes(data[start : start + 4], "big") - old + len(new)
    inside = data[start + 4 : box] + new + data[box + old :]
    return data[:start] + size.to_bytes(4, "big") + inside


@pytest.mark.parametrize("name", ["a.jp2", "a.j2k"])
def test_jpeg_2000_is_read(tmp_path: Path, name: str) -> None:
    colours().save(tmp_path / name)
    known = inspect_image(tmp_path / name)
    assert (known.width, known.height) == colours().size
    assert difference(read_image(tmp_path / name, known.sha256), colours()) <= 1


def test_jpeg_2000_has_profiles_and_16_bits(tmp_path: Path) -> None:
    (tmp_path / "a.jp2").write_bytes(jp2(colours(), P3_PROFILE))
    right = through(colours(), DISPLAY_P3, srgb_curve)
    assert difference(read_image(tmp_path / "a.jp2"), right) <= 2
    grey = Image.fromarray(np.tile(np.arange(256, dtype=np.uint16) * 257, (64, 1)))
    (tmp_path / "b.jp2").write_bytes(jp2(grey))
    assert_ramp(tmp_path / "b.jp2")


@pytest.mark.parametrize("name", ["a.avif", "a.heic", "photo.jpg"])
def test_a_telephones_picture_is_read_whatever_its_suffix(tmp_path: Path, name: str) -> None:
    kind = "AVIF" if name == "a.avif" else "HEIF"
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    picture = Image.new("RGB", (96, 64), "red")
    picture.paste("blue", (0, 0, 48, 64))
    picture.save(tmp_path / name, kind, exif=exif.tobytes())
    known = inspect_image(tmp_path / name)
    assert (known.width, known.height) == (64, 96)
    read = read_image(tmp_path / name, known.sha256)
    assert read.size == (64, 96) and read.mode == "RGB"
    top, bottom = pixels(read)[8, 32], pixels(read)[88, 32]
    assert top[2] > 200 > 60 > top[0] and bottom[0] > 200 > 60 > bottom[2]


def test_a_turned_tiff_has_the_size_that_is_displayed(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 20), "red").save(tmp_path / "turned.tif", exif=exif)
    known = inspect_image(tmp_path / "turned.tif")
    assert (known.width, known.height) == read_image(tmp_path / "turned.tif").size == (20, 40)


def test_transparency_of_newer_formats_lies_on_white(tmp_path: Path) -> None:
    clear = Image.new("RGBA", (64, 64), (255, 0, 0, 0))
    for suffix in ("avif", "heic", "jp2", "webp"):
        clear.save(tmp_path / f"a.{suffix}")
        assert read_image(tmp_path / f"a.{suffix}").getpixel((9, 9)) == (255, 255, 255)


def saved(kind: str) -> bytes:
    stream = BytesIO()
    colours().save(stream, kind)
    return stream.getvalue()


def test_a_tiff_of_a_kind_that_is_not_read_is_not_called_no_picture(tmp_path: Path) -> None:
    file = tmp_path / "a.tif"
    file.write_bytes(tiff(ramp(0, 1), 64, 3, 1))
    with pytest.raises(InputError, match="a TIFF that is damaged, or of a kind that is not read"):
        read_image(file)


@pytest.mark.parametrize("kind", ["AVIF", "HEIF", "JPEG2000", "TIFF"])
def test_a_damaged_picture_is_one_clear_error(tmp_path: Path, kind: str) -> None:
    whole = saved(kind)
    for part in (0.02, 0.3, 0.6, 0.9):
        (tmp_path / "a").write_bytes(whole[: int(len(whole) * part)])
        with pytest.raises(InputError, match=r"damaged|no picture|cannot be read"):
            read_image(tmp_path / "a")


@pytest.mark.parametrize("kind", ["AVIF", "HEIF", "JPEG2000"])
def test_gigapixels_are_refused_before_they_are_decoded(tmp_path: Path, kind: str) -> None:
    side = colours().width
    size, large = struct.pack(">II", side, side), struct.pack(">II", 20_000, 9_000)
    whole = saved(kind)
    assert size in whole
    (tmp_path / "a").write_bytes(whole.replace(size, large))
    with pytest.raises(InputError, match="megapixels"):
        inspect_image(tmp_path / "a")
    with pytest.raises(InputError, match="megapixels"):
        read_image(tmp_path / "a")


@pytest.mark.parametrize("kind", ["AVIF", "HEIF", "JPEG2000"])
def test_a_picture_larger_than_its_header_says_is_refused(tmp_path: Path, kind: str) -> None:
    side = colours().width
    whole = saved(kind).replace(struct.pack(">II", side, side), struct.pack(">II", 8, 8))
    (tmp_path / "a").write_bytes(whole)
    try:
        assert read_image(tmp_path / "a").size == (8, 8)
    except InputError as error:
        assert "damaged" in str(error)


def test_the_library_for_heic_is_loaded_where_there_is_one(tmp_path: Path) -> None:
    colours().save(tmp_path / "a.png")
    colours().save(tmp_path / "a.heic")
    code = (
        "import sys; from core.pictures.source_images import inspect_image, read_image; seen = []\n"
        "for file in sys.argv[1:]:\n"
        "    inspect_image(file); read_image(file); seen.append('pillow_heif' in sys.modules)\n"
        "print(*seen)"
    )
    files = [str(tmp_path / "a.png"), str(tmp_path / "a.heic")]
    done = subprocess.run(
        [sys.executable, "-c", code, *files], cwd=PROJECT, capture_output=True, text=True
    )
    assert done.stdout.split() == ["False", "True"], done.stderr
