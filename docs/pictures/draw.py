"""Draws the pictures of docs/CONCEPTS.md: `python docs/pictures/draw.py` writes them beside this file.

A picture is a list of shapes on a grid of pixels. Colours say what a shape is: grey a program, orange an exchange, blue
a queue, green the disk. A test holds the files to what is drawn here.
"""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from pathlib import Path

GREY, ORANGE, BLUE, GREEN, INK, PAPER = "#eceff1", "#ffccbc", "#bbdefb", "#c8e6c9", "#263238", "#ffffff"
EDGES = {GREY: "#78909c", ORANGE: "#e64a19", BLUE: "#1976d2", GREEN: "#388e3c"}


def text(x: float, y: float, words: str, size: int = 14, anchor: str = "middle", style: str = "") -> str:
    """Words, centred on x, on a line at y."""
    return f'<text x="{x:g}" y="{y:g}" font-size="{size}" text-anchor="{anchor}"{style}>{escape(words)}</text>'


def small(x: float, y: float, words: str, anchor: str = "middle") -> str:
    """What is written beside an arrow."""
    return text(x, y, words, 12, anchor, ' fill="#546e7a"')


def box(x: float, y: float, width: float, height: float, words: str, colour: str) -> str:
    """A program or an exchange; words may have several lines."""
    lines = words.split("\n")
    first = y + height / 2 + 5 - 9 * (len(lines) - 1)
    return (
        f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="8" fill="{colour}" '
        f'stroke="{EDGES[colour]}" stroke-width="1.5"/>'
        + "".join(text(x + width / 2, first + 18 * number, line) for number, line in enumerate(lines))
    )


def queue(x: float, y: float, width: float, words: str, messages: int = 3) -> str:
    """A queue, with so many messages in it; the next to be delivered is on the right. 34 high."""
    shapes = [
        f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="34" rx="3" fill="{PAPER}" stroke="{EDGES[BLUE]}" '
        'stroke-width="1.5"/>'
    ]
    for number in range(messages):
        left = x + width - 22 * (number + 1)
        shapes.append(f'<rect x="{left:g}" y="{y + 5:g}" width="17" height="24" fill="{BLUE}" stroke="{EDGES[BLUE]}"/>')
    shapes.append(text(x + width / 2, y + 51, words, 13))
    return "".join(shapes)


def disk(x: float, y: float, words: str) -> str:
    """The journal. 80 wide, 60 high."""
    edge = EDGES[GREEN]
    return (
        f'<path d="M{x:g} {y + 10:g} v40 a40 10 0 0 0 80 0 v-40" fill="{GREEN}" stroke="{edge}" stroke-width="1.5"/>'
        f'<ellipse cx="{x + 40:g}" cy="{y + 10:g}" rx="40" ry="10" fill="{GREEN}" stroke="{edge}" stroke-width="1.5"/>'
        + text(x + 40, y + 42, words)
    )


def arrow(*points: tuple[float, float], dashed: bool = False) -> str:
    """A line through points, with a head at the last."""
    path = " ".join(f"{'L' if number else 'M'}{x:g} {y:g}" for number, (x, y) in enumerate(points))
    dash = ' stroke-dasharray="5 4"' if dashed else ""
    return f'<path d="{path}" fill="none" stroke="{INK}" stroke-width="1.5" marker-end="url(#head)"{dash}/>'


