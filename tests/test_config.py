"""Settings: what is refused, where values come from, and that every mistake is one line that names place and key."""

from __future__ import annotations

import ast
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rabbitish.addresses import (
    Address,
    ClusterAddress,
    HostPort,
    SettingError,
    parse_address,
    parse_advertised,
    parse_cluster,
)
from rabbitish.config import DEFAULTS, MIB, Settings
from rabbitish.server.settings_file import ConfigError, Given, load, parse_option, to_toml, toml_value

PACKAGE = Path(__file__).parents[1] / "rabbitish"


def write(folder: Path, text: str | bytes) -> Path:
    path = folder / "rabbitish.toml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def complaint(folder: Path, text: str | bytes, **environ: str) -> str:
    """What `load` says about a file, with the folder's name left out."""
    with pytest.raises(ConfigError) as caught:
        load(write(folder, text), environ, {})
    message = str(caught.value)
    assert "\n" not in message
    return message.replace(f"{folder}/", "")


# --- Settings ---------------------------------------------------------------------------------------------------------


def test_defaults_are_valid_and_as_declared() -> None:
    settings = Settings()
    assert {key: getattr(settings, key) for key in DEFAULTS} == DEFAULTS


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        Settings().channel_max = 1  # type: ignore[misc]


@pytest.mark.parametrize("key", ["default_pass", "ssl_options_password"])
def test_the_password_is_not_in_the_repr(key: str) -> None:
    assert "hunter2" not in repr(Settings(**{key: "hunter2"}))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("key", "value", "problem"),
    [
        ("frame_max_bytes", 4095, "must be at least 4096, not 4095"),
        ("channel_max", 0, "must be at least 1, not 0"),
        ("channel_max", 65_536, "must be at most 65535, not 65536"),
        ("heartbeat_seconds", -1, "must be at least 0, not -1"),
        ("heartbeat_seconds", "60", "must be a whole number, not '60'"),
        ("heartbeat_seconds", 1.5, "must be a whole number, not 1.5"),
        ("heartbeat_seconds", True, "must be a whole number, not True"),
        ("tcp_nodelay", 1, "must be true or false, not 1"),
        ("default_consumer_timeout_ms", "x", "must be a whole number or \"none\", not 'x'"),
        ("default_consumer_timeout_ms", 0, "must be at least 1, not 0"),
        ("default_user", "", "must not be empty"),
        ("default_vhost", "v" * 256, "must be at most 255 bytes long"),
        ("cluster_name", "a\nb", "must be printable, not 'a\\nb'"),
        ("product", None, "must be a string, not None"),
        ("log_level", "loud", "must be one of debug, info, warning, error, not 'loud'"),
        ("listen", (), "must name at least one address"),
        ("listen", ["amqp://localhost"], "must be a list of strings, not ['amqp://localhost']"),
        ("listen", (5672,), "must be a list of strings, not (5672,)"),
        ("loopback_users", "guest", "must be a list of strings, not 'guest'"),
        ("ssl_options_verify", "yes", "must be one of verify_none, verify_peer, not 'yes'"),
        ("ssl_options_versions", ("tlsv1.1", "tlsv1.2"), "must be one of tlsv1.2, tlsv1.3, not 'tlsv1.1'"),
        ("ssl_options_versions", (), "must be one of tlsv1.2, tlsv1.3, not 'none'"),
        ("ssl_cert_login_san_type", "other_name", "must be one of dns, ip, email, uri, not 'other_name'"),
        ("ssl_cert_login_san_index", -1, "must be at least 0, not -1"),
        ("cluster_ttl_s", 1, "must be at least 2, not 1"),
        ("cluster_min_in_sync", -1, "must be at least 0, not -1"),
        ("cluster_listen", "here", "must have HOST:PORT, an IPv6 host in brackets, and has 'here': 'here'"),
        ("cluster_listen", "::1:5", "must have HOST:PORT, an IPv6 host in brackets, and has '::1:5': '::1:5'"),
        ("cluster_advertise", "a:b", "must have HOST[:PORT], an IPv6 host in brackets, and has 'a:b': 'a:b'"),
        ("cluster_advertise", "a:65536", "has port 65536, and ports are 0 to 65535: 'a:65536'"),
    ],
)
def test_a_value_that_makes_no_sense_is_refused(key: str, value: Any, problem: str) -> None:
    with pytest.raises(SettingError) as caught:
        Settings(**{key: value})
    assert (str(caught.value), caught.value.keys) == (f"{key} {problem}", (key,))


