"""From the protocol header to connection.open-ok: states, negotiation, refusals, and how long each may take."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from rabbitish import __version__
from rabbitish.core.access.logins import Attempt
from rabbitish.core.access.passwords import hash_password
from rabbitish.session.handshake import CAPABILITIES, HANDLERS
from rabbitish.values import Table
from rabbitish.wire import methods
from rabbitish.wire.frames import HEARTBEAT, LEGACY_PROTOCOL_HEADER, PROTOCOL_HEADER
from rabbitish.wire.method import Method
from rabbitish.wire.table import encode_table

from .client import Client, close_of, start_ok
from .harness import World

REFUSED = "ACCESS_REFUSED - Login was refused using authentication mechanism {}. For details see the broker logfile."
TELLING: Table = {"capabilities": {"authentication_failure_close": True}}
LIMITS = methods.ConnectionTuneOk(channel_max=2047, frame_max=131_072, heartbeat=0)


def greeted(
    world: World, *, loopback: bool = True, certificate_name: str | None = None, mechanisms: bytes = b"AMQPLAIN PLAIN"
) -> Client:
    """A client that has got connection.start."""
    client = world.connect(loopback=loopback, certificate_name=certificate_name)
    client.raw(PROTOCOL_HEADER)
    (said,) = client.answers()
    assert isinstance(said.method, methods.ConnectionStart)
    assert said.method.mechanisms == mechanisms
    return client


def logged_in(world: World) -> Client:
    """A client that has got connection.tune."""
    client = greeted(world)
    client.send(start_ok("guest", "guest"), channel=0)
    client.expect(methods.ConnectionTune(channel_max=2047, frame_max=131_072, heartbeat=60), channel=0)
    return client


def tuned(world: World) -> Client:
    """A client that may open."""
    client = logged_in(world)
    client.send(LIMITS, channel=0)
    assert client.answers() == []
    return client


def assert_silence(client: Client, ms: int = 3_000) -> None:
    """The broker neither says nor hears anything more, and hangs up after a while."""
    world = client.world
    assert client.answers() == []
    client.send(methods.ConnectionOpen(), channel=0)
    world.advance(ms - 1)
    assert client.answers() == [] and not client.hung_up
    world.advance(1)
    assert client.answers() == [] and client.hung_up
    assert client.session not in world.hub.sessions


# --- the protocol header ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("header", [PROTOCOL_HEADER, LEGACY_PROTOCOL_HEADER])
def test_start_says_who_we_are(world: World, header: bytes) -> None:
    client = world.connect()
    client.raw(header)
    (said,) = client.answers()
    start = said.method
    assert isinstance(start, methods.ConnectionStart)
    assert (start.version_major, start.version_minor) == (0, 9)
    assert start.mechanisms == b"AMQPLAIN PLAIN" and start.locales == b"en_US"
    about = start.server_properties
    assert about["capabilities"] == CAPABILITIES
    assert (about["product"], about["version"]) == ("RabbitMQ", "3.13.7")
    assert about["rabbitish_version"] == __version__


def test_the_header_may_come_byte_by_byte(world: World) -> None:
    client = world.connect()
    for byte in PROTOCOL_HEADER[:-1]:
        client.raw(bytes((byte,)))
        assert client.answers() == []
    client.raw(PROTOCOL_HEADER[-1:])
    assert len(client.answers()) == 1


def test_everything_in_one_read(world: World) -> None:
    client = world.connect()
    said = (start_ok("guest", "guest"), LIMITS, methods.ConnectionOpen())
    client.raw(PROTOCOL_HEADER + b"".join(method.frame(0) for method in said) + methods.ChannelOpen().frame(7))
    names = [method.name for method in client.methods() if method is not None]
    assert names == ["connection.start", "connection.tune", "connection.open-ok", "channel.open-ok"]


@pytest.mark.parametrize(
    "header", [b"GET / HTTP/1.1\r\n", b"AMQP\0\0\x08\0", b"AMQP\3\1\0\0", b"\x16\x03\x01\x02\0\1\0\1"]
)
def test_another_header_is_answered_with_ours(world: World, header: bytes) -> None:
    client = world.connect()
    client.raw(header)
    world.settle()
    assert bytes(client.received) == PROTOCOL_HEADER
    assert client.hung_up and client.session.state == "closed"
    assert world.hub.sessions == set()
    client.session.receive_data(PROTOCOL_HEADER, world.now)
    assert bytes(client.received) == PROTOCOL_HEADER
    hint = "TLS on a port without" if header.startswith(b"\x16\x03") else None
    said = {"connection": "client 0", "received": header[:8], "hint": hint}
    assert world.logged("wrong protocol header") == [said]


# --- logging in ------------------------------------------------------------------------------------------------------


def amqplain(table: Table) -> methods.ConnectionStartOk:
    return methods.ConnectionStartOk(client_properties=TELLING, mechanism="AMQPLAIN", response=encode_table(table)[4:])


def test_amqplain(world: World) -> None:
    client = greeted(world)
    answer = client.session
    client.send(amqplain({"LOGIN": "guest", "PASSWORD": "guest"}), channel=0)
    assert isinstance(client.methods()[0], methods.ConnectionTune)
    assert answer.user.name == "guest"


@pytest.mark.parametrize(
    ("login", "mechanism"),
    [
        (start_ok("guest", "wrong", TELLING), "PLAIN"),
        (start_ok("guest", "", TELLING), "PLAIN"),
        (start_ok("nobody", "guest", TELLING), "PLAIN"),
        (amqplain({"LOGIN": "guest", "PASSWORD": "wrong"}), "AMQPLAIN"),
        (amqplain({"LOGIN": 1, "PASSWORD": "guest"}), "AMQPLAIN"),
        (amqplain({"LOGIN": "guest", "PASSWORD": True}), "AMQPLAIN"),
    ],
)
def test_a_refused_login(world: World, login: Method, mechanism: str) -> None:
    client = greeted(world)
    client.send(login, channel=0)
    client.expect(close_of(methods.ConnectionClose, 403, REFUSED.format(mechanism), None), channel=0)
    world.advance(2_999)
    assert not client.hung_up
    world.advance(1)
    assert client.hung_up


def test_a_refused_login_is_in_the_log(world: World) -> None:
    client = greeted(world)
    client.send(start_ok("mallory", "x", TELLING), channel=0)
    assert len(client.answers()) == 1
    refusal = {"connection": "client 0", "user": "mallory", "mechanism": "PLAIN", "reason": "wrong name or password"}
    assert world.logged("login refused") == [refusal]
    assert world.audited == [{"event": "login refused", **refusal}]


def test_a_refused_login_may_end_sooner(world: World) -> None:
    client = greeted(world)
    client.send(start_ok("guest", "wrong", TELLING), channel=0)
    client.expect_connection_close(403, REFUSED.format("PLAIN"))


@pytest.mark.parametrize(
    "login",
    [
        start_ok("guest", "wrong"),
        start_ok("guest", "wrong", {"capabilities": {"authentication_failure_close": False}}),
        start_ok("guest", "wrong", {"capabilities": "all of them"}),
        methods.ConnectionStartOk(mechanism="EXTERNAL", client_properties=TELLING),
        methods.ConnectionStartOk(mechanism="PLAIN", response=b"guest\0guest", client_properties=TELLING),
        methods.ConnectionStartOk(mechanism="PLAIN", response=b"joe\0guest\0guest", client_properties=TELLING),
        methods.ConnectionStartOk(mechanism="PLAIN", response=b"\0guest\0guest\0", client_properties=TELLING),
        methods.ConnectionStartOk(mechanism="AMQPLAIN", response=b"\x05LOGIN?", client_properties=TELLING),
        amqplain({"LOGIN": "guest"}),
        amqplain({"PASSWORD": "guest"}),
    ],
)
def test_logins_that_get_no_answer(world: World, login: Method) -> None:
    client = greeted(world)
    client.send(login, channel=0)
    assert_silence(client)


EXTERNAL = methods.ConnectionStartOk(mechanism="EXTERNAL", response=b"guest", client_properties=TELLING)
WITH_EXTERNAL = b"AMQPLAIN PLAIN EXTERNAL"


@pytest.mark.parametrize("response", [b"", b"guest", b"\0guest\0guest"])
def test_a_certificate_is_a_login(world: World, response: bytes) -> None:
    """Whatever the response says; as with RabbitMQ it is not looked at."""
    client = greeted(world, certificate_name="joe", mechanisms=WITH_EXTERNAL, loopback=False)
    client.send(methods.ConnectionStartOk(mechanism="EXTERNAL", response=response), channel=0)
    assert isinstance(client.methods()[0], methods.ConnectionTune)
    assert client.session.user.name == "joe"


@pytest.mark.parametrize(("name", "loopback"), [("nobody", True), ("", True), ("guest", False)])
def test_a_certificate_of_nobody_who_may_come(world: World, name: str, loopback: bool) -> None:
    client = greeted(world, certificate_name=name, mechanisms=WITH_EXTERNAL, loopback=loopback)
    client.send(EXTERNAL, channel=0)
    client.expect_connection_close(403, REFUSED.format("EXTERNAL"))
    (refusal,) = world.logged("login refused")
    assert (refusal["user"], refusal["mechanism"]) == (name, "EXTERNAL")


def test_a_password_is_as_good_where_certificates_are(world: World) -> None:
    client = greeted(world, certificate_name="joe", mechanisms=WITH_EXTERNAL)
    client.send(start_ok("guest", "guest"), channel=0)
    assert isinstance(client.methods()[0], methods.ConnectionTune)
    assert client.session.user.name == "guest"


def test_guest_only_from_loopback(world: World) -> None:
    client = greeted(world, loopback=False)
    client.send(start_ok("guest", "guest", TELLING), channel=0)
    client.expect_connection_close(403, REFUSED.format("PLAIN"))
    client = greeted(world, loopback=False)
    client.send(start_ok("joe", "secret", TELLING), channel=0)
    assert isinstance(client.methods()[0], methods.ConnectionTune)


# --- limits ----------------------------------------------------------------------------------------------------------


def test_limits_are_the_clients_when_lower(world: World) -> None:
    client = world.client(channel_max=3, frame_max=4096, heartbeat=7)
    session = client.session
    assert (session.channel_max, session.frame_max, session.heartbeat_ms) == (3, 4096, 7_000)


def test_the_offer_is_the_settings(make_world: Callable[..., World]) -> None:
    client = greeted(make_world(channel_max=5, frame_max_bytes=8192, heartbeat_seconds=0))
    client.send(start_ok("guest", "guest"), channel=0)
    client.expect(methods.ConnectionTune(channel_max=5, frame_max=8192, heartbeat=0), channel=0)


@pytest.mark.parametrize("limits", [(0, 131_072), (2048, 131_072), (2047, 0), (2047, 131_073), (2047, 4095)], ids=str)
def test_limits_that_raise_ours_get_no_answer(world: World, limits: tuple[int, int]) -> None:
    client = logged_in(world)
    client.send(methods.ConnectionTuneOk(channel_max=limits[0], frame_max=limits[1], heartbeat=60), channel=0)
    assert_silence(client)
    assert len([record for record in world.records if "out of range" in record.event]) == 1


def test_frames_are_small_before_tuning(world: World) -> None:
    client = greeted(world)
    client.send(start_ok("guest", "guest", {"padding": "x" * 4100}), channel=0)
    assert_silence(client)


def test_frames_may_be_large_after_tuning(world: World) -> None:
    client = tuned(world)
    client.send(methods.ConnectionOpen(), methods.ConnectionUpdateSecret(new_secret=bytes(100_000)), channel=0)
    client.expect(methods.ConnectionOpenOk(), methods.ConnectionUpdateSecretOk(), channel=0)


# --- opening ---------------------------------------------------------------------------------------------------------


def test_a_missing_vhost(world: World) -> None:
    client = tuned(world)
    client.send(methods.ConnectionOpen(virtual_host="nosuch"), channel=0)
    client.expect_connection_close(530, "NOT_ALLOWED - vhost nosuch not found", methods.ConnectionOpen)


def test_another_vhost(world: World) -> None:
    world.add_vhost("there")
    client, elsewhere = world.client(), world.client(vhost="there")
    client.declare("q")
    elsewhere.send(methods.QueueDeclare(queue="q", passive=True))
    elsewhere.expect_channel_close(404, "NOT_FOUND - no queue 'q' in vhost 'there'", methods.QueueDeclare)


def test_an_open_connection_is_in_the_log(world: World) -> None:
    world.client(properties={"connection_name": "mine"})
    opened = {"connection": "client 0", "user": "guest", "vhost": "/", "client": "mine"}
    assert world.logged("connection opened") == [opened]


# --- what is out of order --------------------------------------------------------------------------------------------


def test_the_table_is_the_handshake() -> None:
    assert [(state, kind.name) for state, kind in HANDLERS] == [
        ("starting", "connection.start-ok"),
        ("tuning", "connection.tune-ok"),
        ("opening", "connection.open"),
    ]


@pytest.mark.parametrize(
    "wrong",
    [
        LIMITS,
        methods.ConnectionOpen(),
        methods.ConnectionClose(),
        methods.ConnectionUpdateSecret(),
        methods.ChannelOpen(),
    ],
    ids=lambda method: method.name,
)
def test_another_method_than_start_ok(world: World, wrong: Method) -> None:
    client = greeted(world)
    client.send(wrong, channel=0)
    assert_silence(client)


@pytest.mark.parametrize("wrong", [start_ok("guest", "guest"), methods.ConnectionOpen(), methods.ConnectionClose()])
def test_another_method_than_tune_ok(world: World, wrong: Method) -> None:
    client = logged_in(world)
    client.send(wrong, channel=0)
    assert_silence(client)


@pytest.mark.parametrize(
    "wrong", [start_ok("guest", "guest"), LIMITS, methods.ConnectionClose(), methods.ChannelOpen()]
)
def test_another_method_than_open(world: World, wrong: Method) -> None:
    client = tuned(world)
    client.send(wrong, channel=0)
    text = "CHANNEL_ERROR - unexpected method in connection state opening"
    client.expect_connection_close(504, text, type(wrong))


def test_open_twice(client: Client) -> None:
    client.send(methods.ConnectionOpen(), channel=0)
    text = "CHANNEL_ERROR - unexpected method in connection state running"
    client.expect_connection_close(504, text, methods.ConnectionOpen)


@pytest.mark.parametrize("reach", [greeted, logged_in], ids=lambda reach: reach.__name__)
@pytest.mark.parametrize(
    "data",
    [
        methods.ChannelOpen().frame(1),
        b"\x02\0\0\0\0\0\x0c\0\x3c\0\0" + bytes(8) + b"\xce",  # a content header
        b"\x07\0\0\0\0\0\0\xce",  # an unknown type of frame
        b"\x01\0\0\0\0\0\x04\0\x0a\0\x63\xce",  # an unknown method
        b"\x01\0\0\0\0\0\x04\0\x0a\0\x0b\xce",  # start-ok without arguments
    ],
    ids=["channel 1", "header", "type", "method", "arguments"],
)
def test_frames_that_make_no_sense_yet(world: World, reach: Callable[[World], Client], data: bytes) -> None:
    client = reach(world)
    client.raw(data)
    assert_silence(client)


@pytest.mark.parametrize(
    ("data", "code", "text"),
    [
        (methods.ChannelOpen().frame(1), 505, "UNEXPECTED_FRAME - type 1, all octets = <<0,20,0,10,0>>"),
        (b"\x03\0\0\0\0\0\0\xce", 505, "UNEXPECTED_FRAME - type 3, all octets = <<>>"),
        (b"\x07\0\0\0\0\0\1x\xce", 501, 'FRAME_ERROR - type 7, all octets = <<"x">>: unknown_frame'),
    ],
)
def test_wrong_frames_when_open_is_due(world: World, data: bytes, code: int, text: str) -> None:
    client = tuned(world)
    client.raw(data)
    client.expect_connection_close(code, text)


def test_undecodable_arguments_when_open_is_due(world: World) -> None:
    client = tuned(world)
    client.raw(b"\x01\0\0\0\0\0\x05\0\x0a\0\x28\x09\xce")
    assert_silence(client)


def test_heartbeats_are_welcome_at_any_time(world: World) -> None:
    for reach in (greeted, logged_in, tuned):
        client = reach(world)
        client.raw(HEARTBEAT)
        assert client.answers() == [] and client.session.state != "closed"


# --- time ------------------------------------------------------------------------------------------------------------


def nothing_sent(world: World) -> Client:
    return world.connect()


def part_of_a_header(world: World) -> Client:
    client = world.connect()
    client.raw(PROTOCOL_HEADER[:5])
    return client


@pytest.mark.parametrize(
    "reach", [nothing_sent, part_of_a_header, greeted, logged_in, tuned], ids=lambda it: it.__name__
)
def test_whoever_says_nothing_more_is_cut_off(world: World, reach: Callable[[World], Client]) -> None:
    client = reach(world)
    world.advance(5_000)
    client.raw(b"" if client.session.state == "header" else HEARTBEAT)
    world.advance(4_999)
    assert not client.hung_up
    world.advance(1)
    assert client.hung_up
    assert len(world.logged("handshake took too long")) == 1


def test_a_handshake_in_time_has_all_the_time_it_wants(client: Client) -> None:
    client.world.advance(366 * 24 * 3600 * 1000)
    assert client.answers() == [] and not client.hung_up


def test_the_limits_are_settings(make_world: Callable[..., World]) -> None:
    world = make_world(handshake_timeout_ms=50, refused_linger_ms=20)
    slow, refused = world.connect(), greeted(world)
    refused.send(start_ok("guest", "wrong"), channel=0)
    assert_silence(refused, 20)
    world.advance(30)
    assert slow.hung_up


@pytest.mark.parametrize("reach", [part_of_a_header, greeted, logged_in, tuned], ids=lambda it: it.__name__)
def test_eof_during_the_handshake(world: World, reach: Callable[[World], Client]) -> None:
    client = reach(world)
    client.hang_up()
    assert client.session.state == "closed" and world.hub.sessions == set()
    assert world.broker.deadlines.next_due() is None


# --- passwords that take long to verify ------------------------------------------------------------------------------


class Verifier:
    """Keeps what is to be verified until a test says what comes of it."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.asked: list[tuple[Attempt, Callable[[bool, int], None]]] = []
        world.hub.verify = lambda attempt, done: self.asked.append((attempt, done))
        world.change(lambda roster: roster.set_password("joe", hash_password(b"secret", bytes(16), 4)))

    def answer(self, *, right: bool) -> None:
        """What comes of the first."""
        _, done = self.asked.pop(0)
        done(right, self.world.now)


