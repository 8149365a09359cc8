"""Conversations of real AMQP clients with a broker.

Each file speaks as the users of one client do: their calls, their exceptions, their idioms. Nothing here looks inside
the broker, so the same files run against rabbitish (started for the session) and RabbitMQ (RABBITISH_TEST_BROKER).
"""
