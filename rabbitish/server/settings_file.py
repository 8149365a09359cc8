"""Settings from outside: a TOML file, the environment and command line options, the later winning.

Owns reading the file and telling where each value came from. Whatever is wrong with one comes out as a `ConfigError`,
a single line for the person who wrote it: file and line (or variable, or option), key, and what would be right. What
values make sense is not decided here but by `Settings` itself; this module finds the line that its complaint is about.
Only the default of data_dir is decided here, since it depends on the environment.

The file is flat, a key a line, named as the fields of `Settings`; the environment has RABBITISH_ and the same name in
capitals. Numbers of bytes may be written as "64MiB" in all three. RabbitMQ's "ssl_options.certfile", in TOML a table,
is ssl_options_certfile.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from rabbitish.addresses import SettingError
from rabbitish.config import DEFAULTS, Setting, Settings, kind_of

ENV_PREFIX = "RABBITISH_"
CONFIG_VARIABLE = "RABBITISH_CONFIG"
SECRETS = frozenset({"default_pass", "ssl_options_password", "cluster_ssl_options_password"})
ANOTHER_FOLDER = "name another folder with --data-dir"
OTHER_WAYS = f"{ANOTHER_FOLDER}, or keep nothing with --ephemeral"
"""What to do about a data directory that cannot be used; the first alone where there must be one."""

_NUMBER = re.compile(r"-?[0-9](?:_?[0-9]){0,30}")
_SIZE = re.compile(r"([0-9](?:_?[0-9]){0,30}) ?([kKMGT]i?B|B)")
_UNITS = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_UNITS |= {"KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}
_WORDS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
_TOML_PLACE = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)$")
# Tables whose keys are settings by their joined names, since RabbitMQ has them so.
_TABLES = ("ssl_options", "cluster_ssl_options")
_KEY_LINE = re.compile(r"\s*[\"']?([A-Za-z0-9_.-]+)[\"']?\s*=")


class ConfigError(Exception):
    """The configuration cannot be used; the message is one line that says where and why."""


class Given(NamedTuple):
    """A value and where it was given: "FILE:LINE", a variable's name, an option's name or "default"."""

    value: Setting
    where: str


class Loaded(NamedTuple):
    """The settings in effect, and where each key's value came from."""

    settings: Settings
    sources: dict[str, str]


def load(path: Path | None, environ: Mapping[str, str], options: Mapping[str, Given]) -> Loaded:
    """Put the sources together: defaults, the file at `path`, `environ`, `options`. Raises `ConfigError`."""
    given: dict[str, Given] = {}
    for source in ({} if path is None else read_file(path), read_environment(environ), options):
        # Where to keep things is one question with two keys: who answers it later need not know the earlier answer.
        if "data_dir" in source and source["data_dir"].value:
            given.pop("ephemeral", None)
        if "ephemeral" in source and source["ephemeral"].value:
            given.pop("data_dir", None)
        given |= source
    sources = {key: given[key].where if key in given else "default" for key in DEFAULTS}
    values: dict[str, Any] = {key: item.value for key, item in given.items()}
    try:
        return Loaded(Settings(**values), sources)
    except SettingError as error:
        # Of two settings that contradict each other, the one that somebody wrote is the one to change.
        where = next((given[key].where for key in error.keys if key in given), "default")
        raise ConfigError(f"{where}: {error}") from None


def with_data_dir(loaded: Loaded, environ: Mapping[str, str]) -> Loaded:
    """Settings with a data directory: the given one, else $XDG_STATE_HOME/rabbitish or ~/.local/state/rabbitish.

    Raises `ConfigError` when there is no home. As the XDG base directory specification says, a relative path is none.
    """
    if loaded.settings.data_dir:
        return loaded
    for variable, below in (("XDG_STATE_HOME", "rabbitish"), ("HOME", ".local/state/rabbitish")):
        base = Path(environ.get(variable, ""))
        if base.is_absolute():
            settings = replace(loaded.settings, data_dir=str(base / below))
            return Loaded(settings, {**loaded.sources, "data_dir": f"default in {variable}"})
    raise ConfigError(f"neither XDG_STATE_HOME nor HOME says where to keep what is durable; {OTHER_WAYS}")


