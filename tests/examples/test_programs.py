"""Every example as a user runs it: its halves in processes of their own, with one broker that is there for all.

A play is a list of steps. `start` runs a program until the end of the play and waits for the lines that say it is
ready; `run` runs one to its end; `see` waits for lines of a program that was started. Ctrl-C ends all in good order.
"""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import trio

from tests.examples.support import PATIENCE_SECONDS, delete

REPOSITORY = Path(__file__).parents[2]
EXAMPLES = REPOSITORY / "examples"


@dataclass
class Step:
    """See the module."""

    verb: str
    arguments: list[str]
    lines: tuple[str, ...]


def start(arguments: str, *lines: str) -> Step:
    return Step("start", split(arguments), lines)


def run(arguments: str, *lines: str) -> Step:
    return Step("run", split(arguments), lines)


def see(program: int, *lines: str) -> Step:
    return Step("see", [str(program)], lines)


def split(arguments: str) -> list[str]:
    """Words; those in quotes are one."""
    return [quoted or plain for quoted, plain in re.findall(r'"([^"]*)"|(\S+)', arguments)]


PLAYS = {
    "rpc.py": [
        start("server", "serving"),
        run("client 3", "fibonacci(-1): it failed there: there is no Fibonacci number -1", "fibonacci(3): 2"),
    ],
    "work_queue.py": [run('send "a task"'), start("worker", "working on: a task", "done: a task")],
    "topics.py": [
        start('subscribe "orders.*.created"', "listening"),
        start("audit", "listening"),
        run("publish orders.eu.created 42"),
        see(0, "orders.eu.created 42"),
        see(1, "orders.eu.created 42"),
    ],
    "publish_subscribe.py": [
        start("subscribe stock", "listening"),
        start("watch", "listening"),
        run('publish "order 42"'),
        see(0, "order 42"),
        see(1, "order 42"),
    ],
    "tutorials/one_hello_world.py": [
        start("receive"),
        run("send", "sent: Hello, world!"),
        see(0, "waiting for messages; Ctrl-C ends", "Hello, world!"),
    ],
    "tutorials/two_work_queues.py": [
        start("worker"),
        run("new_task Hello", "sent: Hello"),
        see(0, "waiting for tasks; Ctrl-C ends", "done: Hello"),
    ],
    "tutorials/three_publish_subscribe.py": [
        start("receive_logs", "waiting for logs; Ctrl-C ends"),
        run("emit_log Hello!", "sent: Hello!"),
        see(0, "Hello!"),
    ],
    "tutorials/four_routing.py": [
        start("receive_logs warning,error", "waiting for logs; Ctrl-C ends"),
        run("emit_log error Run.", "sent: error: Run."),
        see(0, "error: Run."),
    ],
    "tutorials/five_topics.py": [
        start("receive_logs kern.*", "waiting for logs; Ctrl-C ends"),
        run('emit_log kern.critical "A critical error"', "sent: kern.critical: A critical error"),
        see(0, "kern.critical: A critical error"),
    ],
    "tutorials/six_rpc.py": [
        start("server", "waiting for requests; Ctrl-C ends"),
        run("client 10", "fib(10) = 55"),
    ],
    "tutorials/seven_publisher_confirms.py": [run("50", "one_by_one: 50 messages in")],
}
PIKA = {"hello_pika.py", "work_queue_pika.py", "orders.py", "test_orders.py"}  # tests/clients has these
LEFT = {"audit", "direct_logs", "events", "hello", "logs", "orders.placed", "orders.placed.stock", "rpc_queue"}
LEFT |= {"task_queue", "tasks", "topic_logs"}


class Program:
    """A program that runs, and what it has printed."""

    def __init__(self, script: str, arguments: list[str], url: str, folder: Path) -> None:
        environ = {**os.environ, "PYTHONPATH": str(REPOSITORY), "PYTHONUNBUFFERED": "1", "RABBITISH_URL": url}
        self.process = subprocess.Popen(
            [sys.executable, str(EXAMPLES / script), *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env=environ,
        )
        self.output = ""

    def see(self, lines: tuple[str, ...]) -> None:
        """Read until each of these lines has begun, in this order; they are taken out of the output."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        for line in lines:
            while not (found := re.search(f"^{re.escape(line)}.*\n", self.output, re.MULTILINE)):
                assert self._read(deadline), f"no {line!r} in {self.output!r}"
            self.output = self.output[found.end() :]

    def end(self) -> None:
        """Read to its end, which must be a good one."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while self._read(deadline):
            pass
        assert self.process.wait(PATIENCE_SECONDS) == 0, self.output
        assert "Traceback" not in self.output

    def _read(self, deadline: float) -> bool:
        pipe = self.process.stdout
        assert pipe is not None
        ready, _, _ = select.select([pipe], [], [], max(deadline - time.monotonic(), 0))
        chunk = os.read(pipe.fileno(), 4096) if ready else b""
        self.output += chunk.decode()
        return bool(chunk)


@contextmanager
def running(script: str, step: Step, url: str, folder: Path) -> Iterator[Program]:
    """A program in a process, which is gone afterwards whatever happens."""
    program = Program(script, step.arguments, url, folder)
    with program.process:
        try:
            yield program
        finally:
            program.process.kill()


@pytest.mark.parametrize("script", PLAYS)
def test_a_program_does_what_it_says(script: str, running_url: str, outside: str | None, tmp_path: Path) -> None:
    started: list[Program] = []
    with ExitStack() as stack:
        if outside is not None:
            stack.callback(trio.run, delete, running_url, LEFT)
        for step in PLAYS[script]:
            if step.verb == "start":
                started.append(stack.enter_context(running(script, step, running_url, tmp_path)))
                started[-1].see(step.lines)
            elif step.verb == "run":
                with running(script, step, running_url, tmp_path) as program:
                    program.end()
                    program.see(step.lines)
            else:
                started[int(step.arguments[0])].see(step.lines)
        for program in started:
            program.process.send_signal(signal.SIGINT)
        for program in started:
            program.end()


def test_no_program_is_forgotten() -> None:
    there = {str(path.relative_to(EXAMPLES)) for path in EXAMPLES.rglob("*.py")}
    assert there == PLAYS.keys() | PIKA


@pytest.mark.parametrize("script", PLAYS)
def test_the_docstring_says_how_it_is_run(script: str) -> None:
    usage = (EXAMPLES / script).read_text().split('"""')[1]
    for step in PLAYS[script]:
        if step.verb != "see":
            verb = step.arguments[0] if not step.arguments[0].isdigit() else "COUNT"
            assert f"    python examples/{script} {verb} " in usage
