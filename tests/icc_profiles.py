"""ICC profiles as cameras, screens and scanners embed them, made byte by byte."""

import struct
from collections.abc import Sequence

D50 = (0.9642, 1.0, 0.8249)
# Columns of red, green and blue in XYZ under D50.
SRGB = ((0.43607, 0.22249, 0.01392), (0.38515, 0.71687, 0.09708), (0.14307, 0.06061, 0.71410))
DISPLAY_P3 = (
    (0.51512, 0.24120, -0.00105),
    (0.29198, 0.69225, 0.04189),
    (0.15710, 0.06657, 0.78407),
)
ADOBE_RGB = ((0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457))
# Exponent and the four numbers of the curve's line near black.
SRGB_CURVE = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)


def rgb_profile(
    columns: Sequence[Sequence[float]], curve: Sequence[float] = SRGB_CURVE, name: str = "a screen"
) -> bytes:
    """Of a screen's or a camera's colours."""
    tags = {b"desc": _text(name), b"wtpt": _xyz(D50)}
    for letter, column in zip(b"rgb", columns, strict=True):
        tags[bytes([letter]) + b"XYZ"] = _xyz(column)
        tags[bytes([letter]) + b"TRC"] = _curve(curve)
    return _profile(b"mntr", b"RGB ", tags)


def grey_profile(gamma: float) -> bytes:
    """Of greys that are encoded with a plain exponent."""
    return _profile(
        b"mntr", b"GRAY", {b"desc": _text("grey"), b"wtpt": _xyz(D50), b"kTRC": _curve((gamma,))}
    )


def cmyk_profile() -> bytes:
    """Of inks whose lightness falls by a quarter of the paper's with each full one."""
    grid = [
        bytes([max(0, 255 - (c + m + y + k) * 255 // 4), 128, 128])
        for c in (0, 1) for m in (0, 1) for y in (0, 1) for k in (0, 1)
    ]  # fmt: skip
    line = bytes(range(256))
    matrix = b"".join(_fixed(v) for v in (1, 0, 0, 0, 1, 0, 0, 0, 1))
    table = b"mft1\0\0\0\0" + bytes([4, 3, 2, 0]) + matrix + line * 4 + b"".join(grid) + line * 3
    return _profile(
        b"prtr", b"CMYK", {b"desc": _text("inks"), b"wtpt": _xyz(D50), b"A2B0": table}, b"Lab "
    )


def _profile(kind: bytes, space: bytes, tags: dict[bytes, bytes], pcs: bytes = b"XYZ ") -> bytes:
    tags = {**tags, b"cprt": _text("none")}
    offset = 128 + 4 + 12 * len(tags)
    table, content = struct.pack(">I", len(tags)), b""
    for name, data in tags.items():
        table += struct.pack(">4sII", name, offset + len(content), len(data))
        content += data + b"\0" * (-len(data) % 4)
    size = offset + len(content)
    version, date = 0x02400000, struct.pack(">6H", 2020, 1, 1, 0, 0, 0)
    header = struct.pack(">I4sI4s4s4s", size, b"none", version, kind, space, pcs)
    header += date + b"acsp" + bytes(28) + b"".join(_fixed(v) for v in D50)
    return header.ljust(128, b"\0") + table + content


def _fixed(value: float) -> bytes:
    return struct.pack(">i", round(value * 65536))


def _xyz(values: Sequence[float]) -> bytes:
    return b"XYZ \0\0\0\0" + b"".join(map(_fixed, values))


def _curve(numbers: Sequence[float]) -> bytes:
    kinds = {1: 0, 5: 3}
    return struct.pack(">4sIHH", b"para", 0, kinds[len(numbers)], 0) + b"".join(
        map(_fixed, numbers)
    )


def _text(text: str) -> bytes:
    """A description as version 2 of the format has it."""
    plain = text.encode() + b"\0"
    return b"desc\0\0\0\0" + struct.pack(">I", len(plain)) + plain + bytes(78)
