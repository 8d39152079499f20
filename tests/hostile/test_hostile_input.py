"""Hostile input: a typed error in one line or success, in bounded time and memory."""

# ruff: noqa: E501 -- tables of data

import dataclasses
import json
import random
import resource
import struct
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.tasks import GenerateTask
from tests.hostile.seeds import lora, picture, seeds
from tests.hostile.targets import ROOT, TARGETS, admission, check_admitted, survives
from tests.hostile.world import FULL, folder_in_memory

MOST_SECONDS = 10.0  # of one input, on a machine that is busy
MOST_MEMORY = 3 * 1024**3  # bytes of address space beyond what the tests have themselves
VALUES: dict[str, Any] = {
    "true": True,
    "zero": 0,
    "minus": -1,
    "huge": 10**400,
    "past 4300 digits": 1 << 20_000,
    "fraction": 0.1,
    "NaN": float("nan"),
    "infinite": float("inf"),
    "blank": "  ",
    "NUL": "a\0b",
    "surrogate": "\udcff",
    "controls": "\x1b[2J\r\n\x07\x7f",
    "right to left": "\u202egnp.a",
    "parent": "../../../etc/cron.d/x.png",
    "absolute": "/etc/passwd.png",
    "home": "~/x.png",
    "UNC": "\\\\host\\share\\x.png",
    "long": "x" * 100_000,
    "long escapes": "\U0001f600" * 20_000,
    "list": [],
    "object": {"a": {}},
    "deep": json.loads("[" * 450 + "]" * 450),
    "SQL": "'; DROP TABLE tasks; --.png",
    "shell": "$(touch x);`touch x`.png",
    "format": "{0.__class__}%s%n.png",
    "markup": "[/red][link=x]<script>.png",
}
FIELDS = [f.name for f in dataclasses.fields(GenerateTask)]


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A folder, alone in its own."""
    with folder_in_memory() as folder:
        (folder / "alone").mkdir()
        yield folder / "alone"


@pytest.fixture(autouse=True)
def bounded() -> Iterator[None]:
    """Little memory and little time."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + MOST_MEMORY, before[1]))
    started = time.process_time()
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)
    assert time.process_time() - started < MOST_SECONDS * (20 if FULL else 3)


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("field", FIELDS)
def test_any_value_in_any_field(place: Path, field: str, value: str) -> None:
    check_admitted(admission(place).admit(0, {"prompt": "a", field: VALUES[value]}), place)


def test_links_in_the_output_folder_lead_nowhere(tmp_path: Path) -> None:
    root = tmp_path / ROOT
    root.mkdir()
    (root / "loop").symlink_to("pool")
    (root / "pool").symlink_to("loop")
    (root / "self.png").symlink_to("self.png")
    (root / "up").symlink_to("..")
    for name in ("loop/a.png", "self.png", "up/a.png", "up/root/up/a.png", "loop/../a.png"):
        item = admission(tmp_path).admit(0, {"prompt": "a", "output_path": name})
        assert not hasattr(item, "output"), name
        check_admitted(item, tmp_path)


def aliases(levels: int, width: int = 9) -> str:
    """The "billion laughs": each list holds the one before `width` times."""
    lines = ["l0: &l0 [x, x]"]
    lines += [f"l{i}: &l{i} [{', '.join([f'*l{i - 1}'] * width)}]" for i in range(1, levels)]
    return "\n".join(lines) + f"\nseed: *l{levels - 1}\n"


def merges(levels: int, width: int = 9) -> str:
    """The same with merge keys, which the parser itself writes out."""
    lines = ["m0: &m0 {a: 1, b: 2}"]
    lines += [
        f"m{i}: &m{i} {{<<: [{', '.join([f'*m{i - 1}'] * width)}]}}" for i in range(1, levels)
    ]
    return "\n".join(lines) + "\n"


BAD_SETTINGS = [
    aliases(9), aliases(40, 2), merges(9), merges(40, 2), "seed: &a [*a]", "&a a: *a",
    "seed: *nobody", "a: !!int ''", "a: !!bool x", "a: !!timestamp x", "a: !!float x",
    "a: !!binary x", "a: !!python/name:os.system", "? [a]\n: b", "? {a: 1}\n: b", "1: 2",
    "null: 1", "!!set {a, b}", "!!omap [a: 1]", "--- a\n--- b", "seed: 2001-99-99", "\0",
    "seed: \x07", "<<: 1", "<<: [1]", "%YAML 9.9\n---\na: 1", "@", "\t- a", "[" * 5_000,
    "{a: " * 5_000, "- " * 5_000, "seed: 0x" + "f" * 9_000, "seed: " + "9" * 90_000,
    "seed: 1" + ":59" * 9_000, "seed: .nan", "seed: -.inf", "seed: 1e999", "seed: true",
    "model: ''", "output_dir: ''", "workers: {max_batch: 65}",
    "workers: {concurrent_loads: none}", "simulated: {slowness: {a: 0}}", "model_defaults: {}",
    "model_defaults: [{match: 7}]", "model_defaults: [1]", "defaults: {seed: 1}",
    "supervision: {boot_timeout: .inf}", "supervision: {max_attempts: 0}", "a" * 199_999,
    "a: " + "\n" * 199_990, "# " * 600_000,
]  # fmt: skip


