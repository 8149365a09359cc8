"""A whole broker over real sockets: its latencies for minutes, whether a flood is fair to all, and what it needs.

Everything here is measured with the journal, as users run it, unless it says otherwise.
"""

from __future__ import annotations

import resource
import socket
import statistics
import threading
import time
from collections.abc import Callable
from contextlib import closing
from typing import Any

from rabbitish.wire import methods as m

from .outside import Process, connect, load, ours

RATE = 5_000


def tail(*, seconds: float = 300) -> dict[str, Any]:
    """Publish to delivery at a steady rate, persistent and confirmed."""
    with ours() as broker:
        load(broker.port, f"-q warm -s 256 -p -c 1000 -b 1 -P 500 -a 10 -r {RATE}", seconds=2)
        before = broker.processor_seconds
        result = load(broker.port, f"-q tail -s 256 -p -c 1000 -b 1 -P 500 -a 10 -r {RATE}", seconds=seconds)
        busy = (broker.processor_seconds - before) / seconds
    return {"seconds": seconds, "rate": RATE, "busy": busy, "latency_us": result["latency_us"]}


def fairness(*, seconds: float = 30) -> dict[str, Any]:
    """Floods: do consumers keep up, is memory flat, do publishers get equal shares, is a slow consumer no harm."""
    return {
        "flood": _flood(seconds),
        "shares": _shares(seconds / 3),
        "slow": _slow_consumer(seconds / 3),
    }


def _flood(seconds: float) -> dict[str, Any]:
    """Three publishers and one consumer on a queue, nobody waits for anything."""
    with ours() as broker:
        memory = _Memory(broker)
        result = load(broker.port, "-q flood -s 256 -x 3 -y 1", seconds=seconds)
        samples = memory.end()
    return {
        "published": result["published"],
        "consumed": result["consumed"],
        "seconds": seconds,
        "resident_kib": samples,
    }


def _shares(seconds: float) -> list[float]:
    """What two publishers with a queue each get through, in messages a second."""
    rates = [0.0, 0.0]

    def publish(number: int) -> None:
        rates[number] = load(broker.port, f"-q share-{number} -s 256", seconds=seconds)["consume_rate"]

    with ours() as broker:
        threads = [threading.Thread(target=publish, args=(number,)) for number in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return rates


def _slow_consumer(seconds: float) -> dict[str, float]:
    """Rates of a flood without and with one more consumer, which takes all and never reads; medians of turns."""
    rates: dict[str, list[float]] = {"without": [], "with": []}
    with ours() as broker:
        for name, found in [*rates.items()] * 3:
            with closing(connect(broker.port)) as slow:
                slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                say = [m.ChannelOpen(), m.QueueDeclare(queue="slow", durable=True)]
                if name == "with":
                    say.append(m.BasicConsume(queue="slow", no_ack=True))
                slow.sendall(b"".join([method.frame(1) for method in say]))
                time.sleep(0.2)
                found.append(load(broker.port, "-q slow -s 256 --keep", seconds=seconds / 3)["consume_rate"])
    return {name: statistics.median(found) for name, found in rates.items()}


class _Memory:
    """A broker's memory, looked at every second."""

    def __init__(self, broker: Process) -> None:
        self._broker = broker
        self._over = threading.Event()
        self._samples: list[int] = []
        self._thread = threading.Thread(target=self._look)
        self._thread.start()

    def _look(self) -> None:
        while not self._over.wait(1):
            self._samples.append(self._broker.resident_kib)

    def end(self) -> list[int]:
        """What it was."""
        self._over.set()
        self._thread.join()
        return self._samples


def footprint(*, connections: int = 10_000) -> dict[str, Any]:
    """Idle memory and the time to the first answer; what idle connections cost; how many can be held."""
    starts = []
    for _ in range(5):
        with ours() as broker:
            time.sleep(1)
            starts.append((broker.seconds, broker.resident_kib))
    files = connections + 1000
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard if hard != -1 and hard < files else files, hard))
    with ours() as broker:
        few = _held(broker, 1000, lambda sock: None)
    with ours() as broker:  # another one, since what one has freed it uses again
        with_consumer = _held(broker, 1000, _consume)
    with ours() as broker:
        many = _held(broker, connections, lambda sock: None)
    return {
        "start_seconds": min(seconds for seconds, _ in starts),
        "idle_kib": min(kib for _, kib in starts),
        "connection_kib": few["kib"],
        "connection_with_consumer_kib": with_consumer["kib"],
        "connections_held": many["held"],
        "connections_kib": many["kib"],
        "connections_per_second": many["per_second"],
        "echo_us": many["echo_us"],
    }


def _consume(sock: socket.socket) -> None:
    """A channel, an exclusive queue and a consumer."""
    said = (m.ChannelOpen(), m.QueueDeclare(queue="", exclusive=True), m.BasicConsume(queue=""))
    sock.sendall(b"".join([method.frame(1) for method in said]))
    sock.recv(65_536)


def _held(broker: Process, count: int, then: Callable[[socket.socket], None]) -> dict[str, float]:
    """So many connections at the same time: memory of each, how fast they came, and whether all still answer."""
    before = broker.resident_kib
    socks: list[socket.socket] = []
    began = time.monotonic()
    try:
        for number in range(count):
            sock = connect(broker.port, f"127.0.0.{2 + number // 20_000}")
            then(sock)
            socks.append(sock)
        took = time.monotonic() - began
        time.sleep(1)
        each = (broker.resident_kib - before) / count
        began = time.monotonic()
        answered = 0
        for sock in socks:
            sock.sendall(m.ChannelOpen().frame(7))
            answered += bool(sock.recv(65_536))
        echo = (time.monotonic() - began) / count * 1e6
    finally:
        for sock in socks:
            sock.close()
    time.sleep(1)
    return {"kib": each, "per_second": count / took, "held": answered, "echo_us": echo}
