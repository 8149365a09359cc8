"""Every default and every limit of the broker, in one place, with units in the names and the reason for each value.

`Settings` is a plain frozen value: whoever starts a broker makes one and passes it down. Nothing imports a limit as a
global, and core/ never sees this module at all; it gets the few numbers that it needs as arguments. A value that makes
no sense is refused here, when the object is made, with a `SettingError` that names the key. So the rest of the code
never checks a setting again.

This module never reads a file, an environment variable or the machine: server/settings_file.py does. Where a sensible
value depends on the machine (memory), the setting is a share and server/ works out the number.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import TypeAlias, cast

from rabbitish.addresses import (
    Address,
    SettingError,
    parse_address,
    parse_advertised,
    parse_cluster,
    parse_host_port,
    parse_name,
)

Setting: TypeAlias = str | bool | int | tuple[str, ...] | None
"""What one key can hold."""

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB

LOG_LEVELS = ("debug", "info", "warning", "error")
TLS_VERSIONS = ("tlsv1.2", "tlsv1.3")
LOGIN_NAMES = ("distinguished_name", "common_name", "subject_alternative_name", "subject_alt_name")
SAN_TYPES = ("dns", "ip", "email", "uri")
PASSWORD_HASHES = (
    "rabbitish_password_scrypt",
    "rabbit_password_hashing_sha256",
    "rabbit_password_hashing_sha512",
)

_LONGEST_MS = 366 * 24 * 3600 * 1000
_SHORT_STRING_BYTES = 255


def within(low: int, high: int, default: int | None) -> int:
    """A whole-number field with its smallest and largest sensible value.

    The result is typed as what the field holds, so that the fields below read like ordinary defaults.
    """
    number: int = field(default=default, metadata={"low": low, "high": high})  # type: ignore[assignment]
    return number


@dataclass(frozen=True, slots=True)
class Settings:
    """What one broker runs with; the fields are the keys of the configuration file."""

    # --- Listening ---------------------------------------------------------------------------------------------------

    # Loopback, both IPv4 and IPv6: what a client that is told "localhost" may try first differs (Node tries ::1). Not
    # all interfaces as RabbitMQ does: the only user there is at first, guest, may log in from loopback alone, so a port
    # open to the network would serve nobody and only invite strangers.
    listen: tuple[str, ...] = ("amqp://localhost:5672",)

    # Connections the kernel completes before we accept them. All clients come back at once when a broker restarts;
    # RabbitMQ's 128 makes them wait for retransmits then.
    listen_backlog: int = within(1, 65_535, 1024)

    # Send small frames at once. Acknowledgements and confirms are small frames that somebody waits for.
    tcp_nodelay: bool = True

    # Each connection costs a file descriptor and some ten KiB; past this, a new one is closed at once.
    max_connections: int = within(1, 1_000_000, 10_000)

    # --- TLS ---------------------------------------------------------------------------------------------------------

    # What RabbitMQ has under these names in ssl_options, for all listeners on amqps://. PEM files: our certificate with
    # the chain up to its authority, its private key (empty: in the same file), and the authorities that clients'
    # certificates must come from. They are read again at SIGHUP.
    ssl_options_certfile: str = ""
    ssl_options_keyfile: str = ""
    ssl_options_password: str = field(default="", repr=False)
    ssl_options_cacertfile: str = ""

    # Whether clients are asked for a certificate, and whether those without one are turned away. RabbitMQ's defaults.
    ssl_options_verify: str = "verify_none"
    ssl_options_fail_if_no_peer_cert: bool = False

    # TLS 1.0 and 1.1 are broken and cannot be had.
    ssl_options_versions: tuple[str, ...] = TLS_VERSIONS

    # Ciphers for TLS 1.2, best first, by OpenSSL's names; empty: OpenSSL's own choice. Those of 1.3 are all good.
    ssl_options_ciphers: tuple[str, ...] = ()

    # Whether a client may log in by its certificate, with EXTERNAL. RabbitMQ has a plugin for it, which is off too:
    # py-amqp takes EXTERNAL wherever it is offered, and then its password counts for nothing.
    ssl_cert_login: bool = False

    # What of the certificate is the user's name then, as in RabbitMQ. The whole distinguished name is what an authority
    # vouches for; a part of it may be given twice.
    ssl_cert_login_from: str = LOGIN_NAMES[0]
    ssl_cert_login_san_type: str = "dns"
    ssl_cert_login_san_index: int = within(0, 1000, 0)

    # --- Who we say we are -------------------------------------------------------------------------------------------

    # Clients switch features on by product and version: kombu uses global QoS, and with it Celery's ETA tasks, only for
    # the product "RabbitMQ", and 3.13 is the first version with everything that we advertise.
    product: str = "RabbitMQ"
    product_version: str = "3.13.7"

    # name@host, as RabbitMQ makes it up from its node's name.
    cluster_name: str = "rabbitish@localhost"

    # --- Connections -------------------------------------------------------------------------------------------------

    # From accept to connection.open-ok. Somebody who connects and says nothing must not hold a descriptor for long.
    handshake_timeout_ms: int = within(1, _LONGEST_MS, 10_000)

    # A refused login or tune is cut off this much later, so that guessing passwords is slow. RabbitMQ waits as long.
    refused_linger_ms: int = within(0, 60_000, 3_000)

    # How long we wait for connection.close-ok, or after it for the client to hang up. RabbitMQ waits as long.
    close_timeout_ms: int = within(1, _LONGEST_MS, 30_000)

    # What we propose; the lower of both sides' values wins. RabbitMQ's default; 0 proposes none.
    heartbeat_seconds: int = within(0, 65_535, 60)

    # Channels open at once on a connection. RabbitMQ's default; clients share their connections by channels.
    channel_max: int = within(1, 65_535, 2047)

    # Largest frame, its head and end included. RabbitMQ's default: larger ones make other channels wait, smaller ones
    # cost a frame head more often.
    frame_max_bytes: int = within(4096, 1 * GIB, 131_072)

    # The smallest frame_max a client may ask for, and the limit before tune-ok: AMQP 0-9-1's frame-min-size.
    frame_min_bytes: int = within(256, 1 * MIB, 4096)

    # --- Messages ----------------------------------------------------------------------------------------------------

    # Body of one message; over it the channel is closed with 406. RabbitMQ 4's default (3.x: 128 MiB). A broker keeps
    # every body in memory for a while, so this times the number of publishers is what a flood can take.
    max_message_bytes: int = within(0, 2 * GIB, 16 * MIB)

    # Body bytes announced but not complete, over all channels of one connection. Without it 2047 channels could each
    # hold a body that never ends. Room for a few of the largest messages at once.
    partial_content_bytes: int = within(0, 64 * GIB, 64 * MIB)

    # --- Flow --------------------------------------------------------------------------------------------------------

    # Taken from a socket at a time. A whole frame of the default size fits, and one settle serves all of it.
    read_bytes: int = within(512, 16 * MIB, 131_072)

    # Unsent bytes of a connection: at the high mark its consumers get nothing more until it falls to the low one. High
    # enough to keep a fast reader busy for a millisecond, low enough that ten thousand slow ones fit in memory; the
    # distance between the marks is what one wake-up sends.
    outbox_bytes_high: int = within(1 * KIB, 1 * GIB, 1 * MIB)
    outbox_bytes_low: int = within(0, 1 * GIB, 256 * KIB)

    # Messages that a queue hands out before the other queues and everybody's input get their turn. About what one full
    # read of small messages brings in, so a long backlog goes out in slices and delays nobody by more than a moment.
    settle_budget_messages: int = within(1, 10_000_000, 4096)

    # --- Memory ------------------------------------------------------------------------------------------------------

    # When messages take more than this share of the machine's or the container's memory, publishers are no longer read.
    # RabbitMQ's default until 4.0: what messages cost is an estimate, and bursts and copies for sending come on top.
    memory_high_watermark_percent: int = within(1, 100, 40)

    # The same as a number of bytes; 0 leaves it to the share.
    memory_high_watermark_bytes: int = within(0, 1024 * GIB, 0)

    # What a queue keeps in memory of what it holds while there is a journal; the middle of a longer one is read back
    # from disk when its turn comes. Some ten thousand small messages, so that short queues never touch the disk.
    queue_window_bytes: int = within(64 * KIB, 64 * GIB, 16 * MIB)

    # --- Caches ------------------------------------------------------------------------------------------------------

    # Publish arguments (exchange, routing key, flags) whose route is remembered. Ten thousand routing keys in turn are
    # ordinary (one per device or user) and fit; at the worst this is some 16 MiB.
    route_cache_entries: int = within(0, 10_000_000, 16_384)

    # Property bytes whose meaning is remembered. Messages with an id of their own never repeat, so more is no use.
    properties_cache_entries: int = within(0, 10_000_000, 1024)

    # --- Access ------------------------------------------------------------------------------------------------------

    # A file of definitions in RabbitMQ's JSON, imported at every start before anybody may connect; empty: none. As with
    # RabbitMQ it is in the place of the user and the vhost that exist at first otherwise.
    load_definitions: str = ""

    # The largest file of definitions. Ten thousand queues with three bindings each are some 6 MiB; an import holds the
    # file and what it says in memory, about ten times its size.
    definitions_max_bytes: int = within(1 * KIB, 1 * GIB, 64 * MIB)

    # The user and the vhost that exist at first, as in RabbitMQ: every client's default login.
    default_user: str = "guest"
    default_pass: str = field(default="guest", repr=False)
    default_vhost: str = "/"

    # Who a client is that logs in with the mechanism ANONYMOUS; empty: nobody can. Off, since a broker that lets
    # strangers in should have been told to.
    anonymous_user: str = ""

    # Users that may log in from loopback only. The password of guest is known to everybody.
    loopback_users: tuple[str, ...] = ("guest",)

    # Wrong passwords of one address for one user that are looked at before it must wait; one is forgiven every second.
    # A fleet of clients with an old password tries every few seconds for ever, and those beside it with the new one
    # must not suffer for that; whoever guesses gets nowhere at that rate. 0: any number.
    login_failures_max: int = within(0, 1_000_000, 100)

    # What verifying a password of our own costs: 2 to this power KiB of memory, and time in proportion, some 50 ms for
    # 14. Each user's password is verified once in the life of the process, when all clients come back after a restart.
    password_cost: int = within(4, 20, 14)

    # How new passwords are hashed: our own way, or as RabbitMQ does, which is quick for whoever steals the hashes but
    # good there too, where definitions go to a RabbitMQ. RabbitMQ's name for the setting.
    password_hashing_module: str = PASSWORD_HASHES[0]

    # When somebody logs in whose password was hashed by RabbitMQ, hash it anew our way. Off: RabbitMQ cannot verify our
    # hashes, so a file that is exported would be of less use there.
    password_migration: bool = False

    # The socket through which commands reach the broker; empty: control.sock in the data_dir, and none without one.
    # Whoever may open it may do everything: its owner alone.
    control_socket: str = ""

    # Where logins, refusals and changes are written down, a JSON object a line; empty: nowhere but in the log.
    audit_log: str = ""

    # --- Journal -----------------------------------------------------------------------------------------------------

    # Where the journal lies; empty: there is none, and nothing survives the end of the process. Unless `ephemeral` says
    # that this is what is wanted, the command line puts a folder in the user's home for it: people expect what is
    # durable to be there again. Whoever makes Settings in Python, for tests mostly, gets no file by surprise.
    data_dir: str = ""
    ephemeral: bool = False

    # A segment of the journal is full at this size. Large enough that a segment lasts for seconds under load, small
    # enough that what one old message keeps from being deleted does not matter.
    journal_segment_bytes: int = within(64 * KIB, 1 * GIB, 64 * MIB)

    # Publishers are not read while more than this waits to be written: what a flood may be ahead of the disk.
    journal_backlog_bytes: int = within(64 * KIB, 64 * GIB, 32 * MIB)

    # With less than this free where the journal lies, publishers are held back; 0: never. RabbitMQ's default: what is
    # already on its way to the disk when the alarm is raised still fits, and so does what consumers acknowledge.
    disk_free_limit_bytes: int = within(0, 1024 * 1024 * GIB, 50_000_000)

    # How often the free space is asked for, when there is plenty; near the limit it is asked for more often. RabbitMQ
    # waits up to ten seconds. Asking costs some microseconds, and held publishers wait so long for the alarm's end.
    disk_check_interval_ms: int = within(10, 3_600_000, 1000)

    # --- Cluster -----------------------------------------------------------------------------------------------------

    # The etcd where several nodes find each other, and the name of their cluster in it; empty: this node is alone.
    cluster: str = ""

    # What the others call this node; empty: the host's name, so that one node a host needs no more.
    node_name: str = ""

    # Where other nodes reach this one, and where they are told that they do; empty: the host of cluster_listen, or this
    # host's name where that is every interface. RabbitMQ's port between nodes, since firewalls may know it.
    cluster_listen: str = "0.0.0.0:25672"
    cluster_advertise: str = ""

    # TLS of the links between nodes, of all nodes or of none: PEM files of this node's certificate, its key (empty: in
    # the same file) and the authorities that the other nodes' certificates must come from. Empty: links have no TLS.
    cluster_ssl_options_certfile: str = ""
    cluster_ssl_options_keyfile: str = ""
    cluster_ssl_options_password: str = field(default="", repr=False)
    cluster_ssl_options_cacertfile: str = ""

    # Confirms wait while fewer replicas than this have everything on disk. 0: a majority where three or more keep the
    # log, else 1, since of two nodes neither could be missed otherwise.
    cluster_min_in_sync: int = within(0, 100, 0)

    # After so long without a sign of life a node counts as dead: what a frozen leader costs. Shorter than a long pause
    # of a busy machine it would be replaced for nothing; etcd grants no less than two seconds.
    cluster_ttl_s: int = within(2, 600, 5)

    # How long a client of this node is kept waiting for a leader to go on with, before its connection is closed. Longer
    # than it takes to replace a leader that froze, shorter than people take to restart what hangs.
    gateway_patience_s: int = within(1, 3_600, 30)

    # Publishes without a confirm that are kept for each such client, to be sent to the next leader; no more is read
    # beyond that. What can be on its way to a disk at a time.
    gateway_kept_bytes: int = within(64 * KIB, 64 * GIB, 64 * MIB)

    # What a node that does not lead does with clients on amqps. It may shake hands with them itself (carry): they keep
    # their connections when leadership moves, and what they say crosses the links between nodes as those are. Or the
    # leader does (pass_on): nobody between can read it, and the connection ends with the leader. By itself (auto) it
    # carries where links have TLS: what was encrypted stays so.
    gateway_tls: str = "auto"

    # --- Consumers ---------------------------------------------------------------------------------------------------

    # How long a delivery may stay unacknowledged before its consumer is cancelled and the message requeued, for queues
    # without x-consumer-timeout. Off: RabbitMQ's 30 minutes surprise everybody with longer tasks.
    default_consumer_timeout_ms: int | None = within(1, _LONGEST_MS, None)

    # --- Running -----------------------------------------------------------------------------------------------------

    # After connection.close 320 at a stop, how long clients have to answer. Below the ten seconds after which container
    # runtimes kill.
    shutdown_grace_ms: int = within(0, 600_000, 5_000)

    log_level: str = "info"

    def __post_init__(self) -> None:
        for item in fields(self):
            _check_type(item.name, item.default, getattr(self, item.name))
            _check_range(item.name, item.metadata, getattr(self, item.name))
        for url in self.listen:
            parse_address(url)
        if not self.listen:
            raise SettingError("must name at least one address", "listen")
        for key in ("product", "product_version", "cluster_name", "default_user", "default_vhost"):
            _check_name(key, getattr(self, key))
        _check_choice("log_level", self.log_level, LOG_LEVELS)
        _check_choice("gateway_tls", self.gateway_tls, ("auto", "carry", "pass_on"))
        _check_choice("password_hashing_module", self.password_hashing_module, PASSWORD_HASHES)
        _check_tls(self)
        if self.ephemeral and self.data_dir:
            raise SettingError(f"must be false with a data_dir ({self.data_dir!r})", "ephemeral", "data_dir")
        _check_cluster(self)
        _check_order(self, "frame_min_bytes", "frame_max_bytes")
        _check_order(self, "max_message_bytes", "partial_content_bytes")
        if self.outbox_bytes_low >= self.outbox_bytes_high:
            raise SettingError(
                f"must be below outbox_bytes_high ({self.outbox_bytes_high}), not {self.outbox_bytes_low}",
                "outbox_bytes_low",
                "outbox_bytes_high",
            )

    @property
    def addresses(self) -> tuple[Address, ...]:
        """`listen`, taken apart."""
        return tuple(parse_address(url) for url in self.listen)

    @property
    def uses_tls(self) -> bool:
        """Whether any of them is for TLS."""
        return any(address.scheme == "amqps" for address in self.addresses)

    @property
    def secures_links(self) -> bool:
        """Whether links between nodes have TLS."""
        return bool(self.cluster_ssl_options_certfile)


DEFAULTS: dict[str, Setting] = {item.name: cast("Setting", item.default) for item in fields(Settings)}
"""Every key in the order of the class, with its default."""


def kind_of(key: str) -> str:
    """What a key holds, in words for people ("a whole number", "true or false", ...)."""
    default = DEFAULTS[key]
    if isinstance(default, bool):
        return "true or false"
    if isinstance(default, str):
        return "a string"
    if isinstance(default, tuple):
        return "a list of strings"
    return 'a whole number or "none"' if default is None else "a whole number"


def _check_type(key: str, default: object, value: object) -> None:
    """A value is of its default's type; where the default is None, a whole number or None."""
    if default is None:
        fits = value is None or type(value) is int
    elif isinstance(default, tuple):
        fits = isinstance(value, tuple) and all(isinstance(part, str) for part in value)
    else:
        fits = type(value) is type(default)
    if not fits:
        raise SettingError(f"must be {kind_of(key)}, not {value!r}", key)