def picture(width: int, height: int, title: str, *shapes: str) -> str:
    """A whole file; `title` is what a reader hears who does not see it."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" role="img" '
        f'font-family="system-ui, sans-serif" fill="{INK}">\n<title>{escape(title)}</title>\n'
        '<defs><marker id="head" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="8" markerHeight="8" '
        f'orient="auto-start-reverse"><path d="M0 0 L10 5 L0 10 z" fill="{INK}"/></marker></defs>\n'
        f'<rect width="{width}" height="{height}" rx="10" fill="{PAPER}"/>\n' + "\n".join(shapes) + "\n</svg>\n"
    )


def routing() -> str:
    """From a publisher through an exchange and bindings to queues and their consumers."""
    return picture(
        760,
        290,
        "A publisher sends to a topic exchange; bindings lead to two queues, each with its consumers",
        box(20, 105, 110, 50, "publisher", GREY),
        arrow((130, 130), (218, 130)),
        small(174, 72, "routing key"),
        small(174, 88, "orders.eu.created"),
        box(220, 100, 120, 60, "exchange\nevents (topic)", ORANGE),
        arrow((340, 120), (458, 58)),
        small(385, 62, "orders.#"),
        arrow((340, 130), (458, 130)),
        small(398, 122, "*.eu.*"),
        arrow((340, 142), (458, 207), dashed=True),
        small(372, 200, "payments.#"),
        queue(460, 40, 120, "audit"),
        queue(460, 113, 120, "mails", 2),
        queue(460, 190, 120, "ledger", 0),
        arrow((580, 57), (638, 57)),
        box(640, 35, 100, 44, "consumer", GREY),
        arrow((580, 126), (638, 122)),
        arrow((580, 134), (638, 164)),
        box(640, 100, 100, 40, "consumer", GREY),
        box(640, 148, 100, 40, "consumer", GREY),
        arrow((580, 207), (638, 222)),
        box(640, 202, 100, 40, "consumer", GREY),
        small(390, 275, "bindings: a copy goes wherever one fits; the dashed one does not fit"),
    )


def life() -> str:
    """What becomes of a message in a queue."""
    return picture(
        760,
        330,
        "A message is ready, then delivered and unacknowledged, then gone; or back in its queue, or a dead letter",
        arrow((30, 100), (128, 100)),
        small(78, 90, "published"),
        box(130, 70, 130, 60, "ready\nin the queue", BLUE),
        arrow((260, 90), (408, 90)),
        small(334, 82, "delivered"),
        box(410, 70, 150, 60, "unacknowledged\nwith a consumer", GREY),
        arrow((560, 100), (658, 100)),
        small(608, 90, "ack"),
        text(700, 105, "gone", 15),
        arrow((410, 114), (262, 114)),
        small(334, 131, "requeue, or channel"),
        small(334, 146, "or connection gone"),
        arrow((195, 130), (195, 238)),
        small(188, 170, "TTL is over", "end"),
        small(188, 186, "queue too long", "end"),
        arrow((485, 130), (485, 200), (250, 238)),
        small(495, 165, "reject, without requeue", "start"),
        small(495, 181, "delivery limit passed", "start"),
        box(110, 240, 170, 56, "dead-letter exchange\nif the queue has one", ORANGE),
        arrow((280, 268), (408, 268)),
        small(344, 260, "with x-death"),
        queue(410, 251, 130, "dead letters"),
        arrow((540, 268), (658, 268), dashed=True),
        small(600, 260, "redrive"),
        small(195, 316, "without one the message is dropped"),
    )


def confirm() -> str:
    """When a publish is confirmed."""
    lines = [f'<path d="M{x} 55 V270" stroke="{INK}" stroke-dasharray="2 4" fill="none"/>' for x in (110, 400, 650)]
    return picture(
        760,
        290,
        "The broker writes a persistent message to the journal, syncs it, and only then confirms the publish",
        *lines,
        box(50, 15, 120, 40, "publisher", GREY),
        box(340, 15, 120, 40, "broker", ORANGE),
        disk(610, 0, "journal"),
        arrow((110, 95), (398, 95)),
        small(255, 88, "publish, persistent, to a durable queue"),
        arrow((400, 125), (648, 125)),
        small(525, 118, "write, with all else that is due"),
        arrow((400, 155), (648, 155)),
        small(525, 148, "fdatasync"),
        arrow((650, 185), (402, 185), dashed=True),
        small(525, 178, "it is on disk"),
        arrow((400, 220), (112, 220)),
        small(255, 213, "basic.ack: from here on kill -9 may come"),
        small(255, 250, "before it: nobody knows, so publish again"),
    )


def sharing() -> str:
    """One queue for many consumers, beside a queue for each."""
    return picture(
        760,
        260,
        "Consumers of one queue share its messages; consumers with a queue each get every message",
        text(185, 28, "share the work", 15),
        box(15, 100, 90, 44, "publisher", GREY),
        arrow((105, 122), (148, 122)),
        queue(150, 105, 100, "jobs", 3),
        arrow((250, 112), (288, 72)),
        arrow((250, 122), (288, 122)),
        arrow((250, 132), (288, 172)),
        box(290, 52, 80, 40, "1, 4, 7", GREY),
        box(290, 102, 80, 40, "2, 5, 8", GREY),
        box(290, 152, 80, 40, "3, 6, 9", GREY),
        small(185, 235, "each message goes to one of them"),
        f'<path d="M385 20 V240" stroke="{INK}" stroke-dasharray="2 4" fill="none"/>',
        text(575, 28, "tell everybody", 15),
        box(400, 100, 85, 44, "fanout", ORANGE),
        arrow((485, 112), (523, 69)),
        arrow((485, 122), (523, 132)),
        arrow((485, 132), (523, 194)),
        queue(525, 47, 90, "stock", 3),
        queue(525, 115, 90, "mails", 3),
        queue(525, 182, 90, "audit", 3),
        arrow((615, 64), (648, 64)),
        arrow((615, 132), (648, 132)),
        arrow((615, 199), (648, 199)),
        box(650, 44, 95, 40, "1, 2, 3, 4 …", GREY),
        box(650, 112, 95, 40, "1, 2, 3, 4 …", GREY),
        box(650, 179, 95, 40, "1, 2, 3, 4 …", GREY),
    )


def retry() -> str:
    """How a job that failed waits for its next try."""
    return picture(
        760,
        250,
        "A failed job waits in a queue with a time to live, comes back as a dead letter, and is parked in the end",
        arrow((20, 57), (78, 57)),
        small(48, 48, "put"),
        queue(80, 40, 150, "mails", 3),
        arrow((230, 57), (358, 57)),
        box(360, 35, 110, 44, "worker", GREY),
        arrow((470, 57), (568, 57)),
        small(518, 48, "done: ack"),
        arrow((400, 79), (400, 137), (372, 157)),
        small(410, 115, "failed: publish, then ack", "start"),
        queue(220, 140, 150, "mails.retry.4000", 2),
        arrow((220, 157), (120, 157), (120, 100)),
        small(112, 178, "after its TTL, a dead letter", "middle"),
        arrow((440, 79), (440, 100), (600, 100), (600, 138)),
        small(608, 125, "failed too often", "start"),
        queue(530, 140, 150, "mails.parked", 1),
        small(605, 212, "redrive() sends it back"),
    )


PICTURES: dict[str, Callable[[], str]] = {
    "routing": routing,
    "life": life,
    "confirm": confirm,
    "sharing": sharing,
    "retry": retry,
}

if __name__ == "__main__":
    for name, draw in PICTURES.items():
        Path(__file__).with_name(f"{name}.svg").write_text(draw(), encoding="utf-8")
