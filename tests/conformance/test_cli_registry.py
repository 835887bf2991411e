"""The official CLI on deployments and services: registering, describing, configuring, removing (http-api §8)."""

import re
from collections.abc import Iterator

import pytest

from tests.conformance import toolbox
from tests.conformance.client import Effects
from tests.conformance.endpoints import PythonHttp1
from tests.conformance.official_cli import Cli, editor, fields
from tests.conformance.servers import Server
from tests.support.lambda_service import LambdaServiceProcess


class Spare(PythonHttp1):
    """The same services under another prefix, for a deployment that may come and go."""

    name = "python-spare"


@pytest.fixture
def transport() -> str:
    """The group of the worker whose server is used."""
    return "python-http1"


@pytest.fixture
def cli(server: Server) -> Cli:
    return Cli(server)


@pytest.fixture(scope="module")
def spare(effects: Effects, functions: LambdaServiceProcess) -> Iterator[Spare]:
    endpoint = Spare(effects.folder, functions)
    endpoint.start()
    yield endpoint
    endpoint.stop()


@pytest.fixture
def deployment(cli: Cli, spare: Spare) -> Iterator[str]:
    """The id of the spare deployment; it is removed afterwards if it is still there."""
    found = registered(cli, spare)
    yield found
    if found in cli("deployments", "list"):
        cli("deployments", "remove", found, "--force")


def registered(cli: Cli, spare: Spare, *options: str) -> str:
    shown = cli("deployments", "register", spare.deployment["uri"], "--use-http1.1", *options)
    found = re.search(r"dp_1\w{22}", shown)
    assert found is not None, shown
    return found[0]


def test_who_am_i(cli: Cli) -> None:
    shown = cli("whoami")
    assert f"Admin Service '{cli.server.admin_url}/' is healthy!" in shown
    assert f"Advertised ingress address  {cli.server.ingress_url}/" in shown


def test_registering_a_deployment_shows_what_it_brings(cli: Cli, spare: Spare) -> None:
    uri = spare.deployment["uri"]
    shown = cli("deployments", "register", uri, "--use-http1.1", "--metadata", "git=abc")
    try:
        assert "SERVICES THAT WILL BE ADDED" in shown
        assert f"- {spare.prefix}Counter\n" in shown
        deployment = fields(shown)["Deployment ID"]
        again = cli("deployments", "register", uri, "--use-http1.1")
        assert f"Deployment already exists with id {deployment}" in again
        forced = cli("deployments", "register", uri, "--use-http1.1", "--force")
        assert "SERVICES THAT WILL BE UPDATED" in forced
        assert "Revision: 1 -> 2" in forced
        assert fields(forced)["Deployment ID"] == deployment
    finally:
        cli("deployments", "remove", registered(cli, spare, "--force"), "--force")


def test_listing_and_describing_deployments_and_services(cli: Cli, spare: Spare, deployment: str) -> None:
    uri = spare.deployment["uri"] + "/"
    (row,) = [line for line in cli("deployments", "list", "--extra").splitlines() if deployment in line]
    assert uri in row
    assert "Active" in row
    described = cli("deployments", "describe", deployment, "--extra")
    facts = fields(described)
    expected = {
        "ID": deployment,
        "Transport": "HTTP/1.1",
        "Protocol Style": "Request/Response",
        "Endpoint": uri,
        "SDK Version": "restate-sdk-python/1.3.0",
        "Protocol": "[5, 7]",
        "Status": "Active",
    }
    assert {name: facts.get(name) for name in expected} == expected
    assert re.search(rf"- {spare.prefix}Flow\n +Type: Workflow workflow\n +Revision: \d+ \[Latest\]", described)
    (listed,) = [line.split() for line in cli("services", "list").splitlines() if f" {spare.prefix}Counter " in line]
    assert deployment in listed
    service = cli("services", "describe", f"{spare.prefix}Counter")
    assert deployment in service
    assert "rewrite" in service


def test_removing_a_deployment(cli: Cli, spare: Spare, deployment: str) -> None:
    refused = cli.run("deployments", "remove", deployment)
    assert refused.status == 1
    assert "Deployment is still Active" in refused.shown
    assert f"Deployment {deployment} removed successfully" in cli("deployments", "remove", deployment, "--force")
    assert spare.prefix not in cli("services", "list")
    unknown = cli.run("deployments", "describe", deployment)
    assert unknown.status == 1
    assert "does not exist" in unknown.shown


def test_configuring_a_service(cli: Cli, spare: Spare, deployment: str) -> None:
    service = f"{spare.prefix}Counter"

    def configured() -> dict[str, str]:
        shown = fields(cli("services", "config", "view", service))
        names = ("Public", "Idempotent requests retention", "Journal retention", "Inactivity timeout", "Abort timeout")
        return {name: shown[name] for name in names}

    found = configured()
    assert found["Public"] == "true"
    assert fields(cli("services", "config", "view", service))["On max attempts"] == "Pause"
    cli("services", "config", "patch", service, "--public", "false", "--idempotency-retention", "3days", "--journal-retention", "2h")
    patched = {**found, "Public": "false", "Idempotent requests retention": "3d", "Journal retention": "2h"}
    assert configured() == patched
    nothing = editor(cli.server.folder, "leaves-it", 'grep -q idempotency_retention "$1"')
    assert "No changes requested" in cli("services", "config", "edit", service, editor=nothing)
    changes = editor(cli.server.folder, "changes-it", 'printf \'public = true\\nabort_timeout = "5min"\\n\' >> "$1"')
    cli("services", "config", "edit", service, editor=changes)
    assert configured() == {**patched, "Public": "true", "Abort timeout": "5m"}
    registered(cli, spare, "--force")
    assert configured() == found  # what discovery says counts again


def test_what_is_not_there_is_listed_as_empty(cli: Cli) -> None:
    assert "No subscriptions" in cli("subscriptions", "list")
    assert "No Kafka clusters" in cli("kafka-clusters", "list")
    assert "No rules" in cli("rules", "list")
    assert "No virtual queues" in cli("vqueues", "list")


def test_the_document_names_every_command(cli: Cli) -> None:
    document = (toolbox.ROOT / "docs" / "compatibility.md").read_text().split("## CLI", 1)[1].split("\n## ", 1)[0]
    named = set(re.findall(r"`([a-z -]+)`", document))

    def commands(*group: str) -> list[str]:
        """The words of each command below a group, as its help lists them."""
        listed = cli(*group, "--help").split("Commands:\n", 1)[1].split("\n\n", 1)[0]
        found = re.findall(r"^  ([a-z-]+) ", listed, re.MULTILINE)
        return [" ".join((*group, command)) for command in found if command != "help"]

    daily = [*commands("services", "config"), *commands("deployments"), *commands("invocations"), *commands("state"), *commands("services")]
    assert [command for command in daily if command not in named | {"services config"}] == []
    assert [command for command in commands() if not any(name.split()[0] == command for name in named)] == []
