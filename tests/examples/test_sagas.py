"""examples/saga_choreography.py and saga_orchestration.py: all steps or none, whatever fails and whoever dies."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import trio

from examples import saga_choreography as choreography
from examples import saga_orchestration as orchestration
from rabbitish.client import Backoff, RpcClient
from tests.examples.support import Box, World, get

# --- Choreography -----------------------------------------------------------------------------------------------------


def services(folder: Path, **stock: int) -> dict[str, choreography.Service]:
    given = {"flight": 9, "hotel": 9, "payment": 9, "trip": 0, **stock}
    return {name: choreography.Service(name, folder, number) for name, number in given.items()}


@pytest.mark.parametrize(
    ("stock", "outcome", "left"),
    [
        ({}, "trip.booked", [8, 8, 8]),
        ({"flight": 0}, "trip.cancelled", [0, 9, 9]),
        ({"hotel": 0}, "trip.cancelled", [9, 0, 9]),
        ({"payment": 0}, "trip.cancelled", [9, 9, 0]),
    ],
)
async def test_choreography_books_all_or_takes_all_back(
    world: World, tmp_path: Path, stock: dict[str, int], outcome: str, left: list[int]
) -> None:
    there = services(tmp_path, **stock)
    async with world.connect() as connection, trio.open_nursery() as nursery:
        for service in there.values():
            nursery.start_soon(choreography.serve, connection, service)
        assert await choreography.book(connection, "alice") == outcome
        nursery.cancel_scope.cancel()
    assert [there[name].left() for name in ("flight", "hotel", "payment")] == left


async def test_choreography_survives_a_service_that_dies_before_it_has_said_what_it_did(
    world: World, tmp_path: Path
) -> None:
    there = services(tmp_path, payment=0)
    outcome = Box()

    async def book() -> None:
        outcome(await choreography.book(connection, "alice"))

    async with world.connect() as connection, trio.open_nursery() as nursery:
        nursery.start_soon(book)
        for name, cause in (("flight", "trip.wanted"), ("hotel", "flight.booked")):
            async with world.channel() as dying:
                await choreography.declare(dying)
                message = await get(dying, f"saga.{name}")
                assert message.routing_key == cause
                there[name].react(cause, message.value()["id"])  # done, and neither said nor acknowledged
            nursery.start_soon(choreography.serve, connection, there[name])
        nursery.start_soon(choreography.serve, connection, there["trip"])
        nursery.start_soon(choreography.serve, connection, there["payment"])
        assert await outcome.next() == "trip.cancelled"
        nursery.cancel_scope.cancel()
    assert [there[name].left() for name in ("flight", "hotel", "payment")] == [9, 9, 0]


async def test_choreography_sells_no_seat_twice(world: World, tmp_path: Path) -> None:
    there = services(tmp_path, hotel=3)
    outcomes = Box()

    async def book(who: str) -> None:
        outcomes(await choreography.book(connection, who))

    async with world.connect() as connection, trio.open_nursery() as nursery:
        for service in there.values():
            nursery.start_soon(choreography.serve, connection, service)
        for number in range(5):
            nursery.start_soon(book, f"guest {number}")
        assert sorted(await outcomes.take(5)) == ["trip.booked"] * 3 + ["trip.cancelled"] * 2
        nursery.cancel_scope.cancel()
    assert [there[name].left() for name in ("flight", "hotel", "payment")] == [6, 0, 6]


# --- Orchestration ----------------------------------------------------------------------------------------------------


def three(**stock: int) -> dict[str, orchestration.Service]:
    return {name: orchestration.Service(name, stock.get(name, 9)) for name in orchestration.STEPS}


def taken(there: dict[str, orchestration.Service]) -> list[int]:
    return [len(service.trips) for service in there.values()]


@pytest.mark.parametrize(
    ("stock", "said", "result"),
    [
        ({}, ["alice: booked"], [1, 1, 1]),
        ({"flight": 0}, ["alice: no flight left", "alice: cancelled"], [0, 0, 0]),
        ({"payment": 0}, ["alice: no payment left", "alice: cancelled"], [0, 0, 0]),
    ],
)
async def test_orchestration_books_all_or_takes_all_back(
    world: World, tmp_path: Path, stock: dict[str, int], said: list[str], result: list[int]
) -> None:
    there, show = three(**stock), Box()
    async with world.connect() as connection, trio.open_nursery() as nursery:
        await nursery.start(orchestration.serve, connection, list(there.values()))
        nursery.start_soon(orchestration.orchestrate, connection, tmp_path / "trips.db", show)
        await orchestration.book(connection, "alice")
        assert await show.take(len(said)) == said
        nursery.cancel_scope.cancel()
    assert taken(there) == result


async def test_orchestration_goes_on_where_an_orchestrator_died(world: World, tmp_path: Path) -> None:
    there, show = three(payment=0, hotel=1), Box()
    async with world.connect() as connection, trio.open_nursery() as nursery:
        await nursery.start(orchestration.serve, connection, list(there.values()))
        await orchestration.book(connection, "alice")
        async with world.channel() as dying, RpcClient(dying.connection) as rpc:
            message = await get(dying, orchestration.TRIPS)
            first = orchestration.Orchestrator(rpc, tmp_path / "trips.db")
            await first.tell("flight.take", message.value()["id"])
            await rpc.call("hotel.take", message.value()["id"])  # done, but not noted any more
            first.database.close()
        nursery.start_soon(orchestration.orchestrate, connection, tmp_path / "trips.db", show)
        assert await show.take(2) == ["alice: no payment left", "alice: cancelled"]
        nursery.cancel_scope.cancel()
    assert taken(there) == [0, 0, 0]


async def test_orchestration_goes_on_with_taking_back(world: World, tmp_path: Path) -> None:
    there, show = three(payment=0), Box()
    async with world.connect() as connection, trio.open_nursery() as nursery:
        await nursery.start(orchestration.serve, connection, list(there.values()))
        await orchestration.book(connection, "alice")
        async with world.channel() as dying, RpcClient(dying.connection) as rpc:
            message = await get(dying, orchestration.TRIPS)
            trip = message.value()["id"]
            first = orchestration.Orchestrator(rpc, tmp_path / "trips.db")
            await first.tell("flight.take", trip)
            await first.tell("hotel.take", trip)
            first.write(trip, "refused")
            await first.tell("hotel.give_back", trip)
            first.database.close()
        nursery.start_soon(orchestration.orchestrate, connection, tmp_path / "trips.db", show)
        assert await show.next() == "alice: cancelled"
        nursery.cancel_scope.cancel()
    assert taken(there) == [0, 0, 0]


async def test_orchestration_asks_a_silent_service_again_later(world: World, tmp_path: Path) -> None:
    there, show = three(), Box()
    soon = Backoff(first=world.seconds(60), factor=1, retries=50)
    async with world.connect() as connection, trio.open_nursery() as nursery:
        await nursery.start(orchestration.serve, connection, [there["flight"], there["hotel"]])
        nursery.start_soon(partial(orchestration.orchestrate, connection, tmp_path / "trips.db", show, backoff=soon))
        await orchestration.book(connection, "alice", backoff=soon)
        waiting = f"{orchestration.TRIPS}.retry.{soon.milliseconds()[0]}"
        if world.broker is not None:
            await world.broker.wait_until(lambda: world.broker and world.broker.queue(waiting).ready)
            assert taken(there) == [1, 1, 0]
        await nursery.start(orchestration.serve, connection, [there["payment"]])
        await world.later(60)
        assert await show.next() == "alice: booked"
        nursery.cancel_scope.cancel()
    assert taken(there) == [1, 1, 1]
