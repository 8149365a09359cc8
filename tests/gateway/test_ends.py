"""How sessions begin and end: what can go on and what cannot, and whose business it is what makes no sense."""

from __future__ import annotations

import pytest

from rabbitish.core.access import EVERYTHING
from rabbitish.errors import ConnectionFailure
from rabbitish.wire import methods
from rabbitish.wire.frames import LEGACY_PROTOCOL_HEADER, PROTOCOL_HEADER
from rabbitish.wire.table import encode_table
from tests.session.client import close_of, publication, start_ok
from tests.session.harness import World

from .carried import Carried, carried, closing, confirming, drained, frames, successor


def test_a_channel_that_the_leader_closed_and_the_client_has_not_agreed_to() -> None:
    world = World()
    client = confirming(world, 1, 2)
    client.send(methods.QueueDeclare(queue="missing", passive=True))
    (said,) = client.answers()
    assert isinstance(said.method, methods.ChannelClose)
    client.move(successor(world))
    client.publish("q", b"1")
    client.send(methods.BasicAck(delivery_tag=1), methods.QueuePurge(queue="q"))
    client.send(methods.ChannelClose())
    client.expect(methods.ChannelCloseOk())
    client.send(methods.ChannelCloseOk())
    assert client.answers() == []
    client.open()
    assert list(client.session.channels) == [2, 1]


def test_a_channel_that_both_were_closing() -> None:
    world = World()
    client = closing(world)
    client.slow = False
    client.move(successor(world))
    client.expect(methods.ChannelCloseOk())
    client.send(methods.ChannelCloseOk())
    assert client.answers() == []
    client.open()


def test_a_leader_that_goes_before_it_has_heard_everything() -> None:
    world = World()
    client = confirming(world)
    name = client.declare("", exclusive=True)
    client.consume(name, "t")
    client.slow = True
    client.publish("q", b"1")
    client.send(methods.QueuePurge(queue="q"))
    client.publish(name, b"2")
    for cut in range(0, 400, 7):
        client.lose_leader()
        client.go_on(successor(client.world))
        for _ in range(20):
            client.up(cut)
            client.world.settle()
            client.collect()
            client.down(cut)
            if cut < 200:
                break
    client.slow = False
    client.move(successor(client.world))
    said = [each.method for each in client.answers() if not isinstance(each.method, methods.BasicDeliver)]
    assert sum(isinstance(each, methods.QueuePurgeOk) for each in said) == 1
    assert client.gateway.kept_bytes == 0
    assert drained(client.world, "q") == []


def test_a_connection_that_the_client_was_closing() -> None:
    world = World()
    client = carried(world)
    client.slow = True
    client.send(methods.ConnectionClose(), channel=0)
    client.lose_leader()
    client.expect(methods.ConnectionCloseOk(), channel=0)
    assert not client.gateway.resumable


def test_a_connection_that_the_leader_has_closed_is_over() -> None:
    world = World()
    client = carried(world)
    client.send(methods.BasicQos(prefetch_size=1))
    (said,) = client.answers()
    assert isinstance(said.method, methods.ConnectionClose)
    assert not client.gateway.resumable


def test_who_was_blocked_is_told_that_it_is_over() -> None:
    world = World()
    client = carried(world)
    client.declare("q", durable=True)
    world.hub.set_alarm("memory")
    client.publish("q", b"1")
    assert isinstance(client.answers()[0].method, methods.ConnectionBlocked)
    client.move(successor(world))
    client.expect(methods.ConnectionUnblocked(), channel=0)


def test_a_transaction_that_is_too_large_is_heard_to_its_end_and_cannot_go_on() -> None:
    client = Carried(World(), most=10_000)
    client.handshake()
    client.open(1)
    client.ask(methods.TxSelect())
    client.declare("q")
    client.publish("q", b"x" * 9_000)
    assert client.gateway.resumable
    client.publish("q", b"x" * 1_000, b"y")
    assert client.gateway.open_bytes == 0
    assert not client.gateway.resumable
    assert client.gateway.why_not == "it has a transaction that is too large"
    client.publish("q", *[b"z" * 9_000] * 3)
    assert client.ask(methods.TxCommit()) == methods.TxCommitOk()
    assert client.gateway.kept_bytes == client.gateway.open_bytes == 0
    assert client.world.queue("q").ready == 6


