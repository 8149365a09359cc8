"""Dead letters: what is written on them, where they go, and where they may not go again."""

from __future__ import annotations

import pytest

from rabbitish.core.deadletter import dead_letter, is_cycle
from rabbitish.core.message import Address
from rabbitish.values import Int64, Table, Timestamp, Value

from .fakes import START, Held, PlainMessage, World

SECONDS = START // 1000


def death(queue: str = "q", reason: str = "expired", count: int | None = 1, **more: Value) -> Table:
    """An entry of x-death."""
    return {"queue": queue, "reason": reason, **({} if count is None else {"count": Int64(count)}), **more}


def fetched(world: World, name: str = "dead") -> Held:
    """The next message of a queue."""
    held = world.get(name, no_ack=True)
    assert held is not None
    return held


def deaths(table: Table) -> list[Table]:
    """The entries of x-death."""
    entries = table["x-death"]
    assert isinstance(entries, list)
    found = []
    for entry in entries:
        assert isinstance(entry, dict)
        found.append(entry)
    return found


def tally(table: Table) -> list[tuple[Value, Value, Value]]:
    """Queue, reason and count of each entry of x-death."""
    return [(entry["queue"], entry["reason"], entry.get("count")) for entry in deaths(table)]


def die(message: PlainMessage, queue: str = "q", reason: str = "expired", now: int = START) -> PlainMessage:
    """The dead letter of a message, by the exchange "x" with its own key."""
    dead = dead_letter(message, queue, reason, "x", None, now)
    assert isinstance(dead, PlainMessage)
    return dead


# ---- what is written


def test_the_first_death() -> None:
    message = PlainMessage("a", address=Address("e", "k"), headers={"mine": 1})
    headers = die(message).headers()
    assert deaths(headers) == [
        {
            "count": 1,
            "reason": "expired",
            "queue": "q",
            "time": SECONDS,
            "exchange": "e",
            "routing-keys": ["k"],
        }
    ]
    (entry,) = deaths(headers)
    assert list(entry) == ["count", "reason", "queue", "time", "exchange", "routing-keys"]
    assert (type(entry["count"]), type(entry["time"])) == (Int64, Timestamp)
    assert {key: value for key, value in headers.items() if key != "x-death"} == {
        "mine": 1,
        "x-first-death-exchange": "e",
        "x-first-death-queue": "q",
        "x-first-death-reason": "expired",
        "x-last-death-exchange": "e",
        "x-last-death-queue": "q",
        "x-last-death-reason": "expired",
    }
    assert list(headers) == sorted(headers)
    assert message.headers() == {"mine": 1}


def test_another_queue_comes_before() -> None:
    first = die(PlainMessage("a", address=Address("e", "k")))
    headers = die(first, "q2", "maxlen", START + 5000).headers()
    assert tally(headers) == [("q2", "maxlen", 1), ("q", "expired", 1)]
    newest, _ = deaths(headers)
    assert (newest["time"], newest["exchange"], newest["routing-keys"]) == (SECONDS + 5, "x", ["k"])
    assert list(newest) == sorted(newest)
    assert [headers[f"x-first-death-{what}"] for what in ("queue", "reason", "exchange")] == ["q", "expired", "e"]
    assert [headers[f"x-last-death-{what}"] for what in ("queue", "reason", "exchange")] == ["q2", "maxlen", "x"]


def test_the_same_queue_and_reason_is_counted_and_comes_to_the_front() -> None:
    message = PlainMessage("a", address=Address("e", "k"))
    for queue in ("q", "r", "q", "q", "r", "q"):
        message = die(message, queue, "rejected", START + 9000)
    assert tally(message.headers()) == [("q", "rejected", 4), ("r", "rejected", 2)]
    first = deaths(message.headers())[0]
    assert (first["exchange"], first["routing-keys"]) == ("e", ["k"])  # still of the first time
    assert list(first) == sorted(first)


def test_another_reason_in_the_same_queue_is_another_entry() -> None:
    message = PlainMessage("a")
    for reason in ("rejected", "expired", "maxlen", "delivery_limit", "expired"):
        message = die(message, "q", reason)
    assert tally(message.headers()) == [
        ("q", "expired", 2),
        ("q", "delivery_limit", 1),
        ("q", "maxlen", 1),
        ("q", "rejected", 1),
    ]


