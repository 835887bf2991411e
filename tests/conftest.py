"""Options of the whole suite. They stand here because pytest reads options only from the folder it is started on."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--server", choices=["holdfast", "restate"], default="holdfast", help="which server tests/conformance drives")
