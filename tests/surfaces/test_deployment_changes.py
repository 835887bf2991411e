"""What operators change later: settings of a service, and where a deployment is (http-api §2.5, §2.6, §3.4)."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from holdfast_runtime.coordinator import registry_document
from holdfast_runtime.coordinator.deployments import Deployments
from holdfast_runtime.coordinator.front import PatchService, RegisterDeployment, RegistrationError, UpdateDeployment
from holdfast_runtime.coordinator.registry_document import DefaultSettings, default_settings
from holdfast_runtime.coordinator.settings import Settings
from holdfast_runtime.engine.registry import HttpAddress, HttpVersion, LambdaAddress, RetryPolicy
from holdfast_runtime.ports.endpoint import EndpointFailure
from holdfast_runtime.surfaces.admin_json import service_json
from tests.surfaces.conftest import no_addresses
from tests.surfaces.test_deployments import ARN, HTTP, Setup, manifest, plain, says, service

HOUR = 3_600_000
NEW = "http://127.0.0.1:9081/"


async def registered(**more: Any) -> tuple[Setup, str]:
    """A setup with one object `Cart` and its deployment's id."""
    setup = Setup()
    setup.answer = says(manifest(service("Cart", "VIRTUAL_OBJECT", [plain("add"), plain("peek", ty="SHARED", **more)])))
    done = await setup.deployments.register(HTTP)
    return setup, done.deployment.id


# ---- Services


async def test_a_patch_changes_what_it_names_and_null_leaves_the_rest() -> None:
    setup, _ = await registered()
    await setup.deployments.patch_service("Cart", PatchService(journal_retention_ms=HOUR))
    changed = await setup.deployments.patch_service("Cart", PatchService(abort_timeout_ms=90_000, idempotency_retention_ms=0))
    assert changed == setup.deployments.view.services["Cart"]
    handler = changed.handlers["add"]
    assert (handler.journal_retention_ms, handler.idempotency_retention_ms, handler.abort_timeout_ms) == (HOUR, 0, 90_000)
    assert changed.revision == 1
    shown = service_json(changed, setup.deployments.view.deployment_of("Cart"))
    assert (shown["journal_retention"], shown["idempotency_retention"], shown["abort_timeout"]) == ("1h", "0s", "1m 30s")
    assert shown["retry_policy"]["max_attempts"] == 70


async def test_a_handlers_own_setting_stays_above_a_patch() -> None:
    setup, _ = await registered(journalRetention=5)
    changed = await setup.deployments.patch_service("Cart", PatchService(journal_retention_ms=HOUR))
    assert changed is not None
    assert changed.handlers["peek"].journal_retention_ms == 5
    assert changed.handlers["add"].journal_retention_ms == HOUR


async def test_a_service_made_private_hides_all_handlers_until_it_is_public_again() -> None:
    setup, _ = await registered(ingressPrivate=True)
    hidden = await setup.deployments.patch_service("Cart", PatchService(public=False))
    assert hidden is not None
    assert [handler.public for handler in hidden.handlers.values()] == [False, False]
    shown = await setup.deployments.patch_service("Cart", PatchService(public=True))
    assert shown is not None
    assert {name: handler.public for name, handler in shown.handlers.items()} == {"add": True, "peek": False}


async def test_a_patch_is_seen_by_other_processes_and_after_a_restart() -> None:
    setup, _ = await registered()
    other = Setup(setup.registry)
    await other.deployments.load()
    await setup.deployments.patch_service("Cart", PatchService(public=False))
    assert other.deployments.view.services["Cart"].public
    await other.deployments.refresh()
    assert other.deployments.view == setup.deployments.view
    assert not other.deployments.view.services["Cart"].public


async def test_a_patch_that_changes_nothing_writes_nothing() -> None:
    setup, _ = await registered()
    version = setup.deployments.view.version
    await setup.deployments.patch_service("Cart", PatchService())
    assert setup.deployments.view.version == version
    for _ in range(2):
        await setup.deployments.patch_service("Cart", PatchService(public=False))
    assert setup.deployments.view.version == version + 1


