"""Settings as a person gives them: sources and their order, origins, mistakes, files that are saved and read back, the document."""

from __future__ import annotations

import json
import re
import string
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast_runtime.app.config import docs as config_docs
from holdfast_runtime.app.config.kinds import (
    HEADERS,
    HOST_AND_PORT,
    NAME,
    ROLE_ARN,
    Address,
    Choice,
    Duration,
    File,
    Kind,
    Real,
    Size,
    Text,
    Url,
    Whole,
    format_size,
    parse_size,
)
from holdfast_runtime.app.config.resolving import Configuration, from_texts, resolve
from holdfast_runtime.app.config.settings import SETTINGS, Setting
from holdfast_runtime.app.config.toml import read_toml
from holdfast_runtime.app.errors import CliError
from tests.app.toolbox import Done, Server, cli, in_terminal, project

ROOT = Path(__file__).parents[2]


def settings(folder: Path, *arguments: str, **variables: str) -> dict[str, tuple[Any, str]]:
    """What `holdfast config` says: name -> (value, origin)."""
    found = cli("config", "--json", *arguments, cwd=folder, **variables).json()["settings"]
    return {name: (item["value"], item["origin"]) for name, item in found.items()}


def mistakes(done: Done) -> list[str]:
    assert done.code == 2, done
    assert not done.out
    assert "Traceback" not in done.err
    return done.err.removeprefix("error: ").splitlines()


def resolved(folder: Path, text: str = "", **variables: str) -> Configuration:
    (folder / "holdfast.toml").write_text(text)
    return resolve(environment=variables, folder=folder)


def refused(folder: Path, text: str = "", **variables: str) -> str:
    with pytest.raises(CliError) as error:
        resolved(folder, text, **variables)
    return str(error.value)


# -- sources


def test_a_stronger_source_wins_and_is_named(tmp_path: Path) -> None:
    (tmp_path / "holdfast.toml").write_text('# mine\n\nshards = 8\nstore = "a.sqlite"\nflush-interval = "1m"\ningress = ":1"\n')
    found = settings(tmp_path, "--ingress", ":3", HOLDFAST_FLUSH_INTERVAL="90s", HOLDFAST_INGRESS=":2")
    assert found["admin"] == ("127.0.0.1:9070", "default")
    assert found["shards"] == (8, "holdfast.toml:3")
    assert found["store"] == ("a.sqlite", "holdfast.toml:4")
    assert found["flush-interval"] == ("1m 30s", "environment HOLDFAST_FLUSH_INTERVAL")
    assert found["ingress"] == ("127.0.0.1:3", "--ingress")
    assert len(found) == len(SETTINGS)


def test_the_file_is_named_by_option_variable_or_place(tmp_path: Path) -> None:
    for name, shards in (("holdfast.toml", 2), ("b.toml", 3), ("c.toml", 4)):
        (tmp_path / name).write_text(f"shards = {shards}")
    assert settings(tmp_path)["shards"] == (2, "holdfast.toml:1")
    assert settings(tmp_path, HOLDFAST_CONFIG="b.toml")["shards"] == (3, "b.toml:1")
    assert settings(tmp_path, "--config", "c.toml", HOLDFAST_CONFIG="b.toml")["shards"] == (4, "c.toml:1")
    whole = cli("config", "--json", cwd=tmp_path, HOLDFAST_CONFIG="b.toml").json()
    assert (whole["file"], whole["file_origin"]) == ("b.toml", "environment HOLDFAST_CONFIG")


def test_variables_of_the_official_server_are_understood_and_ours_win(tmp_path: Path) -> None:
    name, variable = "request-identity-private-key-pem-file", "RESTATE_WORKER__INVOKER__REQUEST_IDENTITY_PRIVATE_KEY_PEM_FILE"
    assert resolved(tmp_path, **{variable: "a.pem"}).resolved[name].origin == f"environment {variable}"
    found = resolved(tmp_path, **{variable: "a.pem", "HOLDFAST_REQUEST_IDENTITY_PRIVATE_KEY_PEM_FILE": "b.pem"})
    assert found[name] == Path("b.pem")
    assert resolved(tmp_path, RESTATE_SOMETHING_ELSE="1")["shards"] == 4  # not ours to judge


