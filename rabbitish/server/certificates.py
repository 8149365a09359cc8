"""What TLS is done with: our certificate, its key, and the authorities that clients' certificates must come from.

All of it is read together at the start and again when the node is told to, and it is good as a whole or not used: after
a `CertificateError` what was there before goes on. Connections that stand keep what they began with.
"""

from __future__ import annotations

import re
import ssl
from pathlib import Path

import trio

from rabbitish.config import Settings
from rabbitish.server.listener import ListenError
from rabbitish.server.log import Log

# How PEM begins what it holds.
_CERTIFICATE = re.compile(rb"-----BEGIN (X509 |TRUSTED )?CERTIFICATE-----")
_PRIVATE_KEY = re.compile(rb"-----BEGIN ([A-Z]+ )*PRIVATE KEY-----")
_VERSIONS = {"tlsv1.2": ssl.TLSVersion.TLSv1_2, "tlsv1.3": ssl.TLSVersion.TLSv1_3}


class CertificateError(ListenError):
    """Certificate, key or authorities cannot be used; the message says which file and why."""


class Certificates:
    """The TLS context of new connections, made from the files that the settings name.

    CertificateError: they cannot be used.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.context = read_context(settings)
        self._reading = trio.Lock()  # of two reloads the later one's result stays

    async def reload(self, log: Log) -> None:
        """Read the files again. In a thread: they may be on a file system that hangs."""
        async with self._reading:
            try:
                self.context = await trio.to_thread.run_sync(read_context, self._settings, abandon_on_cancel=True)
            except CertificateError as error:
                log.error("the new certificate cannot be used, the one before stays", error=error)
            else:
                log.info("the certificate was read again", certfile=self._settings.ssl_options_certfile)


def read_context(settings: Settings) -> ssl.SSLContext:
    """A context from the files that the settings name. CertificateError: see there."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    versions = sorted(_VERSIONS[version] for version in settings.ssl_options_versions)
    context.minimum_version, context.maximum_version = versions[0], versions[-1]
    # A peer that could negotiate anew would make us wait for it in the middle of a write, as often as it likes.
    context.options |= ssl.OP_NO_RENEGOTIATION
    # Nothing is resumed by tickets: connections last, and a client's certificate is verified at each.
    context.options |= ssl.OP_NO_TICKET
    context.num_tickets = 0
    _choose_ciphers(context, settings.ssl_options_ciphers)
    own = settings.ssl_options_certfile, settings.ssl_options_keyfile, settings.ssl_options_password
    load_own(context, *own, "ssl_options_password")
    if settings.ssl_options_verify == "verify_peer":
        load_authorities(context, settings.ssl_options_cacertfile)
        required = settings.ssl_options_fail_if_no_peer_cert
        context.verify_mode = ssl.CERT_REQUIRED if required else ssl.CERT_OPTIONAL
    return context


def _choose_ciphers(context: ssl.SSLContext, names: tuple[str, ...]) -> None:
    """Allow these alone with TLS 1.2, and prefer them in our order. OpenSSL passes over names that it does not know."""
    if not names:
        return
    for name in names:
        try:
            context.set_ciphers(name)
        except ssl.SSLError as error:
            raise CertificateError(f"ssl_options_ciphers: OpenSSL has no cipher {name!r}") from error
    context.set_ciphers(":".join(names))
    context.options |= ssl.OP_CIPHER_SERVER_PREFERENCE


def load_own(context: ssl.SSLContext, certfile: str, keyfile: str, secret: str, setting: str) -> None:
    """Our certificate and its key (empty: in the same file), which is opened by what a setting says. CertificateError:
    see there.
    """
    keyfile = keyfile or certfile
    _check(certfile, _CERTIFICATE, "certificate")
    _check(keyfile, _PRIVATE_KEY, "private key")
    asked: list[bool] = []

    def password() -> str:
        """Always there: without one OpenSSL would ask for it on the terminal, and wait."""
        asked.append(True)
        return secret

    try:
        context.load_cert_chain(certfile, keyfile, password)
    except (ssl.SSLError, ValueError) as error:  # ValueError: a password too long
        if isinstance(error, ssl.SSLError) and error.reason == "KEY_VALUES_MISMATCH":
            raise CertificateError(f"the key in {keyfile} does not belong to the certificate in {certfile}") from error
        if asked:
            raise CertificateError(f"{setting} does not open the key in {keyfile}") from error
        raise CertificateError(f"cannot use {certfile} with the key in {keyfile}: {error}") from error


def load_authorities(context: ssl.SSLContext, path: str) -> None:
    """Whom peers' certificates must come from. CertificateError: see there."""
    _check(path, _CERTIFICATE, "certificate")
    try:
        context.load_verify_locations(path)
    except ssl.SSLError as error:
        raise CertificateError(f"cannot use the authorities in {path}: {error}") from error


def _check(path: str, begins: re.Pattern[bytes], what: str) -> None:
    """OpenSSL's own complaint about a file says neither which nor what is missing."""
    try:
        text = Path(path).read_bytes()
    except OSError as error:
        raise CertificateError(f"cannot read {path}: {error.strerror or error}") from error
    if not begins.search(text):
        raise CertificateError(f"there is no {what} in PEM format in {path}")
