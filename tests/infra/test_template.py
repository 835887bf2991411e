"""The template: lint, in source and expanded, and what every combination of parameters creates."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from holdfast_runtime.surfaces.durations import parse_duration
from tests.infra.conftest import LINT, NEEDED, ROOT, VARIANTS, tool
from tests.infra.resolving import PSEUDO, Resolver, Stack, needs, order, references

each_variant = pytest.mark.parametrize("variant", VARIANTS)


def lint(*arguments: str | Path) -> None:
    tool("lint", "cfn-lint")
    command = [LINT / "cfn-lint", "--non-zero-exit-code", "informational", *arguments]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_source_is_clean() -> None:
    lint("template.yaml")


def test_the_expanded_template_is_clean(expanded: dict[str, Any], tmp_path: Path) -> None:
    """E0000-type faults, circular dependencies among them, that the source hides."""
    path = tmp_path / "expanded.json"
    path.write_text(json.dumps(expanded))
    lint(path)


@each_variant
def test_everything_can_be_made_one_after_the_other(stacks: dict[str, Stack], variant: str) -> None:
    assert len(order(stacks[variant].resources)) == len(stacks[variant].resources)


def test_a_circle_is_found() -> None:
    wait = {"A": {"Properties": {"x": {"Ref": "B"}}}, "B": {"Properties": {"x": {"Fn::Sub": "${A.Arn}"}}}, "C": {}}
    with pytest.raises(ValueError, match=r"\['A', 'B'\]"):
        order(wait)


@each_variant
def test_nothing_refers_to_what_is_not_made(stacks: dict[str, Stack], variant: str) -> None:
    stack = stacks[variant]
    known = stack.resources.keys() | PSEUDO.keys()
    for name, resource in stack.resources.items():
        assert needs(resource) <= known, name
    assert set(references(stack.outputs)) <= known


@each_variant
def test_no_rule_refuses_it(stacks: dict[str, Stack], variant: str) -> None:
    assert stacks[variant].refused == []


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"LoadBalancer": "internet-facing"}, "needs CertificateArn"),
        ({"AllowedCidr": "0.0.0.0/0"}, "speaks in clear"),
        ({"AllowedCidr": "0.0.0.0/0", "LoadBalancer": "internal"}, "speaks in clear"),
        ({"Cpu": "256", "Memory": "4096"}, "Cpu 256 goes with"),
        ({"Cpu": "512"}, "Cpu 512 goes with"),
        ({"Cpu": "1024"}, "Cpu 1024 goes with"),
        ({"Cpu": "2048", "Memory": "2048"}, "Cpu 2048 goes with"),
    ],
)
def test_what_cannot_work_is_refused(expanded: dict[str, Any], given: dict[str, str], reason: str) -> None:
    (refused,) = Resolver(expanded, {**NEEDED, **given}).stack().refused
    assert reason in refused


@pytest.mark.parametrize("given", [{"KmsKeyArn": "arn:aws:kms:us-east-1:123456789012:alias/mine"}, {"AllowedCidr": "10.1.0.0"}])
def test_what_is_no_key_or_range_is_refused_before_anything_is_made(expanded: dict[str, Any], given: dict[str, str]) -> None:
    with pytest.raises(AssertionError, match=f"{next(iter(given))} is "):
        Resolver(expanded, {**NEEDED, **given})


@pytest.mark.parametrize(
    ("variant", "listeners"),
    [("default", []), ("internal", [80]), ("internal with certificate", [443]), ("internet-facing", [443])],
)
def test_a_load_balancer_where_one_is_wanted(stacks: dict[str, Stack], variant: str, listeners: list[int]) -> None:
    stack = stacks[variant]
    found = stack.of("AWS::ElasticLoadBalancingV2::Listener")
    assert [item["Port"] for item in found.values()] == listeners
    assert len(stack.of("AWS::ElasticLoadBalancingV2::LoadBalancer")) == len(listeners)
    assert needs(stack.resources["Service"]) >= found.keys(), "a service before the listener of its target group is refused"
    assert stack.outputs["IngressUrl"] != ""


def test_without_samples_nothing_is_registered(stacks: dict[str, Stack]) -> None:
    assert not stacks["no samples"].of("Custom::HoldfastDeployment")
    assert not stacks["no samples"].of("AWS::Lambda::Version")
    assert len(stacks["default"].of("Custom::HoldfastDeployment")) == 4


def test_what_is_registered_is_a_version(stacks: dict[str, Stack]) -> None:
    """`$LATEST` changes under running invocations; a version does not."""
    stack = stacks["default"]
    for registration in stack.of("Custom::HoldfastDeployment").values():
        assert registration["FunctionArn"]["Ref"] in stack.of("AWS::Lambda::Version")
    for name, resource in stack.resources.items():
        if resource["Type"] == "AWS::Lambda::Version":
            assert resource["DeletionPolicy"] == "Retain", f"{name}: invocations may be pinned to it"


def test_the_private_networks_reach_the_ingress_or_who_is_named(stacks: dict[str, Stack]) -> None:
    def callers(stack: Stack, name: str) -> list[str]:
        return [rule["CidrIp"] for rule in stack.resources[name]["Properties"]["SecurityGroupIngress"]]

    private = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"]
    assert callers(stacks["default"], "TaskSecurityGroup") == private
    assert callers(stacks["named callers"], "TaskSecurityGroup") == ["10.1.0.0/16"]
    assert callers(stacks["internal"], "LoadBalancerSecurityGroup") == private
    assert callers(stacks["everything"], "LoadBalancerSecurityGroup") == ["198.51.100.0/24"]


def test_behind_a_load_balancer_nobody_else_reaches_a_task(stacks: dict[str, Stack]) -> None:
    """Tasks may have public addresses, and speak in clear."""
    for variant, stack in stacks.items():
        group, entry = stack.resources["TaskSecurityGroup"]["Properties"], stack.resources.get("FromLoadBalancer")
        assert (entry is not None) == (VARIANTS[variant].get("LoadBalancer", "none") != "none") == (group["SecurityGroupIngress"] == [])
        if entry is not None:
            assert entry["Properties"]["SourceSecurityGroupId"] == {"Ref": "LoadBalancerSecurityGroup"}


def test_replicas_reach_each_other_and_nobody_else_does(stacks: dict[str, Stack]) -> None:
    for stack in stacks.values():
        ways = [stack.resources[name]["Properties"] for name in ("PeersIngress", "PeersEgress")]
        assert [(way["FromPort"], way["ToPort"], way["GroupId"]) for way in ways] == [(9080, 9080, {"Ref": "TaskSecurityGroup"})] * 2
        assert ways[0]["SourceSecurityGroupId"] == ways[1]["DestinationSecurityGroupId"] == ways[0]["GroupId"]


def test_a_target_group_is_replaced_with_its_load_balancer(stacks: dict[str, Stack]) -> None:
    """One that stayed would belong to two, which is refused, and so would be the update."""
    assert set(references(stacks["internal"].only("AWS::ElasticLoadBalancingV2::TargetGroup")["Name"])) == {"IngressLoadBalancer"}


def test_a_load_balancer_lets_go_of_a_connection_first(stacks: dict[str, Stack]) -> None:
    """Where a task does, a call that is on its way then is answered with 502. The setting's default is above that of load balancers."""
    for stack in stacks.values():
        (container,) = stack.only("AWS::ECS::TaskDefinition")["ContainerDefinitions"]
        (idle,) = [one["Value"] for one in container["Environment"] if one["Name"] == "HOLDFAST_INGRESS_IDLE_TIMEOUT"]
        for balancer in stack.of("AWS::ElasticLoadBalancingV2::LoadBalancer").values():
            (waits,) = [one["Value"] for one in balancer["LoadBalancerAttributes"] if one["Key"] == "idle_timeout.timeout_seconds"]
            assert parse_duration(idle) > int(waits) * 1000


