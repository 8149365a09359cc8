"""The server over real sockets; where time matters, trio's mock clock runs a hundred times as fast."""