def read_file(path: Path) -> dict[str, Given]:
    """The values of a TOML file. Raises `ConfigError` when it cannot be read, parsed or has an unknown key."""
    text = _read_text(path)
    try:
        table = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(_syntax_problem(path, text, error)) from None
    given: dict[str, Given] = {}
    for names, raw in _flat(table):
        where = f"{path}:{_line_of(names, text)}"
        key = "_".join(names)
        if key not in DEFAULTS:
            written = ".".join(names)
            raise ConfigError(f"{where}: unknown key {_shown(written)}{_did_you_mean(key, list(DEFAULTS))}")
        if key in given:
            raise ConfigError(f"{where}: {key} is given a second time, after {given[key].where}")
        try:
            given[key] = Given(_from_toml(key, raw), where)
        except SettingError as error:
            raise ConfigError(f"{where}: {error}") from None
    return given


def _flat(table: Mapping[str, object]) -> Iterator[tuple[tuple[str, ...], object]]:
    """Each value of a file with the names that lead to it."""
    for key, raw in table.items():
        if key in _TABLES and isinstance(raw, dict):
            yield from (((key, name), inner) for name, inner in raw.items())
        else:
            yield (key,), raw


def key_of(name: str) -> str:
    """The key that somebody means by a name: RabbitMQ's "ssl_options.verify" is ssl_options_verify."""
    table, dot, rest = name.partition(".")
    return f"{table}_{rest}" if dot and table in _TABLES else name


def read_environment(environ: Mapping[str, str]) -> dict[str, Given]:
    """The values of RABBITISH_... variables.

    One that nothing is named after is left alone, since container platforms set variables of their own after a
    service's name; but one that is nearly a key is a slip of the hand and raises `ConfigError`.
    """
    keys = {ENV_PREFIX + key.upper(): key for key in DEFAULTS}
    given: dict[str, Given] = {}
    for variable, text in environ.items():
        if variable in keys:
            given[keys[variable]] = parse_option(keys[variable], text, variable)
        elif variable.startswith(ENV_PREFIX) and variable != CONFIG_VARIABLE:
            hint = _did_you_mean(variable, list(keys), cutoff=0.9)
            if hint:
                raise ConfigError(f"{variable}: no such setting{hint}")
    return given


def parse_option(key: str, text: str, where: str) -> Given:
    """A key's value from text, as variables and options hold it. Raises `ConfigError` that begins with `where`."""
    if key not in DEFAULTS:
        raise ConfigError(f"{where}: unknown key {_shown(key)}{_did_you_mean(key, list(DEFAULTS))}")
    try:
        return Given(_from_text(key, text), where)
    except SettingError as error:
        raise ConfigError(f"{where}: {error}") from None


def toml_value(value: Setting) -> str:
    """A setting as the configuration file writes it."""
    if value is None:
        return '"none"'
    if isinstance(value, tuple):
        return f"[{', '.join(toml_value(part) for part in value)}]"
    return _shown(value)


def to_toml(loaded: Loaded) -> str:
    """All settings as a configuration file, each with its source as a comment; a password that was set is left out."""
    lines = []
    for key, source in loaded.sources.items():
        hidden = key in SECRETS and source != "default"
        line = f"# {key} is not shown" if hidden else f"{key} = {toml_value(getattr(loaded.settings, key))}"
        lines.append(f"{line}  # {source}\n")
    return "".join(lines)