def test_cloudformation_does_not_wait_for_ever(stacks: dict[str, Stack]) -> None:
    """For a function that cannot start and hence answers nothing; but long enough for the function, and for a second try of its answer."""
    stack = stacks["default"]
    longest = stack.resources["DeployFunction"]["Properties"]["Timeout"]
    waits = [resource["Properties"]["ServiceTimeout"] for resource in stack.resources.values() if resource["Type"].startswith("Custom::")]
    assert len(waits) == 5
    assert all(longest < wait <= 1_000 for wait in waits)


def test_the_admin_port_is_not_reachable(stacks: dict[str, Stack]) -> None:
    for stack in stacks.values():
        (container,) = stack.only("AWS::ECS::TaskDefinition")["ContainerDefinitions"]
        assert [port["ContainerPort"] for port in container["PortMappings"]] == [8080, 9080]
        rules = [item for group in stack.of("AWS::EC2::SecurityGroup").values() for item in group["SecurityGroupIngress"]]
        rules += stack.of("AWS::EC2::SecurityGroupIngress").values()
        assert not [rule for rule in rules if rule["FromPort"] <= 9070 <= rule["ToPort"]]


@pytest.mark.parametrize(("variant", "function", "container"), [("default", "arm64", "ARM64"), ("other processor", "x86_64", "X86_64")])
def test_everything_runs_on_the_same_processor(stacks: dict[str, Stack], variant: str, function: str, container: str) -> None:
    stack = stacks[variant]
    assert all(one["Architectures"] == [function] for one in stack.of("AWS::Lambda::Function").values())
    assert stack.only("AWS::ECS::TaskDefinition")["RuntimePlatform"]["CpuArchitecture"] == container
