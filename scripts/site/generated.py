"""Pages that are made when the site is built: the commands and the admin API, each described by itself.

Rules: nothing is written here that the code does not say; a page that cannot be made fails the build.
"""

from __future__ import annotations

import asyncio
import json
import re
import urllib.request
from collections.abc import Iterator
from typing import Any

import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from holdfast_runtime.app.cli import app
from holdfast_runtime.app.runtime import Runtime, RuntimeConfig
from holdfast_runtime.surfaces.server import Listener

Json = dict[str, Any]


def on_files(files: Files, config: MkDocsConfig) -> Files:
    for name, content in (("reference/commands.md", commands_page()), ("reference/admin-api.md", admin_page(admin_openapi()))):
        files.append(File.generated(config, name, content=content))
    return files


# Commands


def commands_page() -> str:
    head = ["# Commands", "Every command with every option, as `--help` has them. [Command line](../cli.md) tells how they work together."]
    return "\n\n".join([*head, *_commands(typer.main.get_command(app), "holdfast", 2)]) + "\n"


def _commands(command: Any, name: str, level: int) -> Iterator[str]:
    context = typer.Context(command, info_name=name)
    for each in sorted(command.list_commands(context)):
        found = command.get_command(context, each)
        if found.hidden:
            continue
        yield f"{'#' * level} {name} {each}"
        text, _, examples = (found.help or "").partition("\b")
        yield text.strip()
        if hasattr(found, "list_commands"):
            yield from _commands(found, f"{name} {each}", level + 1)
            continue
        if examples.strip():
            yield f"```text\n{examples.strip()}\n```"
        rows = [_option(parameter) for parameter in found.params if not parameter.hidden]
        yield "\n".join(["| | |", "| --- | --- |", *rows])


def _option(parameter: Any) -> str:
    argument = parameter.opts == [parameter.name]
    value = parameter.metavar or parameter.name.upper().rpartition("_")[2]
    flag = getattr(parameter, "is_flag", False)
    names = value if argument else ", ".join([*parameter.opts, *parameter.secondary_opts]) + ("" if flag else f" {value}")
    notes = [(parameter.help or "").strip()]
    if parameter.required and not argument:
        notes.append("Required.")
    if getattr(parameter, "multiple", False):
        notes.append("May be repeated.")
    if not flag and parameter.default not in (None, "", [], ()) and not callable(parameter.default):
        notes.append(f"Default: `{parameter.default}`.")
    if parameter.envvar:
        variables = [parameter.envvar] if isinstance(parameter.envvar, str) else parameter.envvar
        notes.append("Variable: " + ", ".join(f"`{variable}`" for variable in variables) + ".")
    return f"| `{names}` | {_cell(' '.join(notes))} |"


def _cell(text: str) -> str:
    return re.sub(r"\s+", " ", text).replace("|", "\\|").replace("<", "&lt;")


# The admin API


def admin_openapi() -> Json:
    """What a server answers to `GET /openapi`."""

    async def ask() -> Json:
        server = Runtime(RuntimeConfig(None, Listener(port=0), Listener(port=0)))
        await server.start({})
        try:
            return await asyncio.to_thread(_get, f"{server.admin_url}openapi")
        finally:
            await server.stop()

    return asyncio.run(ask())


def _get(url: str) -> Json:
    with urllib.request.urlopen(url) as answer:
        document: Json = json.load(answer)
        return document


def admin_page(document: Json) -> str:
    parts = [
        "# Admin API",
        "Port 9070. What operators, `holdfast` and the official CLI use. Every path exists below `/v2`, `/v3` and `/v4`, too. "
        "`GET /openapi` answers this page as an OpenAPI 3.1 document. A refusal is JSON with `message` and `restate_code`; a request "
        "that could not be read is answered in plain text. With tokens configured ([security](../security.md)), every request but "
        "`/health` carries `Authorization: Bearer TOKEN`.",
    ]
    groups: dict[str, list[tuple[str, str, Json]]] = {}
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            groups.setdefault(operation["tags"][0], []).append((path, method.upper(), operation))
    alone = [name for name, operations in groups.items() if len(operations) == 1]
    groups["the server"] = [groups.pop(name)[0] for name in alone]
    for group, operations in groups.items():
        parts.append(f"## {group.capitalize()}")
        for path, method, operation in operations:
            parts += _operation(path, method, operation)
    parts.append("## Shapes")
    parts.append("What requests and answers hold. A member with `?` may be missing.")
    for name, schema in document["components"]["schemas"].items():
        parts += [f"### {name} {{#shape-{name.lower()}}}", *_schema(schema)]
    return "\n\n".join(parts) + "\n"


def _operation(path: str, method: str, operation: Json) -> Iterator[str]:
    yield f"### {method} {path}"
    yield operation.get("summary", "")
    asked = [parameter for parameter in operation.get("parameters", []) if parameter["in"] == "query"]
    rows = [f"| query `{parameter['name']}` | {_type(parameter['schema'])} |" for parameter in asked]
    body = operation.get("requestBody")
    if body:
        rows += [f"| body | {_type(content['schema'])} |" for content in body["content"].values()]
    for status, answer in operation["responses"].items():
        shape = [_type(content["schema"]) for content in answer.get("content", {}).values()]
        if status.isdigit():
            rows.append(f"| answer {status} | {', '.join(dict.fromkeys(shape)) or 'nothing'} |")
    if rows:
        yield "\n".join(["| | |", "| --- | --- |", *rows])


def _schema(schema: Json) -> Iterator[str]:
    if "description" in schema:
        yield re.sub(r"\s+", " ", schema["description"])
    if "properties" not in schema:
        yield _type({key: value for key, value in schema.items() if key != "description"})
        return
    required = schema.get("required", [])
    rows = [f"| `{name}{'' if name in required else '?'}` | {_type(kind)} |" for name, kind in schema["properties"].items()]
    yield "\n".join(["| member | |", "| --- | --- |", *rows])


def _type(schema: Json) -> str:
    """In words; shapes by link."""
    if "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[1]
        return f"[{name}](#shape-{name.lower()})"
    for combined in ("anyOf", "oneOf"):
        if combined in schema:
            return " or ".join(_type(each) for each in schema[combined])
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if "const" in schema:
        return f"`{schema['const']}`"
    kind = schema.get("type", "anything")
    if kind == "array":
        return f"list of {_type(schema.get('items', {}))}"
    if kind == "object" and isinstance(schema.get("additionalProperties"), dict):
        return f"object of {_type(schema['additionalProperties'])}"
    words = " or ".join(kind) if isinstance(kind, list) else str(kind)
    return f"{words} ({schema['format']})" if "format" in schema else words


if __name__ == "__main__":
    print(commands_page(), admin_page(admin_openapi()), sep="\n")
