"""Are the tests of the journal any good? Break a rule of it on purpose, in a copy, and see which test notices.

    python -m tests.store.mutations [WORD...]

Every mutation is one small change of the package; those whose names have one of the words, or all, are applied to
copies one by one, and the test files that ought to notice are run until the first failure. One that nobody notices
makes the exit code 1. It takes some minutes, so it is no part of the suite; test_mutations.py sees that each applies.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]


class Mutation(NamedTuple):
    """What is replaced by what in a file of the package, once; and who should notice."""

    name: str
    file: str
    old: str
    new: str
    tests: str


MUTATIONS = (
    Mutation(
        "confirm before the sync",
        "session/hub.py",
        "        self.durable = lsn\n",
        "        self.durable = lsn + 1000\n",
        "store/test_faults.py",
    ),
    Mutation(
        "say that what was written is on disk, without a sync",
        "store/journal.py",
        "        assert self._file is not None\n        self._file.sync()\n\n    def delete",
        "        assert self._file is not None\n\n    def delete",
        "store/test_faults.py",
    ),
    Mutation(
        "begin the next segment without a sync of the last",
        "store/journal.py",
        "                    self._file.sync()\n                    self.close()\n",
        "                    self.close()\n",
        "store/test_journal.py store/test_faults.py",
    ),
    Mutation(
        "write behind a segment's head that is not on disk",
        "store/journal.py",
        "                self._file.write(parts[0])\n                self._file.sync()\n",
        "                self._file.write(parts[0])\n",
        "store/test_faults.py",
    ),
    Mutation(
        "skip the checksum when the journal is read",
        "store/record.py",
        "if crc32(view[offset + CHECKED_AT : end]) != crc:",
        "if False:",
        "store/test_record.py store/test_scan.py",
    ),
    Mutation(
        "skip the checksum of what is read in runs",
        "store/runs.py",
        "if end > have or crc32(view[offset + CHECKED_AT : end]) != crc:",
        "if end > have:",
        "store/test_runs.py",
    ),
    Mutation(
        "take zeroes for the end of any segment",
        "store/scan.py",
        "if offset < len(data) and (head.generation or not is_last):",
        "if False:",
        "store/test_scan.py",
    ),
    Mutation(
        "leave the zeroes that were written ahead behind what was written",
        "store/files.py",
        "                os.ftruncate(self._fd, self._size)  # gives back what was not needed\n",
        "",
        "store/test_files.py",
    ),
    Mutation(
        "cut the zeroes off and do not sync that",
        "store/files.py",
        "                if self._synced:\n                    os.fdatasync(self._fd)\n",
        "",
        "store/test_files.py",
    ),
    Mutation(
        "take zeroes for the end though all was whole at the clean stop",
        "store/recovery.py",
        "            if size != known.size:",
        "            if False:",
        "store/test_checkpoint.py",
    ),
    Mutation(
        "skip the checksum when a message is read back",
        "store/reader.py",
        "!= crc or body + size > len(self._data):",
        "!= crc and body + size > len(self._data):",
        "store/test_reader.py",
    ),
    Mutation(
        "drop the record of acknowledgements",
        "core/leaving.py",
        "        if self.durable:\n            self.record_removed(messages, reason)\n",
        "",
        "store/test_recovery.py",
    ),
    Mutation(
        "drop the record of deliveries",
        "core/queue.py",
        "        if count and self.durable:\n            self._record_delivered(messages)\n",
        "",
        "store/test_recovery.py",
    ),
    Mutation(
        "forget in the record of a return those before it",
        "core/queue.py",
        "            self._host.recorder.returned(self, message, returns)\n",
        "            self._host.recorder.returned(self, message, 1)\n",
        "store/test_recovery.py",
    ),
    Mutation(
        "write the contents before their record's head",
        "store/journal.py",
        "self._append(Type.PUBLISH, (head + route, data), count)",
        "self._append(Type.PUBLISH, (data, head + route), count)",
        "store/test_journal.py store/test_recovery.py",
    ),
    Mutation(
        "believe what was read ahead before it was written",
        "store/reader.py",
        "            if self._base == offset:\n                raise\n",
        "            raise\n",
        "store/test_reader.py",
    ),
    Mutation(
        "give each message of a mixed record the next one's size",
        "store/mixed.py",
        "self.bodies[start:stop], expirations)",
        "self.bodies[start + 1 :], expirations)",
        "store/test_mixed.py",
    ),
    Mutation(
        "forget at the start when messages of a mixed record expire",
        "store/replay.py",
        "self._expirations.extend(mixed.expirations or ",
        "self._expirations.extend(",
        "store/test_mixed.py",
    ),
    Mutation(
        "record the first message's expiration for all that came with it",
        "store/recorder.py",
        "[message.stamp.expiration_ms or 0 for message in messages]",
        "[stamp.expiration_ms] * len(messages)",
        "store/test_mixed.py",
    ),
    Mutation(
        "keep others of a mixed record than those that live when its segment is written anew",
        "store/compaction.py",
        "contents = data[publish.start(start - first) : publish.start(stop - first)]",
        "contents = data[publish.start(0) : publish.start(stop - start)]",
        "store/test_mixed.py",
    ),
    Mutation(
        "do not write a large message that another queue needs",
        "store/journal.py",
        "        if large.queues:\n            return\n",
        "",
        "store/test_journal.py",
    ),
    Mutation(
        "do not sync the folder after a rename",
        "store/files.py",
        "        (self._path / old).rename(self._path / new)\n        self._sync_names()\n",
        "        (self._path / old).rename(self._path / new)\n",
        "store/test_files.py",
    ),
    Mutation(
        "do not sync the folder after a file was made",
        "store/files.py",
        "os.O_CLOEXEC, 0o600)\n        self._sync_names()\n",
        "os.O_CLOEXEC, 0o600)\n",
        "store/test_files.py",
    ),
    Mutation(
        "forget the epoch",
        "store/coordinator.py",
        "self._epoch = max(self._epoch, last_epoch) + 1",
        "self._epoch = 1",
        "store/test_coordinator.py store/test_recovery.py",
    ),
    Mutation(
        "cut off a torn tail, whatever was known to be safe",
        "store/scan.py",
        " and _known_safe(data, damage.offset) <= self.last_lsn",
        "",
        "store/test_scan.py",
    ),
    Mutation(
        "delete dead segments before what emptied them is on disk",
        "store/journal.py",
        "while self._dying and self._dying[0][0] <= self.durable_lsn:",
        "while self._dying:",
        "store/test_journal.py store/test_faults.py",
    ),
    Mutation(
        "keep persistent messages alone in a quorum queue",
        "core/keeping.py",
        "return queues if persistent or any(queue.options.quorum for queue in queues) else []",
        "return queues if persistent else []",
        "store/test_quorum_queues.py",
    ),
    Mutation(
        "forget the quorum queues that there are",
        "core/vhost.py",
        "(keep or self._quorums)",
        "keep",
        "store/test_quorum_queues.py",
    ),
    Mutation(
        "let a quorum queue's dead letters die with the process",
        "core/burials.py",
        "queue.options.counted, queue.options.quorum",
        "queue.options.counted, False",
        "store/test_quorum_queues.py",
    ),
    Mutation(
        "let a dead letter go that no queue takes though it is to wait",
        "core/burials.py",
        "        if queue.options.patient and not queue.deleted and (full or not (targets or owed)):",
        "        if False:",
        "store/test_quorum_queues.py",
    ),
    Mutation(
        "record that a dead letter has left which waits",
        "core/burials.py",
        "            queue.keep_waiting(message)\n",
        "            queue.keep_waiting(message)\n            queue.record_removed([message], reason)\n",
        "store/test_quorum_queues.py",
    ),
    Mutation(
        "let a dead letter leave before it has arrived",
        "core/burials.py",
        """            router.record_published(targets, dead, now, keep=keep)
            refused = [target for target in targets if not target.enqueue(dead, now)]
