"""Conversations in which the broker waits for seconds, so that they run beside the other cases.

A test file registers them in `SCRIPTS` when it is collected; the fixture `outcomes` starts them all, each in a thread
and with a raw peer of its own, before the first case of the session; the cases that ask for the outcomes come last.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

from conformance.rawpeer import RawPeer
from conformance.support import Broker

Script = Callable[[RawPeer], None]
SCRIPTS: dict[str, tuple[str | None, Script]] = {}
"""Name of a conversation -> (how far the handshake goes first, what follows)."""


@contextmanager
def running(broker: Broker) -> Iterator[dict[str, Future[None]]]:
    """All conversations, on their way."""

    def run(until: str | None, follow: Script) -> None:
        peer = RawPeer(broker.host, broker.port, broker.user, broker.password, broker.vhost)
        try:
            if until is not None:
                peer.handshake(until)
            follow(peer)
        finally:
            peer.close()

    with ThreadPoolExecutor(max(len(SCRIPTS), 1)) as pool:
        yield {name: pool.submit(run, *conversation) for name, conversation in SCRIPTS.items()}