@pytest.fixture
def verifier(world: World) -> Verifier:
    return Verifier(world)


def test_nothing_is_heard_while_a_password_is_verified(world: World, verifier: Verifier) -> None:
    client = greeted(world)
    said = (start_ok("joe", "secret"), LIMITS, methods.ConnectionOpen())
    client.raw(b"".join(method.frame(0) for method in said))
    assert client.answers() == [] and client.session.state == "verifying" and not client.session.reading
    client.send(methods.ChannelOpen(), channel=7)
    world.advance(1_000)
    assert client.answers() == []
    verifier.answer(right=True)
    names = [method.name for method in client.methods() if method is not None]
    assert names == ["connection.tune", "connection.open-ok", "channel.open-ok"]
    assert client.session.user.name == "joe" and client.session.login is None


def test_a_password_that_turns_out_wrong(world: World, verifier: Verifier) -> None:
    client = greeted(world)
    client.send(start_ok("joe", "wrong", TELLING), LIMITS, channel=0)
    assert client.answers() == []
    verifier.answer(right=False)
    client.expect_connection_close(403, REFUSED.format("PLAIN"))
    silent = greeted(world)
    silent.send(start_ok("joe", "wrong"), channel=0)
    verifier.answer(right=False)
    assert_silence(silent)


def test_a_known_password_is_not_verified_again(world: World, verifier: Verifier) -> None:
    client = greeted(world)
    client.send(start_ok("joe", "secret"), channel=0)
    assert client.answers() == []
    verifier.answer(right=True)
    assert len(client.answers()) == 1
    again = greeted(world)
    again.send(start_ok("joe", "secret"), channel=0)
    assert len(again.answers()) == 1 and verifier.asked == []


