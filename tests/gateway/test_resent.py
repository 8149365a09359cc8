"""What is sent again to the next leader and is in its journal already is not published again, and confirmed in time."""

from __future__ import annotations

from rabbitish.session.carried import bring
from rabbitish.wire import methods
from tests.session.client import publication
from tests.session.harness import Journal, World

from .carried import MARK, Carried, carried, drained, successor


def journalled() -> World:
    """A leader with a journal, and a durable queue `q`."""
    world = World()
    helper = world.client()
    helper.declare("q", durable=True)
    helper.hang_up()
    world.keep_journal()
    return world


def unconfirmed(*said: bytes, world: World | None = None) -> Carried:
    """A client that has published this, which is not confirmed."""
    client = carried(world or journalled())
    assert client.ask(methods.ConfirmSelect()) == methods.ConfirmSelectOk()
    client.raw(b"".join(said))
    assert client.answers() == []
    return client


def told(world: World) -> list[tuple[int, list[tuple[int, int]]]]:
    """What the journal was told of publishes: channel and ranges."""
    journal = world.broker.recorder
    assert isinstance(journal, Journal)
    return [(channel, list(ranges)) for _, _, channel, ranges in journal.sends]


def persistent(body: bytes, queue: str = "q", channel: int = 1) -> bytes:
    return publication(queue, body, channel=channel, delivery_mode=2)


def test_what_is_in_the_journal_is_not_there_twice() -> None:
    client = unconfirmed(persistent(b"1"), persistent(b"2"))
    new = successor(client.world, journal=True)
    client.lose_leader()
    client.raw(persistent(b"3"))
    client.go_on(new)
    new.synced()
    client.expect(methods.BasicAck(delivery_tag=3, multiple=True))
    assert drained(new, "q") == [b"1", b"2", b"3"]
    assert client.gateway.kept_bytes == 0


def test_without_the_record_that_says_so_it_is_there_twice_and_never_lost() -> None:
    client = unconfirmed(persistent(b"1"), persistent(b"2"))
    (sent,) = client.world.broker.recorder.sends  # type: ignore[union-attr]
    for cut, expected in ((1, [b"1", b"2"]), (0, [b"1", b"2", b"1", b"2"])):
        new = successor(client.world, journal=True, up_to=sent[0] - 1 + cut)
        client.move(new)
        new.synced()
        client.answers()
        assert drained(new, "q") == expected
        client.raw(persistent(b"1") + persistent(b"2"))
        (*_, sent) = client.world.broker.recorder.sends  # type: ignore[union-attr]


def test_it_is_confirmed_when_it_is_safe_at_the_new_leader_and_no_sooner() -> None:
    client = unconfirmed(persistent(b"1"), persistent(b"2"))
    new = successor(client.world, journal=True, synced=False)
    client.move(new)
    assert client.answers() == []
    assert new.hub.wanted == new.broker.recorder.position  # type: ignore[union-attr]
    new.synced(new.hub.wanted - 1)
    assert client.answers() == []
    new.synced(new.hub.wanted)
    client.expect(methods.BasicAck(delivery_tag=2, multiple=True))


def test_what_ended_with_the_leader_is_published_again() -> None:
    client = unconfirmed()
    world = client.world
    own = client.declare("", exclusive=True)
    for queue in ("q", own):
        client.send(methods.QueueBind(queue=queue, exchange="amq.fanout"))
    world.synced()
    client.answers()
    client.raw(persistent(b"kept"))
    client.raw(publication("q", b"transient"))
    client.raw(persistent(b"own", own))
    client.raw(publication("", b"both", exchange="amq.fanout", delivery_mode=2))
    client.raw(persistent(b"nobody's", "nowhere"))
    client.raw(persistent(b"kept too"))
    client.raw(publication("", b"twin", exchange="amq.fanout", delivery_mode=2))
    assert told(world) == [(1, [(1, 1)]), (1, [(6, 6)])]
    new = successor(world, journal=True)
    new.vhost.bind("amq.fanout", new.queue("q"), "", {})
    client.move(new)
    new.synced()  # what is declared again
    new.synced()
    client.answers()
    assert client.gateway.kept_bytes == 0
    assert new.queue(own).ready == 3  # "own", "both" and "twin"
    # What is missing in one queue is twice in the other.
    assert drained(new, "q") == [b"kept", b"both", b"kept too", b"twin", b"transient", b"both", b"twin"]


def test_a_publish_that_was_refused_is_refused_again() -> None:
    client = unconfirmed()
    world = client.world
    arguments = {"x-max-length": 1, "x-overflow": "reject-publish"}
    client.send(methods.QueueDeclare(queue="full", durable=True, arguments=arguments))
    world.synced()
    client.answers()
    client.raw(persistent(b"1", "full") + persistent(b"2", "full"))
    assert told(world) == [(1, [(1, 1)])]
    new = successor(world, journal=True)
    client.move(new)
    new.synced()
    client.expect(methods.BasicAck(delivery_tag=1), methods.BasicNack(delivery_tag=2, requeue=True))


