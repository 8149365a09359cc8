"""Whole runs against a broker in the same program: what is declared, counted, left behind, and what goes wrong."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import trio

from rabbitish.core.vhost import Vhost
from rabbitish.perf.options import Login, Options
from rabbitish.perf.peer import PeerError
from rabbitish.perf.report import Outcome
from rabbitish.perf.run import perform
from rabbitish.wire import methods
from tests.server.support import Client, Running, broker, converse, until

TOO_LONG = 1000


class Run:
    """A run in the background of a conversation."""

    def __init__(self, running: Running, **options: object) -> None:
        self.options = Options(login=Login(running.host, running.port), **options)  # type: ignore[arg-type]
        self.lines: list[str] = []
        self.stop = trio.Event()
        self.outcome: Outcome | None = None

    async def perform(self) -> Outcome:
        self.outcome = await perform(self.options, self.lines.append, self.stop, alone=False)
        return self.outcome


def vhost(running: Running) -> Vhost:
    return running.node.broker.vhosts["/"]


def outcome_of(seconds: int = 1, **options: object) -> Outcome:
    """What comes of a run against a broker that has nothing else to do and has nothing left of it in the end."""
    outcomes: list[Outcome] = []

    async def conversation() -> None:
        async with broker() as running:
            before = set(vhost(running).exchanges)
            outcomes.append(await Run(running, **options).perform())
            assert not vhost(running).queues
            assert set(vhost(running).exchanges) == before
            assert not running.node.links

    converse(conversation)
    assert outcomes[0].failure is None
    return outcomes[0]


# --- Counts -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"size": 0},
        {"size": 1024, "autoack": True},
        {"size": 300_000, "pmessages": 20},
        {"multi_ack_every": 7, "qos": 10},
        {"multi_ack_every": 7, "autoack": False, "global_qos": 10},
        {"qos": 1, "pmessages": 50},
        {"confirm": 10},
        {"confirm": 1, "persistent": True, "pmessages": 50},
        {"queue": "q", "producers": 3, "consumers": 2},
        {"queue_pattern": "q%d", "queue_pattern_to": 3, "producers": 3, "consumers": 3},
        {"exchange": "", "producers": 2, "consumers": 2},
        {"exchange": "", "queue": "q"},
        {"exchange": "amq.direct", "queue": "q"},
        {"exchange_type": "topic", "routing_key": "a.*", "queue": "q"},
        {"priority": 3},
        {"rate": 1000},
        {"use_millis": True},
        {"drain": True},
        {"drain": True, "confirm": 10, "multi_ack_every": 9, "producers": 2, "consumers": 2, "queue": "q"},
        {"drain": True, "persistent": True, "durable": False},
    ],
    ids=str,
)
def test_each_message_once(options: dict[str, object]) -> None:
    result = outcome_of(**{"pmessages": 500, **options})
    total = result.options.pmessages * result.options.producers
    stats = result.stats
    assert (stats.published, stats.consumed, stats.nacked, stats.returned) == (total, total, 0, 0)
    assert stats.consumed_bytes == total * result.options.size
    assert stats.confirmed == stats.confirm_latency_total.count == (total if result.options.confirm else 0)
    assert stats.latency_total.count == (total if result.options.size >= 12 else 0)
    assert result.publish_seconds > 0
    assert result.consume_seconds > 0


@pytest.mark.parametrize(
    ("options", "copies"),
    [
        ({"consumers": 3}, 3),
        ({"consumers": 2, "producers": 2}, 2),
        ({"exchange_type": "fanout", "consumers": 2}, 2),
        ({"exchange_type": "headers", "consumers": 2}, 2),
        (
            {"routing_key": "k", "queue_pattern": "q%d", "queue_pattern_to": 3, "consumers": 3, "drain": True},
            3,
        ),
    ],
    ids=str,
)
def test_several_copies(options: dict[str, int], copies: int) -> None:
    stats = outcome_of(pmessages=100, **options).stats
    total = 100 * options.get("producers", 1)
    assert (stats.published, stats.consumed) == (total, copies * total)


def test_what_is_mandatory_comes_back() -> None:
    stats = outcome_of(consumers=0, pmessages=300, confirm=300, mandatory=True).stats
    assert (stats.published, stats.confirmed, stats.returned) == (300, 300, 300)


def test_what_a_full_queue_refuses() -> None:
    args = {"x-max-length": 100, "x-overflow": "reject-publish"}
    stats = outcome_of(queue="q", drain=True, pmessages=300, confirm=300, queue_args=args).stats
    assert (stats.published, stats.confirmed, stats.nacked, stats.consumed) == (300, 100, 200, 100)


def test_a_limit_of_the_consumers() -> None:
    stats = outcome_of(queue="q", consumers=2, cmessages=50, qos=10).stats
    assert stats.consumed == 100
    assert stats.published >= 100


def test_both_limits() -> None:
    stats = outcome_of(consumers=2, pmessages=100, cmessages=30).stats
    assert (stats.published, stats.consumed) == (100, 60)


def test_a_time() -> None:
    result = outcome_of(time=0.2, rate=1000)
    assert 0 < result.stats.published <= 1000
    assert result.stats.consumed <= result.stats.published


def test_a_drain_after_a_time() -> None:
    result = outcome_of(time=0.1, rate=1000, drain=True)
    assert result.stats.consumed == result.stats.published > 0


# --- What is declared -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "durable", "auto_delete"),
    [
        ({}, False, True),
        ({"persistent": True}, True, True),
        ({"persistent": True, "durable": False, "auto_delete": False}, False, False),
        ({"durable": True}, True, True),
    ],
    ids=str,
)
def test_queues_that_stay(options: dict[str, object], durable: bool, auto_delete: bool) -> None:
    async def conversation() -> None:
        async with broker() as running:
            args = {"x-max-length": 5, "x-message-ttl": 60_000}
            await Run(running, queue="q", consumers=0, pmessages=9, confirm=9, queue_args=args, **options).perform()
            client = await running.connect()
            declare = methods.QueueDeclare(queue="q", durable=durable, auto_delete=auto_delete, arguments=args)
            assert (await client.ask(declare, methods.QueueDeclareOk)).message_count == 5
            assert "direct" in vhost(running).exchanges, "its binding to the queue stays, so it does"

    converse(conversation)


def test_an_exchange_of_somebody_elses_stays() -> None:
    async def conversation() -> None:
        async with broker() as running:
            client = await running.connect()
            await client.ask(
                methods.ExchangeDeclare(exchange="direct", type="direct", durable=True), methods.ExchangeDeclareOk
            )
            assert (await Run(running, pmessages=10).perform()).stats.consumed == 10
            assert "direct" in vhost(running).exchanges

    converse(conversation)


def test_an_exchange_that_somebody_has_taken_to_stays() -> None:
    async def conversation() -> None:
        async with broker() as running:
            client = await running.connect()
            run = Run(running, rate=10, interval=0.01)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(run.perform)
                await until(lambda: bool(run.lines))
                assert "direct" in vhost(running).exchanges
                await client.ask(methods.QueueDeclare(queue="mine"), methods.QueueDeclareOk)
                await client.ask(methods.QueueBind(queue="mine", exchange="direct"), methods.QueueBindOk)
                run.stop.set()
            assert run.outcome is not None
            assert run.outcome.failure is None
            assert "direct" in vhost(running).exchanges

    converse(conversation, faster=20)


def test_what_is_there_is_used_as_it_is() -> None:
    async def conversation() -> None:
        async with broker() as running:
            client = await running.connect()
            await client.ask(methods.QueueDeclare(queue="q"), methods.QueueDeclareOk)
            await client.ask(methods.QueueBind(queue="q", exchange="amq.topic", routing_key="#"), methods.QueueBindOk)
            options = {"predeclared": True, "queue": "q", "exchange": "amq.topic", "routing_key": "k"}
            outcome = await Run(running, pmessages=20, **options).perform()
            assert (outcome.stats.consumed, outcome.failure) == (20, None)
            assert "q" in vhost(running).queues

    converse(conversation, faster=20)


def test_what_waits_already_is_part_of_it() -> None:
    async def conversation() -> None:
        async with broker() as running:
            client = await running.connect()
            await client.ask(methods.QueueDeclare(queue="q", auto_delete=True), methods.QueueDeclareOk)
            await client.publish("q", b"somebody else's", times=30)
            declared = await client.ask(methods.QueueDeclare(queue="q", passive=True), methods.QueueDeclareOk)
            assert declared.message_count == 30
            outcome = await Run(running, queue="q", pmessages=20).perform()
            assert (outcome.stats.consumed, outcome.stats.latency_total.count) == (50, 20)

    converse(conversation)


# --- How it ends ------------------------------------------------------------------------------------------------------


def run_and(then: Callable[[Running, Run, Client], object], **options: object) -> Run:
    """A run that goes on for ever, to which something happens once it has consumed something."""
    runs: list[Run] = []

    async def conversation() -> None:
        async with broker() as running:
            client = await running.connect()
            run = Run(running, rate=100, interval=0.01, **options)
            runs.append(run)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(run.perform)
                await until(lambda: any("latency" in line for line in run.lines))
                happens = then(running, run, client)
                if happens is not None:
                    await happens  # type: ignore[misc]

    converse(conversation)
    return runs[0]


def test_somebody_stops_it() -> None:
    run = run_and(lambda _, run, __: run.stop.set())
    assert run.outcome is not None
    assert run.outcome.failure is None
    assert run.outcome.stats.consumed > 0
    assert run.lines[-1].startswith("time ")


def test_somebody_stops_it_before_it_has_begun() -> None:
    async def conversation() -> None:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port = listeners[0].socket.getsockname()[1]
        stop = trio.Event()
        stop.set()
        with pytest.raises(PeerError, match="stopped before anything was measured"):
            await perform(Options(login=Login("127.0.0.1", port)), print, stop, alone=False)
        await listeners[0].aclose()

    converse(conversation)


def test_somebody_stops_it_while_it_publishes_what_is_to_be_drained() -> None:
    async def conversation() -> None:
        async with broker() as running:
            run = Run(running, rate=100, drain=True, pmessages=10**6, interval=0.01)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(run.perform)
                await until(lambda: any("sent: " in line for line in run.lines))
                run.stop.set()
            assert run.outcome is not None
            assert (run.outcome.failure, run.outcome.stats.consumed, run.outcome.consume_seconds) == (None, 0, 0)
            assert not vhost(running).queues, "no consumer came after whom it could have gone"

    converse(conversation)


def test_the_queue_is_deleted() -> None:
    run = run_and(
        lambda _, __, client: client.ask(methods.QueueDelete(queue="q"), methods.QueueDeleteOk), queue="q", size=12
    )
    assert run.outcome is not None
    assert run.outcome.failure == "consumer 1: the broker cancelled the consumer: queue 'q' is gone"
    assert run.outcome.stats.consumed > 0


def test_the_broker_stops() -> None:
    run = run_and(lambda running, _, __: running.stop.set())
    assert run.outcome is not None
    assert run.outcome.failure is not None
    assert "320 CONNECTION_FORCED - broker forced connection closure" in run.outcome.failure
    assert run.outcome.stats.consumed > 0


def test_a_message_that_is_too_large() -> None:
    async def conversation() -> None:
        async with broker(max_message_bytes=1000) as running:
            outcome = await Run(running, size=1001, pmessages=1).perform()
            assert outcome.failure is not None
            assert outcome.failure.startswith("producer 1: 406 PRECONDITION_FAILED")

    converse(conversation)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"queue": "q", "predeclared": True}, "404 NOT_FOUND - no queue 'q' in vhost '/'"),
        ({"exchange_type": "nonsense"}, "406 PRECONDITION_FAILED - unknown exchange type 'nonsense'"),
        ({"exchange": "amq.topic", "queue": "amq.q"}, "403 ACCESS_REFUSED - queue name 'amq.q' contains reserved"),
        ({"queue": "q", "queue_args": {"x-max-length": -1}}, "406 PRECONDITION_FAILED - invalid arg 'x-max-length'"),
        ({"consumers": 0, "exchange": "amq.nonsense"}, None),
    ],
    ids=str,
)
def test_what_the_broker_refuses(options: dict[str, object], complaint: str | None) -> None:
    """Before anything is measured it is an error; a publish is refused only once there is one."""

    async def conversation() -> None:
        async with broker() as running:
            run = Run(running, pmessages=10**6, **options)
            try:
                outcome = await run.perform()
            except PeerError as error:
                assert complaint is not None
                assert str(error).startswith(complaint)
            else:
                assert complaint is None
                assert outcome.failure == "producer 1: 404 NOT_FOUND - no exchange 'amq.nonsense' in vhost '/'"

    converse(conversation)


@pytest.mark.parametrize(
    ("login", "complaint"),
    [
        ({"password": "wrong"}, "403 ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN."),
        ({"vhost": "elsewhere"}, "530 NOT_ALLOWED - vhost elsewhere not found"),
    ],
    ids=str,
)
def test_a_login_that_is_refused(login: dict[str, str], complaint: str) -> None:
    async def conversation() -> None:
        async with broker() as running:
            options = Options(login=Login(running.host, running.port, **login))  # type: ignore[arg-type]
            with pytest.raises(PeerError) as raised:
                await perform(options, print, trio.Event(), alone=False)
            assert str(raised.value).startswith(complaint)

    converse(conversation)


def test_nobody_listens() -> None:
    async def conversation() -> None:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port = listeners[0].socket.getsockname()[1]
        await listeners[0].aclose()
        with pytest.raises(PeerError) as raised:
            await perform(Options(login=Login("127.0.0.1", port)), print, trio.Event(), alone=False)
        assert str(raised.value) == f"cannot connect to 127.0.0.1:{port}: Connection refused"

    converse(conversation)


def test_somebody_listens_who_says_nothing() -> None:
    async def conversation() -> None:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port = listeners[0].socket.getsockname()[1]
        with pytest.raises(PeerError) as raised:
            await perform(Options(login=Login("127.0.0.1", port)), print, trio.Event(), alone=False)
        assert str(raised.value) == f"127.0.0.1:{port} does not answer"
        await listeners[0].aclose()

    converse(conversation, faster=200)


def test_a_queue_that_drops_some_does_not_keep_it_for_ever() -> None:
    result = None

    async def conversation() -> None:
        nonlocal result
        async with broker() as running:
            args = {"x-max-length": 10}
            result = await Run(running, queue="q", drain=True, pmessages=300, queue_args=args).perform()

    converse(conversation, faster=100)
    assert result is not None
    assert result.stats.consumed == 10
    assert result.consume_seconds < math.inf
