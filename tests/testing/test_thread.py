"""A broker in a thread: started and stopped at will, used from any thread, with signals as they were."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import trio

from rabbitish import testing
from rabbitish.addresses import SettingError
from rabbitish.server.listener import ListenError


def test_signals_and_threads_are_as_they_were() -> None:
    def now() -> tuple[object, ...]:
        wakeup = signal.set_wakeup_fd(-1)
        signal.set_wakeup_fd(wakeup)
        return signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM), wakeup

    before, threads = now(), set(threading.enumerate())
    with testing.running_broker() as broker:
        assert now() == before
        assert broker.connections == []
        assert now() == before
    assert now() == before
    assert set(threading.enumerate()) == threads


def test_many_threads_ask_at_once() -> None:
    with testing.running_broker() as broker, ThreadPoolExecutor(8) as pool:
        hosts = list(pool.map(lambda _: broker.add_vhost(), range(50)))
        assert len({vhost.name for vhost in hosts}) == 50
        for done in [pool.submit(broker.advance, 1) for _ in range(20)]:
            done.result()


def test_asyncio_and_trio_programs_may_ask() -> None:
    with testing.running_broker() as broker:

        async def ask() -> int:
            broker.advance(1)
            return len(broker.connections)

        assert asyncio.run(ask()) == trio.run(ask) == 0


def test_two_brokers_side_by_side() -> None:
    with testing.running_broker() as one, testing.running_broker() as other:
        assert one.port != other.port
        one.add_vhost("only here")
        with pytest.raises(LookupError):
            _ = other.vhost("only here").queues


def test_nobody_answers_for_a_broker_that_has_stopped() -> None:
    with testing.running_broker() as broker:
        vhost = broker.vhost()
    for ask in (lambda: vhost.queues, lambda: broker.advance(1), lambda: broker.log):
        with pytest.raises(RuntimeError, match="the broker has stopped"):
            ask()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((broker.host, broker.port))


def test_what_the_block_raises_comes_out_and_the_broker_stops() -> None:
    with pytest.raises(ZeroDivisionError), testing.running_broker() as broker:
        _ = 1 / 0
    with pytest.raises(RuntimeError, match="the broker has stopped"):
        _ = broker.connections


def test_a_broker_that_cannot_start_says_why() -> None:
    with (
        testing.running_broker() as first,
        pytest.raises(ListenError, match="Address already in use"),
        testing.running_broker(port=first.port),
    ):
        raise AssertionError
    with pytest.raises(SettingError, match="frame_max_bytes"), testing.running_broker(frame_max_bytes=1):
        raise AssertionError


def test_a_broker_that_fails_says_so_at_the_end() -> None:
    async def fail() -> None:
        raise OSError("the disk is gone")

    def run() -> None:
        with testing.running_broker() as broker:
            broker._reach(lambda bench: bench.node.nursery.start_soon(fail))
            broker._reach.thread.join(10)
            with pytest.raises(RuntimeError, match="the broker has stopped"):
                _ = broker.connections

    with pytest.raises(OSError, match="the disk is gone"):
        run()


def test_an_error_reaches_who_asked_and_nobody_else() -> None:
    with testing.running_broker() as broker:
        with pytest.raises(LookupError, match="there is no queue 'q' in '/'"):
            _ = broker.queue("q").messages
        with pytest.raises(AssertionError, match=r"did not come true within 0\.01 s"):
            broker.wait_until(lambda: broker.queue("q").exists, within=0.01)
        assert broker.queues == []


def test_a_fork_is_told_that_the_broker_is_not_in_it() -> None:
    """A forked worker has the memory, and not the thread."""
    with testing.running_broker() as broker:
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                _ = broker.connections
            except RuntimeError as error:
                os.write(write, str(error).encode())
            finally:
                os._exit(0)
        os.close(write)
        os.waitpid(child, 0)
        said = os.read(read, 1000)
        os.close(read)
        assert said == b"this is a fork of the process that runs the broker: only its URL is of use here"