def test_the_time_of_an_entry_is_that_of_its_first() -> None:
    message = die(PlainMessage("a"), now=START)
    message = die(message, now=START + 60_000)
    assert deaths(message.headers())[0]["time"] == SECONDS


def test_the_expiration_is_taken_off_and_noted() -> None:
    dead = die(PlainMessage("a", expiration=500))
    assert deaths(dead.headers())[0]["original-expiration"] == "500"
    assert (dead.expiration(), dead.traits.expiration_ms, dead.deadline) == (None, None, None)
    assert "original-expiration" not in deaths(die(dead, "r").headers())[0]


def test_other_traits_stay() -> None:
    dead = die(PlainMessage("a", priority=7, persistent=True, expiration=1, size=33))
    assert (dead.traits.priority, dead.traits.persistent, dead.size, dead.body) == (7, True, 33, "a")


@pytest.mark.parametrize("key", [None, "k2"])
def test_the_keys_of_cc_are_told_and_go_with_a_key_of_the_queues_own(key: str | None) -> None:
    message = PlainMessage("a", address=Address("e", "k", ("c1", "c2", "b")), headers={"CC": ["c1", "c2"]})
    dead = dead_letter(message, "q", "rejected", "x", key, START)
    assert deaths(dead.headers())[0]["routing-keys"] == ["k", "c1", "c2"]  # but none of BCC
    assert dead.address.exchange == "x"
    if key is None:
        assert dead.address.routing_keys == ("k", "c1", "c2", "b")
        assert dead.headers()["CC"] == ["c1", "c2"]
    else:
        assert dead.address.routing_keys == ("k2",)
        assert "CC" not in dead.headers()


@pytest.mark.parametrize("cc", ["c1", None, 5, {"a": 1}])
def test_a_cc_that_is_no_list_tells_no_keys(cc: Value) -> None:
    message = PlainMessage("a", address=Address("e", "k"), headers={"CC": cc})
    assert deaths(die(message).headers())[0]["routing-keys"] == ["k"]
    mixed = PlainMessage("a", address=Address("e", "k"), headers={"CC": ["c1", 5, None]})
    assert deaths(die(mixed).headers())[0]["routing-keys"] == ["k", "c1"]


# ---- what a client has written there itself


@pytest.mark.parametrize("written", ["text", 5, None, {"queue": "q"}])
def test_an_x_death_that_is_no_list_is_replaced(written: Value) -> None:
    headers = die(PlainMessage("a", headers={"x-death": written})).headers()
    assert tally(headers) == [("q", "expired", 1)]
    assert "x-first-death-queue" not in headers  # since it did not come without
    assert headers["x-last-death-queue"] == "q"


def test_entries_that_are_no_tables_are_dropped() -> None:
    headers = die(PlainMessage("a", headers={"x-death": ["text", death("r"), 5, [death("s")]]})).headers()
    assert tally(headers) == [("q", "expired", 1), ("r", "expired", 1)]


def test_repeated_entries_are_folded_and_counted() -> None:
    """As RabbitMQ before 3.5.2 wrote them: an entry a death, without a count."""
    written: list[Value] = [death(queue, count=None) for queue in ("q", "r", "q", "q")]
    headers = die(PlainMessage("a", headers={"x-death": written})).headers()
    assert tally(headers) == [("q", "expired", 4), ("r", "expired", 1)]


def test_repeated_entries_with_counts_keep_the_first() -> None:
    written: list[Value] = [death("q", count=7), death("r", count=2), death("q", count=3)]
    headers = die(PlainMessage("a", headers={"x-death": written})).headers()
    assert tally(headers) == [("q", "expired", 8), ("r", "expired", 2)]


@pytest.mark.parametrize("count", ["many", None, [], 3.5])
def test_a_count_that_is_no_number_begins_anew(count: Value) -> None:
    written: list[Value] = [{"queue": "q", "reason": "expired", "count": count}]
    assert tally(die(PlainMessage("a", headers={"x-death": written})).headers()) == [("q", "expired", 1)]


