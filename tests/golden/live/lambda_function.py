"""The Lambda function of the exchanges: it only answers discovery."""

import base64
import json
from typing import Any

TYPED = {
    "input": {"required": True, "contentType": "application/json"},
    "output": {"contentType": "application/json"},
}
MANIFEST = {
    "protocolMode": "REQUEST_RESPONSE",
    "minProtocolVersion": 5,
    "maxProtocolVersion": 7,
    "lambdaCompression": "zstd",
    "services": [{"name": "ApiLambdaSvc", "ty": "SERVICE", "inactivityTimeout": 5000, "handlers": [{"name": "greet", **TYPED}]}],
}


def handler(event: dict[str, Any], context: object) -> dict[str, Any]:
    """API-Gateway-like request and answer (http-api §3.1)."""
    headers = {"content-type": "application/vnd.restate.endpointmanifest.v4+json", "x-restate-server": "restate-sdk-fake/0.0.1"}
    body = base64.b64encode(json.dumps(MANIFEST).encode()).decode()
    return {"statusCode": 200, "headers": headers, "body": body, "isBase64Encoded": True}
