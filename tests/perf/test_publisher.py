"""How much a producer publishes and when, and whether its confirms add up."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rabbitish.perf.payload import Stamping
from rabbitish.perf.publisher import BATCH_BYTES, BATCH_MESSAGES, Publisher, Window
from rabbitish.perf.stats import Stats
from rabbitish.wire import methods
from rabbitish.wire.frames import content_frames
from tests.perf.support import SECOND, frames, plan, said, welcome


def publisher(stats: Stats | None = None, stamping: Stamping | None = None, **options: object) -> Publisher:
    """A producer that has been let in and told to begin at 0."""
    made = Publisher(plan(queue="q", **options), 0, ["q"], stats or Stats(), stamping or Stamping())
    sent = welcome(made)
    if options.get("confirm"):
        assert sent[-1] == methods.ConfirmSelect()
        made.receive(methods.ConfirmSelectOk().frame(1), 0)
    assert made.ready
    assert made.take(0) == b""
    assert made.due(0) is None
    made.begin(0)
    return made


def published(peer: Publisher, now: int = 0) -> int:
    """How many messages it sends at `now`."""
    return len(said(peer.take(now)))


def ack(tag: int, multiple: bool = False) -> bytes:
    return methods.BasicAck(tag, multiple).frame(1)


# --- How many ---------------------------------------------------------------------------------------------------------


def test_a_batch_is_bounded() -> None:
    assert published(publisher()) == BATCH_MESSAGES
    large = publisher(size=1024)
    data = large.take(0)
    assert BATCH_BYTES - 2048 < len(data) <= BATCH_BYTES
    assert published(publisher(size=10 * BATCH_BYTES)) == 1


def test_messages_carry_the_key_the_exchange_and_the_time() -> None:
    peer = publisher(exchange="e", mandatory=True, pmessages=1, stamping=Stamping(10, 5))
    method, _, content = frames(peer.take(1000))
    assert methods.decode_method(method[2]) == methods.BasicPublish(exchange="e", routing_key="q", mandatory=True)
    assert content[2][4:12] == (100).to_bytes(8, "big")


def test_without_an_end() -> None:
    peer = publisher()
    for _ in range(3):
        assert peer.due(0) == 0
        assert published(peer) == BATCH_MESSAGES
    assert not peer.done
    peer.halted = True
    assert (published(peer), peer.due(0), peer.done) == (0, None, True)


def test_a_limit() -> None:
    stats = Stats()
    peer = publisher(stats, pmessages=BATCH_MESSAGES + 1)
    assert published(peer, 5) == BATCH_MESSAGES
    assert not peer.done
    assert published(peer, 7) == 1
    assert (published(peer, 9), peer.due(9), peer.done) == (0, None, True)
    assert (stats.published, stats.last_published) == (BATCH_MESSAGES + 1, 7)


def test_nothing_after_a_goodbye() -> None:
    peer = publisher()
    peer.close()
    (close,) = said(peer.take(0))
    assert isinstance(close, methods.ConnectionClose)
    assert peer.due(0) is None


# --- Rates ------------------------------------------------------------------------------------------------------------


def test_a_rate() -> None:
    peer = publisher(rate=10)
    assert [published(peer, tenth * SECOND // 20) for tenth in range(7)] == [1, 0, 1, 0, 1, 0, 1]


def test_when_the_next_message_is_due() -> None:
    peer = publisher(rate=10)
    assert peer.due(0) == 0
    assert published(peer, 0) == 1
    due = peer.due(0)
    assert due is not None and SECOND // 10 <= due <= SECOND // 10 + 2
    assert published(peer, due - 3) == 0
    assert published(peer, due) == 1


def test_what_was_missed_is_made_up_for_but_no_more_than_a_second() -> None:
    peer = publisher(rate=10)
    assert published(peer, 0) == 1
    assert published(peer, SECOND // 2) == 5
    assert published(peer, 60 * SECOND) == 11
    assert published(peer, 60 * SECOND) == 0
    assert published(peer, 60 * SECOND + SECOND // 10 + 1) == 1


def test_a_rate_below_one() -> None:
    peer = publisher(rate=0.5)
    assert [published(peer, second * SECOND) for second in range(5)] == [1, 0, 1, 0, 1]
    assert [published(peer, second * SECOND) for second in (100, 101, 102, 103)] == [1, 1, 0, 1]


def test_a_rate_and_a_limit() -> None:
    peer = publisher(rate=10, pmessages=1)
    assert published(peer, 0) == 1
    assert peer.due(0) is None
    assert peer.done


# --- Confirms ---------------------------------------------------------------------------------------------------------


def test_a_window() -> None:
    stats = Stats()
    peer = publisher(stats, confirm=3)
    assert published(peer, 0) == 3
    assert (published(peer, 0), peer.due(0)) == (0, None)
    peer.receive(ack(1), 10)
    assert (published(peer, 10), stats.confirmed) == (1, 1)
    peer.receive(ack(4, multiple=True), 30)
    assert (published(peer, 30), stats.confirmed, stats.nacked) == (3, 4, 0)
    assert stats.last_published == 30
    histogram = stats.confirm_latency
    assert (histogram.count, histogram.lowest, histogram.highest) == (4, 10, 30)


def test_done_when_all_is_confirmed() -> None:
    peer = publisher(confirm=10, pmessages=2)
    assert published(peer) == 2
    peer.receive(ack(2), 0)
    assert not peer.done
    peer.receive(ack(1), 0)
    assert peer.done


def test_halted_it_is_done_when_all_is_confirmed() -> None:
    peer = publisher(confirm=1)
    assert published(peer) == 1
    peer.halted = True
    assert not peer.done
    peer.receive(ack(1), 0)
    assert peer.done


def test_refusals_are_counted_apart() -> None:
    stats = Stats()
    peer = publisher(stats, confirm=5)
    assert published(peer) == 5
    peer.receive(ack(1) + methods.BasicNack(3, True, False).frame(1) + ack(5, multiple=True), 0)
    assert (stats.confirmed, stats.nacked) == (3, 2)


def test_what_comes_between_confirms() -> None:
    stats = Stats()
    peer = publisher(stats, confirm=4, mandatory=True)
    assert published(peer) == 4
    returned = methods.BasicReturn(312, "NO_ROUTE", "direct", "q").frame(1)
    returned += content_frames(1, 60, b"\0\0", b"x" * 12, 4096)
    data = ack(1) + returned + ack(2) + methods.ConnectionBlocked("low").frame(0) + returned + ack(4, multiple=True)
    for start in range(0, len(data), 7):
        peer.receive(data[start : start + 7], 0)
    assert (stats.confirmed, stats.returned, peer.blocked) == (4, 2, True)


class Exact:
    """A window that remembers each publish."""

    def __init__(self) -> None:
        self.open: set[int] = set()
        self.sent = 0

    def publish(self, count: int) -> None:
        self.open.update(range(self.sent + 1, self.sent + count + 1))
        self.sent += count

    def confirm(self, tag: int, multiple: bool) -> int:
        hit = {each for each in self.open if each == tag or (multiple and (tag == 0 or each < tag))}
        self.open -= hit
        return len(hit)


STEPS = st.lists(
    st.tuples(st.just("publish"), st.integers(1, 5), st.booleans())
    | st.tuples(st.just("confirm"), st.integers(0, 20), st.booleans())
)


@given(STEPS)
def test_windows_count_exactly(steps: list[tuple[str, int, bool]]) -> None:
    window, exact = Window(), Exact()
    told: list[tuple[int, int]] = []
    for now, (what, number, multiple) in enumerate(steps):
        if what == "publish":
            window.publish(number, now)
            exact.publish(number)
            continue
        before = window.low
        if multiple or number:
            assert window.confirm(number, multiple) == exact.confirm(number, multiple)
        told += window.settled(before)
    assert window.outstanding == len(exact.open)
    assert window.low == min(exact.open, default=exact.sent + 1) - 1
    sent_at = [now for now, (what, number, _) in enumerate(steps) if what == "publish" for _ in range(number)]
    assert [now for now, times in told for _ in range(times)] == sent_at[: window.low]


@pytest.mark.parametrize("number", [0, 1, 2, 3])
def test_producers_take_queues_in_turn(number: int) -> None:
    made = plan(queue_pattern="q%d", queue_pattern_to=3, pmessages=1)
    peer = Publisher(made, number, ["q1", "q2", "q3"], Stats(), Stamping())
    welcome(peer)
    peer.begin(0)
    (publish,) = said(peer.take(0))
    assert isinstance(publish, methods.BasicPublish)
    assert publish.routing_key == f"q{number % 3 + 1}"
