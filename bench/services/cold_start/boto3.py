"""No durable execution: a function that imports boto3 and makes one client."""

from typing import Any

import boto3

client = boto3.client("lambda", region_name="us-east-1")


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    return event