def test_absent_values_take_back_what_a_weaker_source_says(tmp_path: Path) -> None:
    text = 'max-journal-retention = "1d"\ndefault-retry-policy-max-attempts = "unlimited"'
    assert resolved(tmp_path, text)["max-journal-retention"] == 86_400_000
    found = resolved(tmp_path, text, HOLDFAST_MAX_JOURNAL_RETENTION="unlimited")
    assert found["max-journal-retention"] is None
    assert found["default-retry-policy-max-attempts"] is None
    assert settings(tmp_path)["default-retry-policy-max-attempts"] == (None, "holdfast.toml:2")


def test_a_variable_set_to_nothing_is_not_set(tmp_path: Path) -> None:
    assert resolved(tmp_path, "shards = 2", HOLDFAST_SHARDS="", HOLDFAST_CONFIG="").resolved["shards"].origin == "holdfast.toml:1"


def test_people_get_a_table_with_origins_and_the_file(tmp_path: Path) -> None:
    done = cli("config", cwd=tmp_path, HOLDFAST_SHARDS="2")
    (line,) = [line.split() for line in done.out.splitlines() if line.startswith("shards")]
    assert line == ["shards", "2", "environment", "HOLDFAST_SHARDS"]
    assert "no holdfast.toml in " in done.out.splitlines()[-1]
    (tmp_path / "holdfast.toml").touch()
    assert cli("config", cwd=tmp_path).out.splitlines()[-1] == "Configuration file: holdfast.toml (found in the working directory)"
    assert "\x1b[" in in_terminal("config").out


def test_every_setting_is_an_option_with_its_help() -> None:
    for command, clients in (("serve", False), ("dev", False), ("config", True)):
        text = " ".join(cli(command, "--help", COLUMNS="200", NO_COLOR="1").out.split())
        for setting in SETTINGS:
            assert (f"{setting.option} " in text) is (clients or not setting.client), (command, setting.name)


# -- mistakes


def test_all_mistakes_are_told_at_once_with_their_place(tmp_path: Path) -> None:
    (tmp_path / "holdfast.toml").write_text(
        'stroe = "a"\nshards = 900\n\n[ingress]\nrequest-size-limit = "1 MiB"\nfoo = [\n 1,\n]\n[x]\nlease_duration = 5\n'
    )
    variables = {"HOLDFAST_LOG_LEVEL": "loud", "HOLDFAST_SHRADS": "2"}
    lines = mistakes(cli("serve", "--flush-interval", "5", cwd=tmp_path, **variables))
    assert lines == [
        "8 mistakes in the configuration",
        "  holdfast.toml:1: there is no setting stroe; the nearest is store, and `holdfast config` lists all",
        "  holdfast.toml:2: shards expects a whole number from 1 to 256; found the number 900",
        "  holdfast.toml:5: there is no setting ingress.request-size-limit; here it is called ingress-request-size-limit",
        "  holdfast.toml:6: there is no setting ingress.foo; the nearest is ingress, and `holdfast config` lists all",
        "  holdfast.toml:10: there is no setting x.lease_duration; the nearest is lease-duration, and `holdfast config` lists all",
        "  HOLDFAST_LOG_LEVEL expects one of debug, info, warning, error; found 'loud'",
        "  there is no variable HOLDFAST_SHRADS; the nearest is HOLDFAST_SHARDS, and `holdfast config` lists all",
        "  --flush-interval expects a duration of 1s to 1d, such as 10s or 1h 30m; found '5'",
    ]
    assert not (tmp_path / ".holdfast").exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('shards = "4"', "shards expects a whole number from 1 to 256; found '4'"),
        ('store = "dynamo://shop"', "store expects the path of a file, or dynamodb://TABLE"),
        ('default-retry-policy-max-attempts = "70"', "or 'unlimited'; found '70'"),
        ("shards = 4.0", "found the number 4.0"),
        ("shards = true", "found true"),
        ("shards = 0", "from 1 to 256; found the number 0"),
        ("flush-interval = 300", "a duration of 1s to 1d, such as 10s or 1h 30m; found the number 300"),
        ('flush-interval = "5 parsecs"', "found '5 parsecs'"),
        ('flush-interval = "1 month"', "found '1 month'"),
        ('flush-interval = "10ms"', "found '10ms'"),
        ('page-memory-limit = "12 apples"', "a size from 1 MiB to 64 GiB, such as 32 MiB; found '12 apples'"),
        ("page-memory-limit = 5", "found the number 5"),
        ('ingress = "0.0.0.0"', "HOST:PORT with a port from 0 to 65535"),
        ('ingress = "0.0.0.0:70000"', "found '0.0.0.0:70000'"),
        ("ingress = 8080", "found the number 8080"),
        ('admin-url = "localhost:9070"', "a URL such as"),
        ('store = ""', "region=REGION; found ''"),
        ("store = []", "found a list"),
        ("log-format = {}", "found a table"),
        ('log-format = "pretty"', "one of human, json; found 'pretty'"),
        ('default-retry-policy-exponentiation-factor = "x"', "a number from 1 to 1000"),
        ("default-retry-policy-exponentiation-factor = nan", "a number from 1 to 1000; found the number nan"),
        ('default-retry-policy-max-attempts = "many"', "or 'unlimited'; found 'many'"),
        ('cluster-name = "a b"', "a name of letters"),
        ("store = 1979-05-27", "found 1979-05-27"),
    ],
)
def test_wrong_types_and_ranges_say_what_was_expected(tmp_path: Path, text: str, words: str) -> None:
    message = refused(tmp_path, text)
    assert message.startswith("holdfast.toml:1: ")
    assert words in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("arrange", "code", "words"),
    [
        (lambda path: None, 1, ["cannot be read", "No such file", "--config"]),
        (lambda path: path.mkdir(), 1, ["cannot be read", "directory"]),
        (lambda path: path.write_text("shards 4"), 2, ["not valid TOML", "line 1"]),
        (lambda path: path.write_text("shards = 4\nshards = 5"), 2, ["not valid TOML", "overwrite"]),
        (lambda path: path.write_bytes(b"\xff"), 2, ["not UTF-8"]),
    ],
)
def test_a_file_that_cannot_be_used(tmp_path: Path, arrange: Any, code: int, words: list[str]) -> None:
    arrange(tmp_path / "my.toml")
    done = cli("serve", "--config", "my.toml", cwd=tmp_path)
    assert done.code == code
    assert done.err.startswith("error: the configuration file my.toml ")
    assert done.err.count("\n") == 1
    assert all(word in done.err for word in words), done