@pytest.mark.parametrize(
    ("values", "keys"),
    [
        ({"outbox_bytes_low": 2 * MIB}, ("outbox_bytes_low", "outbox_bytes_high")),
        ({"frame_min_bytes": 8192, "frame_max_bytes": 4096}, ("frame_max_bytes", "frame_min_bytes")),
        ({"max_message_bytes": 128 * MIB}, ("partial_content_bytes", "max_message_bytes")),
        ({"ephemeral": True, "data_dir": "x"}, ("ephemeral", "data_dir")),
        ({"listen": ("amqp://a", "amqps://a")}, ("listen", "ssl_options_certfile")),
        ({"ssl_options_verify": "verify_peer"}, ("ssl_options_verify", "ssl_options_cacertfile")),
        ({"ssl_options_fail_if_no_peer_cert": True}, ("ssl_options_fail_if_no_peer_cert", "ssl_options_verify")),
        ({"cluster": "etcd://e"}, ("cluster", "data_dir", "ephemeral")),
        ({"cluster": "etcd://e", "ephemeral": True}, ("cluster", "data_dir", "ephemeral")),
        ({"ssl_cert_login": True}, ("ssl_cert_login", "ssl_options_verify")),
    ],
)
def test_values_that_contradict_each_other_are_refused(values: dict[str, Any], keys: tuple[str, ...]) -> None:
    with pytest.raises(SettingError) as caught:
        Settings(**values)
    assert caught.value.keys == keys


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("amqp://127.0.0.1:5673", Address("amqp", "127.0.0.1", 5673)),
        ("amqp://localhost", Address("amqp", "localhost", 5672)),
        ("amqp://localhost/", Address("amqp", "localhost", 5672)),
        ("amqp://[::1]:0", Address("amqp", "::1", 0)),
        ("amqp://[fe80::1%eth0]", Address("amqp", "fe80::1%eth0", 5672)),
        ("amqp://broker-1.example.org:1", Address("amqp", "broker-1.example.org", 1)),
        ("amqps://localhost", Address("amqps", "localhost", 5671)),
        ("amqps://[::1]:5673/", Address("amqps", "::1", 5673)),
    ],
)
def test_an_address(url: str, address: Address) -> None:
    assert parse_address(url) == address
    assert parse_address(str(address)) == address
    assert Settings(listen=(url,), ssl_options_certfile="c").addresses == (address,)


@pytest.mark.parametrize("host", ["", "x:y", "x:65536", "::1:5", "u:p@x", "x/vhost", "x y"])
def test_no_host(host: str) -> None:
    with pytest.raises(SettingError, match="listen "):
        Settings(listen=(f"amqp://{host}",))


@pytest.mark.parametrize("url", ["", "localhost", "127.0.0.1:5672", "http://x", "amqpss://x", "AMQP://x"])
def test_no_address(url: str) -> None:
    with pytest.raises(SettingError, match="listen "):
        Settings(listen=(url,))


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("etcd://a", ClusterAddress((HostPort("a", 2379),), "rabbitish")),
        ("etcd://a/", ClusterAddress((HostPort("a", 2379),), "rabbitish")),
        ("etcd://a:1,b:2, [::1]:3,[::2]/x-1.y", ClusterAddress(
            (HostPort("a", 1), HostPort("b", 2), HostPort("::1", 3), HostPort("::2", 2379)), "x-1.y"
        )),
    ],
)  # fmt: skip
def test_a_cluster(url: str, address: ClusterAddress) -> None:
    assert parse_cluster(url) == address
    assert parse_cluster(str(address)) == address
    assert Settings(cluster=url, data_dir="d").cluster == url


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("http://a:2379", "must be like etcd://127.0.0.1:2379/rabbitish, not 'http://a:2379'"),
        ("a:2379", "must be like etcd://127.0.0.1:2379/rabbitish, not 'a:2379'"),
        ("etcd://", "must have HOST[:PORT], an IPv6 host in brackets, and has '': 'etcd://'"),
        ("etcd://a,,b/x", "must have HOST[:PORT], an IPv6 host in brackets, and has '': 'etcd://a,,b/x'"),
        ("etcd://a:b", "must have HOST[:PORT], an IPv6 host in brackets, and has 'a:b': 'etcd://a:b'"),
        ("etcd://a:0", "has port 0, and ports are 1 to 65535: 'etcd://a:0'"),
        ("etcd://a/b/c", "must name it in up to 128 ASCII letters, digits, '_', '.', '@' and '-', not 'b/c'"),
        ("etcd://a/b#", "must name it in up to 128 ASCII letters, digits, '_', '.', '@' and '-', not 'b#'"),
    ],
)
def test_no_cluster(url: str, problem: str) -> None:
    with pytest.raises(SettingError) as caught:
        Settings(cluster=url, data_dir="d")
    assert (str(caught.value), caught.value.keys) == (f"cluster {problem}", ("cluster",))


