"""How many connections and channels there are, by user and by virtual host, for their limits.

Only open connections count, as with RabbitMQ: one that is asking to be opened is not among those that it is one too
many for.
"""

from __future__ import annotations

from collections import Counter

from rabbitish.core.access.records import User, VhostRecord
from rabbitish.errors import ConnectionFailure, ReplyCode


class Tally:
    """Counts; a limit that is reached is a ConnectionFailure 530 in RabbitMQ's words."""

    def __init__(self) -> None:
        self.connections_in: Counter[str] = Counter()  # by virtual host
        self.connections_of: Counter[str] = Counter()  # by user
        self.channels_of: Counter[str] = Counter()

    def check_connection(self, user: User, vhost: VhostRecord) -> None:
        """Whether one more connection may be opened."""
        if vhost.max_connections is not None and self.connections_in[vhost.name] >= vhost.max_connections:
            raise ConnectionFailure(
                ReplyCode.NOT_ALLOWED,
                f"access to vhost '{vhost.name}' refused for user '{user.name}': "
                f"connection limit ({vhost.max_connections}) is reached",
            )
        if user.max_connections is not None and self.connections_of[user.name] >= user.max_connections:
            raise ConnectionFailure(
                ReplyCode.NOT_ALLOWED,
                f"connection refused for user '{user.name}': user connection limit ({user.max_connections}) is reached",
            )

    def check_channel(self, user: User) -> None:
        """Whether one more channel may be opened."""
        if user.max_channels is not None and self.channels_of[user.name] >= user.max_channels:
            raise ConnectionFailure(
                ReplyCode.NOT_ALLOWED,
                f"number of channels opened for user '{user.name}' has reached the maximum allowed user limit of "
                f"({user.max_channels})",
            )

    def count_connection(self, user: str, vhost: str, change: int) -> None:
        """A connection was opened (1) or is gone (-1)."""
        _add(self.connections_in, vhost, change)
        _add(self.connections_of, user, change)

    def count_channels(self, user: str, change: int) -> None:
        """So many channels more, or less."""
        _add(self.channels_of, user, change)


def _add(counter: Counter[str], key: str, change: int) -> None:
    counter[key] += change
    if not counter[key]:
        del counter[key]
