"""Connecting, declaring, publishing and consuming, as a program does it, on a broker."""

from __future__ import annotations

import time

import pytest
import trio

from rabbitish.client import (
    AlreadySettled,
    ChannelClosed,
    ConnectFailed,
    ConnectionClosed,
    ConsumerCancelled,
    Message,
    NotFound,
    PreconditionFailed,
    PublishManyFailed,
    PublishNacked,
    PublishReturned,
    ResourceLocked,
    connect,
    queue_arguments,
)
from tests.server.support import broker as in_process

from .support import broker, channel, connected, count, name, new_queue, ours_only, run, soon


def test_what_is_published_comes_out_with_its_value_and_properties() -> None:
    async def conversation() -> None:
        async with channel() as opened:
            queue = await new_queue(opened)
            await queue.publish("text", message_id="1", headers={"a": 1}, priority=3)
            await queue.publish({"json": ["ä", 1]}, correlation_id="c", reply_to="r", expiration=60_000)
            await queue.publish(Message(b"bytes", delivery_mode=1, type="t", app_id="a"))
            first, second, third = [await queue.get() for _ in range(3)]
            assert first and second and third
            assert (first.value(), first.message_id, first.headers, first.priority) == ("text", "1", {"a": 1}, 3)
            assert (first.content_type, first.delivery_mode, first.message_count) == ("text/plain", 2, 2)
            assert second.value() == {"json": ["ä", 1]}
            assert (second.correlation_id, second.reply_to, second.expiration) == ("c", "r", "60000")
            assert (third.value(), third.content_type, third.delivery_mode) == (b"bytes", None, 1)
            assert (third.type, third.app_id, third.headers) == ("t", "a", {})
            assert await queue.get() is None

    run(conversation)