def test_values_that_contradict_each_other_are_refused_with_both_origins(tmp_path: Path) -> None:
    message = refused(tmp_path, 'heartbeat-interval = "20s"')
    assert "heartbeat-interval (20s, holdfast.toml:1) must be below lease-duration (10s, default)" in message
    assert "must be below presumed-dead-after (8s, default): living processes would be taken for dead" in message


def test_a_wrong_value_is_told_also_when_a_stronger_source_is_right(tmp_path: Path) -> None:
    assert "holdfast.toml:1: shards expects" in refused(tmp_path, "shards = 0", HOLDFAST_SHARDS="4")


def test_variables_that_kubernetes_makes_for_a_service_are_no_settings(tmp_path: Path) -> None:
    made = ["HOLDFAST_SERVICE_HOST", "HOLDFAST_SERVICE_PORT", "HOLDFAST_SERVICE_PORT_INGRESS", "HOLDFAST_PORT", "HOLDFAST_PORT_8080_TCP"]
    made += [
        "HOLDFAST_PORT_8080_TCP_ADDR",
        "HOLDFAST_INGRESS_SERVICE_HOST",
        "HOLDFAST_INGRESS_PORT",
        "HOLDFAST_INGRESS_PORT_9070_TCP_PROTO",
    ]
    assert resolved(tmp_path, **dict.fromkeys(made, "tcp://10.0.0.1:8080"))["shards"] == 4
    assert "there is no variable HOLDFAST_PORTS" in refused(tmp_path, HOLDFAST_PORTS="1")


def test_a_secret_is_not_shown(tmp_path: Path) -> None:
    setting = Setting("", "token", Text(r"\w+", "letters"), None, "a secret", absent="none", secret=True)
    found = resolve(environment={"HOLDFAST_TOKEN": "abc"}, folder=tmp_path, settings=[setting])
    assert found["token"] == "abc"
    assert setting.shown(found["token"]) == "***"
    assert "abc" not in found.toml()
    with pytest.raises(CliError) as error:
        resolve(environment={"HOLDFAST_TOKEN": "a b c"}, folder=tmp_path, settings=[setting])
    assert "a b c" not in str(error.value)


# -- files that are saved and read back


