"""Fixtures that this folder shares with others."""

from tests.support.dynamodb import dynamodb_url, moto_url  # noqa: F401
