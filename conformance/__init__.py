"""Conformance: cases by topic that judge any AMQP 0-9-1 broker by RabbitMQ's behaviour on the wire.

`pytest conformance --broker amqp://user:password@host:port/vhost` runs them against a broker that is already up;
without the option they start rabbitish on a free port; with --through-mirror a cluster of it. Nothing here imports
rabbitish: what the suite knows about a broker, it learnt through a socket. Where rabbitish differs from RabbitMQ on
purpose, the case carries both expectations and the reason (`support.differs`).
"""
