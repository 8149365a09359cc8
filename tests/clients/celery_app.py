"""The Celery application that test_celery.py sends tasks to: `celery -A celery_app worker`, started in this folder.

The worker learns where the broker is and what its names begin with from the environment, the tests by `configure`.
Every name in the broker begins with the prefix, so that one test run can clean up after itself on a broker it shares.
"""

from __future__ import annotations

import itertools
import os
import signal
import time
from typing import Any

from celery import Celery, Task

app = Celery("celery_app", backend="rpc://")
_places = itertools.count()


def configure(broker_url: str, prefix: str) -> Celery:
    app.conf.update(
        broker_url=broker_url,
        broker_connection_retry_on_startup=True,
        broker_pool_limit=2,
        task_default_queue=f"{prefix}.tasks",
        task_queue_max_priority=10,
        control_exchange=prefix,
        event_exchange=f"{prefix}.events",
        result_expires=10,
    )
    return app


if "RABBITISH_CELERY_BROKER" in os.environ:
    configure(os.environ["RABBITISH_CELERY_BROKER"], os.environ["RABBITISH_CELERY_PREFIX"])


@app.task(name="add")
def add(x: int, y: int) -> int:
    return x + y


@app.task(name="fail")
def fail(why: str) -> None:
    raise ValueError(why)


@app.task(name="echo")
def echo(value: Any) -> Any:
    return value


@app.task(name="place")
def place() -> int:
    """How many of these this worker has run before: the order of execution."""
    return next(_places)


@app.task(name="started_at")
def started_at() -> float:
    return time.time()


@app.task(name="progress", bind=True)
def progress(self: Task) -> str:
    self.update_state(state="PROGRESS", meta={"done": 50})
    return "all"


@app.task(name="third_time", bind=True, max_retries=5)
def third_time(self: Task) -> dict[str, Any]:
    """Succeeds at its third try; each retry is a message of its own with a later ETA."""
    if self.request.retries < 2:
        raise self.retry(countdown=0.1)
    return {"retries": self.request.retries, "redelivered": self.request.delivery_info["redelivered"]}


@app.task(name="give_up", bind=True, autoretry_for=(ZeroDivisionError,), max_retries=1, default_retry_delay=0.05)
def give_up(self: Task) -> float:
    return 1 / 0


@app.task(name="kill_first_worker", bind=True, acks_late=True)
def kill_first_worker(self: Task) -> str:
    """Takes its worker down at the first delivery, so that only a redelivery can bring the answer."""
    if not self.request.delivery_info["redelivered"]:
        os.kill(os.getpid(), signal.SIGKILL)
    return "redelivered"