def _check_range(key: str, bounds: Mapping[str, int], value: Setting) -> None:
    if not bounds or not isinstance(value, int):
        return
    if value < bounds["low"]:
        raise SettingError(f"must be at least {bounds['low']}, not {value}", key)
    if value > bounds["high"]:
        raise SettingError(f"must be at most {bounds['high']}, not {value}", key)


def _check_name(key: str, value: str) -> None:
    """Names travel as AMQP short strings and appear in logs and errors."""
    if not value:
        raise SettingError("must not be empty", key)
    if len(value.encode(errors="surrogateescape")) > _SHORT_STRING_BYTES:
        raise SettingError(f"must be at most {_SHORT_STRING_BYTES} bytes long", key)
    if not value.isprintable():
        raise SettingError(f"must be printable, not {value!r}", key)


def _check_choice(key: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise SettingError(f"must be one of {', '.join(choices)}, not {value!r}", key)


def _check_tls(settings: Settings) -> None:
    """What is asked of certificates is possible; whether the files are any good is seen when they are read."""
    _check_choice("ssl_options_verify", settings.ssl_options_verify, ("verify_none", "verify_peer"))
    _check_choice("ssl_cert_login_from", settings.ssl_cert_login_from, LOGIN_NAMES)
    _check_choice("ssl_cert_login_san_type", settings.ssl_cert_login_san_type, SAN_TYPES)
    for version in settings.ssl_options_versions or ("none",):
        _check_choice("ssl_options_versions", version, TLS_VERSIONS)
    if settings.ssl_options_verify == "verify_peer":
        _check_needs(settings, "ssl_options_verify", "ssl_options_cacertfile", "the authorities to verify clients by")
    elif settings.ssl_options_fail_if_no_peer_cert:
        why = "needs ssl_options_verify = verify_peer: nobody is asked for a certificate"
        raise SettingError(why, "ssl_options_fail_if_no_peer_cert", "ssl_options_verify")
    elif settings.ssl_cert_login:
        why = "needs ssl_options_verify = verify_peer: a certificate that nobody verifies proves nothing"
        raise SettingError(why, "ssl_cert_login", "ssl_options_verify")
    if settings.uses_tls and not settings.ssl_options_certfile:
        raise SettingError("has amqps://, which needs ssl_options_certfile", "listen", "ssl_options_certfile")


def _check_cluster(settings: Settings) -> None:
    parse_host_port(settings.cluster_listen, "cluster_listen")
    if settings.cluster_advertise:
        parse_advertised(settings.cluster_advertise, "cluster_advertise")
    if settings.node_name:
        parse_name(settings.node_name, "node_name")
    if settings.cluster:
        parse_cluster(settings.cluster)
        if not settings.data_dir:
            raise SettingError("needs a data_dir, one for each node", "cluster", "data_dir", "ephemeral")
    certfile, cacertfile = "cluster_ssl_options_certfile", "cluster_ssl_options_cacertfile"
    _check_needs(settings, certfile, cacertfile, "the authorities to verify other nodes by")
    _check_needs(settings, cacertfile, certfile, "or links have no TLS")


def _check_needs(settings: Settings, key: str, other: str, why: str) -> None:
    if getattr(settings, key) and not getattr(settings, other):
        raise SettingError(f"needs {other}, {why}", key, other)


def _check_order(settings: Settings, lower: str, upper: str) -> None:
    low, high = getattr(settings, lower), getattr(settings, upper)
    if low > high:
        raise SettingError(f"must be at least {lower} ({low}), not {high}", upper, lower)
