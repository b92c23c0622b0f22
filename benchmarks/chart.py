"""A line chart as SVG, for numbers of streams and tokens per second."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

WIDTH, HEIGHT, LEFT, TOP, RIGHT, BOTTOM = 720, 380, 56, 48, 200, 44
COLOURS = ("#444444", "#0072b2", "#009e73", "#d55e00", "#cc79a7", "#e69f00")
"""Told apart by colour-blind people too (Okabe and Ito)."""

Points = Mapping[int, float]


def chart(title: str, widths: Sequence[int], lines: Mapping[str, Points]) -> str:
    """
    Draw it.

    Args:
        title: Above the chart.

        widths: Numbers of streams, equally far apart.

        lines: For each name, tokens per second by number of streams; may lack some.
    """
    most = max(value for points in lines.values() for value in points.values())
    step = next(s for s in (10, 20, 50, 100, 200, 500, 1000, 5000) if most / s <= 6)
    top = step * (int(most / step) + 1)

    def x(width: int) -> float:
        span = WIDTH - LEFT - RIGHT
        return LEFT + span * widths.index(width) / max(1, len(widths) - 1)

    def y(value: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * value / top

    parts = [_text(LEFT, 24, title, size=15)]
    for value in range(0, top + 1, step):
        parts.append(_line([(LEFT, y(value)), (WIDTH - RIGHT, y(value))], "#dddddd", 1))
        parts.append(_text(LEFT - 8, y(value) + 4, str(value), anchor="end"))
    for width in widths:
        parts.append(_text(x(width), HEIGHT - 24, str(width), anchor="middle"))
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(_text(middle, HEIGHT - 6, "streams at once", anchor="middle"))
    for number, (name, points) in enumerate(lines.items()):
        colour = COLOURS[number % len(COLOURS)]
        places = [(x(width), y(value)) for width, value in sorted(points.items())]
        parts.append(_line(places, colour, 2))
        parts += [
            f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3.5" fill="{colour}"/>'
            for a, b in places
        ]
        row = TOP + 22 * number
        parts.append(_line([(WIDTH - 180, row), (WIDTH - 156, row)], colour, 2))
        parts.append(_text(WIDTH - 148, row + 4, name))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'font-family="sans-serif" fill="#222222">\n'
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def _line(points: Sequence[tuple[float, float]], colour: str, width: int) -> str:
    places = " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
    return (
        f'<polyline points="{places}" fill="none" stroke="{colour}" '
        f'stroke-width="{width}"/>'
    )


def _text(x: float, y: float, text: str, size: int = 12, anchor: str = "start") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}">'
        f"{escape(text)}</text>"
    )
