"""Who can be read or written: epoll where there is one, the standard library's selector elsewhere.

The selector makes a key and a tuple of each event, which together cost as much as a small message does otherwise.
"""

from __future__ import annotations

import select
import selectors
from typing import Protocol, TypeAlias, cast

READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE


class Ready(Protocol):
    """What is told of its socket's events."""

    def fileno(self) -> int: ...

    def on_ready(self, events: int) -> None:
        """The socket can be read (READ) or written (WRITE), or has failed (either)."""

    @property
    def publishes(self) -> bool:
        """Whether it publishes."""

    @property
    def ahead(self) -> bool:
        """Whether those for whom its messages are should be heard first, as they cannot keep up with it."""


Event: TypeAlias = "tuple[Ready, int]"


class Poller(Protocol):
    """Sockets that are watched; itself something that can be waited for."""

    def fileno(self) -> int: ...

    def watch(self, who: Ready, before: int, events: int) -> None:
        """Look for these events of `who` from now on instead of those `before`; 0: for none."""

    def poll(self, seconds: float) -> list[Event]:
        """What has happened; waits so long for something."""

    def close(self) -> None: ...


class EpollPoller:
    """See Poller."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._watched: dict[int, Event] = {}

    def fileno(self) -> int:
        """See Poller."""
        return self._epoll.fileno()

    def watch(self, who: Ready, before: int, events: int) -> None:
        """See Poller."""
        fd = who.fileno()
        if not events:
            self._epoll.unregister(fd)
            del self._watched[fd]
            return
        mask = (select.EPOLLIN if events & READ else 0) | (select.EPOLLOUT if events & WRITE else 0)
        if before:
            self._epoll.modify(fd, mask)
        else:
            self._epoll.register(fd, mask)
        self._watched[fd] = who, events

    def poll(self, seconds: float) -> list[Event]:
        """See Poller."""
        watched = self._watched
        found: list[Event] = []
        for fd, mask in self._epoll.poll(seconds, len(watched) or 1):
            event = watched[fd]
            found.append(event if event[1] == READ else (event[0], event[1] & _events(mask)))
        return found

    def close(self) -> None:
        """See Poller."""
        self._epoll.close()


def _events(mask: int) -> int:
    """An error is both, so that whoever waits for either hears of it."""
    return (READ if mask & ~select.EPOLLOUT else 0) | (WRITE if mask & ~select.EPOLLIN else 0)


class _Selector(Protocol):
    """A selector of the standard library that can itself be waited for."""

    def fileno(self) -> int: ...


class SelectorPoller:
    """See Poller."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()

    def fileno(self) -> int:
        """See Poller."""
        return cast("_Selector", self._selector).fileno()

    def watch(self, who: Ready, before: int, events: int) -> None:
        """See Poller."""
        if not before:
            self._selector.register(who, events, who)
        elif events:
            self._selector.modify(who, events, who)
        else:
            self._selector.unregister(who)

    def poll(self, seconds: float) -> list[Event]:
        """See Poller."""
        return [(key.data, events) for key, events in self._selector.select(seconds)]

    def close(self) -> None:
        """See Poller."""
        self._selector.close()


def new_poller() -> Poller:
    """The best there is here."""
    return EpollPoller() if hasattr(select, "epoll") else SelectorPoller()
