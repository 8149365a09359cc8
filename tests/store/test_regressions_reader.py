"""Messages that nobody can know anything of: to ask for them is a fault that stops the broker, like any other."""

from __future__ import annotations

import pytest

from rabbitish.store.record import JournalDamaged

from .machine import Machine, numbered


@pytest.mark.parametrize("before_and_behind", [False, True])
def test_a_message_that_is_not_there(before_and_behind: bool) -> None:
    machine = Machine()
    client = machine.client()
    client.declare("q", durable=True)
    client.publish("q", *numbered(0, 10), delivery_mode=2)
    machine.settle()
    reader = machine.recovered.shelf._reader
    (segment,) = machine.journal.segments.all
    first = segment.lsns[0]
    assert [message.lsn for (message,) in reader.read((first, 1, first + 9, 1), numbered=True)] == [first, first + 9]
    for ranges in [(first - 1, 1), (first - 1, 2)] if before_and_behind else [(first + 10, 1), (first + 5, 20)]:
        machine.failures.clear()
        with pytest.raises(JournalDamaged, match="there is no message"):
            list(reader.read(ranges, numbered=True))
        assert machine.failures
