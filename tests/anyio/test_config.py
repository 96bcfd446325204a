"""The configuration: four layers, one table, and one line for every mistake."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from vixws_anyio.cli.config import as_markdown
from vixws_anyio.config import Config, ConfigError, default
from vixws_anyio.config.settings import SECTIONS, SETTINGS, Setting
from vixws_core.config import HubConfig
from vixws_core.errors import LocalError

SEED_FILE = {"websocket": {"port": 9090, "maxMessageSize": 65536, "idleTimeout": 600, "pingInterval": 30}}


def write(folder: Path, content: object) -> Path:
    """`config.json` in `folder`: the bytes, or the JSON of what is given."""
    path = folder / "config.json"
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return path


# ---- the table --------------------------------------------------------------------------------------


def test_every_field_of_the_configuration_has_one_row_in_the_table() -> None:
    fields = sorted(field.name for field in dataclasses.fields(Config) if field.name != "sources")

    assert sorted(setting.field for setting in SETTINGS) == fields


def test_every_limit_of_a_hub_can_be_set_and_has_the_same_default() -> None:
    hub = {field.name: field.default for field in dataclasses.fields(HubConfig) if field.name != "durable"}

    assert {name: getattr(Config(), name) for name in hub} == hub


@pytest.mark.parametrize("name", ["flag", "variable", "path", "field"])
def test_no_two_settings_share_a_name(name: str) -> None:
    names = [getattr(setting, name) for setting in SETTINGS]

    assert len(set(names)) == len(names)


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.path)
def test_a_default_fits_its_own_range(setting: Setting) -> None:
    assert setting.kind.check(default(setting)) == default(setting)
    assert setting.section in SECTIONS


def test_names_follow_from_the_key() -> None:
    setting = next(setting for setting in SETTINGS if setting.field == "message_bytes_max")

    assert setting.key == "maxMessageSize"
    assert setting.snake_key == "max_message_size"
    assert setting.flag == "--max-message-size"
    assert setting.variable == "VIXWS_MAX_MESSAGE_SIZE"


def test_the_documentation_is_what_the_table_says() -> None:
    page = Path(__file__).parents[2] / "docs" / "configuration.md"

    assert page.read_text(encoding="utf-8") == as_markdown()


# ---- what is accepted -------------------------------------------------------------------------------


def test_the_seeds_file_works_as_it_is(tmp_path: Path) -> None:
    config = Config.from_file(write(tmp_path, SEED_FILE))

    assert (config.port, config.message_bytes_max, config.idle_timeout_s, config.ping_interval_s) == (
        9090,
        65536,
        600.0,
        30.0,
    )


def test_keys_in_snake_case_work_too(tmp_path: Path) -> None:
    content = {"websocket": {"max_message_size": 1024}, "rooms": {"page_rows": 7}}

    config = Config.from_file(write(tmp_path, content))

    assert (config.message_bytes_max, config.page_rows_max) == (1024, 7)


def test_every_section_may_be_there_and_empty(tmp_path: Path) -> None:
    content = {section: dict[str, object]() for section in SECTIONS}

    assert Config.from_file(write(tmp_path, content)) == Config()


def test_a_byte_order_mark_is_passed_over(tmp_path: Path) -> None:
    assert Config.from_file(write(tmp_path, b'\xef\xbb\xbf{"websocket": {"port": 1}}')).port == 1


@pytest.mark.parametrize(
    ("layers", "port", "source"),
    [
        ((), 9090, "default"),
        (("base",), 1, "the application"),
        (("base", "file"), 2, "FILE"),
        (("base", "file", "environ"), 3, "VIXWS_PORT"),
        (("base", "file", "environ", "flags"), 4, "--port"),
        (("base", "environ"), 3, "VIXWS_PORT"),
        (("file", "flags"), 4, "--port"),
    ],
)
def test_a_later_layer_wins(tmp_path: Path, layers: tuple[str, ...], port: int, source: str) -> None:
    given: dict[str, Any] = {
        "base": Config(port=1),
        "file": write(tmp_path, {"websocket": {"port": 2}}),
        "environ": {"VIXWS_PORT": "3", "PATH": "/bin"},
        "flags": {"port": "4"},
    }

    config = Config.load(**{name: given[name] for name in layers})

    assert config.port == port
    assert config.source("port") == source.replace("FILE", str(given["file"]))
    assert config.source("host") == "default"


def test_layers_are_merged_setting_by_setting(tmp_path: Path) -> None:
    file = write(tmp_path, {"websocket": {"port": 2, "host": "::1"}})

    config = Config.load(file, {"VIXWS_IDLE_TIMEOUT": "5.5"}, {"port": "0"}, Config(rooms_max=3))

    assert (config.host, config.port, config.idle_timeout_s, config.rooms_max) == ("::1", 0, 5.5, 3)


def test_the_process_environment_counts_only_where_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIXWS_PORT", "1")

    assert Config.load().port == 9090


def test_what_kubernetes_sets_for_a_service_of_our_name_is_passed_over() -> None:
    environ = {"VIXWS_SERVICE_HOST": "10.0.0.1", "VIXWS_PORT_9090_TCP": "tcp://10.0.0.1:9090"}

    assert Config.load(environ=environ) == Config()


@pytest.mark.parametrize(
    ("field", "text", "value"),
    [
        ("port", " 80 ", 80),
        ("drain_s", "0", 0.0),
        ("drain_s", "1e1", 10.0),
        ("drain_s", ".5", 0.5),
        ("idle_timeout_s", "off", 0.0),
        ("idle_timeout_s", "0", 0.0),
        ("uvloop", "ON", True),
        ("uvloop", "no", False),
        ("unstored_rooms", "typing.*, @user/*", ("typing.*", "@user/*")),
        ("unstored_rooms", "", ()),
        ("metrics_listen", "off", "off"),
        ("metrics_listen", "[::1]:0", "[::1]:0"),
        ("host", "fe80::1%eth0", "fe80::1%eth0"),
        ("store", "memory://", "memory://"),
        ("backend", "trio", "trio"),
    ],
)
def test_text_is_read_alike_from_the_environment_and_from_flags(field: str, text: str, value: object) -> None:
    variable = next(setting.variable for setting in SETTINGS if setting.field == field)

    assert getattr(Config.load(environ={variable: text}), field) == value
    assert getattr(Config.load(flags={field: text}), field) == value


def test_off_is_a_word_in_files_too(tmp_path: Path) -> None:
    assert Config.from_file(write(tmp_path, {"websocket": {"pingInterval": "off"}})).ping_interval_s == 0.0


def test_nothing_is_null_in_files_and_empty_elsewhere(tmp_path: Path) -> None:
    base = Config(tls_cert="a.pem", tls_key="b.pem")
    file = write(tmp_path, {"websocket": {"tlsCert": None, "tlsKey": None}})

    assert Config.load(file, base=base).tls_cert is None
    assert Config.load(environ={"VIXWS_TLS_CERT": "", "VIXWS_TLS_KEY": ""}, base=base).tls_key is None


def test_the_hub_gets_its_part() -> None:
    hub = Config(message_bytes_max=99, unstored_rooms=("a*",)).hub("fsync")

    assert hub == HubConfig(message_bytes_max=99, unstored_rooms=("a*",), durable="fsync")


def test_replacing_keeps_the_rest_and_where_it_came_from() -> None:
    config = Config.load(flags={"port": "1", "host": "::1"}).replace(port=2)

    assert (config.host, config.source("host")) == ("::1", "--host")
    assert (config.port, config.source("port")) == (2, "argument")


@pytest.mark.parametrize(
    ("text", "address"),
    [("off", None), ("127.0.0.1:9100", ("127.0.0.1", 9100)), ("[::1]:1", ("::1", 1)), ("stats:0", ("stats", 0))],
)
def test_the_address_of_the_metrics_is_taken_apart(text: str, address: tuple[str, int] | None) -> None:
    assert Config(metrics_listen=text).metrics_address == address


def test_a_configuration_is_a_value() -> None:
    assert Config(port=1) == Config.load(flags={"port": "1"})
    assert len({Config(port=1), Config.load(flags={"port": "1"})}) == 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().port = 1  # type: ignore[misc] # the test is that it is refused


# ---- mistakes ---------------------------------------------------------------------------------------

WHOLE = "expected an integer from 0 to 65535"
HOSTS = "a host name or an IP address, or up to 16 of them"
IN_FILE: list[tuple[object, str]] = [
    (b"", "FILE: line 1 column 1: expected JSON (expecting value), got its end"),
    (b"{", "FILE: line 1 column 2: expected JSON (expecting property name enclosed in double quotes), got its end"),
    (b'{"websocket": {"port": 1},}', "FILE: line 1 column 2"),
    (b'{\n"websocket" {}}', 'FILE: line 2 column 13: expected JSON (expecting \':\' delimiter), got "{}}"'),
    (b"{} {}", 'FILE: line 1 column 4: expected JSON (extra data), got "{}"'),
    (b'{"websocket": {"port": 9090} // ours\n}', "FILE: line 1 column 30: expected JSON ("),
    (b"port = 9090", "FILE: line 1 column 1: expected JSON (expecting value), got"),
    (b'{"websocket": {"host": "\xff"}}', "FILE: expected UTF-8, got the byte 0xff at 24"),
    (b"[" * 100_000, "FILE: expected an object of sections, got one nested too deep"),
    (b'{"websocket": {"port": ' + b"9" * 5_000 + b"}}", "FILE: expected JSON: "),
    (b'{"websocket": {"idleTimeout": NaN}}', "FILE: websocket.idleTimeout: expected a number from 0.01 to 604800 "
     'seconds, or "off", got NaN'),
    (b'{"websocket": {"idleTimeout": -Infinity}}', "FILE: websocket.idleTimeout: expected a number from 0.01 to "
     '604800 seconds, or "off", got -Infinity'),
    (b'{"websocket": {"drain": Infinity}}', "FILE: websocket.drain: expected a number from 0 to 3600 seconds, got "
     "Infinity"),
    (b'{"websocket": {"port": NaN}}', f"FILE: websocket.port: {WHOLE}, got NaN"),
    (b'{"websocket": NaN}', "FILE: websocket: expected an object of settings, got NaN"),
    (b"NaN", "FILE: expected an object of the sections websocket, store, metrics, rooms, auth, log, got NaN"),
    (b'{"websocket": {"idleTimeout": 1e999}}', "FILE: websocket.idleTimeout: expected a number from 0.01 to 604800"),
    (b" " * 1_048_577, "FILE: expected a JSON file of at most 1048576 bytes, got more"),
    (b'{"websocket": {"port": 1, "port": 2}}', "FILE: port: expected the key once in its object, got it again with 2"),
    (b'{"store": {}, "store": {}}', "FILE: store: expected the key once in its object, got it again with {}"),
    ([1], "FILE: expected an object of the sections websocket, store, metrics, rooms, auth, log, got [1]"),
    ("socket", 'FILE: expected an object of the sections websocket, store, metrics, rooms, auth, log, got "socket"'),
    ({"websocket": [1]}, "FILE: websocket: expected an object of settings, got [1]"),
    ({"websocket": None}, "FILE: websocket: expected an object of settings, got null"),
    ({"websockets": {}}, "FILE: websockets: unknown section, expected one of websocket, store, metrics, rooms, "
     "auth, log (did you mean websocket?), got {}"),
    ({"port": 9090}, "FILE: port: expected it inside 'websocket', got 9090"),
    ({"websocket": {"prot": 1}}, "FILE: websocket.prot: unknown setting (did you mean port?), got 1"),
    ({"websocket": {"MaxMessageSize": 1}}, "FILE: websocket.MaxMessageSize: unknown setting (did you mean "
     "maxMessageSize?), got 1"),
    ({"websocket": {"max-message-size": 1}}, "FILE: websocket.max-message-size: unknown setting (did you mean "
     "maxMessageSize?), got 1"),
    ({"websocket": {"message_bytes_max": 1}}, "FILE: websocket.message_bytes_max: unknown setting (did you mean "
     "websocket.maxMessageSize?), got 1"),
    ({"websocket": {"maxRooms": 1}}, "FILE: websocket.maxRooms: unknown setting, expected it inside 'rooms', got 1"),
    ({"websocket": {"": 1}}, 'FILE: websocket."": unknown setting, got 1'),
    ({"websocket": {"a\nb": 1}}, 'FILE: websocket."a\\nb": unknown setting, got 1'),
    ({"auth": {"token": 1}}, "FILE: auth.token: unknown setting, got 1"),
    ({"websocket": {"maxRooms": 1, "max_rooms": 2}}, "FILE: websocket.maxRooms: unknown setting"),
    ({"rooms": {"maxRooms": 1, "max_rooms": 2}}, "FILE: rooms.max_rooms: expected the setting once, got maxRooms and "
     "max_rooms"),
    ({"websocket": {"port": "9090"}}, f'FILE: websocket.port: {WHOLE}, got "9090"'),
    ({"websocket": {"port": 65536}}, f"FILE: websocket.port: {WHOLE}, got 65536"),
    ({"websocket": {"port": -1}}, f"FILE: websocket.port: {WHOLE}, got -1"),
    ({"websocket": {"port": 90.5}}, f"FILE: websocket.port: {WHOLE}, got 90.5"),
    ({"websocket": {"port": 9090.0}}, f"FILE: websocket.port: {WHOLE}, got 9090.0"),
    ({"websocket": {"port": True}}, f"FILE: websocket.port: {WHOLE}, got true"),
    ({"websocket": {"port": None}}, f"FILE: websocket.port: {WHOLE}, got null"),
    ({"websocket": {"host": ""}}, f'FILE: websocket.host: expected {HOSTS}, got ""'),
    ({"websocket": {"host": "http://x"}}, f'FILE: websocket.host: expected {HOSTS}, got "http://x"'),
    ({"websocket": {"host": "a b"}}, f'FILE: websocket.host: expected {HOSTS}, got "a b"'),
    ({"websocket": {"host": 127}}, f"FILE: websocket.host: expected {HOSTS}, got 127"),
    ({"websocket": {"backend": "curio"}}, 'FILE: websocket.backend: expected "asyncio" or "trio", got "curio"'),
    ({"websocket": {"uvloop": "yes"}}, 'FILE: websocket.uvloop: expected true or false, got "yes"'),
    ({"websocket": {"uvloop": 1}}, "FILE: websocket.uvloop: expected true or false, got 1"),
    ({"websocket": {"idleTimeout": "600"}}, "FILE: websocket.idleTimeout: expected a number from 0.01 to 604800 "
     'seconds, or "off", got "600"'),
    ({"websocket": {"pongTimeout": 0}}, "FILE: websocket.pongTimeout: expected a number from 0.01 to 3600 seconds, "
     "got 0"),
    ({"websocket": {"pongTimeout": "off"}}, "FILE: websocket.pongTimeout: expected a number from 0.01 to 3600 seconds, "
     'got "off"'),
    ({"websocket": {"maxMessageSize": 0}}, "FILE: websocket.maxMessageSize: expected an integer from 1 to 67108864 "
     "bytes, got 0"),
    ({"websocket": {"maxMessageSize": "64k"}}, "FILE: websocket.maxMessageSize: expected an integer from 1 to 67108864 "
     'bytes, got "64k"'),
    ({"websocket": {"tlsCert": "a.pem"}}, "FILE: websocket.tlsCert: expected websocket.tlsKey with it, got "
     '"a.pem" alone'),
    ({"websocket": {"tlsKey": "b.pem"}}, "FILE: websocket.tlsKey: expected websocket.tlsCert with it, got "
     '"b.pem" alone'),
    ({"websocket": {"tlsCert": ""}}, "FILE: websocket.tlsCert: expected the path of a file, or nothing, got \"\""),
    ({"websocket": {"uvloop": True, "backend": "trio"}}, "FILE: websocket.uvloop: expected false where "
     'websocket.backend is "trio", got true'),
    ({"websocket": {"unsentLow": 2_000_000}}, "FILE: websocket.unsentLow: expected at most websocket.unsentHigh "
     "(1048576), got 2000000"),
    ({"websocket": {"unsentTotal": 4096}}, "FILE: websocket.unsentTotal: expected at least websocket.unsentHigh "
     "(1048576), got 4096"),
    ({"rooms": {"tailSize": 1 << 26}}, "FILE: rooms.tailSize: expected at most rooms.tailSizeTotal (33554432), "
     "got 67108864"),
    ({"rooms": {"unstored": "typing.*"}}, "FILE: rooms.unstored: expected a list of room patterns (`*` stands for any "
     'run of characters), at most 1000, got "typing.*"'),
    ({"rooms": {"unstored": ["a", 1]}}, "FILE: rooms.unstored: expected a list of room patterns"),
    ({"rooms": {"unstored": [""]}}, "FILE: rooms.unstored: expected a list of room patterns"),
    ({"rooms": {"unstored": ["x"] * 1001}}, "FILE: rooms.unstored: expected a list of room patterns"),
    ({"rooms": {"pageRows": 501}}, "FILE: rooms.pageRows: expected an integer from 1 to 500, got 501"),
    ({"store": {"url": "chat.db"}}, "FILE: store.url: expected a store URL such as sqlite:///chat_messages.db or "
     'memory://, got "chat.db"'),
    ({"store": {"url": "sqlite:///a b"}}, "FILE: store.url: expected a store URL"),
    ({"metrics": {"listen": 9100}}, 'FILE: metrics.listen: expected HOST:PORT (an IPv6 host in brackets) or "off", got '
     "9100"),
    ({"metrics": {"listen": ":9100"}}, "FILE: metrics.listen: expected HOST:PORT"),
    ({"metrics": {"listen": "localhost"}}, "FILE: metrics.listen: expected HOST:PORT"),
    ({"metrics": {"listen": "::1:9100"}}, "FILE: metrics.listen: expected HOST:PORT"),
    ({"metrics": {"listen": "localhost:99999"}}, "FILE: metrics.listen: expected HOST:PORT"),
    ({"metrics": {"listen": False}}, "FILE: metrics.listen: expected HOST:PORT"),
]  # fmt: skip


@pytest.mark.parametrize(("content", "line"), IN_FILE, ids=range(len(IN_FILE)))
def test_a_mistake_in_a_file_gives_one_line(tmp_path: Path, content: object, line: str) -> None:
    path = write(tmp_path, content)

    with pytest.raises(ConfigError) as raised:
        Config.from_file(path)

    text = str(raised.value)
    assert text.startswith(line.replace("FILE", str(path)))
    assert text.isprintable()
    assert len(text) < 500 + len(str(path))


ELSEWHERE: list[tuple[Mapping[str, str], Mapping[str, str | bool], str]] = [
    ({"VIXWS_PORT": "http"}, {}, f'environment: VIXWS_PORT: {WHOLE}, got "http"'),
    ({"VIXWS_PORT": ""}, {}, f'environment: VIXWS_PORT: {WHOLE}, got ""'),
    ({"VIXWS_PORT": "9_090"}, {}, f'environment: VIXWS_PORT: {WHOLE}, got "9_090"'),
    ({"VIXWS_PORT": "٩"}, {}, f'environment: VIXWS_PORT: {WHOLE}, got "٩"'),
    ({"VIXWS_PROT": "1"}, {}, 'environment: VIXWS_PROT: unknown variable (did you mean VIXWS_PORT?), got "1"'),
    ({"VIXWS_FOO": "1"}, {}, 'environment: VIXWS_FOO: unknown variable, got "1"'),
    ({"VIXWS_DRAIN": "nan"}, {}, 'environment: VIXWS_DRAIN: expected a number from 0 to 3600 seconds, got "nan"'),
    ({"VIXWS_DRAIN": "8s"}, {}, 'environment: VIXWS_DRAIN: expected a number from 0 to 3600 seconds, got "8s"'),
    ({"VIXWS_UVLOOP": "maybe"}, {}, 'environment: VIXWS_UVLOOP: expected true or false, got "maybe"'),
    ({"VIXWS_HOST": "a\x1b[31m"}, {}, f"environment: VIXWS_HOST: expected {HOSTS}, got "),
    ({"VIXWS_UNSTORED_ROOMS": "a,,b"}, {}, "environment: VIXWS_UNSTORED_ROOMS: expected a list of room patterns"),
    ({}, {"port": "0x50"}, f'--port: {WHOLE}, got "0x50"'),
    ({}, {"metrics_listen": "9100"}, "--metrics: expected HOST:PORT"),
    ({}, {"backend": "trio", "uvloop": True}, "--uvloop: websocket.uvloop: expected false where websocket.backend"),
    (
        {"VIXWS_UVLOOP": "1"},
        {"backend": "trio"},
        "VIXWS_UVLOOP: websocket.uvloop: expected false where websocket.backend",
    ),
]


@pytest.mark.parametrize(("environ", "flags", "line"), ELSEWHERE, ids=range(len(ELSEWHERE)))
def test_a_mistake_in_the_environment_or_a_flag_gives_one_line(
    environ: Mapping[str, str], flags: Mapping[str, str | bool], line: str
) -> None:
    with pytest.raises(ConfigError) as raised:
        Config.load(environ=environ, flags=flags)

    assert str(raised.value).startswith(line)
    assert str(raised.value).isprintable()


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "none.json", tmp_path, tmp_path / "a\0b"):
        with pytest.raises(ConfigError, match="expected a readable JSON file: "):
            Config.from_file(path)


@pytest.mark.parametrize("field", ["port", "host", "unstored_rooms", "metrics_listen"])
def test_a_wrong_argument_is_refused(field: str) -> None:
    arguments: dict[str, Any] = {field: {}}

    with pytest.raises(ConfigError, match=f"^{field}: expected .*, got {{}}$"):
        Config(**arguments)


def test_replacing_what_is_no_setting_is_refused() -> None:
    with pytest.raises(LocalError, match=r"prt: no such setting \(did you mean port\?\), got 1"):
        Config().replace(prt=1)