@pytest.mark.parametrize("name", ["a#1", "a/b", "a b", "-a", "n" * 129])
def test_no_name_of_a_node(name: str) -> None:
    with pytest.raises(SettingError, match=r"^node_name must name it in up to 128"):
        Settings(node_name=name)


def test_an_advertised_address_may_leave_the_port_open() -> None:
    assert parse_advertised("h", "cluster_advertise") == HostPort("h", 0)
    assert parse_advertised("[::1]:7", "cluster_advertise") == HostPort("::1", 7)


def test_every_setting_is_read_somewhere() -> None:
    """A setting that nothing reads would be a lie."""
    read = {
        node.attr
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and path.name not in ("config.py", "settings_file.py")
    }
    read |= {"listen"} if "addresses" in read else set()
    assert sorted(DEFAULTS.keys() - read) == []


# --- Sources ----------------------------------------------------------------------------------------------------------


def test_nothing_given_is_the_defaults() -> None:
    settings, sources = load(None, {}, {})
    assert settings == Settings()
    assert set(sources.values()) == {"default"}


def test_later_sources_win(tmp_path: Path) -> None:
    path = write(tmp_path, 'heartbeat_seconds = 1\nchannel_max = 1\n\nproduct = "P"\n')
    environ = {"RABBITISH_CHANNEL_MAX": "2", "RABBITISH_PRODUCT": "Q", "HOME": "/root"}
    settings, sources = load(path, environ, {"product": Given("R", "--set")})
    assert settings == replace(Settings(), heartbeat_seconds=1, channel_max=2, product="R")
    assert sources["heartbeat_seconds"] == f"{path}:1"
    assert sources["channel_max"] == "RABBITISH_CHANNEL_MAX"
    assert sources["product"] == "--set"
    assert sources["listen"] == "default"


@pytest.mark.parametrize(
    ("file", "environ", "options", "data_dir", "ephemeral"),
    [
        ("data_dir = 'f'", {"EPHEMERAL": "true"}, {}, "", True),
        ("ephemeral = true", {"DATA_DIR": "e"}, {}, "e", False),
        ("data_dir = 'f'", {"EPHEMERAL": "false"}, {}, "f", False),
        ("ephemeral = true", {"DATA_DIR": ""}, {}, "", True),
        ("data_dir = 'f'", {"EPHEMERAL": "true"}, {"data_dir": "o"}, "o", False),
        ("ephemeral = true", {"DATA_DIR": "e"}, {"ephemeral": True}, "", True),
        ("data_dir = 'f'", {}, {"ephemeral": True}, "", True),
    ],
)
def test_where_to_keep_data_is_one_question(
    tmp_path: Path, file: str, environ: dict[str, str], options: dict[str, Any], data_dir: str, ephemeral: bool
) -> None:
    """A later answer by one key overrules an earlier one by the other."""
    variables = {f"RABBITISH_{key}": value for key, value in environ.items()}
    given_ = {key: Given(value, f"--{key}") for key, value in options.items()}
    settings, sources = load(write(tmp_path, file), variables, given_)
    assert (settings.data_dir, settings.ephemeral) == (data_dir, ephemeral)
    overruled = "ephemeral" if data_dir else "data_dir"
    assert sources[overruled] in ("default", f"RABBITISH_{overruled.upper()}")


