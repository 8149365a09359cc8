"""Password hashes: RabbitMQ's, which import and verify, and our own, which new passwords get.

RabbitMQ's are a salt of 4 bytes and a digest of salt and password. They are quick, for whoever stole them too. Ours is
scrypt, whose cost stands in front of each hash, so that it can be raised later. Randomness is an argument. `hashlib`
lets other threads run meanwhile; whoever calls `matches` for a slow hash does so in a thread of its own.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Callable
from typing import Any, NamedTuple

SALT_BYTES = 16
SCRYPT = "rabbitish_password_scrypt"
SHA256 = "rabbit_password_hashing_sha256"

_SALTED: dict[str, Callable[[bytes], Any]] = {
    SHA256: hashlib.sha256,
    "rabbit_password_hashing_sha512": hashlib.sha512,
    "rabbit_password_hashing_md5": lambda data: hashlib.md5(data, usedforsecurity=False),
}
_RABBITMQ_SALT_BYTES = 4
_KEY_BYTES = 32
_BLOCK_SIZE = 8  # scrypt's r: with it, 2 ** cost KiB of memory
_COSTS = range(4, 21)


class Hashed(NamedTuple):
    """A password's hash: RabbitMQ's name for the algorithm (or ours), salt and digest as definitions have them."""

    algorithm: str
    value: bytes

    @property
    def slow(self) -> bool:
        """Whether it takes long enough to verify that nobody should wait for it."""
        return self.algorithm == SCRYPT

    def encoded(self) -> str:
        """The value as text."""
        return base64.b64encode(self.value).decode()


def hash_password(password: bytes, salt: bytes, cost: int) -> Hashed:
    """Our own hash; it takes 2 ** cost KiB of memory, and time in proportion. `salt` has SALT_BYTES."""
    return Hashed(SCRYPT, bytes((cost,)) + salt + _scrypt(password, salt, cost))


def hash_as_rabbitmq(password: bytes, salt: bytes, algorithm: str = SHA256) -> Hashed:
    """RabbitMQ's hash, of which `salt` gives the first bytes for a salt."""
    salt = salt[:_RABBITMQ_SALT_BYTES]
    return Hashed(algorithm, salt + _SALTED[algorithm](salt + password).digest())


def matches(hashed: Hashed, password: bytes) -> bool:
    """Whether this is the password. An empty one never is, as with RabbitMQ."""
    if hashed.slow:
        cost, salt, expected = hashed.value[0], hashed.value[1 : 1 + SALT_BYTES], hashed.value[1 + SALT_BYTES :]
        digest = _scrypt(password, salt, cost)
    else:
        salt, expected = hashed.value[:_RABBITMQ_SALT_BYTES], hashed.value[_RABBITMQ_SALT_BYTES:]
        digest = _SALTED[hashed.algorithm](salt + password).digest()
    return hmac.compare_digest(digest, expected) and bool(password)


def read_hash(algorithm: str, text: str) -> Hashed:
    """A hash from definitions. ValueError: it is none, or of an algorithm that is not known."""
    try:
        value = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("password_hash is not base64") from None
    if algorithm == SCRYPT:
        right = len(value) == 1 + SALT_BYTES + _KEY_BYTES and value[0] in _COSTS
    elif algorithm in _SALTED:
        right = len(value) == _RABBITMQ_SALT_BYTES + int(_SALTED[algorithm](b"").digest_size)
    else:
        raise ValueError(f"hashing_algorithm {algorithm!r} is not known")
    if not right:
        raise ValueError(f"password_hash is no hash of {algorithm}")
    return Hashed(algorithm, value)


def _scrypt(password: bytes, salt: bytes, cost: int) -> bytes:
    most = 2 * 128 * _BLOCK_SIZE << cost
    return hashlib.scrypt(password, salt=salt, n=1 << cost, r=_BLOCK_SIZE, p=1, maxmem=most, dklen=_KEY_BYTES)
