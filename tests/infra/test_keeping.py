"""What must not be lost, and what must not be readable: retention, backups, encryption, logs with an end."""

from __future__ import annotations

import json
from typing import Any, Final

import pytest

from holdfast_runtime.adapters.dynamodb_blob_sweep import KEPT_S
from holdfast_runtime.adapters.dynamodb_models import TTL_ATTRIBUTE
from holdfast_runtime.adapters.s3_blobs import CONDEMNED
from holdfast_runtime.app.metrics_emf import DIMENSION, NAMESPACE, UNITS
from holdfast_runtime.coordinator.blob_sweep import KEPT_DAYS
from holdfast_runtime.edge.app import MAX_BODY_BYTES
from tests.infra.conftest import KEY, ROOT, VARIANTS
from tests.infra.resolving import PSEUDO, Stack, references

OF_SERVICES: Final = {"RefusedMessages", "OldMessages", "NoCoordinator", "Throttled"}
each_variant = pytest.mark.parametrize("variant", VARIANTS)


@each_variant
@pytest.mark.parametrize("name", ["Table", "Bucket"])
def test_data_outlives_the_stack(stacks: dict[str, Stack], variant: str, name: str) -> None:
    resource = stacks[variant].resources[name]
    assert (resource["DeletionPolicy"], resource["UpdateReplacePolicy"]) == ("Retain", "Retain")


@each_variant
def test_the_table_is_what_the_coordinator_expects(stacks: dict[str, Stack], variant: str) -> None:
    table = stacks[variant].only("AWS::DynamoDB::Table")
    assert table["BillingMode"] == "PAY_PER_REQUEST"
    assert table["TimeToLiveSpecification"] == {"AttributeName": TTL_ATTRIBUTE, "Enabled": True}
    assert table["PointInTimeRecoverySpecification"]["PointInTimeRecoveryEnabled"] is True
    assert table["KeySchema"] == [{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}]


@each_variant
def test_a_refused_message_is_kept_longer_than_the_queue_keeps_it(stacks: dict[str, Stack], variant: str) -> None:
    """The age of a message counts from its first sending."""
    queues = stacks[variant].of("AWS::SQS::Queue")
    assert queues["InboxQueue"]["RedrivePolicy"]["deadLetterTargetArn"] == {"Fn::GetAtt": ["DeadLetterQueue", "Arn"]}
    assert queues["DeadLetterQueue"]["MessageRetentionPeriod"] > queues["InboxQueue"]["MessageRetentionPeriod"]


def test_what_the_front_door_takes_fits_into_a_message(stacks: dict[str, Stack]) -> None:
    """Bodies travel as base64, beside some names and headers."""
    for queue in stacks["default"].of("AWS::SQS::Queue").values():
        assert queue["MaximumMessageSize"] > MAX_BODY_BYTES * 4 / 3 + 64 * 1024


