"""Celery with a worker process of its own: tasks, results over rpc://, retries, ETA, priorities, revokes, control.

The worker runs one task at a time. Where order matters, tasks wait in a queue that no worker consumes
until remote control tells it to, so that no test depends on who is faster.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from celery import Celery, chain, group
from celery.exceptions import MaxRetriesExceededError, TaskRevokedError
from celery.result import AsyncResult

from . import celery_app
from .celery_app import add, echo, fail, give_up, kill_first_worker, place, progress, started_at, third_time
from .support import DEADLINE, UNICODE, Lines, end_process

WORKER = "main@rabbitish"


@pytest.fixture(scope="session")
def app(broker_url: str, janitor: Callable[[str], None]) -> Iterator[Celery]:
    prefix = f"rabbitish.clients.{uuid4().hex[:8]}"
    app = celery_app.configure(broker_url, prefix)
    yield app
    app.backend.result_consumer.stop()
    app.amqp.producer_pool.force_close_all()
    app.pool.force_close_all()
    app.close()
    for name in (f"{prefix}.tasks", f"{prefix}.pidbox", f"reply.{prefix}.pidbox", f"{prefix}.events"):
        janitor(name)


@contextmanager
def worker(app: Celery, name: str, *options: str) -> Iterator[subprocess.Popen[str]]:
    """A worker process that has said it is ready; left to its user to end."""
    command = [sys.executable, "-m", "celery", "-A", "celery_app", "worker", "--pool=threads", "--concurrency=1"]
    environment = {
        **os.environ,
        "RABBITISH_CELERY_BROKER": app.conf.broker_url,
        "RABBITISH_CELERY_PREFIX": app.conf.control_exchange,
    }
    process = subprocess.Popen(
        [*command, "--loglevel=INFO", "-n", name, *options],
        cwd=Path(__file__).parent,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    with process.stdout:
        output = Lines(process.stdout)
        try:
            output.wait_for(f"{name} ready.", 2 * DEADLINE)
            yield process
        finally:
            if process.poll() is None:
                end_process(process)
            output.finish()


@pytest.fixture(scope="session")
def running(app: Celery) -> Iterator[Celery]:
    """The application, with a worker for it that is up; the worker must end with a warm shutdown, exit code 0."""
    with worker(app, WORKER, "--task-events") as process:
        yield app
        assert end_process(process) == 0


def answer(result: AsyncResult) -> Any:
    return result.get(timeout=DEADLINE)


@contextmanager
def waiting_queue(app: Celery, queue: str) -> Iterator[str]:
    """A priority queue that nobody consumes yet."""
    with app.pool.acquire(block=True) as connection:
        app.amqp.Queues({}, max_priority=10, create_missing=True)[queue](connection.default_channel).declare()
    try:
        yield queue
    finally:
        app.control.cancel_consumer(queue, destination=[WORKER], reply=True, timeout=DEADLINE)


def consume(app: Celery, queue: str) -> None:
    """Tell the worker to consume `queue`, and wait until it says that it does."""
    [reply] = app.control.add_consumer(queue, destination=[WORKER], reply=True, timeout=DEADLINE)
    assert reply == {WORKER: {"ok": f"add consumer {queue}"}}


def test_results(running: Celery) -> None:
    assert answer(add.delay(2, 3)) == 5
    assert answer(echo.delay({"text": UNICODE, "list": [1, None, 2.5]})) == {"text": UNICODE, "list": [1, None, 2.5]}
    assert answer(running.send_task("add", (1, 1))) == 2


def test_large_argument_and_result(running: Celery) -> None:
    value = "x" * (1 << 20)
    assert answer(echo.delay(value)) == value


def test_many_tasks(running: Celery) -> None:
    results = [add.delay(number, number) for number in range(50)]
    assert [answer(result) for result in results] == [2 * number for number in range(50)]


def test_failure_comes_back_as_its_exception(running: Celery) -> None:
    result = fail.delay("because")
    with pytest.raises(ValueError, match="because"):
        answer(result)
    assert result.state == "FAILURE"


def test_states_on_the_way(running: Celery) -> None:
    states: list[tuple[str, Any]] = []
    result = progress.delay()
    value = result.get(timeout=DEADLINE, on_message=lambda body: states.append((body["status"], body["result"])))
    assert value == "all"
    assert states == [("PROGRESS", {"done": 50}), ("SUCCESS", "all")]


def test_retries_with_countdown(running: Celery) -> None:
    assert answer(third_time.delay()) == {"retries": 2, "redelivered": False}


def test_retries_run_out(running: Celery) -> None:
    with pytest.raises((ZeroDivisionError, MaxRetriesExceededError)):
        answer(give_up.delay())


def test_eta_and_countdown_are_kept(running: Celery) -> None:
    eta = datetime.now(UTC) + timedelta(seconds=0.5)
    later = [started_at.apply_async(eta=eta), started_at.apply_async(countdown=0.5)]
    assert min(answer(result) for result in later) >= eta.timestamp()


def test_waiting_for_an_eta_does_not_use_up_the_prefetch(running: Celery) -> None:
    """A task that waits in the worker raises its prefetch count by one, which takes effect at once as global QoS."""
    waiting = {add.apply_async((1, 1), countdown=600).id for _ in range(10)}
    assert answer(add.delay(1, 1)) == 2
    inspect = running.control.inspect(destination=[WORKER], timeout=DEADLINE)
    assert waiting <= {entry["request"]["id"] for entry in inspect.scheduled()[WORKER]}
    assert inspect.stats()[WORKER]["prefetch_count"] >= 14


def test_priorities(running: Celery, name: str) -> None:
    with waiting_queue(running, name) as queue:
        results = {priority: place.apply_async(queue=queue, priority=priority) for priority in (0, 9, 3, 6)}
        consume(running, queue)
        places = {priority: answer(result) for priority, result in results.items()}
    assert sorted(places, key=places.__getitem__) == [9, 6, 3, 0]


def test_revoked_and_expired_tasks_do_not_run(running: Celery, name: str) -> None:
    """Expiry is the broker's: a task that is over already goes out with the expiration "0" and dies in the queue."""
    with waiting_queue(running, name) as queue:
        revoked = add.apply_async((1, 1), queue=queue)
        expired = add.apply_async((1, 1), queue=queue, expires=datetime.now(UTC) - timedelta(seconds=1))
        kept = add.apply_async((1, 1), queue=queue)
        assert running.control.revoke(revoked.id, destination=[WORKER], reply=True, timeout=DEADLINE)
        consume(running, queue)
        with pytest.raises(TaskRevokedError):
            answer(revoked)
        assert answer(kept) == 2
        assert not expired.ready()