def test_two_answers_in_one_place_contradict_each_other(tmp_path: Path) -> None:
    said = complaint(tmp_path, "data_dir = 'x'\nephemeral = true")
    assert said == "rabbitish.toml:2: ephemeral must be false with a data_dir ('x')"


def test_every_key_can_come_from_the_environment() -> None:
    for key, default in DEFAULTS.items():
        text = ",".join(default) if isinstance(default, tuple) else "none" if default is None else str(default)
        settings, sources = load(None, {f"RABBITISH_{key.upper()}": text}, {})
        assert settings == Settings()
        assert sources[key] == f"RABBITISH_{key.upper()}"


@pytest.mark.parametrize(
    ("line", "key", "value"),
    [
        ('max_message_bytes = "2MiB"', "max_message_bytes", 2 * MIB),
        ('max_message_bytes = "2 MB"', "max_message_bytes", 2_000_000),
        ('outbox_bytes_high = "512KiB"', "outbox_bytes_high", 512 * 1024),
        ("max_message_bytes = 1_000", "max_message_bytes", 1000),
        ('memory_high_watermark_bytes = "1GiB"', "memory_high_watermark_bytes", 1024 * MIB),
        ('memory_high_watermark_percent = "60%"', "memory_high_watermark_percent", 60),
        ('default_consumer_timeout_ms = "none"', "default_consumer_timeout_ms", None),
        ("default_consumer_timeout_ms = 1800000", "default_consumer_timeout_ms", 1_800_000),
        ('listen = "amqp://[::1]"', "listen", ("amqp://[::1]",)),
        ('listen = [\n  "amqp://a", # one\n  "amqp://b",\n]', "listen", ("amqp://a", "amqp://b")),
        ("loopback_users = []", "loopback_users", ()),
        ("tcp_nodelay = false", "tcp_nodelay", False),
        ('"log_level" = "debug"', "log_level", "debug"),
        ('ssl_options.certfile = "c.pem"', "ssl_options_certfile", "c.pem"),
        ('[ssl_options]\ncertfile = "c.pem"', "ssl_options_certfile", "c.pem"),
        ('ssl_options = { versions = ["tlsv1.3"] }', "ssl_options_versions", ("tlsv1.3",)),
        ('ssl_options_certfile = "c.pem"', "ssl_options_certfile", "c.pem"),
    ],
)
def test_a_line_of_the_file(tmp_path: Path, line: str, key: str, value: object) -> None:
    assert getattr(load(write(tmp_path, line), {}, {}).settings, key) == value


def test_the_lines_of_a_table(tmp_path: Path) -> None:
    path = write(tmp_path, "channel_max = 7\nssl_options.certfile = 'c'\n\nssl_options.keyfile = [\n]\n")
    with pytest.raises(ConfigError, match=r":4: ssl_options_keyfile must be a string, not \[\]$"):
        load(path, {}, {})
    path = write(tmp_path, "channel_max = 7\n[ssl_options]\ncertfile = 'c'\nkeyfile = 'k'\n")
    sources = load(path, {}, {}).sources
    assert (sources["ssl_options_certfile"], sources["ssl_options_keyfile"]) == (f"{path}:3", f"{path}:4")


def test_a_file_from_windows(tmp_path: Path) -> None:
    path = write(tmp_path, b"\xef\xbb\xbf# settings\r\nlisten = [\r\n 'amqp://a']\r\nchannel_max = 7\r\n")
    settings, sources = load(path, {}, {})
    assert (settings.listen, settings.channel_max) == (("amqp://a",), 7)
    assert (sources["listen"], sources["channel_max"]) == (f"{path}:2", f"{path}:4")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", True),
        ("Yes", True),
        ("1", True),
        ("on", True),
        ("false", False),
        ("no", False),
        ("0", False),
        ("off", False),
    ],
)
def test_true_and_false_in_the_environment(text: str, value: bool) -> None:
    assert load(None, {"RABBITISH_TCP_NODELAY": text}, {}).settings.tcp_nodelay is value


def test_lists_in_the_environment() -> None:
    environ = {"RABBITISH_LISTEN": "amqp://a, amqp://b:1", "RABBITISH_LOOPBACK_USERS": ""}
    settings = load(None, environ, {}).settings
    assert settings.listen == ("amqp://a", "amqp://b:1")
    assert settings.loopback_users == ()


