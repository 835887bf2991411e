"""The CDK constructs: the same resources, protections and permissions as the template, and every finding of cdk-nag has an answer."""

from __future__ import annotations

import json
import os
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any, Final

import pytest

from tests.infra.conftest import ROOT, tool
from tests.infra.dashboards import parts, shown, text
from tests.infra.long import wanted
from tests.infra.resolving import Resolver, Stack, order
from tests.infra.test_permissions import listed

pytestmark = wanted
PACKAGES: Final = ("Edge", "Orders", "Signup", "Cart", "Reminders")
# rule -> why it is left as it is.
ACCEPTED: Final = {
    "AwsSolutions-APIG1": "access logs of API Gateway need a role of the whole account; the function logs",
    "AwsSolutions-APIG2": "the function checks every request against what is registered",
    "AwsSolutions-APIG4": "keys are what was asked for; without, IAM decides",
    "AwsSolutions-APIG6": "logs of API Gateway need a role of the whole account; the function logs",
    "AwsSolutions-COG4": "keys are what was asked for; without, IAM decides",
    "AwsSolutions-ECS2": "the environment names resources; there are no secrets in it",
    "AwsSolutions-ECS4": "Container Insights cost more than the default coordinator; turn them on where wanted",
    "AwsSolutions-ELB2": "access logs need a bucket of the account's own; turn them on where wanted",
    "AwsSolutions-IAM4": "logs and traces: policies of AWS, listed in test_permissions.py",
    "AwsSolutions-IAM5": "objects below blob/, versions of functions, schedules of the group; traces have no names",
    "AwsSolutions-L1": "what is deployed is tested on this version of Python",
    "AwsSolutions-S1": "every object is written and read by the coordinator, which logs",
    "AwsSolutions-VPC7": "flow logs are the account's; the VPC of the sample is an example",
}
# What the template has and the constructs have not, or differently.
OF_SAM: Final = {"AWS::Lambda::Alias", "AWS::EC2::SecurityGroupIngress", "AWS::EC2::SecurityGroupEgress"}
PLUMBING: Final = {"AWS::IAM::Role", "AWS::IAM::Policy", "AWS::SQS::QueuePolicy", "AWS::Logs::LogGroup"}


@pytest.fixture(scope="module")
def synthesised(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("packages")
    for name in PACKAGES:
        (folder / f"{name}Function").mkdir()
        (folder / f"{name}Function/module.py").write_text(f"# stands for {name}\n")
    variables = os.environ | {
        "PYTHONPATH": str(ROOT / "infra/cdk"),
        "JSII_SILENCE_WARNING_END_OF_LIFE_NODE_VERSION": "1",
        "CDK_DISABLE_CLI_TELEMETRY": "true",
    }
    command: list[str | Path] = [tool("cdk", "python"), "-W", "ignore", ROOT / "tests/infra/synthesise.py", folder / "EdgeFunction"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=variables, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module")
def made(synthesised: dict[str, Any]) -> dict[str, Stack]:
    return {name: Resolver(one["template"], {}).stack() for name, one in synthesised.items()}


def kinds(stack: Stack) -> Counter[str]:
    network = ("AWS::EC2::VPC", "AWS::EC2::Subnet", "AWS::EC2::Route", "AWS::EC2::Internet", "AWS::EC2::Nat", "AWS::EC2::EIP")
    found = Counter(resource["Type"] for resource in stack.resources.values())
    return Counter({kind: count for kind, count in found.items() if not kind.startswith(network) and kind not in OF_SAM | PLUMBING})


def test_the_samples_are_the_template(made: dict[str, Stack], stacks: dict[str, Stack]) -> None:
    assert kinds(made["samples"]) == kinds(stacks["default"])


def test_everything_can_be_made_one_after_the_other(made: dict[str, Stack]) -> None:
    for stack in made.values():
        assert len(order(stack.resources)) == len(stack.resources)


def test_data_outlives_the_stack(made: dict[str, Stack]) -> None:
    for stack in made.values():
        for kind in ("AWS::DynamoDB::Table", "AWS::S3::Bucket"):
            (resource,) = [resource for resource in stack.resources.values() if resource["Type"] == kind]
            assert (resource["DeletionPolicy"], resource["UpdateReplacePolicy"]) == ("Retain", "Retain")


def test_the_table_is_the_templates(made: dict[str, Stack], stacks: dict[str, Stack]) -> None:
    ours, theirs = made["samples"].only("AWS::DynamoDB::Table"), stacks["default"].only("AWS::DynamoDB::Table")
    same = ("KeySchema", "AttributeDefinitions", "BillingMode", "TimeToLiveSpecification", "PointInTimeRecoverySpecification")
    assert {name: ours[name] for name in same} == {name: theirs[name] for name in same}


def environment(stack: Stack) -> set[str]:
    (container,) = stack.only("AWS::ECS::TaskDefinition")["ContainerDefinitions"]
    return {variable["Name"] for variable in container["Environment"]}


def test_a_coordinator_is_told_the_same(made: dict[str, Stack], stacks: dict[str, Stack]) -> None:
    assert environment(made["samples"]) == environment(stacks["default"])


def policy(stack: Stack, part: str) -> set[str]:
    """Actions of the one role whose name has this part."""
    policies = [one for name, one in stack.of("AWS::IAM::Policy").items() if part in name]
    return {action for one in policies for statement in one["PolicyDocument"]["Statement"] for action in listed(statement["Action"])}


@pytest.mark.parametrize(("ours", "theirs"), [("TaskRole", "TaskRole"), ("HoldfastEdge", "EdgeFunctionRole"), ("WakeupRole", "WakeupRole")])
def test_roles_may_do_the_same(made: dict[str, Stack], stacks: dict[str, Stack], ours: str, theirs: str) -> None:
    role = stacks["default"].resources[theirs]["Properties"]
    expected = {action for one in role["Policies"] for s in one["PolicyDocument"]["Statement"] for action in listed(s["Action"])}
    traced = {"xray:PutTraceSegments", "xray:PutTelemetryRecords"}
    assert policy(made["samples"], ours) - traced == expected


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("TaskRole", "TaskRole"),
        ("HoldfastEdge", "EdgeFunctionRole"),
        ("HoldfastDeploy", "DeployFunctionRole"),
        ("WakeupRole", "WakeupRole"),
    ],
)
def test_roles_may_do_the_same_with_a_key_of_ones_own(made: dict[str, Stack], stacks: dict[str, Stack], ours: str, theirs: str) -> None:
    role = stacks["own key"].resources[theirs]["Properties"]
    expected = {action for one in role["Policies"] for s in one["PolicyDocument"]["Statement"] for action in listed(s["Action"])}
    keys = {action for action in expected if action.startswith("kms:")}
    assert keys
    assert {action for action in policy(made["internet"], ours) if action.startswith("kms:")} == keys