""",
        """            queue.record_removed([message], reason)
            router.record_published(targets, dead, now, keep=keep)
            for target in targets:
                target.enqueue(dead, now)
            return
""",
        "store/test_faults.py",
    ),
    Mutation(
        "forget what was told of messages in older segments when one is written anew",
        "store/compaction.py",
        "        return [(first, end)] if any(numbers.has(first, end) for numbers in self._older) else []\n",
        "        return []\n",
        "store/test_regressions_compaction.py store/test_faults.py store/test_regressions_random.py",
    ),
    Mutation(
        "let a segment that was written anew count before all it knew is on disk",
        "store/compaction.py",
        "        self.lsn = journal.last_lsn\n",
        "        self.lsn = 0\n",
        "store/test_faults.py store/test_regressions_compaction.py store/test_regressions_random.py",
    ),
    Mutation(
        "put away what is not written yet",
        "store/shelf.py",
        "            if message.lsn > written:\n                whole = False\n                break\n",
        "",
        "store/test_shelf.py store/test_regressions_random.py",
    ),
    Mutation(
        "believe a checkpoint whatever the files are",
        "store/checkpoint.py",
        "            longer |= found > size\n",
        "",
        "store/test_checkpoint.py",
    ),
    Mutation(
        "keep the checkpoint while the journal grows",
        "store/recovery.py",
        "    forget_checkpoint(disk)\n",
        "",
        "store/test_checkpoint.py",
    ),
    Mutation(
        "expire what is in pages at the wrong end",
        "store/shelf.py",
        "sorted(range(len(deadlines)), key=deadlines.__getitem__))",
        "range(len(deadlines)))",
        "store/test_shelf.py",
    ),
)


def mutated(mutation: Mutation, text: str) -> str:
    """The file with the change. ValueError: the place is not there, or not only once."""
    if text.count(mutation.old) != 1:
        raise ValueError(f"{mutation.name}: found {text.count(mutation.old)} times in {mutation.file}")
    return text.replace(mutation.old, mutation.new)


def noticed(mutation: Mutation) -> str:
    """The first test that fails on a copy with the change; "" for none."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        for part in ("rabbitish", "tests", "docs"):
            shutil.copytree(ROOT / part, copy / part, ignore=shutil.ignore_patterns("__pycache__"))
        for file in ("pyproject.toml", "README.md"):
            shutil.copy(ROOT / file, copy)
        target = copy / "rabbitish" / mutation.file
        target.write_text(mutated(mutation, target.read_text()))
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider"]
        ran = subprocess.run(
            [*command, *(f"tests/{name}" for name in mutation.tests.split())],
            cwd=copy,
            env={**os.environ, "PYTHONPATH": folder},
            capture_output=True,
            text=True,
        )
        found = re.search(r"^(?:FAILED|ERROR) tests/(\S+)", ran.stdout, re.MULTILINE)
        assert ran.returncode in (0, 1), ran.stdout + ran.stderr
        return found[1] if found else ""


def main(words: list[str]) -> int:
    """Try them; how many nobody noticed."""
    missed = 0
    for mutation in MUTATIONS:
        if not words or any(word in mutation.name for word in words):
            found = noticed(mutation)
            missed += not found
            print(f"{mutation.name}: {found or 'NOBODY NOTICED'}", flush=True)
    return missed


if __name__ == "__main__":
    sys.exit(1 if main(sys.argv[1:]) else 0)
