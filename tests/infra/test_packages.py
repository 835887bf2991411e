"""`sam build` for real: each package holds all that its function needs, and little else; then `sam deploy` into an emulated account.

The account judges no policies and has no schedule groups or custom resources: this proves packaging, parameters and outputs.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import boto3
import pytest

from holdfast_runtime.app.costing import Workload, invocations
from holdfast_runtime.coordinator.front import NewInvocation, Success, Target
from tests.infra import story
from tests.infra.conftest import NEEDED, ROOT, tool
from tests.infra.long import HERE, SAM_VARIABLES, built, sam, wanted  # noqa: F401
from tests.infra.make_events import ORDER
from tests.infra.story import HANDLERS, CloudFormation
from tests.infra.world import ARN, BOUND_S, add_functions, coordinator, invoking
from tests.support.dynamodb import aws_at, moto
from tests.support.lambda_service import LambdaServiceProcess
from tests.support.ports import free_port

pytestmark = wanted
SAMPLE_BYTES: Final = 1_500_000  # zipped, with bytecode; about 1.1 MB today, half of it without
FRONT_BYTES: Final = 9_000_000  # about 4.5 MB without bytecode, of which zstandard is 3
# What Lambda's image has beside the standard library.
LAMBDA_HAS: Final = ("boto3", "botocore", "s3transfer", "jmespath", "dateutil", "six.py", "urllib3")


@pytest.mark.parametrize("name", HANDLERS)
def test_a_package_holds_all_that_is_imported(built: Path, tmp_path: Path, name: str) -> None:  # noqa: F811
    packages = Path(boto3.__file__).parents[1]
    for part in LAMBDA_HAS:
        (tmp_path / part).symlink_to(packages / part)
    module = HANDLERS[name].rpartition(".")[0]
    program = f"import sys; sys.path[:0] = [{str(built / name)!r}, {str(tmp_path)!r}]; import {module} as m; m.handler; print(m.__file__)"
    command = [sys.executable, "-I", "-S", "-B", "-c", program]
    done = subprocess.run(command, check=False, capture_output=True, text=True, env={"AWS_DEFAULT_REGION": "us-east-1"})
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(built / name))


@pytest.mark.parametrize("name", HANDLERS)
def test_a_package_is_small(built: Path, tmp_path: Path, name: str) -> None:  # noqa: F811
    packed = tmp_path / "package.zip"
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in (built / name).rglob("*"):
            archive.write(path, path.relative_to(built / name))
    assert packed.stat().st_size < (FRONT_BYTES if name in ("EdgeFunction", "DeployFunction") else SAMPLE_BYTES)


@pytest.fixture
def account() -> Iterator[str]:
    """Of its own, at `localhost`: with 127.0.0.1 the emulator takes 127 for the bucket of the template's address."""
    with moto() as url:
        url = url.replace("127.0.0.1", "localhost")
        with aws_at(**dict.fromkeys(("dynamodb", "sqs", "s3", "cloudformation", "ec2"), url)):
            os.environ["AWS_ENDPOINT_URL"] = url
            boto3.client("s3").create_bucket(Bucket="artifacts")
            yield url
            del os.environ["AWS_ENDPOINT_URL"]


