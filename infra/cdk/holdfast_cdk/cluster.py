"""The coordinators with everything around them: storage, wake-ups, network, front door, set-up, alarms and dashboard."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from aws_cdk import CustomResource, Duration, Fn, Stack
from aws_cdk import aws_apigateway as apigateway
from aws_cdk import aws_certificatemanager as acm
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_ecs as ecs
from aws_cdk import aws_elasticloadbalancingv2 as elb
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_logs as logs
from aws_cdk import aws_scheduler as scheduler
from aws_cdk import aws_servicediscovery as discovery
from constructs import Construct

from holdfast_cdk import observing
from holdfast_cdk.handlers import HoldfastHandlers
from holdfast_cdk.storage import Storage

INGRESS, PEERS = 8080, 9080
PRIVATE = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")
TABLE_ACTIONS = ("PutItem", "UpdateItem", "DeleteItem", "GetItem", "BatchGetItem", "Query", "Scan")
SETUP_ACTIONS = (
    "DescribeTable",
    "DescribeTimeToLive",
    "DescribeContinuousBackups",
    "UpdateTimeToLive",
    "UpdateContinuousBackups",
    "GetItem",
    "PutItem",
    "UpdateItem",
)
# Of keys of one's own. DynamoDB asks for all of these in the name of whoever writes.
KEY_ACTIONS = ("Decrypt", "GenerateDataKey", "DescribeKey", "Encrypt", "ReEncryptFrom", "ReEncryptTo")
# What starting a task needs: pulling the image, from wherever in the account it is, and writing logs.
EXECUTION = "service-role/AmazonECSTaskExecutionRolePolicy"
HEALTH = "import urllib.request as r; r.urlopen('http://127.0.0.1:8080/restate/health', timeout=8)"


class Exposure(enum.Enum):
    """What stands before the ingress. NONE: callers in the VPC use the name coordinator.<stack>.local."""

    NONE = "none"
    INTERNAL = "internal"
    INTERNET = "internet-facing"


@dataclass(frozen=True)
class Size:
    """cpu: 1024 are one core, and a coordinator uses one at most. shards: fixed for ever, at least as many as there will be replicas."""

    replicas: int = 1
    cpu: int = 256
    memory_mb: int = 512
    shards: int = 8


@dataclass(frozen=True)
class Network:
    """allowed: CIDRs that reach the ingress. certificate: for HTTPS at a load balancer; required on the internet."""

    vpc: ec2.IVpc
    public: bool = True
    exposure: Exposure = Exposure.NONE
    certificate: acm.ICertificate | None = None
    allowed: Sequence[str] = field(default=PRIVATE)


class HoldfastCluster(Construct):
    """image: of the coordinator. front_code: the package that `sam build EdgeFunction` makes; it serves the front door and deployments.

    `table`, `bucket`, `inbox`, `dead_letters`, `service`, `edge`, `edge_url`, `edge_api`, `deploy`, `log_group`, `alarms` and
    `dashboard` (None without one) are there to be built upon.
    """

    def __init__(
        self,
        scope: Construct,
        id: str,
        *,
        vpc: ec2.IVpc,
        image: ecs.ContainerImage,
        front_code: lambda_.Code,
        size: Size | None = None,
        public: bool = True,
        exposure: Exposure = Exposure.NONE,
        certificate: acm.ICertificate | None = None,
        allowed: Sequence[str] = PRIVATE,
        key: kms.IKey | None = None,
        invokable: Sequence[str] = (),
        assumable: Sequence[str] = (),
        api_key_rate: int | None = None,
        log_retention: logs.RetentionDays = logs.RetentionDays.TWO_WEEKS,
        dashboard: bool = True,
    ) -> None:
        """invokable: names, with wildcards, of functions that may be invoked beside those of `add_handlers`.

        assumable: ARNs, with wildcards in their names, of roles that may be assumed to invoke functions elsewhere.
        api_key_rate: puts an API with a key before the front door, which takes so many requests a second; None: only IAM lets in.
        dashboard: False for an account that has its own; AWS charges for more than three.
        """
        super().__init__(scope, id)
        if exposure is Exposure.INTERNET and certificate is None:
            raise ValueError("a load balancer on the internet needs a certificate")
        if "0.0.0.0/0" in allowed and exposure is not Exposure.INTERNET:
            raise ValueError("0.0.0.0/0 may reach a load balancer on the internet only; the ingress of the tasks speaks in clear")
        self.patience = Duration.minutes(15)  # with a deploy function that cannot even start, and hence answers nothing
        self._size, self._key, self._retention = size or Size(), key, log_retention
        if self._size.replicas > self._size.shards:
            raise ValueError(f"{self._size.replicas} replicas need as many shards; found {self._size.shards}, which are fixed for ever")
        self._network = Network(vpc, public, exposure, certificate, allowed)
        storage = Storage(self, "Storage", key=key)
        self.table, self.bucket, self.inbox, self.dead_letters = storage.table, storage.bucket, storage.inbox, storage.dead_letters
        self._wakeups()
        self._definition(image, invokable, assumable)
        self._front(front_code)
        self._keys(api_key_rate)
        self._service()
        self._expose()
        self.alarms = observing.alarms(self)
        self.dashboard = observing.dashboard(self) if dashboard else None

    def add_handlers(self, id: str, function: lambda_.Function, *, concurrency: int | None = None) -> HoldfastHandlers:
        """Publishes a version of the function with each deployment, lets the coordinators invoke it, and registers it.

        concurrency: so many attempts at once, in each replica.
        """
        return HoldfastHandlers(self, id, cluster=self, function=function, concurrency=concurrency)

    # -- parts

    def _log_group(self, id: str) -> logs.LogGroup:
        return logs.LogGroup(self, id, retention=self._retention, encryption_key=self._key)

    def _wakeups(self) -> None:
        stack = Stack.of(self)
        self.schedule_group = scheduler.CfnScheduleGroup(self, "ScheduleGroup", name=f"{stack.stack_name}-timers")
        source = {"StringEquals": {"aws:SourceAccount": stack.account}}
        self.wakeup_role = iam.Role(self, "WakeupRole", assumed_by=iam.ServicePrincipal("scheduler.amazonaws.com", conditions=source))
        self._allow(self.wakeup_role, ["sqs:SendMessage"], [self.inbox.queue_arn])
        self._allow_key(self.wakeup_role, KEY_ACTIONS[:2])

    def _definition(self, image: ecs.ContainerImage, invokable: Sequence[str], assumable: Sequence[str]) -> None:
        stack = Stack.of(self)
        self.definition = ecs.FargateTaskDefinition(
            self,
            "Coordinator",
            cpu=self._size.cpu,
            memory_limit_mib=self._size.memory_mb,
            runtime_platform=ecs.RuntimePlatform(
                cpu_architecture=ecs.CpuArchitecture.ARM64, operating_system_family=ecs.OperatingSystemFamily.LINUX
            ),
        )
        self.definition.obtain_execution_role().add_managed_policy(iam.ManagedPolicy.from_aws_managed_policy_name(EXECUTION))
        role = self.definition.task_role
        self._allow(role, [f"dynamodb:{name}" for name in TABLE_ACTIONS], [self.table.table_arn])
        self._allow(role, ["s3:ListBucket"], [self.bucket.bucket_arn])
        self._allow(role, ["s3:PutObject", "s3:GetObject", "s3:DeleteObject"], [self.bucket.arn_for_objects("blob/*")])
        receiving = ["sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:ChangeMessageVisibility", "sqs:GetQueueAttributes"]
        self._allow(role, receiving, [self.inbox.queue_arn])
        schedules = stack.format_arn(service="scheduler", resource="schedule", resource_name=f"{self.schedule_group.ref}/*")
        wakeups = ["scheduler:CreateSchedule", "scheduler:UpdateSchedule", "scheduler:GetScheduleGroup"]
        self._allow(role, wakeups, [schedules, self.schedule_group.attr_arn])
        passed = {"StringEquals": {"iam:PassedToService": "scheduler.amazonaws.com"}}
        self._allow(role, ["iam:PassRole"], [self.wakeup_role.role_arn], conditions=passed)
        if invokable:
            names = [variant for name in invokable for variant in (name, f"{name}:*")]
            functions = [f"arn:{stack.partition}:lambda:{stack.region}:{stack.account}:function:{name}" for name in names]
            self._allow(role, ["lambda:InvokeFunction"], functions)
        if assumable:
            self._allow(role, ["sts:AssumeRole"], assumable)
        self._allow_key(role)
        self.log_group = self._log_group("Logs")
        self.definition.add_container(
            "coordinator",
            image=image,
            readonly_root_filesystem=True,
            stop_timeout=Duration.seconds(60),  # for handing the shards over
            linux_parameters=ecs.LinuxParameters(self, "Linux", init_process_enabled=True),
            port_mappings=[ecs.PortMapping(container_port=port) for port in (INGRESS, PEERS)],
            environment={
                "HOLDFAST_STORE": f"dynamodb://{self.table.table_name}",
                "HOLDFAST_INBOX_QUEUE_URL": self.inbox.queue_url,
                "HOLDFAST_WAKEUP_SCHEDULE_GROUP": self.schedule_group.ref,
                "HOLDFAST_WAKEUP_ROLE_ARN": self.wakeup_role.role_arn,
                "HOLDFAST_PEERS": f"0.0.0.0:{PEERS}",
                "HOLDFAST_CLUSTER_NAME": stack.stack_name,
                "HOLDFAST_METRICS_EMF": "on",
                # Longer than the load balancer keeps a connection: it would answer 502 to a call that crosses the end of one.
                "HOLDFAST_INGRESS_IDLE_TIMEOUT": "75s" if self._network.exposure is Exposure.NONE else "70m",
                "AWS_REGION": stack.region,
            },
            health_check=ecs.HealthCheck(
                command=["CMD", "python", "-c", HEALTH],
                interval=Duration.seconds(30),
                timeout=Duration.seconds(10),
                retries=3,
                start_period=Duration.seconds(60),
            ),
            logging=ecs.LogDrivers.aws_logs(stream_prefix="coordinator", log_group=self.log_group, mode=ecs.AwsLogDriverMode.NON_BLOCKING),
        )

    def _front(self, code: lambda_.Code) -> None:
        self.edge = self._function("Edge", "holdfast_runtime.edge.app.handler", code, Duration.seconds(10))
        self._allow_key(self.edge.role, KEY_ACTIONS[:3])
        self._allow(self.edge.role, ["dynamodb:GetItem", "dynamodb:Query"], [self.table.table_arn])
        self._allow(self.edge.role, ["s3:GetObject"], [self.bucket.arn_for_objects("blob/*")])
        self.edge_url = self.edge.add_function_url(auth_type=lambda_.FunctionUrlAuthType.AWS_IAM)
        self.deploy = self._function("Deploy", "holdfast_runtime.edge.deploy.handler", code, Duration.minutes(10))
        self._allow(self.deploy.role, [f"dynamodb:{name}" for name in SETUP_ACTIONS], [self.table.table_arn])
        self._allow_key(self.deploy.role)
        self.set_up = CustomResource(
            self,
            "TableSetup",
            service_token=self.deploy.function_arn,
            resource_type="Custom::HoldfastSetup",
            service_timeout=self.patience,
            properties={"Action": "setup", "Shards": str(self._size.shards), "Bucket": self.bucket.bucket_name},
        )
        if self.deploy.role is not None:
            self.set_up.node.add_dependency(self.deploy.role)  # with its policies

    def _keys(self, rate: int | None) -> None:
        """Keys are for telling callers apart and for limiting them; whoever has one may send anything."""
        self.edge_api: apigateway.RestApi | None = None
        self.edge_key: apigateway.IApiKey | None = None
        if rate is None:
            return
        self.edge_api = apigateway.RestApi(
            self,
            "EdgeApi",
            rest_api_name=f"{Stack.of(self).stack_name}-edge",
            endpoint_types=[apigateway.EndpointType.REGIONAL],
            binary_media_types=["*/*"],
            cloud_watch_role=False,  # there is one for the whole account
            deploy_options=apigateway.StageOptions(stage_name="v1", tracing_enabled=True),
        )
        integration = apigateway.LambdaIntegration(self.edge, allow_test_invoke=False)
        self.edge_api.root.add_resource("{proxy+}").add_method("ANY", integration, api_key_required=True)
        plan = self.edge_api.add_usage_plan("Callers", throttle=apigateway.ThrottleSettings(rate_limit=rate, burst_limit=rate))
        plan.add_api_stage(stage=self.edge_api.deployment_stage)
        self.edge_key = self.edge_api.add_api_key("EdgeKey")
        plan.add_api_key(self.edge_key)

    def _function(self, id: str, handler: str, code: lambda_.Code, timeout: Duration) -> lambda_.Function:
        function = lambda_.Function(
            self,
            id,
            code=code,
            handler=handler,
            runtime=lambda_.Runtime.PYTHON_3_12,
            architecture=lambda_.Architecture.ARM_64,
            timeout=timeout,
            memory_size=512,
            tracing=lambda_.Tracing.ACTIVE,
            log_group=self._log_group(f"{id}Logs"),
            logging_format=lambda_.LoggingFormat.JSON,
            environment={"HOLDFAST_STORE": f"dynamodb://{self.table.table_name}", "HOLDFAST_INBOX_QUEUE_URL": self.inbox.queue_url},
        )
        self._allow(function.role, ["sqs:SendMessage"], [self.inbox.queue_arn])
        return function

    def _service(self) -> None:
        net, stack = self._network, Stack.of(self)
        self.security_group = ec2.SecurityGroup(self, "Coordinators", vpc=net.vpc, allow_all_outbound=False, description="Coordinators")
        self.security_group.add_egress_rule(ec2.Peer.any_ipv4(), ec2.Port.tcp(443), "AWS services and handlers over HTTPS")
        for group_rule in (self.security_group.add_ingress_rule, self.security_group.add_egress_rule):
            group_rule(self.security_group, ec2.Port.tcp(PEERS), "replicas among themselves")
        if net.exposure is Exposure.NONE:
            for cidr in net.allowed:
                self.security_group.add_ingress_rule(ec2.Peer.ipv4(cidr), ec2.Port.tcp(INGRESS), "ingress")
        self.ecs_cluster = ecs.Cluster(self, "Cluster", vpc=net.vpc)
        namespace = discovery.PrivateDnsNamespace(self, "Namespace", name=f"{stack.stack_name}.local", vpc=net.vpc)
        kind = ec2.SubnetType.PUBLIC if net.public else ec2.SubnetType.PRIVATE_WITH_EGRESS
        self.service = ecs.FargateService(
            self,
            "Service",
            cluster=self.ecs_cluster,
            task_definition=self.definition,
            desired_count=self._size.replicas,
            min_healthy_percent=100,
            max_healthy_percent=200,
            assign_public_ip=net.public,
            vpc_subnets=ec2.SubnetSelection(subnet_type=kind),
            security_groups=[self.security_group],
            circuit_breaker=ecs.DeploymentCircuitBreaker(rollback=True),
            propagate_tags=ecs.PropagatedTagSource.SERVICE,
            cloud_map_options=ecs.CloudMapOptions(name="coordinator", cloud_map_namespace=namespace, dns_ttl=Duration.seconds(10)),
        )
        self.service.node.add_dependency(self.set_up)

    def _expose(self) -> None:
        net = self._network
        self.load_balancer: elb.ApplicationLoadBalancer | None = None
        if net.exposure is Exposure.NONE:
            return
        group = ec2.SecurityGroup(self, "Callers", vpc=net.vpc, allow_all_outbound=False, description="Load balancer of the coordinators")
        self.load_balancer = elb.ApplicationLoadBalancer(
            self,
            "LoadBalancer",
            vpc=net.vpc,
            internet_facing=net.exposure is Exposure.INTERNET,
            security_group=group,
            idle_timeout=Duration.seconds(4000),  # calls wait for their result
            drop_invalid_header_fields=True,
        )
        secure = net.certificate is not None
        listener = self.load_balancer.add_listener(
            "Listener",
            port=443 if secure else 80,
            protocol=elb.ApplicationProtocol.HTTPS if secure else elb.ApplicationProtocol.HTTP,
            certificates=[elb.ListenerCertificate.from_certificate_manager(net.certificate)] if net.certificate is not None else None,
            ssl_policy=elb.SslPolicy.RECOMMENDED_TLS if secure else None,
            open=False,
        )
        for cidr in net.allowed:
            group.add_ingress_rule(ec2.Peer.ipv4(cidr), ec2.Port.tcp(443 if secure else 80), "callers")
        # Named after its load balancer, so that both are replaced together (another scheme, other subnets): no target group serves two.
        name = f"holdfast-{Fn.select(2, Fn.split('/', self.load_balancer.load_balancer_full_name))}"
        listener.add_targets(
            "Coordinators",
            target_group_name=name,
            port=INGRESS,
            protocol=elb.ApplicationProtocol.HTTP,
            targets=[self.service],
            deregistration_delay=Duration.seconds(30),
            health_check=elb.HealthCheck(
                path="/restate/health", interval=Duration.seconds(10), healthy_threshold_count=2, unhealthy_threshold_count=2
            ),
        )

    # -- permissions

    def _allow(
        self,
        role: iam.IGrantable | None,
        actions: Sequence[str],
        resources: Sequence[str],
        *,
        conditions: Mapping[str, object] | None = None,
    ) -> None:
        """Statement by statement, because grants of the CDK give more than is needed (scans, indexes, listing)."""
        assert role is not None
        statement = iam.PolicyStatement(actions=list(actions), resources=list(resources), conditions=conditions)
        role.grant_principal.add_to_principal_policy(statement)

    def _allow_key(self, role: iam.IGrantable | None, names: Sequence[str] = KEY_ACTIONS) -> None:
        if self._key is not None:
            self._allow(role, [f"kms:{name}" for name in names], [self._key.key_arn])
