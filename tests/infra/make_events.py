"""Makes `events/*.json`, what each function of the template is called with: `python -m tests.infra.make_events`.

The same each time, so that a test can tell whether a file still is what a coordinator, API Gateway or CloudFormation sends.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any, Final

from holdfast.protocol.frames import encode
from holdfast.protocol.ids import random_invocation_id
from holdfast.protocol.messages import MessageType, Start, input_command
from holdfast.protocol.versions import content_type
from holdfast_runtime.adapters.lambda_envelope import event_of
from holdfast_runtime.ports.endpoint import EndpointRequest, LambdaAddress

FOLDER: Final = Path(__file__).resolve().parents[2] / "events"
INVOCATION: Final = random_invocation_id(1, 1_767_225_600_000, bytes(10))
ORDER: Final = {"id": "o1", "item": "teapot", "quantity": 1, "card": "4242", "street": "Main St 1"}
# function -> (handler, key, request)
INVOKED: Final[dict[str, tuple[str, str, Any]]] = {
    "orders": ("checkout", "", ORDER),
    "signup": ("run", "ann", {"email": "ann@example.com"}),
    "cart": ("add", "ann", {"sku": "cup", "quantity": 2, "price_cents": 690}),
    "reminders": ("schedule", "", {"to": "+41 79 000 00 00", "text": "Bring the cake"}),
}
DOMAIN: Final = "abc123.execute-api.us-east-1.amazonaws.com"
URL: Final = "abc123.lambda-url.us-east-1.on.aws"
ACCOUNT: Final = "123456789012"
SEND: Final = "/orders/checkout/send"
QUERY: Final = "delay=5m"


def discover(service: str) -> Any:
    accept = ", ".join(f"application/vnd.restate.endpointmanifest.v{version}+json" for version in (1, 2, 3, 4))
    return _lambda_event(EndpointRequest("GET", "/discover", {"accept": accept}, b""))


def invoke(service: str) -> Any:
    handler, key, request = INVOKED[service]
    start = Start(id=INVOCATION.raw, debug_id=str(INVOCATION), known_entries=1, key=key, random_seed=7)
    journal = encode(MessageType.START, start.SerializeToString())
    journal += input_command([("content-type", "application/json")], json.dumps(request).encode())
    headers = {"content-type": content_type(6), "accept": content_type(6), "x-restate-invocation-id": str(INVOCATION)}
    return _lambda_event(EndpointRequest("POST", f"/invoke/{service}/{handler}", headers, journal))


def _lambda_event(request: EndpointRequest) -> Any:
    return json.loads(event_of(LambdaAddress(f"arn:aws:lambda:us-east-1:{ACCOUNT}:function:f:1"), request))


def second_version(domain: str, path: str, method: str, query: str, body: bytes | None) -> Any:
    """Payload format 2.0: HTTP APIs and function URLs."""
    return {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": path,
        "rawQueryString": query,
        "headers": {"accept": "*/*", "content-type": "application/json", "host": domain, "x-forwarded-proto": "https"},
        **({"queryStringParameters": dict([query.split("=")])} if query else {}),
        "requestContext": {
            "accountId": ACCOUNT,
            "apiId": domain.split(".")[0],
            "domainName": domain,
            "domainPrefix": domain.split(".")[0],
            "http": {"method": method, "path": path, "protocol": "HTTP/1.1", "sourceIp": "192.0.2.1", "userAgent": "curl/8"},
            "requestId": "JKJaXmPLvHcESHA=",
            "routeKey": "$default",
            "stage": "$default",
            "time": "01/Jan/2026:00:00:00 +0000",
            "timeEpoch": 1_767_225_600_000,
        },
        **({} if body is None else {"body": base64.b64encode(body).decode()}),
        "isBase64Encoded": body is not None,
    }


def first_version(path: str, query: str, body: bytes) -> Any:
    """Payload format 1.0: a REST API with the route `{proxy+}` and the binary media type `*/*`."""
    headers = {"Accept": "*/*", "Content-Type": "application/json", "Host": DOMAIN, "X-Api-Key": "key"}
    pairs = dict([query.split("=")])
    return {
        "resource": "/{proxy+}",
        "path": path,
        "httpMethod": "POST",
        "headers": headers,
        "multiValueHeaders": {name: [value] for name, value in headers.items()},
        "queryStringParameters": pairs,
        "multiValueQueryStringParameters": {name: [value] for name, value in pairs.items()},
        "pathParameters": {"proxy": path[1:]},
        "stageVariables": None,
        "requestContext": {
            "accountId": ACCOUNT,
            "apiId": "abc123",
            "domainName": DOMAIN,
            "httpMethod": "POST",
            "identity": {"sourceIp": "192.0.2.1", "userAgent": "curl/8", "apiKey": "key"},
            "path": f"/prod{path}",
            "protocol": "HTTP/1.1",
            "requestId": "c6af9ac6-7b61-11e6-9a41-93e8deadbeef",
            "resourceId": "123456",
            "resourcePath": "/{proxy+}",
            "stage": "prod",
        },
        "body": base64.b64encode(body).decode(),
        "isBase64Encoded": True,
    }


def custom_resource(kind: str, name: str, **properties: str) -> Any:
    return {
        "RequestType": kind,
        "ServiceToken": f"arn:aws:lambda:us-east-1:{ACCOUNT}:function:holdfast-DeployFunction",
        "ResponseURL": "http://127.0.0.1:9/answer",
        "StackId": f"arn:aws:cloudformation:us-east-1:{ACCOUNT}:stack/holdfast/1",
        "RequestId": "5d478078-13e9-baf0-464a-7ef285ecc786",
        "LogicalResourceId": name,
        **({"PhysicalResourceId": "holdfast"} if kind != "Create" else {}),
        "ResourceType": "Custom::HoldfastSetup" if name == "TableSetup" else "Custom::HoldfastDeployment",
        "ResourceProperties": {"ServiceToken": f"arn:aws:lambda:us-east-1:{ACCOUNT}:function:holdfast-DeployFunction", **properties},
    }


def events() -> dict[str, Any]:
    body = json.dumps(ORDER).encode()
    version = f"arn:aws:lambda:us-east-1:{ACCOUNT}:function:holdfast-OrdersFunction:1"
    return {
        **{f"{service}-discover": discover(service) for service in INVOKED},
        **{f"{service}-invoke": invoke(service) for service in INVOKED},
        "edge-http-api": second_version(DOMAIN, SEND, "POST", QUERY, body),
        "edge-function-url": second_version(URL, SEND, "POST", QUERY, body),
        "edge-rest-api": first_version(SEND, QUERY, body),
        "edge-health": second_version(URL, "/restate/health", "GET", "", None),
        "deploy-setup": custom_resource("Create", "TableSetup", Action="setup", Shards="2"),
        "deploy-register": custom_resource("Create", "OrdersRegistration", Action="register", FunctionArn=version),
        "deploy-delete": custom_resource("Delete", "OrdersRegistration", Action="register", FunctionArn=version),
    }


def text(event: Any) -> str:
    return json.dumps(event, indent=2) + "\n"


if __name__ == "__main__":
    for name, event in events().items():
        (FOLDER / f"{name}.json").write_text(text(event))