def _deployed(account: str, built: Path, folder: Path) -> dict[str, str]:  # noqa: F811
    """Outputs of the stack."""
    here = {"AWS_ENDPOINT_URL": account, "AWS_ENDPOINT_URL_STS": account}
    packaged = folder / "packaged.yaml"
    done = sam("package", "-t", built / "template.yaml", "--s3-bucket", "artifacts", "--output-template-file", packaged, more=here)
    assert done.returncode == 0, done.stderr
    ec2 = boto3.client("ec2")
    vpc = ec2.describe_vpcs()["Vpcs"][0]["VpcId"]
    subnets = [subnet["SubnetId"] for subnet in ec2.describe_subnets()["Subnets"][:2]]
    given = {**NEEDED, "VpcId": vpc, "SubnetIds": ",".join(subnets), "Architecture": "x86_64"}
    expanding = [tool("lint", "python"), ROOT / "tests/infra/expand.py", packaged]
    expanded = json.loads(subprocess.run(expanding, check=True, capture_output=True, text=True, input=json.dumps({"it": given})).stdout)[
        "it"
    ]
    # The emulator has no backend for custom resources; what they do is done below, by the function itself.
    custom = {name for name, resource in expanded["Resources"].items() if resource["Type"].startswith("Custom::")}
    expanded["Resources"] = {name: resource for name, resource in expanded["Resources"].items() if name not in custom}
    for resource in expanded["Resources"].values():
        resource.pop("DependsOn", None) if set(resource.get("DependsOn", [])) & custom else None
    rehearsal = folder / "rehearsal.json"
    text = json.dumps(expanded)
    for absent in ("ScheduleGroup", "Discovery"):
        text = text.replace(f'{{"Fn::GetAtt": ["{absent}", "Arn"]}}', '"arn:not-emulated"')
    rehearsal.write_text(text)
    overrides = [f"{name}={value}" for name, value in given.items()]
    deploying: list[str | Path] = [
        "deploy",
        "-t",
        rehearsal,
        "--stack-name",
        "holdfast",
        "--s3-bucket",
        "artifacts",
        "--capabilities",
        "CAPABILITY_IAM",
    ]
    done = sam(*deploying, "--no-confirm-changeset", "--parameter-overrides", *overrides, more=here)
    assert done.returncode == 0, done.stdout + done.stderr
    (stack,) = boto3.client("cloudformation").describe_stacks(StackName="holdfast")["Stacks"]
    assert stack["StackStatus"] == "CREATE_COMPLETE"
    # The emulator keeps no outputs of stacks that were made by change sets; those that are names are read from what it made.
    made = boto3.client("cloudformation").describe_stack_resources(StackName="holdfast")["StackResources"]
    names = {resource["LogicalResourceId"]: resource["PhysicalResourceId"] for resource in made if "PhysicalResourceId" in resource}
    outputs = expanded["Outputs"].items()
    return {name: names[output["Value"]["Ref"]] for name, output in outputs if output["Value"].get("Ref") in names}


async def test_a_deployed_stack_takes_an_order(account: str, built: Path, tmp_path: Path) -> None:  # noqa: F811
    outputs = await asyncio.to_thread(_deployed, account, built, tmp_path)
    described: Any = boto3.client("dynamodb").describe_table(TableName=outputs["TableName"])["Table"]
    assert described["BillingModeSummary"]["BillingMode"] == "PAY_PER_REQUEST"
    variables = {"HOLDFAST_STORE": f"dynamodb://{outputs['TableName']}", "HOLDFAST_INBOX_QUEUE_URL": outputs["InboxQueueUrl"]}
    ledger = tmp_path / "ledger"
    cloudformation = CloudFormation()
    with LambdaServiceProcess(free_port()) as service, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL_LAMBDA", service.url)
        add_functions(service, {name: str(built / name) for name in HANDLERS}, {**variables, "HOLDFAST_DEMO_LEDGER": str(ledger)})
        invoke = invoking(service.url)
        answer = await asyncio.to_thread(cloudformation.ask, invoke, "deploy-setup", Bucket=outputs["BucketName"])
        assert answer["Status"] == "SUCCESS", answer
        async with coordinator(variables) as runtime:
            arn = ARN.format(name="OrdersFunction")
            answer = await asyncio.to_thread(cloudformation.ask, invoke, "deploy-register", FunctionArn=arn)
            assert answer["Status"] == "SUCCESS", answer
            await asyncio.to_thread(story.check_sends, invoke)
            request = NewInvocation(Target("orders", "checkout"), json.dumps(ORDER).encode(), [("content-type", "application/json")])
            before = service.counters("OrdersFunction").invocations
            outcome = await asyncio.wait_for(runtime.coordinator.call(runtime.coordinator.mint(request), request), BOUND_S)
            assert isinstance(outcome, Success), outcome
            assert json.loads(outcome.value)["total_cents"] == 2_450
            attempts = service.counters("OrdersFunction").invocations - before
            assert attempts == invocations(Workload(steps=3)), "the estimate of `holdfast cost` counts otherwise"
    cloudformation.close()
    effects = [json.loads(line)["effect"] for line in ledger.read_text().splitlines()]
    assert effects == ["stock.reserved", "payment.charged", "parcel.dispatched"]
