"""`holdfast call`: start an invocation from the shell."""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

import typer

from holdfast_runtime.app.errors import CliError, misuse
from holdfast_runtime.app.options import ADMIN_URL, INGRESS_URL, AdminUrl, AsJson, IngressUrl, pairs

if TYPE_CHECKING:
    from holdfast_runtime.app.http import Answer


def call(
    target: Annotated[
        str, typer.Argument(metavar="SERVICE[/KEY]/HANDLER", help="What to call; the key only for virtual objects and workflows.")
    ],
    body: Annotated[
        str | None, typer.Argument(metavar="[BODY]", help="The argument as JSON; @FILE reads a file, - standard input.")
    ] = None,
    send: Annotated[bool, typer.Option("--send", help="Do not wait for the result; print the invocation's id.")] = False,
    delay: Annotated[str | None, typer.Option("--delay", help="Start later, such as 10s or 1h 30m; implies --send.")] = None,
    idempotency_key: Annotated[
        str | None, typer.Option("--idempotency-key", help="A second call with the same key gets the first one's result.")
    ] = None,
    header: Annotated[list[str] | None, typer.Option("--header", metavar="NAME=VALUE", help="A header the handler will see.")] = None,
    content_type: Annotated[
        str, typer.Option("--content-type", help="Of the body; anything but JSON is sent as it is.")
    ] = "application/json",
    ingress_url: IngressUrl = INGRESS_URL,
    admin_url: AdminUrl = ADMIN_URL,
    as_json: AsJson = False,
) -> None:
    """Call a handler and print its result. Ctrl-C stops waiting, not the invocation.

    \b
    holdfast call greeter/greet '"Ada"'
    holdfast call carts/my-cart/add @item.json --idempotency-key item-17
    holdfast call orders/o-17/run '{"amount": 12}' --delay 1h
    """
    from holdfast_runtime.app.http import ingress_api

    content = _content(body, content_type)
    headers = pairs(header or [], "--header")
    if content is not None:
        headers["content-type"] = content_type
    if idempotency_key is not None:
        headers["idempotency-key"] = idempotency_key
    path = _path(target)
    one_way = send or delay is not None
    try:
        answer = ingress_api(ingress_url).request(
            "POST",
            f"{path}/send" if one_way else path,
            query={"delay": delay},
            body=content if content is not None else b"",
            headers=headers,
        )
    except KeyboardInterrupt:
        raise CliError("stopped waiting; the invocation goes on (`holdfast invocations list` finds it)", 130) from None
    if answer.status >= 300:
        raise _refused(answer, target, admin_url)
    if one_way:
        _print_accepted(answer, as_json=as_json)
    else:
        _print_result(answer, as_json=as_json)


def _path(target: str) -> str:
    """SERVICE/HANDLER or SERVICE/KEY/HANDLER; a key may contain slashes."""
    parts = target.split("/")
    if len(parts) < 2 or not all((parts[0], parts[-1])):
        raise misuse(f"expected SERVICE/HANDLER, or SERVICE/KEY/HANDLER for virtual objects and workflows; found '{target}'")
    service, *key, handler = parts
    segments = [service, "/".join(key), handler] if key else [service, handler]
    return "".join(f"/{quote(segment, safe='')}" for segment in segments)


def _content(body: str | None, content_type: str) -> bytes | None:
    """None: no body at all. Raises CliError unless it can be read, and is JSON where it says so."""
    if body is None:
        return None
    if body == "-":
        content = sys.stdin.buffer.read()
    elif body.startswith("@"):
        try:
            content = Path(body[1:]).read_bytes()
        except OSError as error:
            raise misuse(f"the body's file {body[1:]} cannot be read ({error.strerror})") from error
    else:
        content = body.encode()
    if content_type.partition(";")[0].strip().lower() == "application/json":
        _check_json(content)
    return content


def _check_json(content: bytes) -> None:
    try:
        json.loads(content)
    except ValueError as error:
        shown = content[:40].decode("utf-8", "replace")
        hint = "quote text for both the shell and JSON, as in '\"Ada\"', or give another --content-type"
        raise misuse(f"the body is not JSON ({error}): {shown}; {hint}") from error


def _refused(answer: Answer, target: str, admin_url: str) -> CliError:
    """The handler's own failure, or why the ingress did not take the call."""
    if answer.headers.get("x-restate-error-source") == "invocation":
        code = answer.status
        with contextlib.suppress(ValueError, KeyError, TypeError):
            code = json.loads(answer.body)["code"]
        return CliError(f"the invocation failed with [{code}] {answer.message()} ({answer.headers.get('x-restate-id', 'no id')})")
    hint = ""
    if answer.status == 404:
        from holdfast_runtime.app import naming
        from holdfast_runtime.app.http import quick_api

        service, *_, handler = target.split("/")
        hint = naming.meant(quick_api(admin_url), service, handler)
    return CliError(f"the call was not accepted: {answer.message().rstrip('.')}{hint}")


def _print_accepted(answer: Answer, *, as_json: bool) -> None:
    from holdfast_runtime.app.output import print_json, say

    found = answer.json()
    if as_json:
        return print_json(found)
    if not sys.stdout.isatty():
        return print(found["invocationId"])
    word = "Accepted" if found["status"] == "Accepted" else "Accepted before"
    when = f", starts at {found['executionTime']}" if found.get("executionTime") else ""
    say(f"[green]{word}[/] as [bold]{found['invocationId']}[/]{when}")
    return say(f"[dim]holdfast invocations watch {found['invocationId']}[/]")


def _print_result(answer: Answer, *, as_json: bool) -> None:
    from holdfast_runtime.app.output import print_json

    result: Any = None
    if answer.body:
        try:
            result = json.loads(answer.body)
        except ValueError:
            result = answer.body.decode("utf-8", "replace")
    if as_json:
        print_json({"invocation_id": answer.headers.get("x-restate-id"), "result": result})
    elif sys.stdout.isatty() and isinstance(result, dict | list):
        print(json.dumps(result, indent=2, ensure_ascii=False))
    else:
        sys.stdout.buffer.write(answer.body)
        if answer.body and (sys.stdout.isatty() or not answer.body.endswith(b"\n")):
            sys.stdout.buffer.write(b"\n")