def test_what_a_client_wrote_about_first_and_last_deaths() -> None:
    written: Table = {"x-first-death-queue": "mine", "x-last-death-queue": "mine"}
    headers = die(PlainMessage("a", headers=written)).headers()
    assert (headers["x-first-death-queue"], headers["x-last-death-queue"]) == ("q", "q")
    written["x-death"] = [death("r")]
    headers = die(PlainMessage("a", headers=written)).headers()
    assert (headers["x-first-death-queue"], headers["x-last-death-queue"]) == ("mine", "q")


# ---- cycles


@pytest.mark.parametrize(
    ("entries", "reason", "cut"),
    [
        ([], "expired", False),
        ([death("q")], "expired", True),
        ([death("q")], "maxlen", True),
        ([death("q")], "delivery_limit", True),
        ([death("q")], "rejected", False),
        ([death("r")], "expired", False),
        ([death("r"), death("s"), death("q")], "expired", True),
        ([death("r", "rejected"), death("q")], "expired", False),
        ([death("q", "rejected")], "expired", False),
        ([death("q"), death("r", "rejected")], "expired", True),  # the rejection is older than the cycle
        ([death("r"), "text", death("q")], "expired", False),
        ([{"reason": "expired"}, death("q")], "expired", True),
        ([death("q", "maxlen"), death("q", "rejected")], "maxlen", True),
    ],
)
def test_cycles(entries: list[Value], reason: str, cut: bool) -> None:
    assert is_cycle({"x-death": entries}, "q", reason) is cut


def test_no_deaths_no_cycle() -> None:
    assert not is_cycle({}, "q", "expired")
    assert not is_cycle({"x-death": "text"}, "q", "expired")


# ---- where they go


def ring(world: World, names: str, **arguments: int) -> None:
    """Queues each of which dead-letters to the next, the last to the first."""
    for name, following in zip(names, names[1:] + names[0], strict=True):
        world.queue(name, dead_letter_exchange="", dead_letter_routing_key=following, **arguments)


def test_by_their_own_key_to_an_exchange() -> None:
    world = World()
    world.exchange("dlx", "topic")
    for name, pattern in (("all", "#"), ("orders", "orders.*")):
        world.queue(name)
        world.bind("dlx", name, pattern)
    world.exchange("e", "fanout")
    world.queue("q", dead_letter_exchange="dlx", message_ttl=10)
    world.bind("e", "q")
    world.publish("a", "orders.new", exchange="e")
    world.publish("b", "other", exchange="e")
    world.wait(10)
    assert (world.ready("all"), world.ready("orders")) == ("ab", "a")
    held = fetched(world, "orders")
    assert (held.message.address.exchange, held.message.address.routing_key) == ("dlx", "orders.new")
    assert (held.returns, deaths(held.headers())[0]["exchange"]) == (0, "e")


def test_by_the_queues_key() -> None:
    world = World()
    world.exchange("dlx")
    for key in ("k", "q"):
        world.queue(f"dead-{key}")
        world.bind("dlx", f"dead-{key}", key)
    world.queue("q", dead_letter_exchange="dlx", dead_letter_routing_key="k", max_length=0)
    world.publish("a")
    assert (world.ready("dead-k"), world.ready("dead-q")) == ("a", "")


def test_by_the_keys_of_cc() -> None:
    world = World()
    world.exchange("dlx")
    for key in ("q", "c"):
        world.queue(key, dead_letter_exchange="dlx")
        world.queue(f"dead-{key}")
        world.bind("dlx", f"dead-{key}", key)
    world.publish("a", "q", cc=("c",))
    fetched(world, "c")
    world.get("q")
    world.reject("a")
    assert (world.ready("dead-q"), world.ready("dead-c")) == ("a", "a")


def test_a_dead_letter_exchange_that_is_not_there_yet() -> None:
    world = World()
    world.queue(dead_letter_exchange="dlx", max_length=1)
    world.queue("dead")
    world.publish_all("ab")
    world.exchange("dlx", "fanout")
    world.publish("c")
    world.bind("dlx", "dead")
    world.publish("d")
    assert (world.ready(), world.ready("dead")) == ("d", "c")
    world.vhost.delete_exchange("dlx", if_unused=False)
    world.publish("e")
    assert (world.ready(), world.ready("dead")) == ("e", "c")


