"""The client's side of AMQP as state machines: bytes in, bytes out, and promises that are kept in between.

No trio, no socket, no clock: tests/test_layering.py holds this folder to the rules of the pure packages. Whoever has
something to wait for gets a `Promise`; the front (the modules above this folder) turns it into an await. Reading order:
promise, confirms, delivery, settling, channel, skim, connection.
"""
