"""Curves and bars as small SVG files, readable on light and dark pages; no library."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape
from typing import NamedTuple, TypeAlias

Curve: TypeAlias = "tuple[str, Sequence[tuple[float, float]]]"
_COLOURS = ("#1f77b4", "#d95f02", "#1b9e77", "#7570b3", "#e7298a", "#66a61e")
_STYLE = "text{font:12px sans-serif;fill:#888}path{fill:none;stroke-width:2}line{stroke:#8884}"


class Frame(NamedTuple):
    """Where the curves are drawn."""

    left: int = 50
    top: int = 30
    width: int = 420
    height: int = 180


def curves(title: str, given: Sequence[Curve], *, unit: str) -> str:
    """Curves over a logarithmic axis; y begins at 0, so that what is flat looks flat. 0 on the x axis stands at 1."""
    frame = Frame()
    most = max(y for _, points in given for _, y in points) * 1.15
    last = max(1.0, max(math.log10(max(1, x)) for _, points in given for x, _ in points))
    body: list[str] = []
    for power in range(int(last) + 1):
        x = frame.left + frame.width * power / last
        body.append(_text(x, frame.top + frame.height + 16, f"{10**power:,}", "middle"))
        body.append(_line(x, frame.top, x, frame.top + frame.height))
    for part in range(5):
        y = frame.top + frame.height * (1 - part / 4)
        body.append(_text(frame.left - 6, y + 4, f"{most * part / 4:.3g}", "end"))
        body.append(_line(frame.left, y, frame.left + frame.width, y))
    for number, (name, points) in enumerate(given):
        colour = _COLOURS[number % len(_COLOURS)]
        places = [
            (
                frame.left + frame.width * math.log10(max(1, x)) / last,
                frame.top + frame.height * (1 - y / most),
            )
            for x, y in points
        ]
        body.append(f'<path stroke="{colour}" d="M{" L".join(f"{x:.0f},{y:.1f}" for x, y in places)}"/>')
        y = frame.top + frame.height + 36 + 16 * number
        body.append(f'<path stroke="{colour}" d="M{frame.left},{y - 4} h20"/>{_text(frame.left + 26, y, name)}')
    return _document(
        f"{title} ({unit})", body, frame.left + frame.width + 30, frame.top + frame.height + 46 + 16 * len(given)
    )


def bars(title: str, rows: Sequence[tuple[str, float, str]], *, mark: float) -> str:
    """A bar for each name, on a logarithmic axis; the text stands behind it. A line marks one value."""
    left, width, top, step = 110, 300, 30, 20
    most = math.log10(max(max(value for _, value, _ in rows), mark * 1.5))
    least = math.log10(min(min(value for _, value, _ in rows), mark) / 1.5)

    def at(value: float) -> float:
        return left + width * (math.log10(value) - least) / (most - least)

    body = []
    for number, (name, value, said) in enumerate(rows):
        y = top + step * number
        colour = _COLOURS[0] if value >= mark else _COLOURS[1]
        body.append(f'<rect x="{left}" y="{y}" width="{at(value) - left:.0f}" height="{step - 6}" fill="{colour}"/>')
        body.append(_text(left - 6, y + 11, name, "end"))
        body.append(_text(at(value) + 6, y + 11, said))
    end = top + step * len(rows)
    body.append(f'<path stroke="#888" d="M{at(mark):.0f},{top - 4} V{end}"/>')
    return _document(title, body, left + width + 60, end + 12)


def _document(title: str, body: Iterable[str], width: int, height: int) -> str:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" role="img">'
    parts = [head, f"<title>{escape(title)}</title>", f"<style>{_STYLE}</style>", _text(10, 16, title), *body]
    return "\n".join([*parts, "</svg>", ""])


def _text(x: float, y: float, said: str, anchor: str = "start") -> str:
    return f'<text x="{x:.0f}" y="{y:.0f}" text-anchor="{anchor}">{escape(said)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line x1="{x1:.0f}" y1="{y1:.0f}" x2="{x2:.0f}" y2="{y2:.0f}"/>'
