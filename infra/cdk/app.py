"""The samples as a CDK app: `cdk deploy --app 'python infra/cdk/app.py'`, after `sam build`, which makes the functions' packages."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from aws_cdk import App, CfnOutput, Environment, Stack
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_ecs as ecs
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_logs as logs
from aws_cdk.aws_ecr_assets import Platform
from constructs import Construct
from holdfast_cdk import HoldfastCluster

ROOT: Final = Path(__file__).resolve().parents[2]
SAMPLES: Final = ("Orders", "Signup", "Cart", "Reminders")


class Samples(Stack):
    """packages: where `sam build` has put the functions."""

    def __init__(
        self, scope: Construct, id: str, *, packages: Path, image: ecs.ContainerImage, env: Environment, vpc: ec2.IVpc | None = None
    ) -> None:
        super().__init__(scope, id, env=env)
        network = vpc or ec2.Vpc(self, "Vpc", max_azs=2, nat_gateways=0)
        front = lambda_.Code.from_asset(str(packages / "EdgeFunction"))
        cluster = HoldfastCluster(self, "Holdfast", vpc=network, image=image, front_code=front)
        for name in SAMPLES:
            function = lambda_.Function(
                self,
                f"{name}Function",
                code=lambda_.Code.from_asset(str(packages / f"{name}Function")),
                handler=f"handlers.{name.lower()}.handler",
                runtime=lambda_.Runtime.PYTHON_3_12,
                architecture=lambda_.Architecture.ARM_64,
                memory_size=512,
                log_group=logs.LogGroup(self, f"{name}Logs", retention=logs.RetentionDays.TWO_WEEKS),
                logging_format=lambda_.LoggingFormat.JSON,
                tracing=lambda_.Tracing.ACTIVE,
            )
            cluster.add_handlers(name, function)
        CfnOutput(self, "TableName", value=cluster.table.table_name)
        CfnOutput(self, "InboxQueueUrl", value=cluster.inbox.queue_url)
        CfnOutput(self, "EdgeUrl", value=cluster.edge_url.url)
        CfnOutput(self, "DeployFunctionArn", value=cluster.deploy.function_arn)


def main() -> None:
    app = App()
    packages = Path(app.node.try_get_context("packages") or ROOT / ".aws-sam/build")
    uri = app.node.try_get_context("image")
    # With `-c image=<registry>/holdfast:1` nothing is built here.
    image = ecs.ContainerImage.from_registry(uri) if uri else ecs.ContainerImage.from_asset(str(ROOT), platform=Platform.LINUX_ARM64)
    here = Environment(account=app.node.try_get_context("account"), region=app.node.try_get_context("region"))
    Samples(app, "holdfast", packages=packages, image=image, env=here)
    app.synth()


if __name__ == "__main__":
    main()