def test_who_is_gone_is_not_answered(world: World, verifier: Verifier) -> None:
    impatient, late = greeted(world), greeted(world)
    for client in (impatient, late):
        client.send(start_ok("joe", "secret"), channel=0)
        assert client.answers() == []
    impatient.session.receive_eof(world.now)
    assert verifier.asked[0][0].abandoned and not verifier.asked[1][0].abandoned
    world.advance(10_000)
    assert late.hung_up and verifier.asked[1][0].abandoned
    verifier.answer(right=True)
    verifier.answer(right=True)
    assert impatient.answers() == late.answers() == []


def test_our_own_fault_while_a_password_is_verified(world: World, verifier: Verifier) -> None:
    client = greeted(world)
    client.send(start_ok("joe", "secret"), channel=0)
    assert client.answers() == []

    def fault(attempt: Attempt, now: int) -> None:
        raise RuntimeError("a bug")

    world.access.conclude = fault  # type: ignore[method-assign,assignment]
    verifier.answer(right=True)
    client.expect(close_of(methods.ConnectionClose, 541, "INTERNAL_ERROR", None), channel=0)
    assert len(world.exceptions) == 1
    world.records.clear()


def test_a_hash_of_rabbitmqs_may_be_made_anew(world: World) -> None:
    seen: list[str] = []
    world.hub.rehash = lambda attempt: seen.append(attempt.name)
    world.client()
    world.client()
    assert seen == ["guest"]


