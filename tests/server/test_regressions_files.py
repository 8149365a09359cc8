"""A broker with few descriptors: clients that take all of them must leave the journal what it needs."""

from __future__ import annotations

import contextlib
import resource
import socket
from pathlib import Path

import pytest

from rabbitish.store.files import RealDisk
from rabbitish.wire import methods

from .crash import PATIENCE_SECONDS, Peer, Process

pytestmark = pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="only Linux limits another process")


def test_clients_without_end_do_not_stop_it(tmp_path: Path) -> None:
    broker = Process(tmp_path / "data", "--set", "journal_segment_bytes=65536")
    try:
        peer = Peer(broker.port)
        peer.declare("q")
        peer.ask(methods.ConfirmSelect())
        resource.prlimit(broker.process.pid, resource.RLIMIT_NOFILE, (80, 80))
        with contextlib.ExitStack() as others:
            for _ in range(100):
                others.enter_context(socket.create_connection(("127.0.0.1", broker.port), PATIENCE_SECONDS))
            for number in range(30):  # several segments
                peer.confirm("q", f"{number}".encode() + b"." * 20_000)
        peer.close()
    finally:
        broker.process.terminate()
    assert broker.ended() == 0


def test_files_are_read_though_no_descriptor_is_left(tmp_path: Path) -> None:
    disk = RealDisk(tmp_path)
    for number in range(20):
        file = disk.create(f"f{number}")
        file.write(f"{number}".encode())
        file.close()
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    with (tmp_path / "f0").open() as highest:
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest.fileno() + 3, before[1]))
    try:
        assert [disk.read_at(f"f{number}", 0, 10) for number in range(20)] == [b"%d" % number for number in range(20)]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    disk.close()
