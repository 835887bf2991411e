"""No durable execution: a function with a log and metrics."""

from typing import Any

from aws_lambda_powertools import Logger, Metrics

logger = Logger(service="bench")
metrics = Metrics(namespace="bench", service="bench")


@logger.inject_lambda_context
@metrics.log_metrics
def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    metrics.add_metric("Calls", "Count", 1)
    return event
