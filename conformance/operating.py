"""An operator's commands about policies, for either broker: rabbitmqctl is run, rabbitish's control socket spoken to.

A command that is refused raises `Refused` with what the broker said. RabbitMQ's queues hear of a change a moment after
the command has returned, so cases wait for what they expect.
"""

from __future__ import annotations

import json
import socket
import subprocess
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any


class Refused(Exception):
    """The broker did not do it; the text says why."""


class Operator(ABC):
    """Somebody who may do everything."""

    def __init__(self) -> None:
        self._set: dict[tuple[str, bool], None] = {}

    def policy(
        self,
        name: str,
        pattern: str,
        definition: dict[str, Any],
        *,
        priority: int = 0,
        apply_to: str = "all",
        operator: bool = False,
        vhost: str = "/",
    ) -> None:
        """Set a policy, or an operator policy."""
        what = "set_operator_policy" if operator else "set_policy"
        given = {"name": name, "pattern": pattern, "definition": definition}
        self.run(what, given, {"priority": priority, "apply_to": apply_to, "vhost": vhost})
        self._set[name, operator] = None

    def clear(self, name: str, *, operator: bool = False, vhost: str = "/") -> None:
        """Clear one."""
        self.run("clear_operator_policy" if operator else "clear_policy", {"name": name}, {"vhost": vhost})
        self._set.pop((name, operator), None)

    def undo(self) -> None:
        """Clear all that were set."""
        for name, operator in list(self._set):
            self.clear(name, operator=operator)

    @abstractmethod
    def run(self, command: str, arguments: dict[str, Any], options: dict[str, Any]) -> Any:
        """Have a command done; arguments are in rabbitmqctl's order. Refused."""

    @abstractmethod
    def listed(self, command: str, *columns: str, vhost: str = "/") -> list[dict[str, Any]]:
        """What there is. Refused."""


class Socket(Operator):
    """Rabbitish's."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    def run(self, command: str, arguments: dict[str, Any], options: dict[str, Any]) -> Any:
        """See Operator."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.connect(str(self._path))
            sock.sendall(json.dumps({"command": command, "arguments": {**arguments, **options}}).encode() + b"\n")
            answer = json.loads(sock.makefile().readline())
        if not answer["ok"]:
            raise Refused(answer["error"])
        return answer["result"]

    def listed(self, command: str, *columns: str, vhost: str = "/") -> list[dict[str, Any]]:
        """See Operator."""
        rows = self.run(command, {}, {"vhost": vhost})
        return [{column: row[column] for column in columns} for row in rows] if columns else rows


class Typed(Operator):
    """RabbitMQ's."""

    def __init__(self, rabbitmqctl: list[str]) -> None:
        super().__init__()
        self._rabbitmqctl = rabbitmqctl

    def _type(self, *words: str) -> str:
        done = subprocess.run([*self._rabbitmqctl, "-q", *words], capture_output=True, text=True, check=False)
        if done.returncode:
            raise Refused(done.stderr.removeprefix("Error:\n").strip())
        return done.stdout

    def run(self, command: str, arguments: dict[str, Any], options: dict[str, Any]) -> Any:
        """See Operator."""
        words = [value if isinstance(value, str) else json.dumps(value) for value in arguments.values()]
        switches = [f"--{key.replace('_', '-')}={value}" for key, value in options.items()]
        self._type(command, *switches, "--", *words)

    def listed(self, command: str, *columns: str, vhost: str = "/") -> list[dict[str, Any]]:
        """See Operator."""
        rows: list[dict[str, Any]] = json.loads(self._type(command, *columns, "-p", vhost, "--formatter", "json"))
        for row in rows:
            if isinstance(row.get("definition"), str):
                row["definition"] = json.loads(row["definition"])
        return rows
