"""Mirrors: several nodes keep the same log, etcd says who leads, and what was confirmed is on every in-sync disk."""
