"""How far edits lie beside their sources, and that sizes do not push them there."""

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from apps.edit_benchmark.drift import drift
from apps.edit_benchmark.drift_meter import WORTH, DriftMeter
from apps.edit_benchmark.drifts import FILE_NAME, measured, with_drifts
from apps.edit_benchmark.records import Record
from apps.edit_benchmark.summary import JudgedBy, summarise
from core.pictures.source_images import size_for
from core.settings import PROJECT_DIR
from tests.conftest import PATIENCE, wait_until

SCENES = [PROJECT_DIR / "examples" / "edit_pairs" / name for name in ("00_sky.png", "02_sky.png")]


def scene(number: int = 0, size: tuple[int, int] = (320, 240)) -> Image.Image:
    return Image.open(SCENES[number]).convert("RGB").resize(size, Image.Resampling.BICUBIC)


def moved(picture: Image.Image, right: float, down: float, zoom: float) -> Image.Image:
    """The picture shown `zoom` times as large about its middle, and moved."""
    x, y = picture.width / 2, picture.height / 2
    places = (1 / zoom, 0, x - (x + right) / zoom, 0, 1 / zoom, y - (y + down) / zoom)
    return picture.transform(picture.size, Image.Transform.AFFINE, places, Image.Resampling.BICUBIC)


@pytest.mark.parametrize(
    ("right", "down", "zoom"),
    [(0, 0, 1), (6, -4, 1), (2.5, 0, 1), (0, 0, 1.02), (0, 0, 0.95), (8, 4, 1.03), (-9, 7, 1.1)],
)
@pytest.mark.parametrize("is_edited", [False, True])
def test_shift_and_zoom_are_measured_whatever_was_changed(
    right: float, down: float, zoom: float, is_edited: bool
) -> None:
    source = scene()
    edited = moved(source, right, down, zoom)
    if is_edited:  # darker, and a third of it something else
        edited = edited.point(lambda value: value * 0.6)
        edited.paste((200, 30, 30), (0, 0, 100, 240))
    found = drift(source, edited.resize((640, 480)))  # whatever size the model drew
    assert found is not None
    assert found.right == pytest.approx(right, abs=0.5) and found.down == pytest.approx(
        down, abs=0.5
    )
    assert found.zoom == pytest.approx(100 * (zoom - 1), abs=0.6)
    assert found.shift == pytest.approx(100 * (right**2 + down**2) ** 0.5 / 400, abs=0.15)


def test_another_picture_has_no_drift() -> None:
    assert drift(scene(0), Image.effect_noise((320, 240), 60).convert("RGB")) is None
    assert drift(scene(0), Image.new("RGB", (320, 240), "white")) is None
    assert drift(Image.new("L", (64, 64)), Image.new("L", (64, 64))) is None


@pytest.mark.parametrize(
    ("source", "area", "size"),
    [
        ((1024, 1024), 1024**2, (1024, 1024)),
        ((4000, 3000), 1024**2, (1152, 864)),
        ((1000, 667), 1024**2, (1248, 832)),
        ((64, 48), 128**2, (128, 96)),
    ],
)
def test_a_result_has_its_sources_aspect_ratio(
    source: tuple[int, int], area: int, size: tuple[int, int]
) -> None:
    assert size_for(*source, area) == size
    assert size_for(source[1], source[0], area) == (size[1], size[0])


@pytest.mark.parametrize("area", [64**2, 512**2, 1024**2])
def test_sizes_stay_near_the_area_and_stretch_as_little_as_they_can(area: int) -> None:
    for width in range(100, 1000, 61):
        w, h = size_for(width, 300, area)
        assert w % 32 == h % 32 == 0
        assert 0.4 < w * h / area <= 1.5 or area < 512**2
        if area > 1_000_000:
            assert abs(w / h / (width / 300) - 1) < 0.03


def test_the_drift_of_each_edit_is_measured_once_and_stands_in_records(tmp_path: Path) -> None:
    scene().save(tmp_path / "source.png")
    (tmp_path / "edits").mkdir()
    moved(scene(), 8, 0, 1).save(tmp_path / "edits" / "moved.png")
    Image.new("RGB", (320, 240)).save(tmp_path / "edits" / "other.png")
    source = (str(tmp_path / "source.png"),)

    def record(edited: str | None) -> Record:
        return Record(
            "1", "sky", "x", "en", source, edited, "scored", {"O": 1.0}, None, 0, 0, 1
        )  # fmt: skip

    records = [record("edits/moved.png"), record("edits/other.png"), record(None)]
    for _ in range(2):
        first, second, third = with_drifts(records, tmp_path)
        assert first.drift is not None and first.drift["shift"] == pytest.approx(2, abs=0.1)
        assert second.drift is None and third.drift is None
        measured = (tmp_path / FILE_NAME).stat().st_mtime_ns
    with_drifts(records, tmp_path)
    assert (tmp_path / FILE_NAME).stat().st_mtime_ns == measured
    judged_by = JudgedBy("vlm", "m", "h", {}, 1)
    summary = summarise([first, second], ["O"], judged_by, "editor", 100)
    assert summary.overall.drift["measured"] == 1
    assert first.drift is not None
    assert summary.categories[0].drift["shift"] == first.drift["shift"]


@pytest.mark.slow
def test_drifts_are_measured_while_the_run_goes_on(tmp_path: Path) -> None:
    """By processes of their own, with the figures that main would have found."""
    (tmp_path / "edits").mkdir()
    source = tmp_path / "source.png"
    scene().save(source)
    records = []
    for number in range(WORTH + 4):
        file = tmp_path / "edits" / f"{number}.png"
        moved(scene(), number % 5, 0, 1).save(file)
        records.append(
            Record(str(number), "sky", "x", "en", (str(source),), f"edits/{number}.png", "scored",
                   {"O": 1.0}, None, 0, 0, 1)
        )  # fmt: skip
    meter = DriftMeter(tmp_path)
    for record in records:
        meter.take(tmp_path / str(record.edited_image), str(source))
    wait_until(lambda: len(meter.found) == len(records), "all of them to be measured")
    during = meter.finish()
    alone = {r.edited_image: measured(tmp_path / str(r.edited_image), source) for r in records}
    assert during == alone
    with_drifts(records, tmp_path, during)
    # A run that goes on has nothing to measure, and starts no process for it to find out.
    later = DriftMeter(tmp_path)
    for record in records:
        later.take(tmp_path / str(record.edited_image), str(source))
    assert later.finish() == {}
    assert [r.drift for r in with_drifts(records, tmp_path)] == [
        each["drift"] for each in alone.values() if each
    ]


def test_the_process_that_measures_ends_with_its_run() -> None:
    line = [sys.executable, "-m", "apps.edit_benchmark.drift_process"]
    process = subprocess.Popen(line, cwd=PROJECT_DIR, stdin=subprocess.PIPE, text=True)
    assert process.stdin is not None
    process.stdin.close()  # as the kernel does where the run is killed
    assert process.wait(PATIENCE) == 0
