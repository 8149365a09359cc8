"""Definitions: everything that is declared and decided in a broker, in RabbitMQ's JSON, out of it and into it.

`decode` takes a file apart, `access` and `topology` hold what it says against what there is, `export` writes one. Every
one of them is a generator that stops after each small piece of work, so that whoever runs it can serve others between
two: files have tens of thousands of objects. Nothing is changed before everything is known to be possible.
"""
