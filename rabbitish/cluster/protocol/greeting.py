"""How two nodes know each other before the first frame: a greeting with a version, and a proof of the shared secret.

    dialler: RABBLINK version u16 nonce 16          listener: RABBLINK version u16 nonce 16 proof 32
    dialler: proof 32

A proof is an HMAC-SHA256 of both nonces under the secret, with the prover's side in it, so that none can be sent back
to where it came from. It shows who is there; it does not hide or protect what follows, which TLS below does. A node of
another version is refused, and both versions are named.
"""

from __future__ import annotations

import hmac

VERSION = 3  # 2: RELAY has a session; 3: and says how the client is secured, and a mark
NONCE_BYTES = 16
_MAGIC = b"RABBLINK"
_HEAD_BYTES = len(_MAGIC) + 2 + NONCE_BYTES
_PROOF_BYTES = 32


class Refused(Exception):
    """The peer is no node of this cluster, or speaks another version; the link is closed. The message says which."""


def _head(nonce: bytes, version: int) -> bytes:
    return _MAGIC + version.to_bytes(2, "big") + nonce


class Greeting:
    """One side of it. `nonce` is of NONCE_BYTES, drawn anew for each connection from what nobody can foresee."""

    def __init__(self, secret: bytes, nonce: bytes, *, dials: bool, version: int = VERSION) -> None:
        if not secret or len(nonce) != NONCE_BYTES:
            raise ValueError("a greeting needs a secret, and a nonce of its size")
        self._secret = secret
        self._nonce = nonce
        self._dials = dials
        self._version = version
        self._buffer = b""
        self._peer: bytes | None = None
        self.done = False
        """Whether the peer has proved itself."""

    def begin(self) -> bytes:
        """What is sent first; nothing by who listens."""
        return _head(self._nonce, self._version) if self._dials else b""

    def receive(self, data: bytes) -> bytes:
        """What the peer sent; what to answer. Refused: close the link."""
        if self.done:
            raise ValueError("the greeting is over")
        self._buffer += data
        answer = b""
        if self._peer is None and len(self._buffer) >= _HEAD_BYTES:
            answer = self._take_head()
        if self._peer is not None and len(self._buffer) >= _PROOF_BYTES:
            answer += self._take_proof()
        elif self._peer is None and self._buffer[: len(_MAGIC)] != _MAGIC[: len(self._buffer)]:
            raise Refused("the peer is no node of a cluster")
        return answer

    @property
    def rest(self) -> bytes:
        """What came behind the greeting: the first bytes of frames."""
        return self._buffer if self.done else b""

    def _take_head(self) -> bytes:
        head, self._buffer = self._buffer[:_HEAD_BYTES], self._buffer[_HEAD_BYTES:]
        if head[: len(_MAGIC)] != _MAGIC:
            raise Refused("the peer is no node of a cluster")
        version = int.from_bytes(head[len(_MAGIC) : len(_MAGIC) + 2], "big")
        if version != self._version:
            raise Refused(f"the peer speaks version {version} of the link, this node version {self._version}")
        self._peer = head[-NONCE_BYTES:]
        return b"" if self._dials else _head(self._nonce, self._version) + self._proof(dials=False)

    def _take_proof(self) -> bytes:
        proof, self._buffer = self._buffer[:_PROOF_BYTES], self._buffer[_PROOF_BYTES:]
        if not hmac.compare_digest(proof, self._proof(dials=not self._dials)):
            raise Refused("the peer does not know this cluster's secret")
        self.done = True
        return self._proof(dials=True) if self._dials else b""

    def _proof(self, *, dials: bool) -> bytes:
        """The proof of the side that dials, or of the other."""
        assert self._peer is not None
        nonces = self._nonce + self._peer if self._dials else self._peer + self._nonce
        return hmac.digest(self._secret, (b"dials" if dials else b"listens") + nonces, "sha256")
