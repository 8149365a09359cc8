"""The middle of long queues on a shelf: what stays in memory, when pages are read, and what becomes of them.

The models (test_lane.py, test_queue_model.py) and the simulation go through everything else with pages all the time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from itertools import pairwise

import pytest

from rabbitish.core.changes import Reason
from rabbitish.core.holdings import MESSAGE_OVERHEAD_BYTES
from rabbitish.core.lane import Lane
from rabbitish.core.paging import PAGE_OVERHEAD_BYTES

from .fakes import PlainMessage, World, bodies
from .shelf import PAGE, Broken, MemoryShelf

COST = MESSAGE_OVERHEAD_BYTES + 1  # of a message of one letter


def message(body: str, deadline: int | None = None) -> PlainMessage:
    made = PlainMessage(body)
    made.deadline = deadline
    return made


def lane_of(texts: Iterable[str], shelf: MemoryShelf | None = None, keep: int = 1) -> Lane:
    """A lane of these messages, put away where there is a shelf."""
    lane = Lane()
    for body in texts:
        lane.append(message(body))
    lane.check()
    if shelf is not None:
        lane.put_away(shelf, keep, 1, recorded=True)
    return lane


def taken(lane: Lane, count: int) -> str:
    """Take so many messages."""
    found = "".join(bodies([lane.take()[1] for _ in range(count)]))
    if not lane.pages:  # a check reads them, and reading is counted
        lane.check()
    return found


# ---- a lane


def test_a_page_is_read_when_all_before_it_was_taken_and_let_go_then() -> None:
    shelf = MemoryShelf()
    lane = lane_of("abcdefgh", shelf, keep=2)
    assert (bodies(lane.fresh), lane.pages.messages, len(lane.pages)) == (["a", "b"], 6, 2)
    assert shelf.counts == {"asked": 1, "put away": 6}
    assert taken(lane, 1) == "a"
    assert shelf.counts["loaded"] == 0
    assert taken(lane, 1) == "b"
    assert (shelf.counts["loaded"], shelf.counts["let go"], bodies(lane.fresh)) == (1, 1, ["c", "d", "e"])
    assert taken(lane, 6) == "cdefgh"
    assert (shelf.counts["loaded"], shelf.counts["let go"], shelf.there) == (2, 2, set())
    assert (len(lane), lane.last is lane.fresh) == (0, True)


def test_what_is_at_hand_is_taken_at_once() -> None:
    shelf = MemoryShelf()
    lane = lane_of("abcdefg", shelf, keep=1)
    found = []
    while len(lane):
        first, messages = lane.take_fresh(100)
        found.append((first, "".join(bodies(messages))))
    assert found == [(0, "a"), (1, "bcd"), (4, "efg")]


def test_what_comes_later_is_behind_the_pages() -> None:
    shelf = MemoryShelf()
    lane = lane_of("abcd", shelf)
    for body in "efgh":
        lane.last.append(message(body))
    assert bodies(lane) == list("abcdefgh")
    lane.put_away(shelf, 2, 1, recorded=True)  # of these none is wanted soon
    assert (bodies(lane.fresh), list(lane.last), lane.pages.messages) == (["a"], [], 7)
    lane.last.append(message("i"))
    assert taken(lane, 9) == "abcdefghi"


def test_too_few_are_not_worth_it() -> None:
    shelf = MemoryShelf()
    lane = lane_of("abcdef")
    lane.put_away(shelf, 3, 4, recorded=True)
    assert (lane.pages.messages, shelf.counts) == (0, Counter())
    lane.put_away(shelf, 3, 3, recorded=True)
    assert lane.pages.messages == 3
    lane.last.extend(map(message, "ghi"))
    lane.put_away(shelf, 3, 4, recorded=True)
    assert lane.pages.messages == 3
    lane.put_away(shelf, 3, 3, recorded=True)
    assert lane.pages.messages == 6


def test_the_first_message_always_stays() -> None:
    """However little is to be kept: one of many megabytes is more than the window alone."""
    shelf = MemoryShelf()
    lane = lane_of("abc", shelf, keep=0)
    assert (bodies(lane.fresh), lane.pages.messages) == (["a"], 2)
    assert taken(lane, 3) == "abc"


def test_as_much_as_the_shelf_takes() -> None:
    shelf = MemoryShelf(room=0)
    lane = lane_of("abcdef", shelf)
    assert (lane.pages.messages, lane.last is lane.fresh) == (0, True)
    shelf.room = 3
    lane.put_away(shelf, 1, 1, recorded=True)
    assert (bodies(lane.fresh), lane.pages.messages, bodies(lane.last)) == (["a"], 3, ["e", "f"])
    assert taken(lane, 6) == "abcdef"


def test_what_was_put_away_and_read_is_put_away_again() -> None:
    shelf = MemoryShelf()
    lane = lane_of("abcd", shelf)
    assert taken(lane, 1) == "a"
    assert bodies(lane.fresh) == ["b", "c", "d"]
    lane.put_away(shelf, 1, 1, recorded=True)
    assert (bodies(lane.fresh), lane.pages.messages) == (["b"], 2)
    assert taken(lane, 3) == "bcd"


def test_deadlines_in_order_are_put_away_and_expire_from_there() -> None:
    shelf = MemoryShelf()
    lane = Lane()
    for number in range(10):
        lane.append(message(str(number), 10 * number))
    lane.put_away(shelf, 2, 1, recorded=True)
    assert lane.pages.messages == 8
    expired = []
    for before in (25, 26, 91, 200):
        while (one := lane.take_expired(before)) is not None:
            lane.check()
            expired += bodies([one])
        if before < 90:
            assert (len(expired), lane.next_deadline()) == (3, 30)
    assert expired == list("0123456789")


def test_what_has_a_deadline_out_of_order_is_put_away_and_expires_from_there() -> None:
    shelf = MemoryShelf()
    lane = Lane()
    for number, deadline in enumerate((50, 60, 20, None, 80, 20, 55)):
        lane.append(message(str(number), deadline))
    lane.put_away(shelf, 1, 1, recorded=True)
    assert (bodies(lane.fresh), lane.pages.messages, lane._late) == (["0"], 6, [])
    for expected, deadline in (("2", 20), ("5", 20), ("0", 50), ("6", 55)):
        assert lane.next_deadline() == deadline
        assert lane.take_expired(deadline) is None
        one = lane.take_expired(deadline + 1)
        assert one is not None
        assert bodies([one]) == [expected]
        lane.check()
    assert shelf.counts["taken"] == 3
    assert len(lane) == 3
    assert taken(lane, 3) == "134"


def test_what_was_read_back_expires_out_of_order_as_well() -> None:
    shelf = MemoryShelf()
    lane = Lane()
    for number, deadline in enumerate((50, 70, 60, 30, 80, 75)):
        lane.append(message(str(number), deadline))
    lane.put_away(shelf, 1, 1, recorded=True)
    assert taken(lane, 1) == "0"
    assert (bodies(lane.fresh), lane.pages.messages) == (["1", "2", "3"], 2)
    expired = []
    while (one := lane.take_expired(100)) is not None:
        expired += bodies([one])
        lane.check()
    assert expired == list("32154")
    assert shelf.there == set()


def test_what_came_after_pages_that_expired_moves_up() -> None:
    shelf = MemoryShelf()
    lane = Lane()
    lane.append(message("a"))
    for body in "bcdef":
        lane.append(message(body, 10))
    lane.put_away(shelf, 1, 1, recorded=True)
    for body, deadline in zip("ghij", (50, 40, 30, 60), strict=True):
        lane.append(message(body, deadline))
    assert lane.take_expired(31) is not None
    assert len(lane.pages) == 2
    for _ in range(5):
        while lane.take_expired(31) is not None:
            lane.check()
    assert (len(lane.pages), shelf.there, bodies(lane.fresh)) == (0, set(), list("aghij"))
    lane.append(message("k", 35))
    expired = []
    while (one := lane.take_expired(100)) is not None:
        expired += bodies([one])
        lane.check()
    assert expired == list("khgj")
    assert taken(lane, 1) == "a"


def test_a_page_whose_message_cannot_be_read_keeps_it() -> None:
    shelf = MemoryShelf()
    lane = Lane()
    for number, deadline in enumerate((None, 70, 60)):
        lane.append(message(str(number), deadline))
    lane.put_away(shelf, 1, 1, recorded=True)
    shelf.broken = True
    with pytest.raises(Broken):
        lane.take_expired(61)
    shelf.broken = False
    lane.check()
    assert (len(lane), lane.next_deadline()) == (3, 60)


def test_paging_goes_on_behind_a_deadline_out_of_order() -> None:
    shelf = MemoryShelf()
    lane = Lane()
    for body, deadline in zip("abcdefgh", (10, 20, 30, 5, 40, 50, 60, 70), strict=True):
        if body == "d":
            lane.put_away(shelf, 1, 1, recorded=True)
        lane.append(message(body, deadline))
    lane.put_away(shelf, 1, 1, recorded=True)
    assert (bodies(lane.fresh), lane.pages.messages, bodies(lane.last)) == (["a"], 7, [])
    one = lane.take_expired(6)
    assert one is not None and bodies([one]) == ["d"]
    assert taken(lane, 1) == "a"
    lane.put_away(shelf, 1, 1, recorded=True)
    lane.check()
    assert bodies(lane) == list("bcefgh")
    assert taken(lane, 6) == "bcefgh"


def test_pages_that_were_read_are_not_kept_until_what_was_in_them_would_expire() -> None:
    shelf = MemoryShelf()
    lane = Lane()
    for number in range(2000):
        lane.append(message("x", 10_000 - number))
        lane.put_away(shelf, 1, 1, recorded=True)
        if number > 50:
            lane.take()
    assert len(lane.pages._moments) < 200


def test_to_clear_a_lane_is_to_get_its_pages_unread() -> None:
    shelf = MemoryShelf()
    lane = lane_of("abcde", shelf)
    lane.last.extend([message("f")])
    rest = lane.empty()
    messages, pages = rest.in_memory(), rest.pages
    assert (bodies(messages), [page.count for page in pages], shelf.counts["loaded"]) == (["a", "f"], [3, 1], 0)
    assert (len(lane), lane.pages, lane.pages.messages, lane.pages.bytes) == (0, type(lane.pages)(), 0, 0)
    lane.append(message("g"))
    assert lane.take()[0] == 6


def test_restored_pages_come_after_what_was_handed_out() -> None:
    shelf = MemoryShelf()
    lane = Lane()
    for number, body in enumerate("ab"):
        lane.restore(message(body), number)
    for page in shelf.put_away(map(message, "cdefgh")):
        lane.restore_page(page)
    assert shelf.counts["loaded"] == 1  # of what there is nothing before
    lane.check()
    assert (bodies(lane), len(lane)) == (list("abcdefgh"), 8)
    assert [lane.take()[0::2] for _ in range(4)] == [(0, 0), (1, 1), (2, 0), (3, 0)]
    assert taken(lane, 4) == "efgh"
    assert shelf.there == set()


def test_restored_pages_stay_in_order_behind_one_whose_deadlines_are_not() -> None:
    shelf = MemoryShelf()
    lane = Lane()
    groups = [("a", None), ("b", None), ("c", 50), ("d", None), ("e", 60), ("f", 40)]
    for body, deadline in groups:
        (page,) = shelf.put_away([message(body, deadline)])
        lane.restore_page(page)
        lane.check()
    assert bodies(lane) == list("abcdef")
    expired = []
    while (one := lane.take_expired(100)) is not None:
        expired += bodies([one])
        lane.check()
    assert (expired, taken(lane, 3)) == (["f", "c", "e"], "abd")


def test_a_page_that_cannot_be_read_stays_where_it_is() -> None:
    """Whoever keeps it has told the server to stop; nothing that is done until then may make it worse."""
    shelf = MemoryShelf()
    lane = lane_of("abcde", shelf)
    shelf.broken = True
    with pytest.raises(Broken):
        lane.take()
    assert (lane.pages.messages, len(lane.pages), len(shelf.there), len(lane)) == (4, 2, 2, 4)


# ---- a queue


def costs(world: World, name: str = "q") -> tuple[int, int]:
    """Messages and pages in memory, by the queue's books, which all messages of one letter are in."""
    queue = world.vhost.queues[name]
    pages = sum(len(lane.pages) for lane in queue.lanes.values())
    used = world.broker.usage.bytes - pages * PAGE_OVERHEAD_BYTES
    assert used % COST == 0
    return used // COST, pages