def test_what_a_consumer_had_already_is_not_published_again() -> None:
    client = unconfirmed(persistent(b"1"))
    taker = client.world.client()
    assert taker.drain("q") == [b"1"]
    new = successor(client.world, journal=True)
    client.move(new)
    new.synced()
    client.expect(methods.BasicAck(delivery_tag=1))
    assert drained(new, "q") == []


def test_several_leaders_one_after_the_other() -> None:
    client = unconfirmed(persistent(b"1"))
    bodies = [b"1"]
    for number in range(2, 8):
        client.move(successor(client.world, journal=True, synced=False))
        bodies.append(b"%d" % number)
        client.raw(persistent(bodies[-1]))
        if number == 5:
            client.world.synced()
            client.expect(methods.BasicAck(delivery_tag=5, multiple=True))
    assert client.answers() == []
    client.world.synced()
    client.expect(methods.BasicAck(delivery_tag=7, multiple=True))
    assert drained(client.world, "q") == bodies


def test_a_leader_that_the_session_comes_back_to_closes_what_is_left_of_it_first() -> None:
    client = unconfirmed(persistent(b"1"))
    world, before = client.world, client.session
    own = client.declare("", exclusive=True)
    client.slow = True
    client.raw(persistent(b"2"))
    client.up(10_000)
    on_its_way = persistent(b"3")
    client.raw(on_its_way)
    client.slow = False
    client.waiting_up = client.waiting_down = b""
    client.gateway.detach()
    client.go_on(world)  # the leader does not know that the connection is gone
    assert before.ended and before not in world.hub.sessions
    before.receive_data(on_its_way, world.now)
    world.synced()
    client.expect(methods.BasicAck(delivery_tag=3, multiple=True))
    assert client.ask(methods.QueueDeclare(queue=own, passive=True)) == methods.QueueDeclareOk(queue=own)
    assert drained(world, "q") == [b"1", b"2", b"3"]


def test_a_channel_that_is_opened_again_counts_anew() -> None:
    client = unconfirmed(persistent(b"1"), persistent(b"2"))
    client.world.synced()
    client.answers()
    client.ask(methods.ChannelClose())
    client.open(1)
    client.ask(methods.ConfirmSelect())
    client.raw(persistent(b"3"))
    assert told(client.world) == [(1, [(1, 2)]), (2, [(1, 1)])]
    new = successor(client.world, journal=True, up_to=client.world.hub.durable)
    client.move(new)  # which has not got the third
    new.synced()
    client.expect(methods.BasicAck(delivery_tag=1))
    assert drained(new, "q") == [b"1", b"2", b"3"]


def test_publishes_without_confirms_do_not_count() -> None:
    client = unconfirmed()
    client.open(2)
    client.raw(persistent(b"1", channel=2))
    client.ask(methods.ConfirmSelect(), 2)
    client.raw(persistent(b"2", channel=2))
    assert told(client.world) == [(2, [(1, 1)])]
    new = successor(client.world, journal=True)
    client.move(new)
    new.synced()
    client.expect(methods.BasicAck(delivery_tag=1), channel=2)
    assert drained(new, "q") == [b"1", b"2"]


def test_once_is_told_of_what_came_at_once() -> None:
    client = unconfirmed(*[persistent(b"x" * size) for size in (1, 1, 5, 300_000, 2)])
    assert told(client.world) == [(1, [(1, 5)])]
    client.raw(persistent(b"y"))
    assert told(client.world)[1:] == [(1, [(6, 6)])]


def test_nobody_but_a_node_numbers_publishes() -> None:
    world = journalled()
    client = world.client()
    client.send(methods.ChannelOpen("1:0"), channel=2)
    client.answers()
    client.ask(methods.ConfirmSelect(), 2)
    client.raw(persistent(b"1", channel=2))
    assert told(world) == []
    bring(client.session, MARK)
    for number, opening in enumerate(("", "nonsense", "1:", "1:-1", "1:0 ", "7:0"), 3):
        client.send(methods.ChannelOpen(opening), methods.ConfirmSelect(), channel=number)
        client.raw(persistent(b"2", channel=number))
    assert told(world) == [(7, [(1, 1)])]


def test_what_is_known_of_a_session_is_forgotten_when_the_client_closes_it() -> None:
    for closes in (True, False):
        client = unconfirmed(persistent(b"1"))
        if closes:
            client.send(methods.ConnectionClose(), channel=0)
        client.world.settle()
        client.session.receive_eof(client.world.now)
        recorder = client.world.broker.recorder
        assert recorder is not None
        assert bool(list(recorder.sendings.all())) is not closes