async def test_patches_that_race_both_count() -> None:
    setup, _ = await registered()
    others = [Setup(setup.registry) for _ in range(3)]
    patches = [PatchService(public=False), PatchService(journal_retention_ms=1), PatchService(abort_timeout_ms=2)]
    await asyncio.gather(*(other.deployments.patch_service("Cart", patch) for other, patch in zip(others, patches, strict=True)))
    await setup.deployments.refresh()
    final = setup.deployments.view.services["Cart"]
    add = final.handlers["add"]
    assert (final.public, add.journal_retention_ms, add.abort_timeout_ms) == (False, 1, 2)


@pytest.mark.parametrize("again", [RegisterDeployment(uri=HTTP.uri, force=True), RegisterDeployment(uri=NEW)])
async def test_a_new_revision_or_force_drops_the_patch(again: RegisterDeployment) -> None:
    setup, first = await registered()
    await setup.deployments.patch_service("Cart", PatchService(public=False))
    done = await setup.deployments.register(again)
    assert setup.deployments.view.services["Cart"].public
    if done.deployment.id != first:
        # The patch belongs to its revision: it is back when that one is active again.
        await setup.deployments.remove(done.deployment.id)
        assert not setup.deployments.view.services["Cart"].public


async def test_registering_a_known_address_again_keeps_the_patch() -> None:
    setup, _ = await registered()
    await setup.deployments.patch_service("Cart", PatchService(public=False))
    await setup.deployments.register(HTTP)
    assert not setup.deployments.view.services["Cart"].public


async def test_the_retention_of_workflows_is_for_workflows() -> None:
    setup, _ = await registered()
    with pytest.raises(RegistrationError, match=r"^modifying retention time for service type VirtualObject is unsupported$") as refused:
        await setup.deployments.patch_service("Cart", PatchService(workflow_completion_retention_ms=1))
    assert refused.value.status == 400
    setup.answer = says(manifest(service("Flow", "WORKFLOW", [plain("run", ty="WORKFLOW", workflowCompletionRetention=7)])))
    await setup.deployments.register(RegisterDeployment(uri=NEW))
    changed = await setup.deployments.patch_service("Flow", PatchService(workflow_completion_retention_ms=HOUR))
    assert changed is not None
    assert changed.handlers["run"].workflow_retention_ms == HOUR
    assert await setup.deployments.patch_service("Nope", PatchService(public=True)) is None


async def test_a_document_written_before_there_were_patches_is_read() -> None:
    import json
    import zlib

    setup, _ = await registered()
    _, document = await setup.registry.load("deployments")
    content = json.loads(zlib.decompress(document))
    for row in content["deployments"]:
        del row["patches"]
    (stored,) = registry_document.load(zlib.compress(json.dumps(content).encode())).values()
    assert stored.patches == {}


# ---- Limits of the operator


def limited(setup: Setup, **limits: int) -> Deployments:
    return Deployments(
        setup.registry, setup.endpoint, setup.clock, setup.entropy, replace(DefaultSettings(), **limits), resolver=no_addresses
    )


async def test_what_is_asked_above_the_maximum_is_clamped_and_said_so() -> None:
    setup = Setup()
    setup.answer = says(
        manifest(
            service(
                "Cart",
                "VIRTUAL_OBJECT",
                [plain("add", journalRetention=3 * HOUR, retryPolicyMaxAttempts=9), plain("peek")],
                idempotencyRetention=2 * HOUR,
                inactivityTimeout=5000,
            )
        )
    )
    deployments = limited(setup, max_journal_retention_ms=HOUR, max_idempotency_retention_ms=HOUR, max_retry_attempts=4)
    done = await deployments.register(HTTP)
    add, peek = done.services[0].handlers["add"], done.services[0].handlers["peek"]
    assert (add.journal_retention_ms, add.idempotency_retention_ms) == (HOUR, HOUR)
    assert (peek.journal_retention_ms, add.retry.max_attempts, peek.retry.max_attempts) == (HOUR, 4, 70)
    shown = service_json(done.services[0], done.deployment)
    assert [item["code"] for item in shown["info"]] == ["RT0021", "RT0022"]
    assert shown["info"][1]["message"].startswith("The configured idempotency_retention 2h is above the maximum of this server")
    handler_info = {item["name"]: item.get("info") for item in shown["handlers"]}
    assert handler_info["peek"] is None
    (only,) = handler_info["add"]
    assert only["code"] == "RT0022"
    assert "journal_retention 3h" in only["message"]
    patched = await deployments.patch_service("Cart", PatchService(journal_retention_ms=5 * HOUR))
    assert patched is not None
    assert patched.handlers["peek"].journal_retention_ms == HOUR
    assert len(service_json(patched, done.deployment)["info"]) == 3


