"""The programs in examples/ do what they say, run as a reader would run them."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parents[2] / "examples"


def _start(name: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, str(EXAMPLES / name), *arguments], stdout=subprocess.PIPE, text=True)


def _run(name: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name), *arguments], capture_output=True, text=True, timeout=30, check=True
    )
    return done.stdout


def test_hello(broker_url: str) -> None:
    assert _run("hello_pika.py", broker_url) == "Hello, world!\n"


def test_work_queue(broker_url: str) -> None:
    for task in ("one.", "no dot", "two."):
        _run("work_queue_pika.py", "send", task, broker_url)
    with _start("work_queue_pika.py", "worker", broker_url) as worker:
        assert worker.stdout is not None
        lines = [worker.stdout.readline() for _ in range(3)]
        worker.send_signal(signal.SIGINT)
    assert lines == ["done: one.\n", "failed: no dot\n", "done: two.\n"]
    assert worker.returncode == 0
