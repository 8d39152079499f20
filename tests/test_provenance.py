"""Picture files: lossless, and they say how they were made."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from core.messages import Lease
from core.store.infotext import parameters_text
from core.store.provenance import encode_picture, read_provenance
from core.tasks import GenerateTask

USED = {"num_inference_steps": 8, "sampler": "Euler", "width": 64, "height": 48, "model": "m"}


def picture() -> Image.Image:
    noise = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)
    return Image.fromarray(noise)


def lease(name: str) -> Lease:
    task = GenerateTask("a red house — ☃", seed=5, output_path=name, metadata={"mood": "calm"})
    return Lease("-", 1, task, None, "f" * 64, "-")


@pytest.mark.parametrize(
    ("name", "kind"), [("a.png", "PNG"), ("a.webp", "WEBP"), ("A.WEBP", "WEBP")]
)
def test_a_picture_is_lossless_and_says_how_it_was_made(
    tmp_path: Path, name: str, kind: str
) -> None:
    file = tmp_path / name
    file.write_bytes(encode_picture(picture(), lease(name), USED))
    found = read_provenance(file)
    assert found["task"]["prompt"] == "a red house — ☃"
    assert found["task"]["metadata"] == {"mood": "calm"}
    assert found["fingerprint"] == "f" * 64
    with Image.open(file) as image:
        assert image.format == kind
        assert np.array_equal(np.asarray(image), np.asarray(picture()))


@pytest.mark.parametrize(
    ("name", "kind"), [("a.jpg", "JPEG"), ("A.JPEG", "JPEG"), ("a.webp", "WEBP")]
)
def test_a_quality_decides_what_is_lost_and_nothing_of_what_is_said(
    tmp_path: Path, name: str, kind: str
) -> None:
    file, plain, sizes = tmp_path / name, lease(name), []
    for quality in (30, 95):
        of_quality = replace(plain, task=replace(plain.task, picture_quality=quality))
        file.write_bytes(encode_picture(picture(), of_quality, USED))
        assert read_provenance(file)["task"]["picture_quality"] == quality
        with Image.open(file) as image:
            assert image.format == kind
            assert not np.array_equal(np.asarray(image), np.asarray(picture()))
        sizes.append(file.stat().st_size)
    assert sizes[0] < 0.75 * sizes[1]


def test_a_jpeg_leaves_out_what_its_exif_cannot_hold(tmp_path: Path) -> None:
    task = GenerateTask("\u661f" * 2_000 + "a" * 40_000, seed=1, output_path="a.jpg")
    (tmp_path / "a.jpg").write_bytes(
        encode_picture(picture(), replace(lease("a"), task=task), USED)
    )
    assert read_provenance(tmp_path / "a.jpg")["task"]["prompt"] == task.prompt


def test_a_webp_has_its_parameters_where_viewers_look_for_them(tmp_path: Path) -> None:
    file = tmp_path / "a.webp"
    file.write_bytes(encode_picture(picture(), lease(file.name), USED))
    with Image.open(file) as image:
        comment = image.getexif().get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment]
    assert comment[:8] == b"UNICODE\0"
    task = lease("a.webp").task
    assert isinstance(task, GenerateTask)
    assert comment[8:].decode("utf-16-be") == parameters_text(task, USED, None)


def test_a_picture_with_broken_exif_is_no_result(tmp_path: Path) -> None:
    file = tmp_path / "a.webp"
    picture().save(file, exif=b"II*\0")
    with pytest.raises(ValueError, match="not a whole result"):
        read_provenance(file)


@pytest.mark.parametrize("name", ["a.png", "a.webp", "a.jpg"])
def test_a_torn_or_foreign_file_is_no_result(tmp_path: Path, name: str) -> None:
    whole = encode_picture(picture(), lease(name), USED)
    file = tmp_path / name
    for length in (0, 20, len(whole) // 2, len(whole) - 30):
        file.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="not a whole result"):
            read_provenance(file)
    picture().save(file)
    with pytest.raises(ValueError, match="not a whole result"):
        read_provenance(file)