@pytest.mark.parametrize("text", BAD_SETTINGS, ids=lambda t: repr(t[:24]))
def test_bad_settings_are_refused(place: Path, text: str) -> None:
    assert survives("settings", text.encode(), place) is not None


def tweets_of(**image: Any) -> str:
    return json.dumps({"persona": {"name": "M"}, "tweets": [{"image_generation": image}]})


TWEETS = [
    "", "\0", "null", "[null]", "[[]]", "[{}]", "[[[[]]]]", "{}", '{"tweets": {}}', '{"tweets": [1]}',
    '{"persona": {"name": {}}, "tweets": [{"prompt": "a"}]}',
    '{"persona": {"name": "\\ud800\\u0000/.."}, "tweets": [{"prompt": "a"}]}',
    '{"persona": {"lora": 7}, "tweets": [{"prompt": "a"}]}',
    '{"persona": {"generation_params": []}, "tweets": [{"prompt": "a"}]}',
    '[{"prompt": "a", "prompt": 7}]', '[{"prompt": NaN}]', '[{"prompt": "a", "seed": 1e999}]',
    '[{"prompt": "a", "seed": ' + "9" * 4000 + "}]", '[{"prompt": "a", "seed": ' + "9" * 9000 + "}]",
    '[{"prompt": "a", "\\ud800": 1}]', '[{"prompt": "a", "' + "k" * 99_999 + '": 1}]',
    '[{"prompt": "a", "metadata": {"a": ' + "[" * 450 + "]" * 450 + "}}]",
    '[{"prompt": "a", "metadata": {"a": ' + "[" * 960 + "]" * 960 + "}}]",
    '[{"prompt": "a", "metadata": {"a": ' + '{"a":' * 300 + "1" + "}" * 300 + "}}]",
    '[{"prompt": "a", "metadata": {"a": "\\ud800"}}]', '{"prompt": "a"}\n{', '{"prompt": "a"}\n\0\n',
    '{"prompt": "a"}\n' + "[" * 99_999, '{"prompt": "a"}\u2028{"prompt": "b"}',
    tweets_of(positive_prompt=["a"]), tweets_of(positive_prompt="a", lora_params="x"),
    tweets_of(positive_prompt="a", lora_params={"model_path": ["x"]}),
    tweets_of(positive_prompt="a", lora_params={"model_path": "x\0y"}),
    tweets_of(positive_prompt="a", lora_params={"model_path": "~nobody/x"}),
    tweets_of(positive_prompt="a", lora_params={"model_path": "/dev/zero"}),
    tweets_of(positive_prompt="a", lora_params={"model_path": "x" * 9000}),
    tweets_of(positive_prompt="a", generation_params={"width": [], "steps": {}}),
    tweets_of(positive_prompt="a", generation_params=7), tweets_of(positive_prompt="a" * 999_999),
    "\ufeff\ufeff[]", "[" * 999_999, '[{"prompt": "a"}' + ',{"prompt": "a"}' * 200 + "]",
]  # fmt: skip


@pytest.mark.parametrize("text", TWEETS, ids=lambda t: repr(t[:40]))
def test_hostile_tweets(place: Path, text: str) -> None:
    survives("tweets", text.encode("utf-8", "surrogatepass"), place)


def tensor(**changes: Any) -> dict[str, Any]:
    return {"x.lora_A.weight": {"dtype": "U8", "shape": [4], "data_offsets": [0, 4], **changes}}


BAD_LORAS = [
    b"", b"\0" * 7, b"\0" * 8, b"\xff" * 8, (2**63).to_bytes(8, "little") + b"{}",
    (99_999_999).to_bytes(8, "little") + b"{}", lora(b""), lora(b"{"), lora(b"null"), lora(b"7"),
    lora(b'"lora"'), lora(b"[" * 99_999), lora(b'{"a":' * 99_999), lora(b"\xff\xfe{}"),
    lora({"x.lora": None}), lora({"x.lora": {}}), lora({"x.lora": []}), lora({"__metadata__": {}}),
    lora(tensor(data_offsets=[4, 0])), lora(tensor(data_offsets=[-1, 4])),
    lora(tensor(data_offsets=[0, 5])), lora(tensor(data_offsets=[0, 2**64])),
    lora(tensor(data_offsets=[0, 4.0])), lora(tensor(data_offsets=[False, True])),
    lora(tensor(data_offsets="04")), lora(tensor(data_offsets=None)), lora(tensor(), b"data more"),
    lora(b'{"x.lora": {"data_offsets": [0, ' + b"9" * 9000 + b"]}}"), lora({"\0\n\x1b.lora": 7}),
    lora({"x" * 99_999 + "lora": 7}), lora({"a.hada_w1": 7}), b"PK\x03\x04" + b"\0" * 99,
    b"\x80\x04cos\nsystem\n", b"<html>not found</html>", b"version https://git-lfs.github.com/spec",
]  # fmt: skip


