"""Line charts as SVG, drawn without a library: two logarithmic axes, a line for each series."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

WIDTH, HEIGHT = 640, 360
LEFT, RIGHT, TOP, BOTTOM = 70, 170, 40, 50
COLOURS = ("#2563eb", "#d97706", "#059669", "#9333ea", "#dc2626", "#475569")

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Chart:
    """What a chart says.

    Attributes:
        series: points by the name of their line; those whose name begins with `-` are dashed.
        logarithmic: the vertical axis is; the horizontal one always is.
    """

    title: str
    across: str
    upwards: str
    series: Mapping[str, Points]
    logarithmic: bool = True

    def write(self, file: Path) -> None:
        """Write it as an SVG file."""
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(self.svg(), "utf-8")

    def svg(self) -> str:
        xs = [x for points in self.series.values() for x, _ in points]
        ys = [y for points in self.series.values() for _, y in points]
        across = _Axis(min(xs), max(xs), LEFT, WIDTH - RIGHT, True)
        upwards = _Axis(
            min(ys) if self.logarithmic else min(1.0, *ys),
            max(ys),
            HEIGHT - BOTTOM,
            TOP,
            self.logarithmic,
        )
        parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
            'font-family="sans-serif" font-size="12">',
            f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
            _text(LEFT, 22, self.title, "start", 'font-weight="bold"'),
            _text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 12, self.across),
            f'<g transform="translate(16 {(TOP + HEIGHT - BOTTOM) / 2}) rotate(-90)">'
            f"{_text(0, 0, self.upwards)}</g>",
        ]
        for value in sorted(set(xs)):
            x = across.at(value)
            parts.append(_line([(x, HEIGHT - BOTTOM), (x, TOP)], "#e2e8f0"))
            parts.append(_text(x, HEIGHT - BOTTOM + 16, _shown(value)))
        for value in upwards.ticks():
            y = upwards.at(value)
            parts.append(_line([(LEFT, y), (WIDTH - RIGHT, y)], "#e2e8f0"))
            parts.append(_text(LEFT - 6, y + 4, _shown(value), "end"))
        for n, (name, points) in enumerate(self.series.items()):
            colour, dashed = COLOURS[n % len(COLOURS)], name.startswith("-")
            places = [(across.at(x), upwards.at(y)) for x, y in points]
            parts.append(_line(places, colour, 2, dashed))
            if not dashed:
                parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>'
                          for x, y in places]  # fmt: skip
            y = TOP + 14 + 20 * n
            x = WIDTH - RIGHT + 12
            parts.append(_line([(x, y - 4), (x + 18, y - 4)], colour, 2, dashed))
            parts.append(_text(x + 24, y, name.removeprefix("-"), "start"))
        return "\n".join([*parts, "</svg>", ""])


@dataclass(frozen=True)
class _Axis:
    least: float
    most: float
    begin: float  # pixels, of the least value
    end: float
    logarithmic: bool

    def at(self, value: float) -> float:
        if not self.logarithmic:
            part = (value - self.least) / ((self.most - self.least) or 1.0)
        else:
            part = math.log(value / self.least) / (math.log(self.most / self.least) or 1.0)
        return self.begin + part * (self.end - self.begin)

    def ticks(self) -> list[float]:
        """Some round values of the axis."""
        if self.logarithmic:
            powers = range(math.floor(math.log10(self.least)), math.ceil(math.log10(self.most)) + 1)
            found = [step * 10.0**power for power in powers for step in (1, 2, 5)]
            found = [value for value in found if self.least <= value <= self.most]
            return found if len(found) <= 8 else [v for v in found if math.log10(v) % 1 < 1e-9]
        step = 10.0 ** math.floor(math.log10((self.most - self.least) or 1.0)) / 2
        first = math.ceil(self.least / step)
        return [step * n for n in range(first, math.floor(self.most / step) + 1)]


def _shown(value: float) -> str:
    for unit, name in ((1e6, " M"), (1e3, " k")):
        if value >= unit and value != 4096 and value != 1024:
            return f"{value / unit:g}{name}"
    return f"{value:,.0f}" if value >= 1000 else f"{value:g}"


def _text(x: float, y: float, text: str, anchor: str = "middle", more: str = "") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="#1e293b" {more}>'
        f"{escape(text)}</text>"
    )


def _line(points: Points, colour: str, width: float = 1, dashed: bool = False) -> str:
    places = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    dash = ' stroke-dasharray="5 4"' if dashed else ""
    return (
        f'<polyline points="{places}" fill="none" stroke="{colour}" stroke-width="{width}"{dash}/>'
    )