def test_chain(running: Celery) -> None:
    result = chain(add.s(1, 2), add.s(4), add.s(8))()
    assert answer(result) == 15
    assert result.parent is not None
    assert answer(result.parent) == 7


def test_group(running: Celery) -> None:
    result = group(add.s(number, 1) for number in range(10))()
    assert result.get(timeout=DEADLINE) == list(range(1, 11))
    assert result.successful()


def test_chunks(running: Celery) -> None:
    chunks = add.chunks([(number, number) for number in range(6)], 2)()
    assert chunks.get(timeout=DEADLINE) == [[0, 2], [4, 6], [8, 10]]


def test_remote_control(running: Celery) -> None:
    assert running.control.ping(destination=[WORKER], timeout=DEADLINE) == [{WORKER: {"ok": "pong"}}]
    inspect = running.control.inspect(destination=[WORKER], timeout=DEADLINE)
    assert {"add", "echo", "third_time"} <= set(inspect.registered()[WORKER])
    assert [queue["name"] for queue in inspect.active_queues()[WORKER]] == [running.conf.task_default_queue]
    assert inspect.stats()[WORKER]["broker"]["transport"] == "amqp"


def test_task_events(running: Celery) -> None:
    seen: list[str] = []
    result: list[AsyncResult] = []

    def on_event(event: dict[str, Any]) -> None:
        if event.get("uuid") == result[0].id:
            seen.append(event["type"])
            receiver.should_stop = event["type"] == "task-succeeded"

    with running.connection_for_read() as connection:
        receiver = running.events.Receiver(connection, handlers={"*": on_event})
        with receiver.consumer_context() as (receiving, _, _):
            result.append(add.delay(1, 1))
            deadline = time.monotonic() + DEADLINE
            while not receiver.should_stop:
                receiving.drain_events(timeout=max(0.01, deadline - time.monotonic()))
    assert seen == ["task-received", "task-started", "task-succeeded"]
    assert answer(result[0]) == 2


def test_acks_late_survives_the_worker(app: Celery, name: str) -> None:
    quiet = ("-Q", name, "--without-gossip", "--without-mingle")
    with worker(app, "victim@rabbitish", *quiet) as victim:
        result = kill_first_worker.apply_async(queue=name)
        assert victim.wait(DEADLINE) == -signal.SIGKILL
    with worker(app, "heir@rabbitish", *quiet):
        assert answer(result) == "redelivered"
