"""Measurements of the broker, and what docs/PERFORMANCE.md is made of: `python -m tests.bench --help`."""
