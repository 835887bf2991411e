"""Every file in `events/` given to its function, in a real Lambda runtime process over a real table and queue."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from tests.infra import make_events, story
from tests.infra.conftest import ROOT
from tests.infra.story import HANDLERS, CloudFormation, Invoke
from tests.infra.world import ARN, BOUND_S, add_functions, coordinator, invoking, new_stack
from tests.support.dynamodb import aws_at, new_table_name
from tests.support.lambda_service import LambdaServiceProcess
from tests.support.ports import free_port


@pytest.fixture(scope="module")
def variables(dynamodb_url: str, moto_url: str) -> Iterator[dict[str, str]]:
    with aws_at(dynamodb=dynamodb_url, sqs=moto_url):
        yield new_stack(new_table_name())


@pytest.fixture(scope="module")
def service(variables: dict[str, str]) -> Iterator[LambdaServiceProcess]:
    with LambdaServiceProcess(free_port()) as service, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL_LAMBDA", service.url)
        add_functions(service, dict.fromkeys(HANDLERS, str(ROOT)), variables)
        yield service


@pytest.fixture
def invoke(service: LambdaServiceProcess) -> Invoke:
    return invoking(service.url)


@pytest.fixture
def cloudformation() -> Iterator[CloudFormation]:
    found = CloudFormation()
    yield found
    found.close()


def test_the_files_are_what_is_sent() -> None:
    wanted = {f"{name}.json": make_events.text(event) for name, event in make_events.events().items()}
    assert {path.name: path.read_text() for path in make_events.FOLDER.glob("*.json")} == wanted


def test_every_function_has_events() -> None:
    assert {story.function_of(name) for name in make_events.events()} == HANDLERS.keys()


@pytest.mark.parametrize("service_name", make_events.INVOKED)
def test_samples_answer(invoke: Invoke, service_name: str) -> None:
    story.check_discovery(invoke, service_name)
    story.check_first_attempt(invoke, service_name)


async def test_a_deployment_from_the_first_table_to_the_first_order(
    invoke: Invoke, cloudformation: CloudFormation, variables: dict[str, str]
) -> None:
    answer = await asyncio.to_thread(cloudformation.ask, invoke, "deploy-setup")
    assert answer["Status"] == "SUCCESS", answer
    arn = ARN.format(name="OrdersFunction")
    async with coordinator(variables):
        asked = asyncio.to_thread(cloudformation.ask, invoke, "deploy-register", FunctionArn=arn)
        answer = await asyncio.wait_for(asked, BOUND_S)
        assert answer["Status"] == "SUCCESS", answer
    await asyncio.to_thread(story.check_health, invoke)
    await asyncio.to_thread(story.check_sends, invoke)  # nobody is awake now
    answer = await asyncio.to_thread(cloudformation.ask, invoke, "deploy-delete")
    assert answer["Status"] == "SUCCESS", answer