@pytest.mark.parametrize("header", [PROTOCOL_HEADER, LEGACY_PROTOCOL_HEADER])
@pytest.mark.parametrize("size", [1, 3, 10_000])
def test_a_client_that_says_everything_at_once(header: bytes, size: int) -> None:
    client = Carried(World())
    tune = methods.ConnectionTuneOk(channel_max=9, frame_max=5000, heartbeat=0)
    data = header + start_ok("guest", "guest").frame(0) + tune.frame(0) + methods.ConnectionOpen().frame(0)
    data += methods.ChannelOpen().frame(1) + methods.QueueDeclare(queue="q", durable=True).frame(1)
    for at in range(0, len(data), size):
        client.raw(data[at : at + size])
    assert client.answers()[-1].method == methods.QueueDeclareOk(queue="q")
    client.move(successor(client.world))
    assert (client.session.frame_max, client.session.channel_max) == (5000, 9)
    assert client.declare("q", durable=True) == "q"


@pytest.mark.parametrize("opening", [b"GET / HTTP/1.1\r\n\r\n", b"AMQP\0\0\x09\0", b"AMQP\1\1\0\x0a", b"\x16\x03\1"])
def test_another_protocol_is_the_leaders_business(opening: bytes) -> None:
    client, beside = Carried(World()), World().connect()
    for each in (client, beside):
        each.raw(opening)
        each.world.settle()
    assert client.received == beside.received == PROTOCOL_HEADER


@pytest.mark.parametrize(
    ("mechanism", "response", "user"),
    [
        ("PLAIN", b"\0guest\0guest", "guest"),
        ("AMQPLAIN", encode_table({"LOGIN": "guest", "PASSWORD": "guest"})[4:], "guest"),
        ("ANONYMOUS", b"", "joe"),
    ],
)
def test_whoever_it_was_goes_on(mechanism: str, response: bytes, user: str) -> None:
    world, new = World(anonymous_user="joe"), World(anonymous_user="joe")
    for each in (world, new):
        each.change(lambda roster: roster.set_permissions("joe", "/", EVERYTHING))
    client = Carried(world)
    start = methods.ConnectionStartOk(client_properties={"product": "x"}, mechanism=mechanism, response=response)
    client.raw(PROTOCOL_HEADER + start.frame(0) + methods.ConnectionTuneOk(2047, 131_072, 0).frame(0))
    client.raw(methods.ConnectionOpen().frame(0))
    assert client.answers()[-1].method == methods.ConnectionOpenOk()
    client.move(new)
    session = client.session
    assert (session.user.name, session.mechanism, session.client_properties) == (user, mechanism, {"product": "x"})
    assert b"guest\0guest" not in client.gateway.passport()


def test_nor_can_what_has_not_begun() -> None:
    client = Carried(World())
    client.begin()
    assert not client.gateway.resumable


@pytest.mark.parametrize("missing", ["user", "vhost", "permission"])
def test_a_session_of_somebody_who_may_not_any_more(missing: str) -> None:
    world = World()
    world.add_vhost("team")
    client = carried(world, vhost="team")
    new = successor(world)
    if missing == "user":
        new.change(lambda roster: roster.delete_user("guest"))
    elif missing == "vhost":
        new.change(lambda roster: roster.delete_vhost("team"))
    else:
        new.change(lambda roster: roster.clear_permissions("guest", "team"))
    client.lose_leader()
    before = len(new.hub.sessions)
    with pytest.raises(ConnectionFailure):
        client.go_on(new)
    assert not client.session.channels and len(new.hub.sessions) == before + 1