def test_through_an_alternate_exchange() -> None:
    world = World()
    world.exchange("spare", "fanout")
    world.exchange("dlx", alternate_exchange="spare")
    world.queue("dead")
    world.bind("spare", "dead")
    world.queue(dead_letter_exchange="dlx", max_length=0)
    world.publish("a")
    assert world.ready("dead") == "a"


def test_all_four_reasons() -> None:
    world = World()
    world.queue("dead")
    world.queue(dead_letter_exchange="", dead_letter_routing_key="dead", max_length=2, delivery_limit=0)
    world.publish("a", expiration=10)
    world.wait(10)
    world.publish_all("bcd")
    assert world.get_all() == "cd"
    world.reject("c")
    world.requeue("d")
    found = [fetched(world) for _ in range(4)]
    assert [(held.body, held.headers()["x-first-death-reason"]) for held in found] == [
        ("a", "expired"),
        ("b", "maxlen"),
        ("c", "rejected"),
        ("d", "delivery_limit"),
    ]


def test_no_reason_to_die() -> None:
    """Acknowledged, purged, deleted, or gone with an idle queue: none of that is a death."""
    world = World()
    world.queue("dead")
    arguments = {"dead_letter_exchange": "", "dead_letter_routing_key": "dead"}
    queue = world.queue(**arguments)
    world.publish_all("abc")
    world.get()
    world.ack("a")
    world.get(no_ack=True)
    queue.purge()
    world.publish("d")
    world.delete()
    world.queue(expires=10, **arguments)
    world.publish("e")
    world.wait(10)
    assert world.ready("dead") == ""


def test_many_rejected_keep_their_order() -> None:
    world = World()
    world.queue("dead")
    world.queue(dead_letter_exchange="", dead_letter_routing_key="dead")
    consumer = world.consume()
    world.publish_all("abcdef")
    world.reject_by(consumer)
    assert world.ready("dead") == "abcdef"


def test_a_consumer_of_dead_letters_has_them_at_once() -> None:
    world = World()
    world.queue("dead")
    world.queue(dead_letter_exchange="", dead_letter_routing_key="dead", message_ttl=10)
    consumer = world.consume("dead")
    world.publish_all("ab")
    world.now += 10
    world.broker.settle(world.now)
    assert consumer.got == ["a", "b"]


def test_a_dead_letter_lives_by_the_rules_of_its_new_queue() -> None:
    world = World()
    world.queue("dead", message_ttl=50)
    world.queue(dead_letter_exchange="", dead_letter_routing_key="dead", message_ttl=10)
    world.publish("a", expiration=5)
    world.wait(54)
    assert world.ready("dead") == "a"
    world.wait(1)
    assert world.ready("dead") == ""


# ---- cycles in use


def test_delay_by_dead_letter() -> None:
    """What task libraries do: a queue nobody consumes, whose dead letters come back to where the work is."""
    world = World()
    world.queue("work")
    world.queue("delay", dead_letter_exchange="", dead_letter_routing_key="work")
    world.publish("b", "delay", expiration=2000)
    world.publish("a", "delay", expiration=1000)
    consumer = world.consume("work")
    world.wait(1000)
    assert consumer.got == ["a"]
    world.wait(1000)
    assert consumer.got == ["a", "b"]


def test_an_automatic_cycle_is_cut() -> None:
    world = World()
    ring(world, "abc", message_ttl=10)
    world.publish("m", "a")
    for name in "abc":
        assert world.ready(name) == "m"
        world.wait(10)
    assert [world.ready(name) for name in "abc"] == ["", "", ""]
    assert world.broker.usage.bytes == 0


def test_an_automatic_cycle_is_cut_within_one_moment() -> None:
    world = World()
    ring(world, "abcde", max_length=0)
    world.publish_all("mnop", "a")
    assert [world.ready(name) for name in "abcde"] == [""] * 5
    world.queue("own", dead_letter_exchange="", dead_letter_routing_key="own", max_length=0)
    world.publish("m", "own")
    assert world.ready("own") == ""


