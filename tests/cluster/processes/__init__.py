"""Clusters of real processes: nodes and etcd that are killed, frozen, cut off and damaged while clients are at work.

`python -m tests.cluster.processes drill|soak|matrix|figures|report` does by hand what takes long; test_mishaps.py is a
short round of each mishap, and runs with RABBITISH_DRILL=1. Everything is told by what clients saw: a message that
was confirmed and never came is lost, one that came and was never sent is invented, and neither may ever be.
"""
