"""A broker process that is killed and started again, and a client over a plain socket that survives that."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from rabbitish.wire import methods
from rabbitish.wire.frames import PROTOCOL_HEADER, FrameParser, content_frames
from rabbitish.wire.method import Method
from rabbitish.wire.properties import Properties

REPOSITORY = Path(__file__).parents[2]
PATIENCE_SECONDS = 20
PERSISTENT = Properties(delivery_mode=2).encode()


class Process:
    """`rabbitish serve` on a data directory and a free port."""

    def __init__(self, data_dir: Path, *options: str) -> None:
        self.errors = data_dir.with_suffix(".stderr")
        command = [sys.executable, "-m", "rabbitish", "serve", "--listen", "amqp://127.0.0.1:0"]
        command += ["--data-dir", str(data_dir), "--set", "log_level=warning", *options]
        with self.errors.open("w") as stderr:
            self.process = subprocess.Popen(
                command, cwd=REPOSITORY, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=stderr, text=True
            )
        assert self.process.stdout is not None
        self.line = self.process.stdout.readline()
        found = re.search(r":(\d+)$", self.line)
        self.port = int(found[1]) if found else 0

    def said(self) -> list[str]:
        """The lines on stderr."""
        return self.errors.read_text().splitlines()

    def ended(self) -> int:
        """Wait for the end; the exit code."""
        assert self.process.stdout is not None
        try:
            return self.process.wait(PATIENCE_SECONDS)
        finally:
            self.process.stdout.close()

    def kill(self) -> None:
        """As the system does when memory runs out."""
        self.process.kill()
        assert self.ended() == -signal.SIGKILL
        assert "Traceback" not in self.errors.read_text()

    def stop(self, *, after_a_kill: bool = False) -> None:
        """SIGTERM, and a clean end.

        After a kill the last write may have been found torn at the start, and somebody looked for what is gone.
        """
        self.process.terminate()
        assert self.ended() == 0
        expected = ("a torn tail was cut off", "404 NOT_FOUND - no ") if after_a_kill else ()
        said = [line for line in self.said() if not any(text in line for text in expected)]
        assert said == [], said


class Heard(NamedTuple):
    """A method from the broker, with its body if it has one."""

    method: Method
    body: bytes


class Ended(Exception):
    """The broker is gone."""


class Peer:
    """A client with channel 1 open. Whatever it does raises Ended when the broker is gone."""

    def __init__(self, port: int, vhost: str = "/") -> None:
        try:
            self._socket = socket.create_connection(("127.0.0.1", port), PATIENCE_SECONDS)
        except ConnectionError as error:
            raise Ended from error
        self._parser = FrameParser(0)
        self._heard: deque[Heard] = deque()
        self._method: Method | None = None
        self._left = 0
        self._body = b""
        self.confirmed = 0  # the last publish that `confirm` waited for
        self._send(PROTOCOL_HEADER)
        self._expect(methods.ConnectionStart)
        self.send(methods.ConnectionStartOk(mechanism="PLAIN", response=b"\0guest\0guest"), channel=0)
        self._expect(methods.ConnectionTune)
        self.send(methods.ConnectionTuneOk(channel_max=1, frame_max=131_072), channel=0)
        self.send(methods.ConnectionOpen(virtual_host=vhost), channel=0)
        self._expect(methods.ConnectionOpenOk)
        self.ask(methods.ChannelOpen())

    def close(self) -> None:
        """Hang up without a word."""
        self._socket.close()

    def _send(self, data: bytes) -> None:
        try:
            self._socket.sendall(data)
        except OSError as error:
            raise Ended from error

    def send(self, *said: Method, channel: int = 1) -> None:
        """Send methods."""
        self._send(b"".join(method.frame(channel) for method in said))

    def publish(self, key: str, *bodies: bytes, exchange: str = "") -> None:
        """Publish persistent messages, all at once."""
        method = methods.BasicPublish(exchange=exchange, routing_key=key).frame(1)
        self._send(b"".join(method + content_frames(1, 60, PERSISTENT, body, 131_072) for body in bodies))

    def send_raw(self, data: bytes) -> None:
        """Send frames."""
        self._send(data)

    def hear(self) -> Heard:
        """The next method."""
        while not self._heard:
            try:
                data = self._socket.recv(1 << 20)
            except TimeoutError:
                raise
            except OSError as error:
                raise Ended from error
            if not data:
                raise Ended
            self._parser.push(data)
            self._take()
        return self._heard.popleft()

    def _take(self) -> None:
        while (frame := self._parser.next_frame()) is not None:
            kind, _, payload = frame
            if kind == 1:
                method = methods.decode_method(payload)
                if method.has_content:
                    self._method, self._body = method, b""
                    continue
                self._heard.append(Heard(method, b""))
            elif kind == 2:
                self._left = int.from_bytes(payload[4:12], "big")
            elif kind == 3:
                self._body += payload
                self._left -= len(payload)
            if self._method is not None and not self._left and kind in (2, 3):
                self._heard.append(Heard(self._method, self._body))
                self._method = None

    def _expect(self, kind: type[Method]) -> Heard:
        heard = self.hear()
        assert isinstance(heard.method, kind), heard
        return heard

    def ask(self, method: Method) -> Heard:
        """Send a method and take the next one that comes for its answer."""
        self.send(method)
        return self.hear()

    def declare(self, queue: str, **arguments: object) -> None:
        """Declare a durable queue."""
        table = {f"x-{key.replace('_', '-')}": value for key, value in arguments.items()}
        heard = self.ask(methods.QueueDeclare(queue=queue, durable=True, arguments=table))  # type: ignore[arg-type]
        assert isinstance(heard.method, methods.QueueDeclareOk), heard

    def confirm(self, key: str, *bodies: bytes) -> None:
        """Publish and wait for the confirms, on a channel that does nothing else."""
        self.publish(key, *bodies)
        last = 0
        for _ in bodies:
            method = self.hear().method
            assert isinstance(method, methods.BasicAck), method
            last = max(last, method.delivery_tag)
            if last - self.confirmed == len(bodies):
                break
        self.confirmed = last

    def drain(self, queue: str) -> Iterator[bytes]:
        """Take all there is."""
        while isinstance((heard := self.ask(methods.BasicGet(queue=queue, no_ack=True))).method, methods.BasicGetOk):
            yield heard.body
