"""Pictures that callers send: what is kept, what is refused, and what is swept."""

import asyncio
import base64
import io
import os
import time
from pathlib import Path

import pytest
from PIL import Image

from apps.server.errors import ApiError
from apps.server.file_store import FileStore
from apps.server.inbox import GRACE, Inbox
from apps.server.settings import LimitsSection, load_server_settings

MIB = 1024**2


def limits(**changes: object) -> LimitsSection:
    return load_server_settings({"server": {"limits": changes}}).server.limits


def picture(colour: str = "red", form: str = "PNG", size: tuple[int, int] = (40, 30)) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", size, colour).save(stream, form)
    return stream.getvalue()


def refusal(inbox: Inbox, reference: str) -> ApiError:
    with pytest.raises(ApiError) as caught:
        asyncio.run(inbox.resolve("me", reference, "image"))
    return caught.value


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "JPEG2000", "AVIF"])
def test_pictures_of_all_formats_are_kept_as_they_are(tmp_path: Path, form: str) -> None:
    inbox = Inbox(tmp_path, limits())
    data = picture(form=form)
    kept = asyncio.run(inbox.keep("me", data, "image"))
    assert Path(kept).read_bytes() == data and Path(kept).is_relative_to(tmp_path / "inbox")


def test_the_same_picture_is_kept_once_however_it_comes(tmp_path: Path) -> None:
    files = FileStore(tmp_path, MIB, 10)
    data = picture()
    sent = files.add("me", "a.png", "vision", io.BytesIO(data), len(data))

    async def of_job(caller: str, job: str, position: int) -> Path | None:
        return files.path(sent) if (caller, job, position) == ("me", "job_1", 3) else None

    async def of_file(caller: str, id: str) -> Path | None:
        found = files.find(id, caller)
        return files.path(found) if found else None

    inbox = Inbox(tmp_path, limits(), of_file, of_job)
    text = base64.b64encode(data).decode()
    references = [f"data:image/png;base64,{text}", f"data:;base64,{text}", text, sent.id, "job_1/3"]
    kept = {asyncio.run(inbox.resolve("me", reference, "image")) for reference in references}
    assert len(kept) == 1
    for foreign in (sent.id, "job_1/3"):
        with pytest.raises(ApiError, match="there is no"):
            asyncio.run(inbox.resolve("you", foreign, "image"))


def test_a_refusal_names_the_field_and_no_place_on_the_disk(tmp_path: Path) -> None:
    error = refusal(Inbox(tmp_path, limits()), "data:image/png;base64,aGVsbG8=")
    assert (error.status, error.code, error.param) == (400, "invalid_image", "image")
    assert str(error).startswith("image: the picture is no picture that is read here")
    assert str(tmp_path) not in str(error)
    assert list((tmp_path / "inbox").iterdir()) == []


def test_large_pictures_are_refused_before_they_are_decoded(tmp_path: Path) -> None:
    inbox = Inbox(tmp_path, limits(picture_megapixels=0.01, picture_mib=0.001))
    pixels = base64.b64encode(picture(size=(101, 100))).decode()
    assert refusal(inbox, pixels).code == "image_too_large"
    assert refusal(inbox, "A" * 4000).code == "image_too_large"


def test_a_full_inbox_says_so(tmp_path: Path) -> None:
    first, second = picture("red"), picture("blue", "BMP")
    inbox = Inbox(tmp_path, limits(inbox_gib=len(second) / 1024**3))
    asyncio.run(inbox.keep("me", first, "image"))
    with pytest.raises(ApiError) as caught:
        asyncio.run(inbox.keep("me", second, "image"))
    assert caught.value.status == 507
    inbox.sweep(lambda: [], time.time() + GRACE + 1)
    asyncio.run(inbox.keep("me", second, "image"))


def test_one_caller_does_not_fill_the_inbox_for_others(tmp_path: Path) -> None:
    first, second = picture("red", "BMP"), picture("blue", "BMP")
    inbox = Inbox(tmp_path, limits(inbox_gib_per_key=1.5 * len(first) / 1024**3))
    asyncio.run(inbox.keep("me", first, "image"))
    asyncio.run(inbox.keep("me", first, "image"))
    with pytest.raises(ApiError) as caught:
        asyncio.run(inbox.keep("me", second, "image"))
    assert (caught.value.status, caught.value.code) == (429, "storage_quota_exceeded")
    asyncio.run(inbox.keep("you", second, "image"))
    inbox.sweep(lambda: [], time.time() + GRACE + 1)
    asyncio.run(inbox.keep("me", second, "image"))


def test_pictures_that_no_job_uses_are_swept(tmp_path: Path) -> None:
    inbox = Inbox(tmp_path, limits())
    used, unused, fresh = (
        asyncio.run(inbox.keep("me", picture(c), "image")) for c in ("red", "green", "blue")
    )
    for path in (used, unused):
        os.utime(path, (1, 1))
    assert inbox.sweep(lambda: [f'{{"source_images": ["{used}"]}}']) == 1
    assert Path(used).exists() and Path(fresh).exists() and not Path(unused).exists()

    def unexpected() -> list[str]:
        raise AssertionError("nothing is old, and yet all tasks are read")

    os.utime(used)
    assert inbox.sweep(unexpected) == 0


def test_what_a_death_left_half_written_is_removed(tmp_path: Path) -> None:
    Inbox(tmp_path, limits())
    half = tmp_path / "inbox" / ".partial-x"
    half.write_bytes(b"x")
    Inbox(tmp_path, limits())
    assert not half.exists()


def test_expired_files_are_gone_and_swept(tmp_path: Path) -> None:
    files = FileStore(tmp_path, MIB, 2)
    kept = files.add("me", "a", "batch", io.BytesIO(b"a"), 1, 3600)
    gone = files.add("me", "b", "batch", io.BytesIO(b"b"), 1, 0)
    assert files.find(gone.id, "me") is None and files.of("me") == [kept]
    assert files.sweep() == 1
    assert not files.path(gone).exists() and files.path(kept).exists()
    files.add("me", "c", "batch", io.BytesIO(b"c"), 1)  # its room is free again


def test_files_survive_a_death_and_halves_of_them_do_not(tmp_path: Path) -> None:
    kept = FileStore(tmp_path, MIB, 2).add("me", "a", "batch", io.BytesIO(b"hello"), 5)
    half = tmp_path / "files" / "file-without-description"
    half.write_bytes(b"x")
    again = FileStore(tmp_path, MIB, 2)
    assert again.of("me") == [kept] and again.path(kept).read_bytes() == b"hello"
    assert not half.exists()
    second = again.add("me", "b", "batch", io.BytesIO(b""), 0)
    assert again.of("me") == [kept, second]
    with pytest.raises(ApiError, match="You keep 2 files"):
        again.add("me", "c", "batch", io.BytesIO(b""), 0)
