"""A client for AMQP 0-9-1 brokers (rabbitish, RabbitMQ) on trio; docs/CLIENT.md is its guide.

    async with connect("amqp://guest:guest@localhost/") as connection, connection.channel() as channel:
        queue = await channel.declare_queue("greetings", durable=True)
        await queue.publish("hello")
        async with queue.consume() as messages:
            async for message in messages:
                async with message.process():
                    print(message.value())

Everything public is exported here. The pure half is in protocol/; the other modules are its front on trio.
"""

from rabbitish.client.channel import Channel
from rabbitish.client.connection import Connection, Reconnect, connect
from rabbitish.client.consumer import Batch, Consumer
from rabbitish.client.errors import (
    AccessRefused,
    AlreadySettled,
    AuthenticationFailed,
    CallTimeout,
    ChannelClosed,
    ClientError,
    ConnectFailed,
    ConnectionClosed,
    ConnectionLost,
    ConsumerCancelled,
    NotFound,
    Poison,
    PreconditionFailed,
    ProtocolError,
    PublishError,
    PublishManyFailed,
    PublishNacked,
    PublishReturned,
    PublishUnconfirmed,
    RemoteError,
    ResourceLocked,
    URIError,
)
from rabbitish.client.idempotent import MemoryStore, Once, SeenStore, SQLiteStore
from rabbitish.client.message import IncomingMessage
from rabbitish.client.protocol.arguments import consumer_arguments, exchange_arguments, queue_arguments
from rabbitish.client.protocol.content import BYTES, JSON, PERSISTENT, TEXT, TRANSIENT, Message, Serialiser
from rabbitish.client.protocol.uri import Parameters, TlsOptions, parse_uri
from rabbitish.client.queue import Exchange, Queue
from rabbitish.client.rpc import RpcClient, RpcServer
from rabbitish.client.work import Backoff, WorkQueue

__all__ = [
    "BYTES",
    "JSON",
    "PERSISTENT",
    "TEXT",
    "TRANSIENT",
    "AccessRefused",
    "AlreadySettled",
    "AuthenticationFailed",
    "Backoff",
    "Batch",
    "CallTimeout",
    "Channel",
    "ChannelClosed",
    "ClientError",
    "ConnectFailed",
    "Connection",
    "ConnectionClosed",
    "ConnectionLost",
    "Consumer",
    "ConsumerCancelled",
    "Exchange",
    "IncomingMessage",
    "MemoryStore",
    "Message",
    "NotFound",
    "Once",
    "Parameters",
    "Poison",
    "PreconditionFailed",
    "ProtocolError",
    "PublishError",
    "PublishManyFailed",
    "PublishNacked",
    "PublishReturned",
    "PublishUnconfirmed",
    "Queue",
    "Reconnect",
    "RemoteError",
    "ResourceLocked",
    "RpcClient",
    "RpcServer",
    "SQLiteStore",
    "SeenStore",
    "Serialiser",
    "TlsOptions",
    "URIError",
    "WorkQueue",
    "connect",
    "consumer_arguments",
    "exchange_arguments",
    "parse_uri",
    "queue_arguments",
]