def _from_toml(key: str, raw: object) -> Setting:
    """What tomllib made of a value -> the setting. Raises `SettingError`."""
    default = DEFAULTS[key]
    if isinstance(default, tuple):
        parts = [raw] if isinstance(raw, str) else raw
        if isinstance(parts, list) and all(isinstance(part, str) for part in parts):
            return tuple(parts)
    elif isinstance(default, bool | str):
        if isinstance(raw, type(default)):
            return raw
    elif isinstance(raw, int) and not isinstance(raw, bool):
        return raw
    elif isinstance(raw, str) and not _NUMBER.fullmatch(raw):
        return _number_from_text(key, raw)
    raise SettingError(f"must be {kind_of(key)}, not {_shown(raw)}", key)


def _from_text(key: str, text: str) -> Setting:
    """What an environment variable or an option holds -> the setting; lists are separated by commas."""
    default = DEFAULTS[key]
    if isinstance(default, tuple):
        return tuple(part.strip() for part in text.split(",") if part.strip())
    if isinstance(default, str):
        return text
    if not isinstance(default, bool):
        return _number_from_text(key, text.strip())
    if text.strip().lower() not in _WORDS:
        raise SettingError(f"must be true or false, not {_shown(text)}", key)
    return _WORDS[text.strip().lower()]


def _number_from_text(key: str, text: str) -> int | None:
    """ "60", "64MiB" where the key counts bytes, "40%" where it is a share, "none" where there may be none."""
    if _NUMBER.fullmatch(text):
        return int(text)
    size = _SIZE.fullmatch(text) if "_bytes" in key else None
    if size:
        return int(size[1]) * _UNITS[size[2].upper()]
    if key.endswith("_percent") and text.endswith("%") and _NUMBER.fullmatch(text[:-1]):
        return int(text[:-1])
    if DEFAULTS[key] is None and text == "none":
        return None
    wanted = 'a number of bytes such as 65536 or "64KiB"' if "_bytes" in key else kind_of(key)
    raise SettingError(f"must be {wanted}, not {_shown(text)}", key)


def _read_text(path: Path) -> str:
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror or error}") from None
    try:
        return raw.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path}:{line}: not UTF-8 text") from None


def _syntax_problem(path: Path, text: str, error: Exception) -> str:
    """tomllib's complaint with the place in front, and the key whose value it happened in."""
    if isinstance(error, RecursionError):
        return f"{path}:1: nested too deeply"
    lines = text.split("\n")
    place = _TOML_PLACE.search(str(error))
    number = int(place[1]) if place and place[1] else len(lines)
    problem = _TOML_PLACE.sub("", str(error))
    column = f" in column {place[2]}" if place and place[2] else " at the end of the file" if place else ""
    above = (match for line in reversed(lines[:number]) if (match := _KEY_LINE.match(line)))
    key = next(above, None)
    return f"{path}:{number}: {f'{key[1]}: ' if key else ''}{problem[:1].lower()}{problem[1:]}{column}"


def _line_of(names: tuple[str, ...], text: str) -> int:
    """The line on which a key's statement begins, in a text that parses.

    It is the line after the longest beginning of the file that parses and lacks the key. That is slow for a long file
    but right whatever the statements before it look like.
    """
    lines = text.split("\n")
    begins = 1
    for count in range(1, len(lines) + 1):
        try:
            table = tomllib.loads("\n".join(lines[:count]))
        except ValueError:  # a value that goes on in the next line
            continue
        if any(found == names for found, _ in _flat(table)):
            return begins
        begins = count + 1
    raise AssertionError(f"{names} is not in the file")


def _did_you_mean(name: str, known: list[str], cutoff: float = 0.6) -> str:
    import difflib  # only a mistake needs it

    near = difflib.get_close_matches(name, known, n=1, cutoff=cutoff)
    return f"; did you mean {near[0]}?" if near else ""


def _shown(value: object) -> str:
    """A value as TOML writes it, on one line and not too long; of nested ones only what they are."""
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list) and any(isinstance(part, list | dict) for part in value):
        return "a nested list"
    text = json.dumps(value, ensure_ascii=False, default=str).replace("\x7f", "\\u007f")
    return text if len(text) <= 200 else f"{text[:200]}..."