# --- Mistakes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("channel_max = 0", "rabbitish.toml:1: channel_max must be at least 1, not 0"),
        ("\n# one\nchannel_max = 'many'", 'rabbitish.toml:3: channel_max must be a whole number, not "many"'),
        ("channel_max = '7'", 'rabbitish.toml:1: channel_max must be a whole number, not "7"'),
        ("channel_max = 1.5", "rabbitish.toml:1: channel_max must be a whole number, not 1.5"),
        ("channel_max = 2024-01-01", 'rabbitish.toml:1: channel_max must be a whole number, not "2024-01-01"'),
        ("channel_max = true", "rabbitish.toml:1: channel_max must be a whole number, not true"),
        ("channel_max = '9MiB'", 'rabbitish.toml:1: channel_max must be a whole number, not "9MiB"'),
        (
            "read_bytes = 'lots'",
            'rabbitish.toml:1: read_bytes must be a number of bytes such as 65536 or "64KiB", not "lots"',
        ),
        (
            "memory_high_watermark_bytes = '40%'",
            'rabbitish.toml:1: memory_high_watermark_bytes must be a number of bytes such as 65536 or "64KiB", '
            'not "40%"',
        ),
        ("tcp_nodelay = 'yes'", 'rabbitish.toml:1: tcp_nodelay must be true or false, not "yes"'),
        ("log_level = 3", "rabbitish.toml:1: log_level must be a string, not 3"),
        ("listen = [1]", "rabbitish.toml:1: listen must be a list of strings, not [1]"),
        ("listen = [['a']]", "rabbitish.toml:1: listen must be a list of strings, not a nested list"),
        ("[listen]\nhost = 'x'", "rabbitish.toml:1: listen must be a list of strings, not a table"),
        ("chanel_max = 1", 'rabbitish.toml:1: unknown key "chanel_max"; did you mean channel_max?'),
        ("x = 1\n[server]\nport = 1", 'rabbitish.toml:1: unknown key "x"'),
        ('listen = [\n"amqp://a",\n]\n\n"q\\n" = 1', 'rabbitish.toml:5: unknown key "q\\n"'),
        ('product = """\nzork = 1"""\nzork = 1', 'rabbitish.toml:3: unknown key "zork"'),
        (
            "# a\nmax_message_bytes = 134217728",
            "rabbitish.toml:2: partial_content_bytes must be at least max_message_bytes (134217728), not 67108864",
        ),
        (
            "ssl_options.verfy = 'x'",
            'rabbitish.toml:1: unknown key "ssl_options.verfy"; did you mean ssl_options_verify?',
        ),
        ("\nssl_options = 'none'", 'rabbitish.toml:2: unknown key "ssl_options"; did you mean ssl_options_'),
        (
            "ssl_options_keyfile = 'x'\n[ssl_options]\n\nkeyfile = 'y'",
            "rabbitish.toml:4: ssl_options_keyfile is given a second time, after ",
        ),
        ("ssl_options.keyfile = 'x", "rabbitish.toml:1: ssl_options.keyfile: "),
        ("channel_max 7", "rabbitish.toml:1: expected '=' after a key in a key/value pair in column 13"),
        ("\nchannel_max = ", "rabbitish.toml:2: channel_max: invalid value at the end of the file"),
        ("channel_max = 1\nchannel_max = 2", "rabbitish.toml:2: channel_max: cannot overwrite a value"),
        ("listen = ['a',\n'b'\n", "rabbitish.toml:3: listen: unclosed array at the end of the file"),
        ("channel_max = abc", "rabbitish.toml:1: channel_max: invalid value in column 15"),
        (b"product = 'a'\ncluster_name = '\xff'", "rabbitish.toml:2: not UTF-8 text"),
    ],
)
def test_a_mistake_in_the_file_is_found(tmp_path: Path, text: str | bytes, message: str) -> None:
    # Newer versions of tomllib add the column to some complaints that older ones place at the end.
    assert complaint(tmp_path, text).startswith(message)


