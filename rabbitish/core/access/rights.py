"""What one user may do in one virtual host, with the answers remembered.

The expressions are RabbitMQ's: a name is allowed if one is found anywhere in it, and an empty one allows nothing but
the empty name. Names are bytes to them. Where an answer takes too many steps it is no, and `gave_up` knows that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, TypeAlias

from rabbitish.core.access.pattern_syntax import PatternError
from rabbitish.core.access.patterns import Pattern, TooHard
from rabbitish.core.access.records import Permission, TopicPermission

Kind: TypeAlias = Literal["configure", "write", "read"]

_MOST_ANSWERS = 4096
_SPECIAL = frozenset("\\^$.|?*+()[]{}-")

Compile: TypeAlias = Callable[[str], Pattern]


class Rights:
    """One user's in one virtual host; made anew when anything about access changes."""

    __slots__ = ("_answers", "_compile", "_permission", "_topics", "_variables", "gave_up")

    def __init__(
        self,
        user: str,
        vhost: str,
        permission: Permission | None,
        topics: Mapping[str, TopicPermission],
        compile_: Compile,
    ) -> None:
        self._permission = permission
        self._topics = topics
        self._variables = {"{username}": user, "{vhost}": vhost}
        self._compile = compile_
        self._answers: dict[tuple[str, ...], bool] = {}
        self.gave_up: set[tuple[str, ...]] = set()  # what was refused for that: the arguments of `may` or `may_topic`

    @property
    def enters(self) -> bool:
        """Whether the user may open connections to the virtual host at all."""
        return self._permission is not None

    def may(self, kind: Kind, name: str) -> bool:
        """Whether the user has that permission on the queue or exchange of this name."""
        key = (kind, name)
        answer = self._answers.get(key)
        if answer is None:
            permission = self._permission
            answer = permission is not None and self._matches(getattr(permission, kind), *key)
            self._remember(key, answer)
        return answer

    def may_topic(self, kind: Kind, exchange: str, routing_key: str) -> bool:
        """Whether the user may use this routing key with a topic exchange; any, where nothing is said of that."""
        permission = self._topics.get(exchange)
        if permission is None:
            return True
        key = (kind, exchange, routing_key)
        answer = self._answers.get(key)
        if answer is None:
            answer = self._matches(self._expanded(permission.write if kind == "write" else permission.read), *key)
            self._remember(key, answer)
        return answer

    def _expanded(self, text: str) -> str:
        # RabbitMQ puts the names in as they are, so that one with a dot in it is an expression. Here a name is a name.
        for variable, value in self._variables.items():
            text = text.replace(variable, "".join(f"\\{char}" if char in _SPECIAL else char for char in value))
        return text

    def _matches(self, text: str, *key: str) -> bool:
        """Whether an expression is found in the last part of a question."""
        try:
            return self._compile(text or "^$").matches(key[-1].encode("utf-8", "surrogateescape"))
        except TooHard:
            self.gave_up.add(key)
            return False
        except PatternError:  # too long with the user's name in it
            return False

    def _remember(self, key: tuple[str, ...], answer: bool) -> None:
        if len(self._answers) >= _MOST_ANSWERS:
            self._answers.clear()
            self.gave_up.clear()
        self._answers[key] = answer