@each_variant
def test_everything_at_rest_is_encrypted(stacks: dict[str, Stack], variant: str) -> None:
    stack, own = stacks[variant], "KmsKeyArn" in VARIANTS[variant]
    for queue in stack.of("AWS::SQS::Queue").values():
        assert queue.get("KmsMasterKeyId") == (KEY if own else None)
        assert queue.get("SqsManagedSseEnabled") == (None if own else True)
    (rule,) = stack.only("AWS::S3::Bucket")["BucketEncryption"]["ServerSideEncryptionConfiguration"]
    assert rule["ServerSideEncryptionByDefault"] == (
        {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": KEY} if own else {"SSEAlgorithm": "AES256"}
    )
    table = stack.only("AWS::DynamoDB::Table")
    assert table.get("SSESpecification") == ({"SSEEnabled": True, "SSEType": "KMS", "KMSMasterKeyId": KEY} if own else None)


@each_variant
def test_no_unencrypted_connection(stacks: dict[str, Stack], variant: str) -> None:
    for kind in ("AWS::S3::BucketPolicy", "AWS::SQS::QueuePolicy"):
        statements = stacks[variant].only(kind)["PolicyDocument"]["Statement"]
        (denied,) = [one for one in statements if one["Effect"] == "Deny"]
        assert denied["Principal"] == "*"
        assert denied["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}


@each_variant
def test_every_log_has_an_end_and_every_function_a_log(stacks: dict[str, Stack], variant: str) -> None:
    stack = stacks[variant]
    groups = stack.of("AWS::Logs::LogGroup")
    for group in groups.values():
        assert int(group["RetentionInDays"]) > 0
        assert group.get("KmsKeyId") == (KEY if "KmsKeyArn" in VARIANTS[variant] else None)
    for name, function in stack.of("AWS::Lambda::Function").items():
        assert function["LoggingConfig"]["LogGroup"]["Ref"] in groups, name


@each_variant
def test_nothing_of_the_bucket_is_public(stacks: dict[str, Stack], variant: str) -> None:
    block: dict[str, Any] = stacks[variant].only("AWS::S3::Bucket")["PublicAccessBlockConfiguration"]
    assert len(block) == 4
    assert all(block.values())


@each_variant
def test_the_front_door_asks_who_calls(stacks: dict[str, Stack], variant: str) -> None:
    stack = stacks[variant]
    assert stack.only("AWS::Lambda::Url")["AuthType"] == "AWS_IAM"
    keys = VARIANTS[variant].get("EdgeAuth") == "API_KEY"
    assert [method["ApiKeyRequired"] for method in stack.of("AWS::ApiGateway::Method").values()] == [True] * keys
    for permission in stack.of("AWS::Lambda::Permission").values():
        assert permission["Principal"] == "apigateway.amazonaws.com"
        assert "EdgeApi" in set(references(permission["SourceArn"]))
        assert f":{PSEUDO['AWS::AccountId']}:" in json.dumps(permission["SourceArn"])
        assert "SourceAccount" not in permission, "nothing says that API Gateway tells it, and then nothing could be invoked"
    assert len(stack.of("AWS::Lambda::Permission")) == keys


def test_a_key_has_its_limit(stacks: dict[str, Stack]) -> None:
    stack = stacks["api key"]
    plan, wanted = stack.only("AWS::ApiGateway::UsagePlan"), VARIANTS["api key"]["EdgeRequestsPerSecond"]
    assert {name: str(value) for name, value in plan["Throttle"].items()} == {"RateLimit": wanted, "BurstLimit": wanted}
    ((stage, plan_name, key),) = [
        (plan["ApiStages"][0]["Stage"], member["UsagePlanId"], member["KeyId"])
        for member in stack.of("AWS::ApiGateway::UsagePlanKey").values()
    ]
    assert [stack.resources[one["Ref"]]["Type"].rpartition("::")[2] for one in (stage, plan_name, key)] == ["Stage", "UsagePlan", "ApiKey"]
    assert stack.outputs["EdgeApiKeyId"] == key
    assert "EdgeApiKeyId" not in stacks["default"].outputs


@each_variant
def test_other_stacks_can_register_their_functions(stacks: dict[str, Stack], variant: str) -> None:
    assert stacks[variant].outputs["DeployFunctionArn"] == {"Fn::GetAtt": ["DeployFunction", "Arn"]}


@each_variant
def test_an_alarm_for_whatever_needs_somebody(stacks: dict[str, Stack], variant: str) -> None:
    alarms = stacks[variant].of("AWS::CloudWatch::Alarm")
    assert alarms.keys() == OF_SERVICES | {name for name, alarm in alarms.items() if alarm["Namespace"] == NAMESPACE}
    expected = [{"Ref": "AlarmTopic"}] if "AlarmEmail" in VARIANTS[variant] else None
    assert all(alarm.get("AlarmActions") == expected for alarm in alarms.values())


def test_alarms_can_reach_who_is_to_be_told(stacks: dict[str, Stack]) -> None:
    """The key of AWS for topics lets CloudWatch not use it, and its policy cannot be changed: no mail would ever come."""
    assert "KmsMasterKeyId" not in stacks["everything"].only("AWS::SNS::Topic")


def test_alarms_look_at_what_coordinators_tell(stacks: dict[str, Stack]) -> None:
    """Every metric that is paid for has its alarm, and no alarm waits for one that nobody tells."""
    stack = stacks["default"]
    told = {name: alarm for name, alarm in stack.of("AWS::CloudWatch::Alarm").items() if alarm["Namespace"] == NAMESPACE}
    assert {alarm["MetricName"] for alarm in told.values()} == UNITS.keys()
    (container,) = stack.only("AWS::ECS::TaskDefinition")["ContainerDefinitions"]
    variables = {one["Name"]: one["Value"] for one in container["Environment"]}
    assert variables["HOLDFAST_METRICS_EMF"] == "on"
    for alarm in told.values():
        assert alarm["Dimensions"] == [{"Name": DIMENSION, "Value": variables["HOLDFAST_CLUSTER_NAME"]}]
    shown = json.dumps(stack.only("AWS::CloudWatch::Dashboard")["DashboardBody"])  # the text itself, or what is put into it
    assert [name for name in UNITS if name not in shown] == []


def test_the_documentation_says_what_to_do_about_each_alarm(stacks: dict[str, Stack]) -> None:
    text = (ROOT / "docs/operations.md").read_text()
    assert [name for name in stacks["default"].of("AWS::CloudWatch::Alarm") if f"| `{name}` |" not in text] == []


def test_what_sweeps_have_condemned_goes_when_no_restored_table_can_want_it(stacks: dict[str, Stack]) -> None:
    rules = {rule["Id"]: rule for rule in stacks["default"].only("AWS::S3::Bucket")["LifecycleConfiguration"]["Rules"]}
    assert rules["condemned"]["Prefix"] == CONDEMNED
    assert rules["condemned"]["ExpirationInDays"] == KEPT_DAYS == KEPT_S / 86_400
    assert KEPT_DAYS > 35  # days to which point-in-time recovery reaches back
