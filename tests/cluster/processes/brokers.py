"""A broker as a process: started, killed, frozen, stopped, wiped and damaged.

It writes to a file of its own in the folder that it is given, which a failure names. Only what was started here is ever
signalled, by its process id.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path

from rabbitish.store.record import parse_segment_name

from .patience import until

REPOSITORY = Path(__file__).parents[3]


def environment() -> dict[str, str]:
    """Of a process that runs this code."""
    return {**os.environ, "PYTHONPATH": str(REPOSITORY)}


class Broker:
    """One `rabbitish serve`, started again with the same options as often as is wanted."""

    def __init__(
        self,
        folder: Path,
        name: str,
        port: int,
        options: list[str],
        *,
        host: str = "127.0.0.1",
        inside: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        """`inside`: around its start, which says what network it is in."""
        self.name = name
        self.port = port
        self.uri = f"amqp://{host}:{port}"
        """Where clients connect."""
        self._inside = inside
        self.data = folder / name
        self.log = folder / f"{name}.log"
        self._command = [sys.executable, "-m", "rabbitish", "serve", "--listen", self.uri]
        self._command += ["--data-dir", str(self.data), *options]
        self._process: subprocess.Popen[bytes] | None = None
        self._begins = 0
        self.frozen = False

    def start(self) -> None:
        """Start it; `ready` waits until it listens."""
        assert self._process is None, f"{self.name} runs"
        self._begins = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as log, self._inside():
            self._process = subprocess.Popen(
                self._command, cwd=REPOSITORY, env=environment(), stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    @property
    def pid(self) -> int | None:
        """Its process, if there is one."""
        return None if self._process is None else self._process.pid

    @property
    def runs(self) -> bool:
        """Whether it was started, and neither killed nor frozen."""
        return self._process is not None and not self.frozen

    def option(self, name: str) -> str:
        """What follows an option on its command line."""
        return self._command[self._command.index(name) + 1]

    def said(self) -> str:
        """What it wrote since it was started."""
        return self.log.read_bytes()[self._begins :].decode(errors="replace")

    async def ready(self) -> None:
        """Wait until it says that it listens. Impatient, or AssertionError with its last words if it ended instead."""

        def listens() -> bool:
            assert self._process is not None
            assert self._process.poll() is None, f"{self.name} ended:\n{self.said()[-2000:]}"
            return " listening on " in self.said()

        await until(f"{self.name} listens", listens)

    def _signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        """kill -9."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self._process = None
        self.frozen = False

    def freeze(self) -> None:
        """SIGSTOP; when this returns it is frozen."""
        assert self._process is not None
        self._signal(signal.SIGSTOP)
        os.waitpid(self._process.pid, os.WUNTRACED)
        self.frozen = True

    def thaw(self) -> None:
        """SIGCONT."""
        self._signal(signal.SIGCONT)
        self.frozen = False

    async def terminate(self) -> float:
        """SIGTERM, and wait until it has ended, with code 0; the seconds that took."""
        self._signal(signal.SIGTERM)
        process = self._process
        assert process is not None

        took = await until(f"{self.name} ends after SIGTERM", lambda: process.poll() is not None)
        self._process = None
        assert process.returncode == 0, f"{self.name} ended with {process.returncode}:\n{self.said()[-2000:]}"
        return took

    def wipe(self) -> None:
        """Empty its disk, while it does not run."""
        assert self._process is None
        if self.data.is_mount():
            for each in self.data.iterdir():
                shutil.rmtree(each) if each.is_dir() else each.unlink()
        elif self.data.exists():
            shutil.rmtree(self.data)

    def segments(self) -> list[Path]:
        """The files of its log, the oldest first."""
        return sorted(path for path in self.data.rglob("*") if parse_segment_name(path.name) is not None)

    def flip_a_bit(self, chance: random.Random) -> Path:
        """Damage the middle half of its oldest segment, while it does not run; where."""
        assert self._process is None
        segment = self.segments()[0]
        size = segment.stat().st_size
        with segment.open("r+b") as file:
            at = chance.randrange(size // 4, size * 3 // 4)
            file.seek(at)
            (byte,) = file.read(1)
            file.seek(at)
            file.write(bytes([byte ^ 1 << chance.randrange(8)]))
        return segment

    def mount(self, size: int) -> None:
        """Give it a disk of its own, in memory, before it is started. Only root may."""
        self.data.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(self.data)], check=True)

    def fill(self) -> Path:
        """Leave no room on its disk; the file that has it all."""
        filler = self.data.parent / self.name / "filler"
        with suppress(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4_096))
        return filler

    @property
    def ended(self) -> bool:
        """Whether it has ended by itself."""
        return self._process is not None and self._process.poll() is not None

    def end(self) -> None:
        """Whatever state it is in, it is gone afterwards, and its disk with it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
        if self.data.is_mount():
            subprocess.run(["umount", str(self.data)], check=False)
