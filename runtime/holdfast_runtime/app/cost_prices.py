"""List prices in dollars, us-east-1, without free tiers and discounts, as of 2026-11; docs/cost.md names where each is published."""

from __future__ import annotations

from typing import Final

HOURS: Final = 730.0  # of a month, as AWS counts
SECONDS: Final = HOURS * 3600
MILLION: Final = 1e6

DYNAMODB_WRITE: Final = 0.625 / MILLION  # a unit, on demand
DYNAMODB_READ: Final = 0.125 / MILLION
DYNAMODB_GB: Final = 0.25  # a month
DYNAMODB_RECOVERY_GB: Final = 0.20  # point-in-time recovery

LAMBDA_REQUEST: Final = 0.20 / MILLION
LAMBDA_GB_S: Final = 0.0000133334  # ARM

FARGATE_CORE_H: Final = 0.03238  # Linux on ARM
FARGATE_GB_H: Final = 0.00356
PUBLIC_ADDRESS_H: Final = 0.005
LOAD_BALANCER_H: Final = 0.0225 + 0.008  # and one unit of its capacity

SQS_REQUEST: Final = 0.40 / MILLION
SCHEDULE: Final = 1.00 / MILLION
ALARM: Final = 0.10
METRIC: Final = 0.30
PRIVATE_ZONE: Final = 0.50
LOG_GB: Final = 0.50

# What others ask for the same work.
STEP_FUNCTIONS_TRANSITION: Final = 25.0 / MILLION
LAMBDA_DURABLE_OPERATION: Final = 8.0 / MILLION
LAMBDA_DURABLE_WRITTEN_GB: Final = 0.25
TEMPORAL_ACTION: Final = 50.0 / MILLION
TEMPORAL_SUPPORT: Final = 0.10  # of what is used; plan Developer