def test_the_configuration_reaches_the_services() -> None:
    settings = Settings(
        default_abort_timeout_ms=1,
        default_journal_retention_ms=2,
        default_idempotency_retention_ms=3,
        default_workflow_completion_retention_ms=4,
        default_retry_policy=RetryPolicy(max_attempts=5),
        max_journal_retention_ms=6,
        max_idempotency_retention_ms=7,
        max_workflow_completion_retention_ms=8,
        max_retry_policy_max_attempts=9,
        deployment_routing_headers=("X-Version", "a"),
    )
    assert default_settings(settings) == DefaultSettings(
        abort_timeout_ms=1,
        journal_retention_ms=2,
        idempotency_retention_ms=3,
        workflow_retention_ms=4,
        retry=RetryPolicy(max_attempts=5),
        max_journal_retention_ms=6,
        max_idempotency_retention_ms=7,
        max_workflow_retention_ms=8,
        max_retry_attempts=9,
        routing_headers=("a", "x-version"),
    )


# ---- Deployments

OTHER_CODE = manifest(service("Cart", "SERVICE", [plain("buy")]), service("More"))


async def test_pointing_elsewhere_keeps_id_age_and_description() -> None:
    setup, deployment_id = await registered()
    before = setup.deployments.view.deployments[deployment_id]
    setup.clock.now += 100
    setup.answer = says({**OTHER_CODE, "protocolMode": "BIDI_STREAM"})
    after = await setup.deployments.update(deployment_id, UpdateDeployment(uri=NEW, additional_headers={"a": "b"}))
    assert after == setup.deployments.view.deployments[deployment_id]
    assert after.address == HttpAddress(NEW, HttpVersion.HTTP_2, {"a": "b"})
    assert (after.protocol_mode, after.created_at_ms, after.id) == ("BidiStream", before.created_at_ms, before.id)
    assert after.services == before.services


async def test_overwriting_replaces_the_description_and_keeps_the_numbers() -> None:
    setup, deployment_id = await registered()
    await setup.deployments.register(RegisterDeployment(uri=HTTP.uri, force=True))
    await setup.deployments.patch_service("Cart", PatchService(public=False))
    setup.answer = says(OTHER_CODE)
    tried = await setup.deployments.update(deployment_id, UpdateDeployment(uri=NEW, overwrite=True, dry_run=True))
    assert tried is not None
    assert setup.deployments.view.deployments[deployment_id].address == HttpAddress("http://127.0.0.1:9080/")
    done = await setup.deployments.update(deployment_id, UpdateDeployment(uri=NEW, overwrite=True))
    assert done == tried == setup.deployments.view.deployments[deployment_id]
    assert {name: item.revision for name, item in done.services.items()} == {"Cart": 2, "More": 1}
    assert set(done.services["Cart"].handlers) == {"buy"}
    assert done.services["Cart"].public


async def test_new_headers_replace_all_old_ones() -> None:
    setup, _ = await registered()
    added = await setup.deployments.register(RegisterDeployment(uri=NEW, additional_headers={"a": "1", "b": "2"}))
    changed = await setup.deployments.update(added.deployment.id, UpdateDeployment(additional_headers={"c": "3"}))
    assert changed is not None
    assert changed.address == HttpAddress(NEW, HttpVersion.HTTP_2, {"c": "3"})
    assert setup.endpoint.asked[-1] == changed.address
    cleared = await setup.deployments.update(added.deployment.id, UpdateDeployment(additional_headers={}))
    assert cleared is not None
    assert cleared.address == HttpAddress(NEW)


async def test_nothing_to_change_asks_nobody() -> None:
    setup, deployment_id = await registered()
    asked, version = len(setup.endpoint.asked), setup.deployments.view.version
    for update in (UpdateDeployment(), UpdateDeployment(uri=HTTP.uri), UpdateDeployment(use_http_11=False)):
        same = await setup.deployments.update(deployment_id, update)
        assert same == setup.deployments.view.deployments[deployment_id]
    assert (len(setup.endpoint.asked), setup.deployments.view.version) == (asked, version)


