"""Who may do what: every statement of every role, with all options on; as little as the code needs, and no less."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

import pytest

from tests.infra.conftest import ROOT
from tests.infra.resolving import Stack

# (role, action) -> why it has no resource to name.
ANY_RESOURCE: Final = {
    ("TaskRole", f"ssmmessages:{kind}{channel}"): "channels have no names; only with ExecuteCommand"
    for kind in ("Create", "Open")
    for channel in ("ControlChannel", "DataChannel")
}
# Policies of AWS, whole; the last part of their ARN -> why.
MANAGED: Final = {
    "AWSLambdaBasicExecutionRole": "writes logs",
    "AWSXrayWriteOnlyAccess": "traces have no names",
    "AmazonECSTaskExecutionRolePolicy": "pulls the image and writes logs",
}
RUNTIME: Final = ROOT / "runtime/holdfast_runtime"
# An operation that IAM knows by the name of another one.
JUDGED_AS: Final = {
    "sqs:ChangeMessageVisibilityBatch": "sqs:ChangeMessageVisibility",
    "sqs:DeleteMessageBatch": "sqs:DeleteMessage",
    "lambda:Invoke": "lambda:InvokeFunction",
    "s3:ListObjectsV2": "s3:ListBucket",
    "s3:HeadObject": "s3:GetObject",
    "s3:CopyObject": "s3:PutObject",  # and s3:GetObject of its source
}


def listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def statements(stack: Stack, role: str) -> Iterator[dict[str, Any]]:
    for policy in stack.resources[role]["Properties"].get("Policies", []):
        yield from listed(policy["PolicyDocument"]["Statement"])


def actions(stack: Stack, role: str) -> set[str]:
    return {action for statement in statements(stack, role) for action in listed(statement["Action"])}


@pytest.fixture
def stack(stacks: dict[str, Stack]) -> Stack:
    return stacks["everything"]


def test_no_action_is_a_pattern(stack: Stack) -> None:
    for role in stack.of("AWS::IAM::Role"):
        assert not [action for action in actions(stack, role) if "*" in action], role


def test_every_statement_names_its_resources(stack: Stack) -> None:
    open_ = {
        (role, action)
        for role in stack.of("AWS::IAM::Role")
        for statement in statements(stack, role)
        for action in listed(statement["Action"])
        if "*" in listed(statement["Resource"])
    }
    assert open_ == ANY_RESOURCE.keys()


def test_without_execute_command_nothing_is_open(stacks: dict[str, Stack]) -> None:
    stack = stacks["own key"]
    assert not [one for role in stack.of("AWS::IAM::Role") for one in statements(stack, role) if "*" in listed(one["Resource"])]


def test_policies_of_aws_are_the_known_ones(stack: Stack) -> None:
    found = {str(arn).rpartition("/")[2] for role in stack.of("AWS::IAM::Role").values() for arn in role.get("ManagedPolicyArns", [])}
    assert found == MANAGED.keys()


def test_a_role_is_taken_by_one_service(stack: Stack) -> None:
    for name, role in stack.of("AWS::IAM::Role").items():
        (statement,) = role["AssumeRolePolicyDocument"]["Statement"]
        assert len(listed(statement["Principal"]["Service"])) == 1, name


def test_roles_are_passed_to_the_scheduler_only(stack: Stack) -> None:
    for role in stack.of("AWS::IAM::Role"):
        for one in statements(stack, role):
            if "iam:PassRole" in listed(one["Action"]):
                assert one["Resource"] == {"Fn::GetAtt": ["WakeupRole", "Arn"]}
                assert one["Condition"] == {"StringEquals": {"iam:PassedToService": "scheduler.amazonaws.com"}}


def test_samples_may_do_nothing(stack: Stack) -> None:
    for name in ("OrdersFunctionRole", "SignupFunctionRole", "CartFunctionRole", "RemindersFunctionRole"):
        assert not actions(stack, name)


def test_the_front_door_writes_nothing_but_messages(stack: Stack) -> None:
    allowed = actions(stack, "EdgeFunctionRole")
    asked = {"dynamodb:GetItem", "dynamodb:Query", "s3:GetObject", "sqs:SendMessage"}
    assert allowed == asked | {"kms:Decrypt", "kms:GenerateDataKey", "kms:DescribeKey"}


def test_who_writes_to_a_table_under_its_own_key_may_use_the_key_for_that(stack: Stack) -> None:
    """What DynamoDB asks for in the name of its caller, as its documentation lists it; CreateGrant only for who makes the table."""
    wanted = {f"kms:{name}" for name in ("Decrypt", "GenerateDataKey", "DescribeKey", "Encrypt", "ReEncryptFrom", "ReEncryptTo")}
    for role in ("TaskRole", "DeployFunctionRole"):
        assert {action for action in actions(stack, role) if action.startswith("kms:")} == wanted, role


def test_rules_topics_and_buckets_of_the_account_may_send(stack: Stack) -> None:
    """Rules and topics by their ARNs, the condition that their documentation names; ARNs of buckets name no account."""
    allowed = [one for one in stack.only("AWS::SQS::QueuePolicy")["PolicyDocument"]["Statement"] if one["Effect"] == "Allow"]
    by_arn = {"ArnLike": {"aws:SourceArn": ["arn:aws:events:*:123456789012:rule/*", "arn:aws:sns:*:123456789012:*"]}}
    assert {service: one["Condition"] for one in allowed for service in listed(one["Principal"]["Service"])} == {
        "events.amazonaws.com": by_arn,
        "sns.amazonaws.com": by_arn,
        "s3.amazonaws.com": {"StringEquals": {"aws:SourceAccount": "123456789012"}},
    }


def test_no_role_is_assumed_but_those_that_are_named(stacks: dict[str, Stack]) -> None:
    named = [statement["Resource"] for statement in statements(stacks["everything"], "TaskRole") if statement["Action"] == "sts:AssumeRole"]
    assert named == ["arn:aws:iam::210987654321:role/holdfast-*"]
    assert "sts:AssumeRole" not in actions(stacks["default"], "TaskRole")


def test_versions_of_named_functions_may_be_invoked(stack: Stack) -> None:
    (invoking,) = [one for one in statements(stack, "TaskRole") if one["Action"] == "lambda:InvokeFunction"]
    here = "arn:aws:lambda:us-east-1:123456789012:function"
    names = [one for one in invoking["Resource"] if isinstance(one, str)]
    assert names == [f"{here}:holdfast-*", f"{here}:shop-*", f"{here}:shop-*:*"]


@pytest.mark.parametrize("variant", ["everything", "no samples"])
def test_samples_may_be_invoked_whatever_cloudformation_calls_them(stacks: dict[str, Stack], variant: str) -> None:
    """It shortens the names of stacks in those of functions."""
    stack = stacks[variant]
    (invoking,) = [one for one in statements(stack, "TaskRole") if one["Action"] == "lambda:InvokeFunction"]
    samples = [name for name in stack.of("AWS::Lambda::Function") if name not in ("EdgeFunction", "DeployFunction")]
    named = [one["Fn::Sub"] for one in invoking["Resource"] if isinstance(one, dict)]
    assert sorted(named) == sorted(f"${{{name}.Arn}}:*" for name in samples)


def operations(module: str, service: str) -> set[str]:
    """What a module asks of a service, as IAM calls it: `_call("send_message")`, `.call("PutItem", ...)`."""
    text = (RUNTIME / module).read_text()
    names = re.findall(r"""\b_?(?:call|attempt)\(\s*"(\w+)\"""", text)
    found = {f"{service}:" + (name if name[0].isupper() else "".join(map(str.capitalize, name.split("_")))) for name in names}
    assert found, f"{module} asks nothing, or in another way: adapt this test"
    return {JUDGED_AS.get(name, name) for name in found}


@pytest.mark.parametrize(
    ("module", "service"),
    [
        ("adapters/dynamodb.py", "dynamodb"),
        ("adapters/s3_blobs.py", "s3"),
        ("adapters/sqs.py", "sqs"),
        ("adapters/scheduler.py", "scheduler"),
    ],
)
def test_the_coordinator_may_do_what_it_does(stack: Stack, module: str, service: str) -> None:
    assert operations(module, service) - {"sqs:SendMessage"} <= actions(stack, "TaskRole")


def test_the_coordinator_may_do_nothing_else_to_the_table(stack: Stack) -> None:
    wanted: set[str] = set()
    for path in (RUNTIME / "adapters").glob("dynamodb*.py"):
        if re.search(r"""\b(?:call|attempt)\(\s*"[A-Z]""", path.read_text()):
            wanted |= operations(f"adapters/{path.name}", "dynamodb")
    assert {one for one in actions(stack, "TaskRole") if one.startswith("dynamodb:")} == wanted
