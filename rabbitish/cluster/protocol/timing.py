"""How long the protocol waits for what, in milliseconds: of none of these depends whether a message is safe.

They say when to try a takeover, when to go on without a mirror and how often to speak. Set too short they cost needless
elections, too long they cost pauses.
"""

from __future__ import annotations

from typing import NamedTuple


class Timing(NamedTuple):
    """All in milliseconds."""

    tick_ms: int = 50
    """How often `Replica.tick` is called at least."""
    ttl_ms: int = 5_000
    """A node's lease; long enough that a garbage collection or a slow disk does not end it."""
    lag_ms: int = 3_000
    """An in-sync mirror that makes no progress for so long leaves the set: no confirm waits longer for it."""
    append_ms: int = 100
    """A mirror hears of its leader this often, if only that it is there."""
    silence_ms: int = 2_000
    """A mirror that hears nothing for so long asks anew; below lag_ms, so that a lost frame costs no place."""
    hello_ms: int = 100
    """Between two attempts to find the leader. Two refusals this far apart mean that its process is gone."""
    stand_ms: int = 50
    """A candidate waits so long for each replica named before it, so that mostly one stands."""
    retry_ms: int = 200
    """After a swap of unknown outcome the same one is sent again."""
    rejoin_ms: int = 1_000
    """A mirror that left the set may come back so long after, times how often it left, up to `_MOST_STRIKES`."""
    stop_ms: int = 2_000
    """A stopping leader waits so long for confirms in flight, and again for its hand-over."""
