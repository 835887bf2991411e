"""The effective configuration, and where each value comes from (http-api §5.1).

Rules: lowest first: defaults, TOML file, environment, command line. Everything that is given is checked, also what a stronger source
overrides; all mistakes are told at once. A variable that is set to nothing is not set. Nothing here starts or opens anything but the
file, so that every command can afford it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from holdfast_runtime.app.config.settings import BY_NAME, OTHER_VARIABLES, PREFIX, SETTINGS, Setting
from holdfast_runtime.app.config.toml import Entry, found, read_toml, toml_value
from holdfast_runtime.app.errors import CliError, misuse

FILE: Final = "holdfast.toml"  # in the working directory, when no other is named
FILE_VARIABLE: Final = "HOLDFAST_CONFIG"
DEFAULT: Final = "default"

# Put into every container's environment beside a service whose name begins with "holdfast": not meant as settings.
_KUBERNETES: Final = re.compile(r"HOLDFAST_(\w*_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)")


@dataclass(frozen=True, slots=True)
class Resolved:
    """origin: "default", "holdfast.toml:12", "environment HOLDFAST_STORE", "--store"."""

    setting: Setting
    value: Any
    origin: str


@dataclass(frozen=True, slots=True)
class Configuration:
    """file: the one that was read. file_origin: who named it."""

    resolved: Mapping[str, Resolved]
    file: Path | None
    file_origin: str

    def __getitem__(self, name: str) -> Any:
        """The value: durations in ms, sizes in bytes, None when absent."""
        return self.resolved[name].value

    def seconds(self, name: str) -> float:
        return float(self[name]) / 1000

    def texts(self) -> dict[str, str]:
        """What `from_texts` takes, secrets included."""
        return {name: str(item.setting.write(item.value)) for name, item in self.resolved.items()}

    def toml(self) -> str:
        """A file that says the same."""
        lines, group = ["# Settings of Holdfast. Those behind a # have their default."], ""
        for item in self.resolved.values():
            setting = item.setting
            if setting.group != group:
                group = setting.group
                lines += ["", f"# {group}"]
            if setting.secret:
                lines.append(f"# {setting.name}: a secret, set {setting.variable}")
                continue
            mark = "# " if item.origin == DEFAULT else ""
            lines.append(f"{mark}{setting.name} = {toml_value(setting.write(item.value))}")
        return "\n".join(lines) + "\n"


def from_texts(texts: Mapping[str, str], file: tuple[str, str] | None = None) -> Configuration:
    """What another process has resolved. file: what it has read, and who named it."""
    resolved = {setting.name: Resolved(setting, setting.read(texts[setting.name]), "handed down") for setting in SETTINGS}
    path, origin = file or (None, "none")
    return Configuration(resolved, None if path is None else Path(path), origin)


def resolve(
    *,
    options: Mapping[str, str] | None = None,
    environment: Mapping[str, str],
    folder: Path,
    file: Path | None = None,
    defaults: Mapping[str, Any] | None = None,
    settings: Sequence[Setting] = SETTINGS,
) -> Configuration:
    """options: name -> text, of the command line. folder: the working directory. defaults: of the command, where it has its own.

    Raises CliError with every mistake.
    """
    path, file_origin = _choose_file(file, environment, folder)
    entries = _read_file(folder, path) if path is not None else []
    problems = _Problems()
    known = {setting.name: setting for setting in settings}
    values = {setting.name: Resolved(setting, (defaults or {}).get(setting.name, setting.default), DEFAULT) for setting in settings}
    for entry in entries:
        where = f"{path}:{entry.line}"
        setting = known.get(entry.key)
        if setting is None:
            problems.add(f"{where}: there is no setting {entry.key}; {_nearest_key(entry.key, settings)}")
        elif (value := problems.read(setting, entry.value, f"{where}: {setting.name}", setting.read_toml)) is not _WRONG:
            values[setting.name] = Resolved(setting, value, where)
    for setting in settings:
        for variable in reversed(setting.variables):  # the first that is set counts
            if text := environment.get(variable):
                value = problems.read(setting, text, variable)
                if value is not _WRONG:
                    values[setting.name] = Resolved(setting, value, f"environment {variable}")
    for variable in _unknown_variables(environment, settings):
        problems.add(f"there is no variable {variable}; {_nearest_variable(variable, settings)}")
    for name, text in (options or {}).items():
        setting = known[name]
        value = problems.read(setting, text, setting.option)
        if value is not _WRONG:
            values[name] = Resolved(setting, value, setting.option)
    if not problems.found:
        for text in _contradictions(values):
            problems.add(text)
    problems.raise_if_any()
    return Configuration(values, path, file_origin)


def client_value(name: str, environment: Mapping[str, str], folder: Path) -> Any:
    """One setting of commands that ask a server: they do not mind what else is wrong with variables. Raises CliError."""
    setting = BY_NAME[name]
    variables = {FILE_VARIABLE, *setting.variables}
    return resolve(environment={key: value for key, value in environment.items() if key in variables}, folder=folder)[name]


_WRONG: Final = object()


class _Problems:
    def __init__(self) -> None:
        self.found: list[str] = []

    def add(self, text: str) -> None:
        self.found.append(text)

    def read(self, setting: Setting, given: object, where: str, read: Callable[[object], Any] | None = None) -> Any:
        """The value, or _WRONG."""
        try:
            return (read or setting.read)(given)
        except ValueError:
            shown = "another value (not shown, it is a secret)" if setting.secret else found(given)
            self.add(f"{where} expects {setting.expected}; found {shown}")
            return _WRONG

    def raise_if_any(self) -> None:
        if len(self.found) == 1:
            raise misuse(self.found[0])
        if self.found:
            raise misuse("\n".join([f"{len(self.found)} mistakes in the configuration", *(f"  {text}" for text in self.found)]))


def _choose_file(file: Path | None, environment: Mapping[str, str], folder: Path) -> tuple[Path | None, str]:
    if file is not None:
        return file, "--config"
    if named := environment.get(FILE_VARIABLE):
        return Path(named), f"environment {FILE_VARIABLE}"
    if (folder / FILE).is_file():
        return Path(FILE), "found in the working directory"
    return None, f"no {FILE} in {folder}, and neither --config nor {FILE_VARIABLE} names one"


def _read_file(folder: Path, path: Path) -> list[Entry]:
    try:
        text = (folder / path).read_text(encoding="utf-8")
    except OSError as error:
        raise CliError(f"the configuration file {path} cannot be read ({error.strerror}); correct --config or {FILE_VARIABLE}") from error
    except UnicodeDecodeError as error:
        raise misuse(f"the configuration file {path} is not UTF-8 text (byte {error.start})") from error
    try:
        return read_toml(text)
    except ValueError as error:
        raise misuse(f"the configuration file {path} is not valid TOML: {error}") from error


def _unknown_variables(environment: Mapping[str, str], settings: Iterable[Setting]) -> list[str]:
    known = {variable for setting in settings for variable in setting.variables} | set(OTHER_VARIABLES)
    return sorted(name for name in environment if name.startswith(PREFIX) and name not in known and not _KUBERNETES.fullmatch(name))


def _nearest_key(key: str, settings: Sequence[Setting]) -> str:
    official = {setting.official: setting.name for setting in settings if setting.official is not None}
    if key in official:
        return f"here it is called {official[key]}"
    names = [setting.name for setting in settings]
    return _nearest(re.sub(r"[._]", "-", key), names)


def _nearest_variable(variable: str, settings: Iterable[Setting]) -> str:
    return _nearest(variable, [*(setting.variable for setting in settings), *OTHER_VARIABLES])


def _nearest(name: str, names: Sequence[str]) -> str:
    import difflib

    near = difflib.get_close_matches(name, names, n=1, cutoff=0.0)[0]
    return f"the nearest is {near}, and `holdfast config` lists all"


def _contradictions(values: Mapping[str, Resolved]) -> Iterable[str]:
    """Pairs of which the first must be below the second."""
    for low, high, why in (
        ("heartbeat-interval", "presumed-dead-after", "living processes would be taken for dead"),
        ("heartbeat-interval", "lease-duration", "owners would stop between two heartbeats"),
        ("message-size-limit", "response-size-limit", "no response could hold the message"),
        ("default-retry-policy-initial-interval", "default-retry-policy-max-interval", "the first delay is the shortest"),
    ):
        first, second = values.get(low), values.get(high)
        if first is not None and second is not None and not _below(first.value, second.value, equal=not low.startswith("heartbeat")):
            a, b = (f"{item.setting.name} ({item.setting.shown(item.value)}, {item.origin})" for item in (first, second))
            yield f"{a} must be below {b}: {why}"


def _below(low: int, high: int, *, equal: bool) -> bool:
    return low < high or (equal and low == high)