def test_a_task_may_be_started_from_a_private_registry(made: dict[str, Stack]) -> None:
    """Of an image that is named by its address the CDK does not see that it is in one."""
    for stack in made.values():
        (role,) = [one for name, one in stack.of("AWS::IAM::Role").items() if "ExecutionRole" in name]
        assert "AmazonECSTaskExecutionRolePolicy" in json.dumps(role["ManagedPolicyArns"])


def test_who_may_send_to_the_inbox_is_the_templates(made: dict[str, Stack], stacks: dict[str, Stack]) -> None:
    def of(stack: Stack) -> dict[str, tuple[list[str], Any]]:
        found = [one for item in stack.of("AWS::SQS::QueuePolicy").values() for one in item["PolicyDocument"]["Statement"]]
        named = parts(stack)
        allowed = {one["Sid"]: one for one in found if one["Effect"] == "Allow"}
        texts = {
            sid: sorted(text(arn, named) for kind in one["Condition"].values() for value in kind.values() for arn in listed(value))
            for sid, one in allowed.items()
        }
        return {sid: (listed(one["Principal"]["Service"]), texts[sid]) for sid, one in allowed.items()}

    assert of(made["samples"]) == of(stacks["default"])


def test_queues_are_the_templates(made: dict[str, Stack], stacks: dict[str, Stack]) -> None:
    same = ("VisibilityTimeout", "MaximumMessageSize", "MessageRetentionPeriod", "ReceiveMessageWaitTimeSeconds", "SqsManagedSseEnabled")

    def of(stack: Stack) -> list[list[Any]]:
        return sorted([[queue.get(name) for name in same] for queue in stack.of("AWS::SQS::Queue").values()], key=str)

    assert of(made["samples"]) == of(stacks["default"])


def test_cloudformation_waits_as_long(made: dict[str, Stack], stacks: dict[str, Stack]) -> None:
    def waits(stack: Stack) -> set[int]:
        custom = [one for one in stack.resources.values() if one["Type"].startswith("Custom::Holdfast")]
        return {int(one["Properties"]["ServiceTimeout"]) for one in custom}

    assert waits(made["samples"]) == waits(made["api key"]) == waits(stacks["default"])


def test_tasks_keep_connections_as_long(made: dict[str, Stack], stacks: dict[str, Stack]) -> None:
    def idle(stack: Stack) -> str:
        (container,) = stack.only("AWS::ECS::TaskDefinition")["ContainerDefinitions"]
        (found,) = [one["Value"] for one in container["Environment"] if one["Name"] == "HOLDFAST_INGRESS_IDLE_TIMEOUT"]
        return str(found)

    assert [idle(made[name]) for name in ("samples", "internal")] == [idle(stacks[name]) for name in ("default", "internal")]