@pytest.mark.parametrize(
    "text", ["listen = " + "[" * 5000, "channel_max = " + "9" * 5000, "listen" + ".a" * 900 + " = 1"]
)
def test_an_absurd_file_is_a_complaint_too(tmp_path: Path, text: str) -> None:
    assert complaint(tmp_path, text).startswith("rabbitish.toml:1: ")


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    for path, reason in ((tmp_path / "none.toml", "No such file or directory"), (tmp_path, "Is a directory")):
        with pytest.raises(ConfigError) as caught:
            load(path, {}, {})
        assert str(caught.value) == f"{path}: cannot be read: {reason}"


@pytest.mark.parametrize(
    ("variable", "text", "message"),
    [
        ("RABBITISH_CHANNEL_MAX", "x", 'RABBITISH_CHANNEL_MAX: channel_max must be a whole number, not "x"'),
        ("RABBITISH_CHANNEL_MAX", "-1", "RABBITISH_CHANNEL_MAX: channel_max must be at least 1, not -1"),
        ("RABBITISH_CHANNEL_MAX", "9" * 5000, "RABBITISH_CHANNEL_MAX: channel_max must be a whole number, not"),
        ("RABBITISH_TCP_NODELAY", "x", 'RABBITISH_TCP_NODELAY: tcp_nodelay must be true or false, not "x"'),
        ("RABBITISH_LISTEN", "", "RABBITISH_LISTEN: listen must name at least one address"),
        ("RABBITISH_LOGLEVEL", "debug", "RABBITISH_LOGLEVEL: no such setting; did you mean RABBITISH_LOG_LEVEL?"),
    ],
)
def test_a_mistake_in_the_environment_is_found(variable: str, text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(None, {variable: text}, {})
    assert str(caught.value).startswith(message)


def test_variables_of_others_are_left_alone() -> None:
    environ = {"RABBITISH_PORT": "tcp://10.0.0.1:5672", "RABBITISH_SERVICE_HOST": "10.0.0.1", "RABBITISH_CONFIG": "x"}
    assert load(None, environ, {}).settings == Settings()


def test_of_two_that_contradict_each_other_the_given_one_is_named(tmp_path: Path) -> None:
    said = complaint(tmp_path, "\noutbox_bytes_high = 1024")
    assert said == "rabbitish.toml:2: outbox_bytes_low must be below outbox_bytes_high (1024), not 262144"


def test_a_bad_value_that_is_overridden_does_not_matter(tmp_path: Path) -> None:
    path = write(tmp_path, "channel_max = 0")
    assert load(path, {"RABBITISH_CHANNEL_MAX": "5"}, {}).settings.channel_max == 5


@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_any_file_is_settings_or_a_complaint(tmp_path_factory: pytest.TempPathFactory, raw: bytes) -> None:
    path = write(tmp_path_factory.getbasetemp(), raw)
    try:
        load(path, {}, {})
    except ConfigError as error:
        assert "\n" not in str(error)
        assert str(error).startswith(f"{path}:")


@given(st.sampled_from(sorted(DEFAULTS)), st.text(max_size=20))
def test_any_text_is_a_value_or_a_complaint(key: str, text: str) -> None:
    try:
        value = parse_option(key, text, "--set").value
    except ConfigError as error:
        assert str(error).startswith(f"--set: {key} must be ")
    else:
        assert DEFAULTS[key] is None or isinstance(value, type(DEFAULTS[key]))


# --- What is shown ----------------------------------------------------------------------------------------------------


def test_what_is_shown_can_be_read_again(tmp_path: Path) -> None:
    options = {"product": Given('a"b\\ \u00e9', "--set"), "listen": Given(("amqp://a", "amqp://[::1]:1"), "--listen")}
    loaded = load(None, {}, options)
    shown = to_toml(loaded)
    assert 'listen = ["amqp://a", "amqp://[::1]:1"]  # --listen\n' in shown
    assert load(write(tmp_path, shown), {}, {}).settings == loaded.settings


@pytest.mark.parametrize("key", ["default_pass", "ssl_options_password"])
def test_a_password_that_was_set_is_not_shown(key: str) -> None:
    variable = f"RABBITISH_{key.upper()}"
    shown = to_toml(load(None, {variable: "hunter2"}, {}))
    assert "hunter2" not in shown
    assert f"# {key} is not shown  # {variable}\n" in shown


def test_values_as_toml() -> None:
    assert toml_value(None) == '"none"'
    assert toml_value(True) == "true"
    assert toml_value(("a", 'b"')) == '["a", "b\\""]'
