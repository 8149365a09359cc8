"""Tests of rabbitish.wire: literal bytes, round trips, the specification's own list of methods, and pamqp as oracle."""
