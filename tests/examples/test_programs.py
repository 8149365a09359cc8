"""Every example as a user runs it: its halves in processes of their own, with one broker that is there for all.

A play is a list of steps. `start` runs a program until the end of the play and waits for the lines that say it is
ready; `run` runs one to its end, `until` does so again and again until it says the lines; `see` waits for lines of a
program that was started. Ctrl-C ends all in good order.
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

from tests.examples.support import PATIENCE_SECONDS, Running, delete
from tests.thorough import part_of

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


def until(arguments: str, *lines: str) -> Step:
    return Step("until", split(arguments), lines)


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
    "work_queue.py": [start("worker"), run('send "a task"'), see(0, "working on: a task", "done: a task")],
    "topics.py": [
        start('subscribe "orders.*.created"', "listening"),
        run("publish orders.eu.created 42"),
        see(0, "orders.eu.created 42"),
    ],
    "publish_subscribe.py": [
        start("subscribe stock", "listening"),
        run('publish "order 42"'),
        see(0, "order 42"),
    ],
    "retries.py": [
        start("work"),
        run("send nowhere"),
        until("parked", "nowhere: Poison: 'nowhere' is no address"),
        run("redrive", "done again: 1"),
    ],
    "priorities.py": [
        start("print"),
        run("submit urgent report.pdf"),
        see(0, "printing report.pdf"),
    ],
    "ordering.py": [start("consume"), run('publish alice "new address"'), see(0, "alice: new address")],
    "payments.py": [start("effectively_once"), run("pay alice 30"), see(0, "booked: alice 30")],
    "outbox.py": [
        start("relay"),
        start("ship"),
        run('order "3 books"', "order 1"),
        see(0, "relaying"),
        see(1, "{'number': 1, 'text': '3 books'}"),
    ],
    "saga_choreography.py": [
        start("services"),
        run("book alice", "alice: trip.booked"),
        see(0, "alice: flight.booked", "alice: hotel.booked", "alice: payment.taken", "alice: trip.booked"),
    ],
    "saga_orchestration.py": [
        start("orchestrator"),
        start("services", "serving"),
        run("book alice"),
        see(0, "alice: booked"),
    ],
    "event_sourcing.py": [
        start("watch"),
        start("server", "serving"),
        see(0, "watching"),
        run("deposit alice 30", "alice has 30"),
        see(0, "alice/1 {'type': 'deposited', 'amount': 30}"),
    ],
    "enrichment.py": [
        start("enrich"),
        start("ship"),
        run("customer 7 Alice eu"),
        run('order 7 "3 books"'),
        see(1, "{'customer': {'id': 7, 'name': 'Alice', 'region': 'eu'}, 'text': '3 books'}"),
    ],
    "notifications.py": [
        start("deliver sms"),
        run('urgent bob "your card is blocked"'),
        see(0, "sms to bob: your card is blocked"),
    ],
    "chat.py": [
        run("join bob trio"),
        run('say alice "#trio" hello'),
        start("read bob", "alice in #trio: hello"),
    ],
    "autoscaling.py": [run("send 20"), start("work", "20 jobs wait, 2 workers")],
    "logs.py": [
        start("collect"),
        start("watch *.error", "watching"),
        run("shop", "INFO:orders:order 42 placed"),
        see(1, "shop.error card of alice refused"),
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
HOOKS = {"hooks", "hooks.parked", *(f"hooks.retry.{4**number}000" for number in range(5))}
TRIPS = {"trips", "trips.parked", *(f"trips.retry.{4**number}000" for number in range(6))}
ORDERS = {"orders", "orders.parked", "orders.complete", *(f"orders.retry.{10**number}000" for number in range(4))}
SAGAS = {"saga", "saga.flight", "saga.hotel", "saga.payment", "saga.trip", "flight.take", "flight.give_back"}
SAGAS |= {"hotel.take", "hotel.give_back", "payment.take", "payment.give_back"}
LEFT = HOOKS | TRIPS | ORDERS | SAGAS | {f"customers.{number}" for number in range(8)}
LEFT |= {"tasks", "events", "orders.placed", "orders.placed.stock", "print-jobs", "payments", "order.events"}
LEFT |= {"shipping", "accounts", "accounts.events", "customers", "notify.sms", "notify.sms.urgent", "chat", "chat.bob"}
LEFT |= {"scaled-jobs", "program-logs", "program-logs.collected"}
LEFT |= {"hello", "task_queue", "logs", "direct_logs", "topic_logs", "rpc_queue"}
"""What they leave at a broker; on one that others use it is deleted."""


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
def process(script: str, step: Step, url: str, folder: Path) -> Iterator[Program]:
    """A program in a process, which is gone afterwards whatever happens."""
    program = Program(script, step.arguments, url, folder)
    with program.process:
        try:
            yield program
        finally:
            program.process.kill()


def said(script: str, step: Step, url: str, folder: Path) -> bool:
    """Run a program to its end; whether it has said all lines."""
    with process(script, step, url, folder) as program:
        program.end()
    return all(line in program.output for line in step.lines)


@pytest.mark.parametrize("script", part_of(PLAYS, 4))
def test_a_program_does_what_it_says(script: str, running: Running, tmp_path: Path) -> None:
    url, ours = running
    started: list[Program] = []
    with ExitStack() as stack:
        if ours is None:
            stack.callback(trio.run, delete, url, LEFT)
        for step in PLAYS[script]:
            if step.verb == "start":
                started.append(stack.enter_context(process(script, step, url, tmp_path)))
                started[-1].see(step.lines)
            elif step.verb == "run":
                with process(script, step, url, tmp_path) as program:
                    program.end()
                    program.see(step.lines)
            elif step.verb == "until":
                while not said(script, step, url, tmp_path):
                    pass
            else:
                started[int(step.arguments[0])].see(step.lines)
        for program in started:
            program.process.send_signal(signal.SIGINT)
        for program in started:
            program.end()
    if ours is not None:
        there = {each.name for each in (*ours.queues, *ours.vhost().exchanges)}
        assert {name for name in there if not name.startswith("amq.")} <= LEFT


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


def test_every_program_has_its_place_in_the_readme() -> None:
    text = (EXAMPLES / "README.md").read_text()
    for script in PLAYS.keys() | PIKA:
        assert f"({script})" in text, script


def test_the_readmes_links_lead_somewhere_and_its_commands_are_those_of_the_programs() -> None:
    text = (EXAMPLES / "README.md").read_text()
    for target in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (EXAMPLES / target).exists(), target
    headings = [line.lower().replace(",", "").split() for line in re.findall("^## (.*)", text, re.MULTILINE)]
    for anchor in re.findall(r"\]\(#([^)]+)\)", text):
        assert anchor.split("-") in headings, anchor
    for script, verb in re.findall(r"^python examples/(\S+) (\S+)", text, re.MULTILINE):
        assert f"python examples/{script} {verb}" in (EXAMPLES / script).read_text()