def test_a_queue_within_its_window_puts_nothing_away() -> None:
    world = World(window_bytes=10 * COST)
    world.queue()
    world.publish_all("abcdefghij")
    assert world.shelf.counts == Counter()
    world.publish("k")
    assert costs(world) == (5, 2)
    assert world.ready() == "abcdefghijk"
    assert world.get_all(no_ack=True) == "abcdefghijk"
    assert (world.broker.usage.bytes, world.shelf.there) == (0, set())


def test_memory_stays_bounded_however_many_there_are() -> None:
    world = World(window_bytes=20 * COST)
    queue = world.queue()
    most = 0
    for _ in range(300):
        world.publish("x")
        most = max(most, costs(world)[0])
    assert most <= 21
    assert queue.ready == 300
    for _ in range(300):
        world.get(no_ack=True)
        assert costs(world)[0] <= 21
    assert world.shelf.counts["loaded"] >= 280 // PAGE


def test_very_many_are_put_away_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that no settle takes long: a window that is narrowed may make very many too many."""
    monkeypatch.setattr("rabbitish.core.lane.PUT_AWAY_AT_ONCE", 2 * PAGE)
    world = World(window_bytes=1000 * COST)
    queue = world.queue()
    world.publish_all("x" * 100)
    world.broker.narrow_windows(20 * COST)
    settles, in_memory = 0, [costs(world)[0]]
    while world.broker.restless:
        world.broker.settle(world.now)
        settles += 1
        in_memory.append(costs(world)[0])
    assert all(before - after <= 2 * PAGE for before, after in pairwise(in_memory))
    assert settles > 10 and in_memory[-1] <= 20
    assert queue.ready == 100
    queue.check()


def test_it_is_not_tried_again_and_again() -> None:
    """While the shelf takes nothing, only when so much more has come that it may be worth it."""
    world = World(window_bytes=80 * COST)
    world.queue()
    world.shelf.room = 0
    world.publish_all("x" * 100)
    for _ in range(100):
        world.publish("x")
    assert 9 <= world.shelf.counts["asked"] <= 12
    world.shelf.room = 1 << 30
    world.publish_all("x" * 10)
    assert costs(world)[0] <= 81


def test_a_time_when_nothing_could_be_put_away_is_forgotten_with_what_was_there() -> None:
    world = World(window_bytes=10 * COST)
    world.queue()
    world.shelf.room = 0
    world.publish_all("x" * 1000)
    assert costs(world) == (1000, 0)
    world.vhost.queues["q"].purge()
    world.settle()
    world.shelf.room = 1 << 30
    for _ in range(20):
        world.publish("x")
    assert costs(world)[0] <= 11


def test_restored_pages_are_no_memory() -> None:
    world = World(window_bytes=1 << 20)
    queue = world.queue()
    for page in world.shelf.put_away(map(PlainMessage, "abcdefgh")):
        queue.restore_page(queue.lanes[0], page)
    world.settle()
    assert costs(world) == (3, 2)
    assert (queue.ready, queue.ready_bytes, world.ready()) == (8, 8, "abcdefgh")


def test_unacknowledged_messages_stay_in_memory() -> None:
    world = World(window_bytes=5 * COST)
    world.queue()
    world.publish_all("abcdefgh")
    consumer = world.consume()
    assert (costs(world), consumer.got) == ((8, 0), list("abcdefgh"))
    world.requeue_by(consumer)
    assert consumer.redelivered == list("abcdefgh")


def test_large_messages() -> None:
    """Each is more than the window: one is kept."""
    world = World(window_bytes=1000)
    world.queue()
    for body in "abcd":
        world.publish(body, size=5000)
    assert world.broker.usage.bytes == 5000 + MESSAGE_OVERHEAD_BYTES + PAGE_OVERHEAD_BYTES * len(world.shelf.there)
    assert world.get_all() == "abcd"
    world.requeue("a", "b", "c", "d")
    assert world.ready() == "abcd"


def test_priorities_each_have_pages_of_their_own() -> None:
    world = World(window_bytes=COST)
    queue = world.queue(max_priority=2)
    for number in range(30):
        world.publish(chr(97 + number), priority=number % 3)
    assert all(lane.pages for lane in queue.lanes.values())
    world.publish("!", priority=2)
    expected = [*range(2, 30, 3), -64, *range(1, 30, 3), *range(0, 30, 3)]
    assert world.get_all() == "".join(chr(97 + number) for number in expected)


def test_a_purge_reads_nothing() -> None:
    world = World(window_bytes=2 * COST)
    queue = world.queue()
    world.publish_all("abcdefgh")
    world.publish("i", persistent=False)
    world.publish("j", persistent=False)
    assert {bool(page.ranges) for page in world.shelf.there} == {True, False}
    assert world.get() is not None
    world.shelf.broken = True
    assert queue.purge() == 9
    world.settle()
    assert world.shelf.there == set()
    assert world.ledger.left == {Reason.PURGED: 7}
    assert (queue.ready, queue.unacked, costs(world)) == (0, 1, (1, 0))
    world.requeue("a")
    assert world.ready() == "a"


def test_a_deleted_queue_lets_its_pages_go() -> None:
    world = World(window_bytes=2 * COST)
    world.queue()
    world.publish_all("abcdefgh")
    assert world.shelf.there
    world.shelf.broken = True
    assert world.delete() == 8
    assert (world.shelf.there, world.broker.usage.bytes) == (set(), 0)
    assert world.ledger.left == Counter()  # they went with their queue


def test_a_number_of_another_queue_is_no_number_here() -> None:
    """The journal forgets a message when it has left the durable queues that it went to, and not these."""
    world = World(window_bytes=2 * COST)
    transient = world.queue("transient", durable=False)
    world.queue("durable")
    for name in ("transient", "durable"):
        world.bind("amq.fanout", name)
    for body in "abcdefgh":
        world.publish(body, exchange="amq.fanout")
    pages = {name: set(world.vhost.queues[name].lanes[0].pages) for name in ("transient", "durable")}
    assert {name: {bool(page.ranges) for page in some} for name, some in pages.items()} == {
        "transient": {False},
        "durable": {True},
    }
    assert world.get_all("durable", no_ack=True) == "abcdefgh"
    assert world.get_all("transient", no_ack=True) == "abcdefgh"
    world.publish_all("abcdefgh", "transient")
    assert transient.purge() == 8


def test_max_length_drops_from_pages() -> None:
    world = World(window_bytes=2 * COST)
    world.queue("dead")
    world.queue(max_length=6, dead_letter_exchange="", dead_letter_routing_key="dead")
    for body in "abcdefghijklmnop":
        world.publish(body)
        world.vhost.queues["q"].check()
    assert (world.ready(), world.ready("dead")) == ("klmnop", "abcdefghij")
    with world.batch():
        for body in "ABCDEFGHIJ":
            world.publish(body)
    assert (world.ready(), world.ready("dead")) == ("EFGHIJ", "abcdefghijklmnopABCD")


def test_whole_pages_expire_at_once() -> None:
    world = World(window_bytes=2 * COST)
    world.queue("dead")
    world.queue(message_ttl=100, dead_letter_exchange="", dead_letter_routing_key="dead")
    for body in "abcdefgh":
        world.publish(body)
        world.wait(1)
    assert world.vhost.queues["q"].lanes[0].pages
    world.wait(95)
    assert (world.ready(), world.ready("dead")) == ("efgh", "abcd")
    world.jump(1000)
    assert (world.ready(), world.ready("dead")) == ("", "abcdefgh")


def test_a_consumer_gets_everything_in_order_while_more_comes() -> None:
    world = World(window_bytes=3 * COST)
    world.queue()
    texts = [chr(100 + number) for number in range(200)]
    world.publish_all(texts[:100])
    consumer = world.consume(prefetch=7)
    for body in texts[100:]:
        world.publish(body)
        world.ack_by(consumer, 2)
    while consumer.held:
        world.ack_by(consumer)
    assert consumer.got == texts
    assert (world.broker.usage.bytes, world.shelf.there) == (0, set())
