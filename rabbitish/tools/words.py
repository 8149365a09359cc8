"""What is in a journal in words: records, damage and losses as lines for people, and records as JSON.

Whatever clients chose (names, bodies) is quoted and escaped, so that it can neither forge a line nor reach a terminal.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from rabbitish.server.log import format_value
from rabbitish.store.bodies import Bound
from rabbitish.store.inspect import Entry, Names, describe
from rabbitish.store.losses import Guess, Lost
from rabbitish.store.record import PUBLISHES, Type
from rabbitish.store.resync import Place

_SHOWN = 20
_LONGEST = 1 << 40


def type_name(kind: Type) -> str:
    """A record's type as people write it."""
    return kind.name.lower().replace("_", "-")


TYPES = {type_name(kind): kind for kind in Type}


def counted(count: int, what: str) -> str:
    """So many of something."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def iso(ms: int) -> str:
    """Wall milliseconds as a time in UTC."""
    try:
        return datetime.fromtimestamp(ms // 1000, UTC).strftime(f"%Y-%m-%dT%H:%M:%S.{ms % 1000:03d}Z")
    except (ValueError, OverflowError, OSError):
        return f"{ms} ms"


def quoted(text: str) -> str:
    """Text that a client chose."""
    return format_value(text, _LONGEST) if text else '""'


def some(parts: Iterable[str], shown: int = _SHOWN) -> str:
    """The first of them, and how many more there are."""
    texts = list(parts)
    more = f" and {len(texts) - shown:,} more" if len(texts) > shown else ""
    return ", ".join(texts[:shown]) + more


# ---- records


def as_json(entry: Entry) -> str:
    """A record as an object on one line."""
    about = dict(entry.about)
    if "time_ms" in about:
        about["time"] = iso(int(about["time_ms"]))  # type: ignore[call-overload]
    bodies = about.pop("bodies", None)
    if isinstance(bodies, list):
        about["bodies"] = [_body_as_json(body) for body in bodies]
    head = {"lsn": entry.lsn, "type": type_name(entry.type), "file": entry.file, "offset": entry.offset}
    return json.dumps({**head, "bytes": entry.bytes, "epoch": entry.epoch, **about}, default=_other)


def _body_as_json(body: bytes) -> dict[str, str]:
    try:
        return {"text": body.decode()}
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(body).decode()}


def _other(value: object) -> object:
    """What JSON does not have."""
    if isinstance(value, bytes):
        return {"base64": base64.b64encode(value).decode()}
    if isinstance(value, Decimal):
        return str(value)
    raise TypeError(type(value).__name__)


def as_lines(entry: Entry) -> list[str]:
    """A record as a line, with one more for each body."""
    what = in_words(entry.type, entry.about)
    lines = [f"{entry.lsn:>12}  {type_name(entry.type):<13} {entry.bytes:>8,} bytes  {what}".rstrip()]
    bodies = entry.about.get("bodies")
    for lsn, body in enumerate(bodies if isinstance(bodies, list) else [], entry.lsn):
        try:
            text = format_value(body.decode(), _LONGEST) if body else '""'
        except UnicodeDecodeError:
            text = f"base64:{base64.b64encode(body).decode()}"
        lines.append(f"{lsn:>12}  body          {text}")
    return lines


def in_words(kind: Type, about: Mapping[str, Any]) -> str:
    """What a record says beside its type."""
    if kind in PUBLISHES:
        return _publish(about)
    if kind in (Type.REMOVE, Type.DELIVERED):
        reason = f", {about['reason']}" if "reason" in about else ""
        ranges = some(
            (f"{first}-{first + count - 1}" if count > 1 else f"{first}" for first, count in about["ranges"]), 8
        )
        return f"{counted(about['messages'], 'message')} of {queue_name(about['queue'])}{reason}: {ranges}"
    if kind is Type.RETURNED:
        return f"message {about['message']} to {queue_name(about['queue'])}, {counted(about['returns'], 'time')} by now"
    if kind is Type.SENT:
        numbers = some((f"{first}-{last}" if last > first else f"{first}" for first, last in about["publishes"]), 8)
        return f"publishes {numbers} of channel {about['channel']} of session {about['session']}"
    if kind in (Type.BOUND, Type.UNBOUND):
        return binding(about) + _arguments(about)
    if "queue" in about:
        return f"queue {queue_name(about['queue'])}{_flags(about)}{_arguments(about)}"
    if "exchange" in about:
        of_kind = f" ({about['kind']})" if "kind" in about else ""
        return f"exchange {quoted(about['exchange'])}{of_kind}{_in_vhost(about)}{_flags(about)}{_arguments(about)}"
    if "vhost" in about:
        return f"vhost {quoted(about['vhost'])}"
    if "durable_lsn" in about:
        return f"on disk up to {about['durable_lsn']}"
    return ""


def _ranges(ranges: Iterable[tuple[int, int]]) -> str:
    return some((f"{first}-{first + count - 1}" if count > 1 else f"{first}" for first, count in ranges), 8)


def _sizes(sizes: int | list[int]) -> str:
    if isinstance(sizes, int):
        return f" of {sizes:,} bytes"
    return f" of {min(sizes):,} to {max(sizes):,} bytes"


def _publish(about: Mapping[str, Any]) -> str:
    size = _sizes(about["body_bytes"]) if "body_bytes" in about else ""
    keys = some(map(quoted, (about["routing_key"], *about["extra_routing_keys"])))
    queues = some(map(queue_name, about["queues"]))
    where = f"exchange {quoted(about['exchange'])}, routing key {keys}"
    return f"{counted(about['messages'], 'message')}{size} to {queues}; {where}; {iso(about['time_ms'])}"


def _flags(about: Mapping[str, Any]) -> str:
    return "".join(f", {flag.replace('_', '-')}" for flag in ("auto_delete", "internal") if about.get(flag))


def _arguments(about: Mapping[str, Any]) -> str:
    return f", arguments {json.dumps(about['arguments'], default=_other)}" if about.get("arguments") else ""


def _in_vhost(about: Mapping[str, Any]) -> str:
    return f" in vhost {quoted(about['vhost'])}" if about["vhost"] != "/" else ""


def queue_name(queue: Mapping[str, Any]) -> str:
    """A queue by its name, or by its number if that is all there is."""
    return quoted(queue["name"]) + _in_vhost(queue) if "name" in queue else f"number {queue['number']}"


def binding(about: Mapping[str, Any]) -> str:
    """What is bound to what."""
    to = f"{about['destination_type']} {quoted(about['destination'])}"
    return f"{to} to exchange {quoted(about['source'])}{_in_vhost(about)}, routing key {quoted(about['routing_key'])}"


def lost_binding(bound: Bound) -> str:
    """A binding that was left out."""
    return binding(describe(bound, Names()))


# ---- damage


def place(found: Place) -> str:
    """Where something is damaged, and how."""
    if found.end > found.start:
        return f"{found.file}, bytes {found.start} to {found.end}: {found.reason}"
    return f"{found.file}, offset {found.start}: {found.reason}"


def lost(loss: Lost, names: Names) -> list[str]:
    """A hole and what it may have cost."""
    lines = [place(found) + _guess(found, loss.guesses, names) for found in loss.hole.places]
    first, following = loss.hole.first, loss.hole.next
    if first is not None and first == following:
        return [*lines, "  no record is lost"]
    since = "the beginning" if first is None else f"record {first}"
    upto = "to the end" if following is None else f"to {following - 1}"
    if loss.most == 0:
        messages = "no messages"
    elif loss.most is None:
        messages = f"at least {counted(loss.least, 'message')}, nobody can tell how many"
    else:
        messages = f"at least {loss.least:,} and at most {counted(loss.most, 'message')}"
    lines.append(f"  lost from {since} {upto}: {messages}")
    if loss.left:
        lines.append(f"  of these, {counted(loss.left, 'message')} had left a queue later on anyway")
    if loss.most != 0 or loss.removals:
        lines.append(
            f"  queues that can be affected: {some(queue_name(names[queue]) for queue in loss.queues) or 'none'}"
        )
    if loss.removals:
        lines.append("  removals may be lost: messages that had left their queues may be back")
    return lines


def _guess(found: Place, guesses: Iterable[Guess], names: Names) -> str:
    for guess in guesses:
        if guess.place == found:
            words = in_words(guess.record.type, describe(guess.details, names))
            return f"; it reads like {type_name(guess.record.type)} {words}".rstrip()
    return ""