PUBLISH = frames(publication("q", b"x" * 9))
WRONG = {
    "a frame of no type": b"\x04\0\1\0\0\0\0\xce",
    "a frame that is too large": b"\1\0\1\0\3\0\0",
    "a method without ids": b"\1\0\1\0\0\0\2\xff\xff\xce",
    "a body out of turn": PUBLISH[2],
    "a method in a content": b"".join([*PUBLISH[:2], PUBLISH[0]]),
    "content of another class": PUBLISH[0] + PUBLISH[1].replace(b"\0\x3c", b"\0\x32"),
    "content of some weight": PUBLISH[0] + PUBLISH[1].replace(b"\0\x3c\0\0", b"\0\x3c\0\1"),
    "a body that is too long": b"".join([*PUBLISH[:2], publication("q", b"x" * 10)[-18:]]),
    "a method that does not decode": b"\1\0\1\0\0\0\5\0\x3c\0\x28\0\xce",
    "a publish on channel 0": methods.BasicPublish().frame(0),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_makes_no_sense_is_the_leaders_business_at_once(wrong: str) -> None:
    client = carried(World(), 1, 2)
    beside = World().client(1, 2)
    for each in (client, beside):
        each.raw(publication("q", b"whole", channel=2) + PUBLISH[0].replace(b"\1\0\1", b"\1\0\2"))
        each.raw(WRONG[wrong])
        each.world.settle()
    assert client.received == beside.received
    assert isinstance(client.answers()[0].method, methods.ConnectionClose)
    assert not client.gateway.resumable


@pytest.mark.parametrize("wrong", WRONG)
def test_a_leader_that_closed_for_what_makes_no_sense_has_had_the_last_word(wrong: str) -> None:
    client = carried(World(), 1, 2)
    client.raw(WRONG[wrong])
    assert isinstance(client.answers()[0].method, methods.ConnectionClose)
    assert client.gateway.over


def test_who_opens_a_channel_before_the_connection_is_told_what_it_said() -> None:
    client, beside = Carried(World()), World().connect()
    for each in (client, beside):
        each.begin()
        each.raw(methods.ChannelOpen(out_of_band="0").frame(1))
        each.world.settle()
    assert client.received == beside.received
    (said,) = client.answers()
    assert isinstance(said.method, methods.ConnectionClose)
    assert "<<0,20,0,10,1,48>>" in said.method.reply_text


def test_a_leader_that_has_agreed_to_close_what_made_no_sense_before() -> None:
    client = carried(World())
    client.slow = True
    client.raw(WRONG["a body out of turn"])
    client.gateway.from_leader(methods.ConnectionCloseOk().frame(0))
    assert client.gateway.over


def test_behind_what_makes_no_sense_the_leader_is_still_heard_in_whole_commands() -> None:
    client = carried(World())
    client.slow = True
    client.raw(WRONG["a body out of turn"])
    client.up(1_000)
    client.answers()
    client.down(20)
    assert client.waiting_down and client.answers() == []
    client.lose_leader()
    client.gateway.give_up("it is gone")
    client.feed()
    client.expect(close_of(methods.ConnectionClose, 320, "CONNECTION_FORCED - it is gone", None), channel=0)


def test_what_was_kept_of_a_session_that_cannot_go_on_holds_its_client_up_no_more() -> None:
    client = Carried(World(), most=100)
    client.handshake()
    client.open()
    client.ask(methods.ConfirmSelect())
    client.slow = True
    client.raw(PUBLISH[0] + PUBLISH[1] + PUBLISH[2] + publication("q", b"x" * 100) + WRONG["a frame of no type"])
    assert client.gateway.hears_client


def test_texts_that_do_not_decode() -> None:
    client = carried(World())
    client.raw(publication("k", exchange=b"\xff".decode("utf-8", "surrogateescape")))
    (said,) = client.answers()
    assert isinstance(said.method, methods.ChannelClose)


def test_what_makes_no_sense_cannot_go_on_even_if_no_leader_has_heard_it() -> None:
    client = carried(World())
    client.slow = True
    client.raw(WRONG["a body out of turn"])
    assert not client.gateway.resumable
    assert client.gateway.why_not == "the client has said what cannot be understood"


def test_a_message_that_is_larger_than_what_is_kept_passes_and_the_session_cannot_go_on() -> None:
    client = Carried(World(), most=10_000)
    client.handshake(frame_max=4096)
    client.open()
    client.declare("q")
    data = publication("q", b"x" * 20_000, frame_max=4096)
    client.raw(data[:8_000])
    assert client.gateway.resumable
    client.raw(data[8_000:13_000])
    assert not client.gateway.resumable
    client.raw(data[13_000:])
    assert drained(client.world, "q") == [b"x" * 20_000]


def test_who_is_given_up_is_told_and_done_with() -> None:
    client = carried(World())
    client.gateway.give_up("nobody leads")
    client.feed()
    client.expect(close_of(methods.ConnectionClose, 320, "CONNECTION_FORCED - nobody leads", None), channel=0)
    assert not client.gateway.resumable
