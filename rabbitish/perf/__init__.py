"""The load tool: publishers and consumers that drive any AMQP 0-9-1 broker, and what they measured.

Reading order: options, plan, payload, stats, peer, topology, publisher, consumer, report; all of it pure. Only links
(sockets and the selector), run (trio, the clock) and command (the command line) meet the world outside.
"""