def values(kind: Kind) -> st.SearchStrategy[Any]:
    match kind:
        case Whole(low, high):
            return st.integers(low, high)
        case Real(low, high):
            return st.floats(low, high)
        case Duration(low, high) | Size(low, high):
            return st.integers(low, high)
        case Choice(names):
            return st.sampled_from(names)
        case File():
            return st.text(min_size=1).filter(lambda text: text.strip() and "\0" not in text and text.isprintable()).map(Path)
        case Address():
            return st.tuples(st.sampled_from(["127.0.0.1", "::1", "0.0.0.0", "host.name"]), st.integers(0, 65535))
        case Url():
            return st.sampled_from(["http://a", "https://b.c:1/d", "http://[::1]:2"])
        case Text() if kind is HEADERS:
            return st.lists(st.sampled_from(["x-a", "X-B", "c"]), min_size=1).map(",".join)
        case Text() if kind in (HOST_AND_PORT, ROLE_ARN):
            return st.from_regex(re.compile(kind.pattern, re.ASCII), fullmatch=True)
        case Text():
            return st.text(string.ascii_letters + string.digits + "._-" if kind is NAME else "+=,.@:/-ab", min_size=2, max_size=100)
    raise AssertionError(kind)


@st.composite
def choices(draw: st.DrawFn) -> dict[str, Any]:
    """Values of some settings, without those that contradict each other and without secrets, which are not saved."""
    paired = {"heartbeat-interval", "message-size-limit", "default-retry-policy-initial-interval"}
    paired |= {"presumed-dead-after", "lease-duration", "response-size-limit", "default-retry-policy-max-interval"}
    chosen = draw(st.sets(st.sampled_from([setting for setting in SETTINGS if setting.name not in paired and not setting.secret])))
    return {setting.name: draw(values(setting.kind) if setting.absent is None else st.none() | values(setting.kind)) for setting in chosen}


def _values(found: Configuration) -> Mapping[str, Any]:
    return {name: item.value for name, item in found.resolved.items()}


@given(choices())
def test_a_saved_configuration_reads_as_it_was(tmp_path_factory: pytest.TempPathFactory, chosen: dict[str, Any]) -> None:
    folder = tmp_path_factory.getbasetemp()
    by_name = {setting.name: setting for setting in SETTINGS}
    first = resolve(options={name: str(by_name[name].write(value)) for name, value in chosen.items()}, environment={}, folder=folder)
    assert {name: first[name] for name in chosen} == chosen
    (folder / "saved.toml").write_text(first.toml(), encoding="utf-8")
    second = resolve(environment={}, folder=folder, file=Path("saved.toml"))
    assert _values(second) == _values(first)
    assert {name for name, item in second.resolved.items() if item.origin != "default"} == set(chosen)
    assert _values(from_texts(first.texts())) == _values(first)


def test_config_prints_a_file_that_serve_takes(tmp_path: Path) -> None:
    printed = cli("config", "--toml", "--shards", "7", cwd=tmp_path, HOLDFAST_QUERY_TIMEOUT="1500ms").out
    assert tomllib.loads(printed) == {"shards": 7, "query-timeout": "1s 500ms"}
    (tmp_path / "holdfast.toml").write_text(printed)
    assert settings(tmp_path)["query-timeout"][0] == "1s 500ms"
    assert mistakes(cli("config", "--toml", "--json"))[0].startswith("--json and --toml")


@given(st.integers(0, 2**60))
def test_sizes_are_written_exactly(size: int) -> None:
    assert parse_size(format_size(size)) == size