@pytest.mark.parametrize("content", BAD_LORAS, ids=lambda c: repr(c[:30]))
def test_bad_loras_are_refused(place: Path, content: bytes) -> None:
    assert survives("lora", content, place) is not None


def test_an_endless_sparse_lora_is_refused_at_once(place: Path) -> None:
    (place / "style.safetensors").write_bytes(lora(tensor()))
    with (place / "style.safetensors").open("r+b") as stream:
        stream.truncate(1 << 40)
    item = admission(place).admit(0, {"prompt": "a", "lora_path": "style.safetensors"})
    (place / "style.safetensors").unlink()
    assert not hasattr(item, "output")


def png(width: int, height: int, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG of any claimed size."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = [b"\x89PNG\r\n\x1a\n"]
    for kind, data in [(b"IHDR", header), *chunks, (b"IEND", b"")]:
        parts.append(struct.pack(">I", len(data)) + kind + data)
        parts.append(struct.pack(">I", zlib.crc32(kind + data)))
    return b"".join(parts)


def bomb(megabytes: int) -> bytes:
    """So many zeros as zlib packs them (RFC 1950), made of one packed piece over and over."""
    packer, end = (zlib.compressobj(wbits=-zlib.MAX_WBITS) for _ in range(2))
    piece = packer.compress(bytes(10**6)) + packer.flush(zlib.Z_FULL_FLUSH)
    checksum = (megabytes * 10**6 % 65521) << 16 | 1  # Adler-32 of zeros
    return b"\x78\x9c" + piece * megabytes + end.flush() + checksum.to_bytes(4)


BOMB = bomb(200)
BAD_IMAGES = [
    b"", b"\0", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF89a", b"BM", b"II*\0", b"MM\0*", b"RIFF",
    b"RIFF\xff\xff\xff\xffWEBPVP8 ", b"<svg/>", b"%!PS-Adobe", b"P6 9 9 255 ", png(0, 0),
    png(2**31 - 1, 2**31 - 1), png(100_000, 100_000), png(10_001, 10_000, (b"IDAT", BOMB)),
    png(8, 8), png(8, 8, (b"IDAT", b"")), png(8, 8, (b"IDAT", b"garbage")),
    png(8, 8, (b"zTXt", b"k\0\0" + BOMB)), png(8, 8, (b"iCCP", b"k\0\0" + BOMB)),
    png(8, 8, (b"iTXt", b"generate_task\0\1\0\0\0" + BOMB)), png(8, 8, (b"eXIf", b"II*\0\xff\xff\xff\xff")),
    png(8, 8, (b"tEXt", b"generate_task\0" + b"[" * 99_999)), *(picture(k)[:-40] for k in ("PNG", "JPEG")),
    b"GIF89a\xff\xff\xff\xff\0\0\0" + b",\0\0\0\0\xff\xff\xff\xff\0\2\1\0;",
    b"BM" + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, 99_999, 99_999, 1, 24, 0, 0, 0, 0, 0, 0),
    b"II*\0\x08\0\0\0\xff\xff" + b"\0" * 40, b"II*\0\x08\0\0\0\0\0\x08\0\0\0",
]  # fmt: skip


@pytest.mark.parametrize("content", BAD_IMAGES, ids=lambda c: f"{len(c)} {c[:20]!r}")
def test_bad_images_are_refused(place: Path, content: bytes) -> None:
    assert survives("image", content, place) is not None
    survives("provenance", content, place)


NESTED = ["{", "[", "null", "7", '"x"', "[" * 99_999, '{"fingerprint": 7}', '"fingerprint"',
          '["fingerprint"]', '{"fingerprint": "f", "task": 7}', "\0", "NaN", "9" * 9999]  # fmt: skip


@pytest.mark.parametrize("text", NESTED, ids=lambda t: t[:20])
@pytest.mark.parametrize(
    "target", ["provenance", "pairs", "re_edit", "verdict", "tweets", "ledger"]
)
def test_any_json_in_any_reader(place: Path, target: str, text: str) -> None:
    survives(target, text.encode(), place)


EXAMPLES = 2000 if FULL else 25


@st.composite
def spoiled(draw: st.DrawFn, target: str) -> bytes:
    """A good input with bytes changed, cut or repeated."""
    content = bytearray(draw(st.sampled_from(seeds(target))))
    rng = random.Random(draw(st.integers(0, 2**32)))
    for _ in range(rng.choice([0, 1, 3, 30])):
        content[rng.randrange(len(content))] = rng.randrange(256)
    if rng.random() < 0.4:
        start, end = sorted(rng.randrange(len(content) + 1) for _ in range(2))
        content[start:end] = content[start:end] * rng.choice([0, 2])
    return bytes(content)


@pytest.mark.parametrize("target", TARGETS)
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.data())
def test_spoiled_and_random_bytes(place: Path, target: str, data: st.DataObject) -> None:
    survives(target, data.draw(spoiled(target) | st.binary(max_size=200)), place)
