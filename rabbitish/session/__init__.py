"""One AMQP peer: handshake, channels, consumers, confirms. Bytes in, calls to core/, bytes out; never waits."""
