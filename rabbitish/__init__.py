"""rabbitish: a RabbitMQ-compatible message broker and AMQP 0-9-1 client for trio, in Python."""

__version__ = "0.1.0"