# --- other mechanisms ------------------------------------------------------------------------------------------------


def test_anonymous_is_off_by_default(world: World) -> None:
    client = greeted(world)
    client.send(methods.ConnectionStartOk(mechanism="ANONYMOUS", client_properties=TELLING), channel=0)
    assert_silence(client)


def test_anonymous_is_who_the_settings_say(make_world: Callable[..., World]) -> None:
    world = make_world(anonymous_user="joe")
    client = world.connect(loopback=False)
    client.raw(PROTOCOL_HEADER)
    (said,) = client.answers()
    assert isinstance(said.method, methods.ConnectionStart) and said.method.mechanisms == b"AMQPLAIN PLAIN ANONYMOUS"
    start = methods.ConnectionStartOk(mechanism="ANONYMOUS", response=b"me@here", client_properties=TELLING)
    client.send(start, channel=0)
    assert isinstance(client.methods()[0], methods.ConnectionTune)
    assert client.session.user.name == "joe"
    world.change(lambda roster: roster.delete_user("joe"))
    other = greeted_by(world)
    other.send(start, channel=0)
    other.expect_connection_close(403, REFUSED.format("ANONYMOUS"))


def greeted_by(world: World) -> Client:
    client = world.connect()
    client.raw(PROTOCOL_HEADER)
    assert len(client.answers()) == 1
    return client
