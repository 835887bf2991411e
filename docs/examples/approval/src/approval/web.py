"""The page behind the link: shows the request's state, and takes the answer.

Rules: opening the link changes nothing, because mail scanners open links; only the buttons answer. What is shown is what was decided, not
what was clicked: the answer may have come too late, or second.
"""

import base64
import os
from collections.abc import Callable, Iterable
from html import escape
from typing import Any
from urllib.parse import parse_qs, urlsplit

from holdfast import Client, IngressError, TerminalError

from approval.gateways import PAGE_URL
from approval.services import Answer, Decision

FORM = """<form method="post"><input name="comment" placeholder="Comment">
<button name="verdict" value="approve">Approve</button><button name="verdict" value="reject">Reject</button></form>"""


def page(ingress: Client, method: str, query: str, form: str) -> tuple[int, str]:
    """Status and HTML of the answer to one request. `query` and `form` are URL-encoded."""
    asked, given = parse_qs(query), parse_qs(form)
    try:
        request_id, link = asked["request"][0], asked["link"][0]
        decision = decided(ingress, request_id)
        if decision is not None:
            by = f" by {decision.by}" if decision.by else ""
            return 200, text(f"This request is {decision.outcome}{by}. {decision.comment}")
        if method != "POST":
            return 200, FORM
        answer = Answer({"approve": True, "reject": False}[given["verdict"][0]], asked["by"][0], given.get("comment", [""])[0])
        ingress.resolve_awakeable(link, answer)
    except KeyError:
        return 400, text("This link is incomplete.")
    except TerminalError:  # the outcome of the request: it was cancelled
        return 200, text("This request was withdrawn.")
    except IngressError as error:
        return (404, text("This link is not valid.")) if error.status in (400, 404) else (503, text("Please try again in a moment."))
    return 200, text("Thank you. Your answer was recorded; open the link again to see the decision.")


def decided(ingress: Client, request_id: str) -> Decision | None:
    """The decision, None while there is none."""
    try:
        return ingress.output(request_id, Decision)
    except IngressError as error:
        if error.status == 470:  # not there yet
            return None
        raise


def text(content: str) -> str:
    return f"<p>{escape(content)}</p>"


# ---- Where it is served


def client() -> Client:
    """Of the ingress; deployed, of the front door, which takes signed requests only."""
    url = os.environ.get("INGRESS_URL", "http://127.0.0.1:8080")
    return Client(url, auth="iam", signing_name="lambda") if url.startswith("https:") else Client(url)


def handler(event: dict[str, Any], context: object) -> dict[str, Any]:
    """The entry point of Lambda, behind a function URL."""
    body = event.get("body") or ""
    form = base64.b64decode(body).decode() if event.get("isBase64Encoded") else body
    status, html = page(client(), event["requestContext"]["http"]["method"], event["rawQueryString"], form)
    return {"statusCode": status, "headers": {"content-type": "text/html; charset=utf-8"}, "body": html}


def wsgi(environ: dict[str, Any], start: Callable[[str, list[tuple[str, str]]], object]) -> Iterable[bytes]:
    """Anywhere else."""
    form = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0)).decode()
    status, html = page(client(), environ["REQUEST_METHOD"], environ["QUERY_STRING"], form)
    start(f"{status} -", [("content-type", "text/html; charset=utf-8")])
    return [html.encode()]


if __name__ == "__main__":
    from wsgiref.simple_server import make_server

    where = urlsplit(PAGE_URL)
    with make_server(where.hostname or "", where.port or 80, wsgi) as server:
        print(f"the page is ready at {PAGE_URL}", flush=True)
        server.serve_forever()