def test_a_cycle_with_a_rejection_goes_on() -> None:
    """Retry with delay: rejected by the worker, held for a while, tried again, without end."""
    world = World()
    world.queue("work", dead_letter_exchange="", dead_letter_routing_key="retry")
    world.queue("retry", dead_letter_exchange="", dead_letter_routing_key="work", message_ttl=10)
    consumer = world.consume("work", prefetch=1)
    world.publish("m", "work")
    for times in range(1, 50):
        assert consumer.got == ["m"] * times
        world.reject_by(consumer)
        world.wait(10)
        (held,) = consumer.held
        assert tally(held.headers()) == [("retry", "expired", times), ("work", "rejected", times)]
        assert consumer.redelivered == []


def test_only_the_queue_that_closes_the_cycle_is_left_out() -> None:
    world = World()
    world.queue("q", dead_letter_exchange="amq.fanout", message_ttl=10)
    world.queue("other")
    for name in ("q", "other"):
        world.bind("amq.fanout", name)
    world.publish("m")
    world.wait(10)
    assert (world.ready("q"), world.ready("other")) == ("", "m")


def test_a_rejected_message_may_return_to_its_queue_at_once() -> None:
    world = World()
    world.queue(dead_letter_exchange="", dead_letter_routing_key="q")
    consumer = world.consume(prefetch=1)
    world.publish("m")
    for _ in range(20):
        world.reject_by(consumer)
    assert len(consumer.got) == 21
    assert tally(consumer.held[0].headers()) == [("q", "rejected", 20)]


# ---- one death leads to another


@pytest.mark.parametrize(
    "arguments",
    [
        {"max_length": 0},  # each dies when its queue is settled
        {"max_length": 0, "overflow": "reject-publish-dlx"},  # all die within one call
        {"message_ttl": 0},
    ],
)
def test_a_chain_of_a_thousand_deaths(arguments: dict[str, int | str]) -> None:
    world = World()
    last = 1000
    with world.batch():
        world.queue(str(last))
        for number in reversed(range(last)):
            world.queue(str(number), dead_letter_exchange="", dead_letter_routing_key=str(number + 1), **arguments)
    world.publish("m", "0")
    held = fetched(world, str(last))
    assert held.body == "m"
    assert [entry["queue"] for entry in deaths(held.headers())] == [str(number) for number in reversed(range(last))]


def test_a_full_queue_behind_the_dead_letter_exchange_loses_its_oldest() -> None:
    world = World()
    world.queue("grave")
    world.queue("dead", max_length=2, dead_letter_exchange="", dead_letter_routing_key="grave")
    world.queue(max_length=1, dead_letter_exchange="", dead_letter_routing_key="dead")
    world.publish_all("abcdef")
    assert [world.ready(name) for name in ("q", "dead", "grave")] == ["f", "de", "abc"]


def test_a_full_queue_that_refuses_dead_letters_drops_them() -> None:
    world = World()
    world.queue("dead", max_length=2, overflow="reject-publish")
    world.queue(max_length=1, dead_letter_exchange="", dead_letter_routing_key="dead")
    world.publish_all("abcdef")
    assert [world.ready(name) for name in ("q", "dead")] == ["f", "ab"]


def test_a_dead_letter_that_makes_its_own_queue_overflow_again() -> None:
    """Rejected back into the full queue it came from: the oldest makes room, and dies there of the limit."""
    world = World()
    world.queue("dead")
    world.exchange("dlx", "fanout")
    world.queue(max_length=2, dead_letter_exchange="dlx")
    for name in ("q", "dead"):
        world.bind("dlx", name)
    world.publish_all("ab")
    world.get()
    world.publish("c")
    world.reject("a")
    assert (world.ready("q"), world.ready("dead")) == ("ca", "ab")


def test_a_backlog_that_expires_into_a_queue_with_a_waiting_consumer() -> None:
    world = World(settle_budget=10)
    world.queue("dead")
    world.queue(dead_letter_exchange="", dead_letter_routing_key="dead", message_ttl=10)
    consumer = world.consume("dead")
    texts = [str(number) for number in range(500)]
    world.publish_all(texts)
    world.wait(10)
    assert consumer.got == texts
