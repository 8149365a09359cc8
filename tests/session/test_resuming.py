"""A session that another node vouches for: open at once, for a user who may still enter, and with names of its own."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from rabbitish.errors import ConnectionFailure, ReplyCode
from rabbitish.session.resuming import admit, resume
from rabbitish.values import Table
from rabbitish.wire import methods

from .client import Client
from .harness import World

MADE_UP = "amq.gen-of-an-earlier-leader"


class Papers(NamedTuple):
    """A Passport."""

    user: str = "joe"
    mechanism: str = "PLAIN"
    vhost: str = "/"
    client_properties: Table = {"capabilities": {"consumer_cancel_notify": True}}  # noqa: RUF012 (never changed)
    channel_max: int = 7
    frame_max: int = 8192
    heartbeat: int = 10
    names: frozenset[str] = frozenset({MADE_UP})
    mark: bytes = b""


def resumed(world: World, papers: Papers) -> Client:
    client = world.connect()
    resume(client.session, papers)
    client.open(1)
    return client


def test_it_is_open_with_what_was_agreed_on(world: World) -> None:
    client = resumed(world, Papers())
    session = client.session
    assert (session.state, session.user.name, session.vhost) == ("running", "joe", world.vhost)
    assert (session.channel_max, session.frame_max, session.heartbeat_ms) == (7, 8192, 10_000)
    assert session.capability("consumer_cancel_notify") and session.mechanism == "PLAIN"
    assert world.audited[-1]["event"] == "session resumed"
    client.declare("q")
    client.publish("q", b"a")
    said = client.get("q")
    assert said is not None and said.body == b"a"


def test_a_name_that_an_earlier_leader_made_up_may_be_declared_by_it_alone(world: World) -> None:
    resumed(world, Papers()).ask(methods.QueueDeclare(queue=MADE_UP, exclusive=True))
    assert MADE_UP in world.vhost.queues
    for client in (world.client(), resumed(world, Papers(names=frozenset()))):
        closed = client.ask(methods.QueueDeclare(queue=f"{MADE_UP}-2"))
        assert isinstance(closed, methods.ChannelClose) and closed.reply_code == ReplyCode.ACCESS_REFUSED


@pytest.mark.parametrize("properties", [{}, {"capabilities": "all"}])
def test_capabilities_that_are_none(world: World, properties: Table) -> None:
    assert resumed(world, Papers(client_properties=properties)).session.capabilities == {}


def test_who_is_anonymous_is_whoever_that_means_here() -> None:
    world = World(anonymous_user="joe")
    assert resumed(world, Papers(user="", mechanism="ANONYMOUS")).session.user.name == "joe"


def refusal(world: World, papers: Papers, *, loopback: bool = True) -> tuple[int, str]:
    client = world.connect(loopback=loopback)
    with pytest.raises(ConnectionFailure) as refused:
        admit(world.hub, client.session.peer, papers)
    return refused.value.code, str(refused.value)


def test_what_has_changed_meanwhile_counts(world: World) -> None:
    world.add_vhost("other")
    code, text = refusal(world, Papers(vhost="other"))
    assert code == ReplyCode.NOT_ALLOWED and "refused for user 'joe'" in text
    code, text = refusal(world, Papers(vhost="gone"))
    assert code == ReplyCode.CONNECTION_FORCED and "vhost 'gone' is not there any more" in text
    code, text = refusal(world, Papers(user="nobody"))
    assert code == ReplyCode.CONNECTION_FORCED and "user 'nobody' is not there any more" in text
    code, text = refusal(world, Papers(user="guest"), loopback=False)
    assert code == ReplyCode.CONNECTION_FORCED and "'guest'" in text
