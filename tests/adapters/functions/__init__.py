"""Handlers that tests deploy: as Lambda functions and behind HTTP."""
