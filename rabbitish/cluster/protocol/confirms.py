"""Which publishes may be confirmed: those committed in each journal they went to, where enough replicas are in sync.

A publish below its min-in-sync is held, never refused: its message may well survive. So is one whose journal lost its
leader, until whoever sent it sends it again to the next.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping


class Publish:
    """One that waits; `token` is its owner's."""

    __slots__ = ("left", "min_in_sync", "token")

    def __init__(self, token: object, journals: int, min_in_sync: int) -> None:
        self.token = token
        self.left = journals  # that it still waits for
        self.min_in_sync = min_in_sync


class _Lane:
    """What waits for one journal."""

    __slots__ = ("held", "waiting")

    def __init__(self) -> None:
        self.waiting: deque[tuple[int, Publish]] = deque()  # ascending numbers
        self.held: list[Publish] = []  # committed, with too few in sync


class ConfirmGate:
    """Publishes that wait for their confirm."""

    def __init__(self) -> None:
        self._lanes: dict[str, _Lane] = {}

    def wait(self, needs: Mapping[str, int], min_in_sync: int, token: object) -> None:
        """A publish is confirmed when each of these journals is committed up to that number."""
        publish = Publish(token, len(needs), min_in_sync)
        for journal, lsn in needs.items():
            lane = self._lanes.setdefault(journal, _Lane())
            assert not lane.waiting or lane.waiting[-1][0] <= lsn
            lane.waiting.append((lsn, publish))

    def advance(self, journal: str, commit: int, in_sync: int) -> list[object]:
        """A journal is committed up to `commit` by so many replicas: the tokens of what may be confirmed now."""
        lane = self._lanes.get(journal)
        if lane is None:
            return []
        ready, lane.held = lane.held, []
        while lane.waiting and lane.waiting[0][0] <= commit:
            ready.append(lane.waiting.popleft()[1])
        tokens: list[object] = []
        for publish in ready:
            if publish.min_in_sync > in_sync:
                lane.held.append(publish)
                continue
            publish.left -= 1
            if not publish.left:
                tokens.append(publish.token)
        return tokens

    def forget(self, journal: str) -> None:
        """Its leader is gone: what waits for it is not confirmed from here."""
        self._lanes.pop(journal, None)

    def held_back(self, journal: str) -> int:
        """How many are committed and wait for more replicas: while there are any, publishers are held."""
        lane = self._lanes.get(journal)
        return len(lane.held) if lane is not None else 0
