"""Synthesises the CDK constructs in their own environment: `PYTHONPATH=infra/cdk synthesise.py <folder of a package>`.

Prints {variant: {template, findings}}. Findings are those of cdk-nag's AWS Solutions rules, as "rule resource".
"""

import json
import sys
from pathlib import Path
from typing import Any

from aws_cdk import App, Aspects, Environment, Stack, assertions
from aws_cdk import aws_certificatemanager as acm
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_ecs as ecs
from aws_cdk import aws_kms as kms
from aws_cdk import aws_lambda as lambda_
from cdk_nag import AwsSolutionsChecks
from holdfast_cdk import Exposure, HoldfastCluster

from app import Samples

KEY = "arn:aws:kms:us-east-1:123456789012:key/00000000-0000-0000-0000-000000000000"
CERTIFICATE = "arn:aws:acm:us-east-1:123456789012:certificate/1"
HERE = Environment(account="123456789012", region="us-east-1")


def alone(app: App, package: Path, **options: Any) -> Stack:
    stack = Stack(app, "holdfast", env=HERE)
    if options.pop("key", False):
        options["key"] = kms.Key.from_key_arn(stack, "Key", KEY)
    if options.pop("certificate", False):
        options["certificate"] = acm.Certificate.from_certificate_arn(stack, "Certificate", CERTIFICATE)
    image = ecs.ContainerImage.from_registry("registry.example/holdfast:1")
    code = lambda_.Code.from_asset(str(package))
    cluster = HoldfastCluster(stack, "Holdfast", vpc=ec2.Vpc(stack, "Vpc", max_azs=2), image=image, front_code=code, **options)
    if options.get("api_key_rate"):
        cluster.add_handlers("Limited", limited(stack, code), concurrency=20)
    return stack


def limited(stack: Stack, code: lambda_.Code) -> lambda_.Function:
    return lambda_.Function(stack, "LimitedFunction", code=code, handler="module.handler", runtime=lambda_.Runtime.PYTHON_3_12)


def samples(app: App, package: Path) -> Stack:
    return Samples(
        app, "holdfast", packages=package.parent, image=ecs.ContainerImage.from_registry("registry.example/holdfast:1"), env=HERE
    )


ROLES = "arn:aws:iam::210987654321:role/holdfast-*"


def findings(stack: Stack) -> list[str]:
    found = assertions.Annotations.from_stack(stack).find_error("*", assertions.Match.string_like_regexp("AwsSolutions-.*"))
    return sorted(f"{entry.entry.data.split(':')[0]} {entry.id}" for entry in found)


def main() -> None:
    package = Path(sys.argv[1])
    variants = {
        "samples": samples,
        "internal": lambda app, package: alone(app, package, public=False, exposure=Exposure.INTERNAL, dashboard=False),
        "api key": lambda app, package: alone(app, package, api_key_rate=7),
        "internet": lambda app, package: alone(
            app, package, exposure=Exposure.INTERNET, certificate=True, key=True, invokable=["shop-*"], assumable=[ROLES]
        ),
    }
    found = {}
    for name, make in variants.items():
        app = App()
        stack = make(app, package)
        Aspects.of(app).add(AwsSolutionsChecks())
        found[name] = {"findings": findings(stack), "template": assertions.Template.from_stack(stack).to_json()}
    json.dump(found, sys.stdout)


main()
