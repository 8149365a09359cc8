"""AMQP 0-9-1 on the wire: frames, methods, field tables, content properties. Bytes in, values out, and back.

Nothing here knows a broker, a connection's state or a socket. Reading order: frames, table, codec, method, methods,
properties.
"""