async def test_functions_and_servers_take_each_others_place() -> None:
    setup, deployment_id = await registered()
    role = "arn:aws:iam::1:role/r"
    setup.answer = says(manifest(service("Cart", "VIRTUAL_OBJECT"), lambdaCompression="zstd"))
    moved = await setup.deployments.update(deployment_id, UpdateDeployment(arn=ARN, assume_role_arn=role))
    assert moved is not None
    assert moved.address == LambdaAddress(ARN, role, "zstd", {})
    newer = ARN.removesuffix(":1") + ":2"
    assert (await setup.deployments.update(deployment_id, UpdateDeployment(arn=newer))).address == LambdaAddress(newer, None, "zstd")  # type: ignore[union-attr]
    with_role = await setup.deployments.update(deployment_id, UpdateDeployment(assume_role_arn=role))
    assert with_role is not None
    assert with_role.address == LambdaAddress(newer, role, "zstd")
    back = await setup.deployments.update(deployment_id, UpdateDeployment(uri=NEW, use_http_11=True))
    assert back is not None
    assert back.address == HttpAddress(NEW, HttpVersion.HTTP_1_1)


async def test_two_deployments_may_end_up_at_one_address() -> None:
    setup, deployment_id = await registered()
    other = await setup.deployments.register(RegisterDeployment(uri=NEW))
    moved = await setup.deployments.update(deployment_id, UpdateDeployment(uri=NEW))
    assert moved is not None
    assert moved.address == other.deployment.address
    assert set(setup.deployments.view.deployments) == {deployment_id, other.deployment.id}


@pytest.mark.parametrize(
    ("update", "status", "code", "message"),
    [
        (UpdateDeployment(uri="/x"), 400, None, "The request field 'uri' is invalid. Reason: The provided uri /x is not absolute"),
        (UpdateDeployment(arn="x"), 400, None, "The request field 'arn' is invalid."),
        (UpdateDeployment(uri="http://169.254.169.254/"), 400, None, "The request field 'uri' is invalid. Reason: 169.254.169.254 is the"),
        (UpdateDeployment(uri=NEW), 400, "META0016", "[META0016] an update deployment operation must provide an endpoint with the same"),
    ],
)
async def test_a_refused_update_changes_nothing(update: UpdateDeployment, status: int, code: str | None, message: str) -> None:
    setup, deployment_id = await registered()
    before = setup.deployments.view
    setup.answer = says(manifest(service("Cart", "VIRTUAL_OBJECT"), low=5, high=6))
    with pytest.raises(RegistrationError) as refused:
        await setup.deployments.update(deployment_id, update)
    assert (refused.value.status, refused.value.restate_code) == (status, code)
    assert str(refused.value).startswith(message)
    setup.answer = EndpointFailure("Connection refused")
    with pytest.raises(RegistrationError, match="META0003"):
        await setup.deployments.update(deployment_id, UpdateDeployment(uri=NEW))
    assert setup.deployments.view == before


async def test_an_update_of_an_unknown_deployment_asks_nobody() -> None:
    setup, _ = await registered()
    asked = len(setup.endpoint.asked)
    assert await setup.deployments.update("dp_10q3ABR8ZpLsF9H5oGUUHXb", UpdateDeployment(uri=NEW)) is None
    assert len(setup.endpoint.asked) == asked


async def test_a_deployment_removed_while_its_new_endpoint_is_asked_stays_removed() -> None:
    setup, deployment_id = await registered()
    other = Setup(setup.registry)
    answer = setup.answer

    class Removing:
        """Answers after another process has removed the deployment."""

        async def request(self, *_: Any, **__: Any) -> Any:
            await other.deployments.remove(deployment_id)
            return answer

        async def close(self) -> None:
            pass

    racing = Deployments(setup.registry, Removing(), setup.clock, setup.entropy, resolver=no_addresses)
    assert await racing.update(deployment_id, UpdateDeployment(uri=NEW)) is None
    assert (await setup.deployments.refresh()).deployments == {}
