"""Sockets, time and signals: moves bytes and time between the world and the sessions, decides nothing."""