@pytest.mark.parametrize(
    ("text", "size"),
    [("0", 0), ("4096", 4096), ("1KiB", 1024), ("32 MiB", 32 << 20), ("1.5 gib", 3 << 29), ("10 MB", 10_000_000), (" 7 b ", 7)],
)
def test_sizes_as_people_write_them(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "MiB", "-1", "1.5", "1.0001 KiB", "1 MiBs", "1e3", "١ MiB", "1 2"])
def test_no_sizes(text: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        parse_size(text)


def test_lines_of_toml_are_those_where_a_key_stands() -> None:
    text = 'a = 1 # x\n\n[t]\n"b.c" = """\n[no]\nd = 2\n"""\ne = [\n  1,\n  { f = 2 },\n]\nu.v = 1\n[[s]]\nx = 1\n[empty]\n'
    assert {(entry.key, entry.line) for entry in read_toml(text)} == {
        ("a", 1),
        ("t.b.c", 4),
        ("t.e", 8),
        ("t.u.v", 12),
        ("s", 13),
        ("empty", 15),
    }


# -- commands that ask a server


def test_commands_find_the_server_through_the_file(tmp_path: Path, shop: Server) -> None:
    (tmp_path / "holdfast.toml").write_text(f'admin-url = "http://{shop.admin}"\ningress-url = "http://{shop.ingress}"\n')
    assert cli("services", "list", "--json", cwd=tmp_path).json()
    assert cli("call", "greeter/greet", '"Ada"', cwd=tmp_path).code == 0
    assert "127.0.0.1:1 cannot be reached" in cli("services", "list", cwd=tmp_path, HOLDFAST_ADMIN_URL="http://127.0.0.1:1").err
    assert "127.0.0.1:1 cannot be reached" in cli("services", "list", "--admin-url", "http://127.0.0.1:1", cwd=tmp_path).err
    assert cli("services", "list", "--json", cwd=tmp_path, HOLDFAST_UNKNOWN="1").json()  # a server's business
    (tmp_path / "holdfast.toml").write_text("admin-url = 1")
    assert mistakes(cli("services", "list", cwd=tmp_path)) == [
        "holdfast.toml:1: admin-url expects a URL such as http://127.0.0.1:9070; found the number 1"
    ]


def test_the_official_variable_for_the_admin_api_is_understood(shop: Server) -> None:
    assert cli("services", "list", "--json", RESTATE_ADMIN_URL=f"http://{shop.admin}").json()


def test_colours_are_a_setting(tmp_path: Path) -> None:
    (tmp_path / "holdfast.toml").write_text('colour = "always"')
    assert "\x1b[" in cli("config", cwd=tmp_path).out
    assert "\x1b[" not in cli("config", cwd=tmp_path, HOLDFAST_COLOUR="auto").out
    assert "\x1b[1;31m" in in_terminal("call", "nothing").out  # an error in red
    assert "31m" not in in_terminal("call", "nothing", HOLDFAST_COLOUR="never").out


# -- the server takes it


def test_serve_runs_with_file_environment_and_options(tmp_path: Path) -> None:
    (tmp_path / "holdfast.toml").write_text('log-format = "json"\nshards = 2\ncluster-name = "from-the-file"\nlog-level = "error"')
    server = Server(tmp_path, ["serve"], HOLDFAST_LOG_LEVEL="info")
    server.launch()
    try:
        server.wait_for(lambda: '"event": "ready"' in server.output())
        lines = [json.loads(line) for line in server.output().splitlines()]
        (read,) = [line for line in lines if line["event"] == "configuration.read"]
        assert (read["file"], read["named_by"]) == ("holdfast.toml", "found in the working directory")
        server.admin = lines[-1]["admin"].removeprefix("http://").rstrip("/")
        assert server._ask(f"http://{server.admin}/cluster-health")["cluster_name"] == "from-the-file"
        assert server.stop()[0] == 0
    finally:
        server.__exit__()
    assert server.store.exists()


def test_dev_hands_its_settings_to_the_process_that_serves(tmp_path: Path) -> None:
    project(tmp_path)
    (tmp_path / "holdfast.toml").write_text('cluster-name = "of-dev"\ndefault-journal-retention = "2h"')
    with Server(tmp_path, ["dev", "shop"]) as server:
        assert server._ask(f"http://{server.admin}/cluster-health")["cluster_name"] == "of-dev"
        assert server._ask(f"http://{server.admin}/services/greeter")["journal_retention"] == "2h"


# -- what is said about them


def test_the_document_is_the_declaration() -> None:
    assert (ROOT / "docs" / "configuration.md").read_text() == config_docs.document(), (
        "run: python -m holdfast_runtime.app.config.docs > docs/configuration.md"
    )


def test_names_are_plain_and_unlike_each_other() -> None:
    names = [setting.name for setting in SETTINGS]
    assert len({*names}) == len(names)
    variables = [variable for setting in SETTINGS for variable in setting.variables]
    assert len({*variables}) == len(variables)
    for setting in SETTINGS:
        assert set(setting.name) <= set(string.ascii_lowercase + string.digits + "-")
        assert setting.read(setting.write(setting.default)) == setting.default


def test_the_command_line_starts_without_what_it_does_not_need() -> None:
    heavy = [
        "tomllib",
        "uvicorn",
        "h2",
        "starlette",
        "botocore",
        "datafusion",
        "pydantic",
        "rich.table",
        "holdfast_runtime.app.runtime",
    ]
    code = f"import sys, holdfast_runtime.app.cli; print([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
