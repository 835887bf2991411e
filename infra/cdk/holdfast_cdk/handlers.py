"""A function that serves handlers: a version with each deployment, and the version registered."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aws_cdk import CustomResource, RemovalPolicy
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from constructs import Construct

if TYPE_CHECKING:
    from holdfast_cdk.cluster import HoldfastCluster


class HoldfastHandlers(Construct):
    """Registers versions, because invocations stay on the code they began with; `$LATEST` would change under them.

    Former versions are retained when a deployment replaces them: invocations may be pinned to them.

    concurrency: so many attempts at once, in each replica; None: the coordinator's own limit.
    """

    def __init__(
        self, scope: Construct, id: str, *, cluster: HoldfastCluster, function: lambda_.Function, concurrency: int | None = None
    ) -> None:
        super().__init__(scope, id)
        self.function = function
        self.version = function.current_version
        self.version.apply_removal_policy(RemovalPolicy.RETAIN)
        role = cluster.definition.task_role
        allowed = iam.PolicyStatement(actions=["lambda:InvokeFunction"], resources=[f"{function.function_arn}:*"])
        role.add_to_principal_policy(allowed)
        self.registration = CustomResource(
            self,
            "Registration",
            service_token=cluster.deploy.function_arn,
            resource_type="Custom::HoldfastDeployment",
            service_timeout=cluster.patience,
            properties={
                "Action": "register",
                "FunctionArn": self.version.function_arn,
                **({} if concurrency is None else {"Concurrency": str(concurrency)}),
            },
        )
        self.registration.node.add_dependency(cluster.service)