@pytest.mark.parametrize("size", [0, 1, 131_063, 131_064, 131_065, 400_000])
def test_bodies_of_any_size(size: int) -> None:
    async def conversation() -> None:
        async with channel() as opened:
            queue = await new_queue(opened)
            body = bytes(range(256)) * (size // 256) + bytes(size % 256)
            await queue.publish(body)
            await queue.publish(b"next")
            async with queue.consume() as messages:
                assert [(await anext(messages)).body for _ in range(2)] == [body, b"next"]

    run(conversation)


def test_a_block_settles_its_message() -> None:
    async def conversation() -> None:
        async with channel() as opened:
            parked = await new_queue(opened)
            to_parked = queue_arguments(dead_letter_exchange="", dead_letter_routing_key=parked.queue)
            queue = await new_queue(opened, b"good", b"bad", b"again", b"kept", arguments=to_parked)
            seen = []
            async with queue.consume(prefetch=1) as messages:
                async for message in messages:
                    seen.append((message.body, message.redelivered))
                    try:
                        async with message.process(
                            requeue=message.body == b"again" and not message.redelivered,
                            reject_on_error=message.body != b"kept",
                        ):
                            if message.body != b"good" and not message.redelivered:
                                raise ValueError
                    except ValueError:
                        if message.body == b"kept":
                            assert not message.settled
                            break
            assert seen == [(b"good", False), (b"bad", False), (b"again", False), (b"again", True), (b"kept", False)]
            message.ack()
            with pytest.raises(AlreadySettled):
                message.ack()
            dead = await parked.get()
            assert dead and dead.body == b"bad"
            assert dead.headers["x-first-death-reason"] == "rejected"
            assert await count(opened, queue.queue) == 0

    run(conversation)


def test_a_cancelled_block_gives_its_message_back() -> None:
    async def conversation() -> None:
        async with channel() as opened:
            queue = await new_queue(opened, b"m")
            with trio.CancelScope() as scope:
                async for message in queue.consume():
                    async with message.process():
                        scope.cancel()
                        await trio.lowlevel.checkpoint()
            assert (await soon(queue)).redelivered

    run(conversation)


def test_what_was_not_handed_out_goes_back_when_the_loop_ends() -> None:
    async def conversation() -> None:
        async with channel() as opened:
            queue = await new_queue(opened, *[b"%d" % number for number in range(10)])
            async for message in queue.consume(prefetch=5):
                message.ack()
                break
            rest = [await soon(queue, no_ack=True) for _ in range(9)]
            assert sorted(int(message.body) for message in rest) == list(range(1, 10))
            assert (await opened.declare_queue(queue.queue, passive=True)).consumer_count == 0

    run(conversation)


def test_a_message_in_hand_outlives_its_consumer() -> None:
    async def conversation() -> None:
        async with channel() as opened:
            queue = await new_queue(opened, b"1", b"2")
            async with queue.consume() as messages:
                message = await anext(messages)
            message.ack()
            left = await queue.get()
            assert left and left.body == b"2"

    run(conversation)


def test_multiple_acknowledgement_and_rejection() -> None:
    async def conversation() -> None:
        async with channel() as opened:
            queue = await new_queue(opened, *[b"%d" % number for number in range(6)])
            async with queue.consume() as messages:
                taken = [await anext(messages) for _ in range(6)]
                taken[1].ack(multiple=True)
                taken[3].nack(multiple=True, requeue=False)
                taken[4].reject(requeue=True)
                assert [message.settled for message in taken] == [True] * 5 + [False]
                again = await anext(messages)
                assert (again.body, again.redelivered) == (b"4", True)
            with pytest.raises(AlreadySettled):
                taken[0].nack(multiple=True)

    run(conversation)


def test_batches_of_a_number_or_after_a_time() -> None:
    async def conversation() -> None:
        async with channel() as opened:
            queue = await new_queue(opened, *[b"%d" % number for number in range(7)])
            async with queue.consume() as messages:
                sizes = []
                async for batch in messages.batches(3, 0.05):
                    async with batch.process():
                        sizes.append(len(batch))
                    if sum(sizes) == 7:
                        break
            assert sizes == [3, 3, 1]
            assert await count(opened, queue.queue) == 0

    run(conversation)


def test_a_batch_that_fails_is_rejected_as_a_whole() -> None:
    async def conversation() -> None:
        async with channel() as opened:
            queue = await new_queue(opened, b"1", b"2", b"3")
            async with queue.consume() as messages:
                batches = messages.batches(2)
                with pytest.raises(ValueError, match="why"):
                    async with (await anext(batches)).process(requeue=True):
                        raise ValueError("why")
                bodies = [(message.body, message.redelivered) for message in await anext(batches)]
            assert sorted(bodies) != [(b"1", False), (b"2", False)]
            assert any(redelivered for _, redelivered in bodies)

    run(conversation)


def test_a_cancelled_batch_goes_back() -> None:
    async def conversation() -> None:
        async with channel() as opened:
            queue = await new_queue(opened, b"1", b"2")
            async with queue.consume() as messages:
                batches = messages.batches(2)
                with trio.CancelScope() as scope:
                    async with (await anext(batches)).process():
                        scope.cancel()
                        await trio.sleep_forever()
                again = await anext(batches)
                assert [message.redelivered for message in again] == [True, True]
                again.ack()

    run(conversation)


def test_errors_of_publishing() -> None:
    async def conversation() -> None:
        async with connected() as connection, connection.channel() as opened:
            with pytest.raises(PublishReturned) as returned:
                await opened.publish(b"", routing_key=name())
            assert (returned.value.code, returned.value.exchange) == (312, "")
            await opened.publish(b"", exchange="amq.fanout", routing_key=name())
            full = await new_queue(opened, arguments=queue_arguments(max_length=1, overflow="reject-publish"))
            await full.publish(b"")
            with pytest.raises(PublishNacked):
                await full.publish(b"")
            with pytest.raises(NotFound) as refused:
                await opened.publish(b"", exchange=name(), routing_key="")
            assert refused.value.code == 404
            with pytest.raises(NotFound):
                await opened.declare_queue(name())
            assert isinstance(opened.closed, NotFound)

    run(conversation)


def test_a_full_queue_stops_many_and_says_which() -> None:
    async def conversation() -> None:
        async with channel() as opened:
            full = await new_queue(opened, arguments=queue_arguments(max_length=5, overflow="reject-publish"))
            with pytest.raises(PublishManyFailed) as failed:
                await opened.publish_many([b"x"] * 1000, routing_key=full.queue, window=10)
            error = failed.value
            assert error.failures[0][0] == 5
            assert all(isinstance(each, PublishNacked) for _, each in error.failures)
            assert error.confirmed == 5
            assert error.sent == 5 + len(error.failures) < 30

    run(conversation)


def test_many_from_an_asynchronous_source_with_addresses_of_their_own() -> None:
    async def conversation() -> None:
        async with channel() as opened:
            one, other = await new_queue(opened), await new_queue(opened)
            send, receive = trio.open_memory_channel[Message](3)
            for target in (one, other, other):
                await send.send(Message(target.queue, routing_key=target.queue))
            send.close()
            assert await opened.publish_many(receive) == 3
            assert (await count(opened, one.queue), await count(opened, other.queue)) == (1, 2)

    run(conversation)


def test_declaring_binding_and_deleting() -> None:
    async def conversation() -> None:
        async with connected() as connection, connection.channel() as opened:
            exchange = await opened.declare_exchange(name(), "topic", auto_delete=True)
            target = await opened.declare_exchange(name(), "fanout")
            queue = await opened.declare_queue(exclusive=True)
            assert queue.queue.startswith("amq.gen-")
            await target.bind(exchange, "a.*")
            await queue.bind(target)
            await exchange.publish("1", "a.b")
            await exchange.publish("2", "b.b")
            await queue.bind(exchange, "b.#")
            await exchange.publish("3", "b")
            await queue.unbind(exchange, "b.#")
            await target.unbind(exchange, "a.*")
            await target.delete()
            assert await queue.purge() == 2
            await queue.publish("4")
            with pytest.raises(PreconditionFailed):
                await queue.delete(if_empty=True)
            async with connection.channel() as other:
                assert await other.queue(queue.queue).delete() == 1

    run(conversation)


def test_a_consumer_ends_with_its_queue() -> None:
    async def conversation() -> None:
        async with connected() as connection, connection.channel() as opened, connection.channel() as other:
            queue = await new_queue(opened, b"last")
            async with queue.consume() as messages:
                message = await anext(messages)
                message.ack()
                await other.queue(queue.queue).delete()
                with pytest.raises(ConsumerCancelled):
                    await anext(messages)

    run(conversation)


def test_a_queue_of_somebody_else_is_locked() -> None:
    async def conversation() -> None:
        async with (
            broker() as uri,
            connect(uri) as one,
            connect(uri) as two,
            one.channel() as mine,
            two.channel() as other,
        ):
            queue = await new_queue(mine)
            with pytest.raises(ResourceLocked):
                await other.declare_queue(queue.queue, passive=True)

    run(conversation)


def test_a_closed_channel_and_a_closed_connection_say_so() -> None:
    async def conversation() -> None:
        async with connected() as connection:
            async with connection.channel() as opened:
                queue = await new_queue(opened, b"m")
                message = await queue.get()
            assert message
            assert message.stale
            message.ack()
            with pytest.raises(ChannelClosed):
                await opened.publish(b"")
            async with connection.channel() as again:
                await connection.aclose()
                with pytest.raises(ConnectionClosed):
                    await again.publish(b"", routing_key="q")
            with pytest.raises(ConnectionClosed):
                async with connection.channel():
                    pass
            assert isinstance(await connection.wait_closed(), ConnectionClosed)

    run(conversation)


def test_an_error_leaves_the_blocks_as_it_is() -> None:
    async def fail(uri: str) -> None:
        async with connect(uri) as connection, connection.channel() as opened:
            async for _ in (await new_queue(opened, b"m")).consume():
                raise ValueError("mine")

    async def conversation() -> None:
        async with broker() as uri:
            with pytest.raises(ValueError, match="mine"):
                await fail(uri)

    run(conversation)


def test_something_else_answers() -> None:
    async def conversation() -> None:
        async def answer(stream: trio.SocketStream) -> None:
            await stream.send_all(b"220 mail.example ESMTP\r\n")
            await stream.receive_some()

        async with trio.open_nursery() as nursery:
            listeners = await nursery.start(trio.serve_tcp, answer, 0)
            port = listeners[0].socket.getsockname()[1]
            with pytest.raises(ConnectFailed, match="not AMQP 0-9-1"):
                async with connect(f"amqp://127.0.0.1:{port}"):
                    pass
            nursery.cancel_scope.cancel()

    run(conversation)


def test_nobody_answers() -> None:
    async def conversation() -> None:
        listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
        port = listener.socket.getsockname()[1]
        await listener.aclose()
        with pytest.raises(ConnectFailed, match=f"127.0.0.1:{port}"):
            async with connect(f"amqp://127.0.0.1:{port}"):
                pass

    run(conversation)


@ours_only
def test_publishing_waits_while_the_broker_blocks() -> None:
    async def conversation() -> None:
        async with in_process(ephemeral=True, memory_high_watermark_bytes=256 * 1024) as running:
            uri = f"amqp://{running.host}:{running.port}"
            async with connect(uri) as producer, producer.channel() as channel, connect(uri) as consumer:
                queue = await channel.declare_queue(name())
                await queue.publish(bytes(300_000))
                with trio.move_on_after(0.05) as scope:
                    while producer.blocked is None:
                        await queue.publish("confirmed or not")
                assert producer.blocked == "low on memory"
                with trio.move_on_after(0.02) as scope:
                    await queue.publish("not sent")
                assert scope.cancelled_caught
                assert consumer.blocked is None
                with trio.move_on_after(0.05) as scope:
                    await producer.wait_unblocked()
                assert scope.cancelled_caught
                async with consumer.channel() as other:
                    await other.queue(queue.queue).purge()
                await producer.wait_unblocked()
                await queue.publish("sent")
                assert producer.blocked is None
                bodies = set()
                while (message := await queue.get(no_ack=True)) is not None:
                    bodies.add(message.value())
                assert bodies <= {"confirmed or not", "sent"}

    run(conversation)


def test_what_is_written_waits_for_the_socket() -> None:
    async def conversation() -> None:
        async with connected() as connection, connection.channel(confirms=False) as channel:
            queue = await new_queue(channel)
            for _ in range(30):
                await queue.publish(bytes(500_000))
                assert connection.protocol().out_bytes < 2 * 1024 * 1024
            async with queue.consume(no_ack=True) as messages:
                for _ in range(30):
                    assert len((await anext(messages)).body) == 500_000

    run(conversation)


def test_a_loop_that_waits_for_nothing_else_notices_that_it_is_cancelled() -> None:
    async def conversation() -> None:
        async with channel() as opened:
            queue = await new_queue(opened, *[b"x"] * 300)
            async with queue.consume(prefetch=0) as messages:
                while messages.waiting < 300:  # noqa: ASYNC110 (no event)
                    await trio.sleep(0.001)
                taken = 0
                with trio.CancelScope() as scope:
                    async for message in messages:
                        message.ack()
                        taken += 1
                        if taken == 3:
                            scope.cancel()
                assert taken == 3

    run(conversation)


def test_others_run_while_a_loop_waits_for_nothing_else() -> None:
    async def conversation() -> None:
        async with channel() as opened:
            queue = await new_queue(opened, *[b"x"] * 300)
            turns = 0

            async def other() -> None:
                nonlocal turns
                while True:
                    await trio.lowlevel.checkpoint()
                    turns += 1

            async with queue.consume(prefetch=0) as messages:
                while messages.waiting < 300:  # noqa: ASYNC110 (no event)
                    await trio.sleep(0.001)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(other)
                    for _ in range(20):
                        time.sleep(0.002)  # noqa: ASYNC251 (a program that computes)
                        (await anext(messages)).ack()
                    assert turns >= 10
                    nursery.cancel_scope.cancel()

    run(conversation)


def test_two_consumers_on_a_channel_have_two_tags() -> None:
    async def conversation() -> None:
        async with channel() as opened:
            queue = await new_queue(opened)
            async with queue.consume(consumer_tag="mine", priority=1) as one, queue.consume() as other:
                assert one.consumer_tag == "mine" != other.consumer_tag
                with pytest.raises(ValueError, match="'mine' is in use"):
                    await queue.consume(consumer_tag="mine").start()

    run(conversation)