def test_a_target_group_is_replaced_with_its_load_balancer(made: dict[str, Stack]) -> None:
    (balancer,) = [name for name, one in made["internal"].resources.items() if one["Type"] == "AWS::ElasticLoadBalancingV2::LoadBalancer"]
    assert balancer in json.dumps(made["internal"].only("AWS::ElasticLoadBalancingV2::TargetGroup")["Name"])


def test_handlers_are_registered_by_version(made: dict[str, Stack]) -> None:
    stack = made["samples"]
    for registration in stack.of("Custom::HoldfastDeployment").values():
        assert stack.resources[registration["FunctionArn"]["Ref"]]["Type"] == "AWS::Lambda::Version"


def test_a_registration_says_how_many_attempts_the_function_takes(made: dict[str, Stack]) -> None:
    assert made["api key"].only("Custom::HoldfastDeployment")["Concurrency"] == "20"
    assert not [one for one in made["samples"].of("Custom::HoldfastDeployment").values() if "Concurrency" in one]


def test_load_balancers_where_they_are_wanted(made: dict[str, Stack]) -> None:
    ports = {name: [one["Port"] for one in stack.of("AWS::ElasticLoadBalancingV2::Listener").values()] for name, stack in made.items()}
    assert ports == {"samples": [], "internal": [80], "api key": [], "internet": [443]}


def test_a_key_before_the_front_door_is_the_templates(made: dict[str, Stack], stacks: dict[str, Stack]) -> None:
    def of_api(stack: Stack) -> Counter[str]:
        front = ("AWS::ApiGateway::", "AWS::Lambda::Permission")
        return Counter({kind: count for kind, count in kinds(stack).items() if kind.startswith(front)})

    ours, theirs = made["api key"], stacks["api key"]
    assert of_api(ours) == of_api(theirs)
    assert ours.only("AWS::ApiGateway::Method")["ApiKeyRequired"] is True
    throttle = [
        {name: int(value) for name, value in stack.only("AWS::ApiGateway::UsagePlan")["Throttle"].items()} for stack in (ours, theirs)
    ]
    assert throttle == [{"RateLimit": 7, "BurstLimit": 7}] * 2
    assert not of_api(made["samples"])


def test_the_dashboard_shows_what_the_templates_shows(made: dict[str, Stack], stacks: dict[str, Stack]) -> None:
    assert shown(made["samples"]) == shown(stacks["default"])
    names = [stack.only("AWS::CloudWatch::Dashboard")["DashboardName"] for stack in (made["samples"], stacks["default"])]
    assert names == ["holdfast-holdfast"] * 2


def test_a_dashboard_where_it_is_wanted(made: dict[str, Stack]) -> None:
    assert {name: len(stack.of("AWS::CloudWatch::Dashboard")) for name, stack in made.items()} == {
        "samples": 1,
        "internal": 0,
        "api key": 1,
        "internet": 1,
    }


def test_alarms_go_off_when_the_templates_do(made: dict[str, Stack], stacks: dict[str, Stack]) -> None:
    judged = ("Namespace", "MetricName", "Statistic", "Period", "EvaluationPeriods", "Threshold", "ComparisonOperator", "TreatMissingData")

    def of(stack: Stack) -> list[tuple[str, ...]]:
        named = parts(stack)
        return sorted(
            (*(str(alarm[name]) for name in judged), *sorted(f"{by['Name']}={text(by['Value'], named)}" for by in alarm["Dimensions"]))
            for alarm in stack.of("AWS::CloudWatch::Alarm").values()
        )

    assert of(made["samples"]) == of(stacks["default"])


def test_every_finding_has_an_answer(synthesised: dict[str, Any]) -> None:
    found = {finding.split("[")[0].split(" ")[0] for one in synthesised.values() for finding in one["findings"]}
    assert found == ACCEPTED.keys()


def test_what_cannot_work_is_refused(tmp_path: Path) -> None:
    program = (
        "import sys; sys.path.insert(0, 'infra/cdk')\n"
        "from aws_cdk import App, Stack, aws_ec2 as ec2, aws_ecs as ecs, aws_lambda as lambda_\n"
        "from holdfast_cdk import HoldfastCluster, Size, Exposure\n"
        "stack = Stack(App(), 's'); vpc = ec2.Vpc(stack, 'V')\n"
        "for options in ({'size': Size(replicas=9)}, {'exposure': Exposure.INTERNET}, {'allowed': ['0.0.0.0/0']}):\n"
        "    try: HoldfastCluster(stack, str(options), vpc=vpc, image=None, front_code=None, **options)\n"
        "    except ValueError as problem: print(problem)\n"
    )
    done = subprocess.run([tool("cdk", "python"), "-W", "ignore", "-c", program], check=True, capture_output=True, text=True, cwd=ROOT)
    assert "need as many shards" in done.stdout
    assert "needs a certificate" in done.stdout
    assert "speaks in clear" in done.stdout
