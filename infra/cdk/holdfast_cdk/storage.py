"""What is kept: the table, the bucket of large values, the queues. Table and bucket outlive the stack."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from aws_cdk import Duration, RemovalPolicy
from aws_cdk import aws_dynamodb as dynamodb
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_s3 as s3
from aws_cdk import aws_sqs as sqs
from constructs import Construct


class Storage(Construct):
    """key: for everything; None uses the keys of the services."""

    def __init__(self, scope: Construct, id: str, *, key: kms.IKey | None) -> None:
        super().__init__(scope, id)
        self.table = dynamodb.Table(
            self,
            "Table",
            partition_key=dynamodb.Attribute(name="pk", type=dynamodb.AttributeType.STRING),
            sort_key=dynamodb.Attribute(name="sk", type=dynamodb.AttributeType.STRING),
            billing_mode=dynamodb.BillingMode.PAY_PER_REQUEST,
            time_to_live_attribute="ttl",
            point_in_time_recovery_specification=dynamodb.PointInTimeRecoverySpecification(point_in_time_recovery_enabled=True),
            encryption=dynamodb.TableEncryption.DEFAULT if key is None else dynamodb.TableEncryption.CUSTOMER_MANAGED,
            encryption_key=key,
            removal_policy=RemovalPolicy.RETAIN,
        )
        self.bucket = s3.Bucket(
            self,
            "Bucket",
            block_public_access=s3.BlockPublicAccess.BLOCK_ALL,
            encryption=s3.BucketEncryption.S3_MANAGED if key is None else s3.BucketEncryption.KMS,
            encryption_key=key,
            bucket_key_enabled=True if key is not None else None,
            enforce_ssl=True,
            object_ownership=s3.ObjectOwnership.BUCKET_OWNER_ENFORCED,
            lifecycle_rules=[
                s3.LifecycleRule(id="unfinished", abort_incomplete_multipart_upload_after=Duration.days(1)),
                # What coordinators have found unused; longer than the table can be restored to.
                s3.LifecycleRule(id="condemned", prefix="blob/.condemned/", expiration=Duration.days(40)),
            ],
            removal_policy=RemovalPolicy.RETAIN,
        )
        self.dead_letters = self._queue("DeadLetters", key, retention=Duration.days(14))
        self.inbox = self._queue(
            "Inbox",
            key,
            retention=Duration.days(4),
            visibility=Duration.seconds(60),
            receive_wait=Duration.seconds(20),
            dead_letters=sqs.DeadLetterQueue(queue=self.dead_letters, max_receive_count=5),
        )
        stack = self.inbox.stack
        arns = [f"arn:{stack.partition}:{kind}:*:{stack.account}:{names}" for kind, names in (("events", "rule/*"), ("sns", "*"))]
        self._may_send("RulesAndTopicsOfThisAccount", ["events", "sns"], {"ArnLike": {"aws:SourceArn": arns}})
        # ARNs of buckets name no account.
        self._may_send("BucketsOfThisAccount", ["s3"], {"StringEquals": {"aws:SourceAccount": stack.account}})

    def _may_send(self, sid: str, services: Sequence[str], conditions: Mapping[str, object]) -> None:
        self.inbox.add_to_resource_policy(
            iam.PolicyStatement(
                sid=sid,
                principals=[iam.ServicePrincipal(f"{name}.amazonaws.com") for name in services],
                actions=["sqs:SendMessage"],
                resources=[self.inbox.queue_arn],
                conditions=conditions,
            )
        )

    def _queue(
        self,
        id: str,
        key: kms.IKey | None,
        *,
        retention: Duration,
        visibility: Duration | None = None,
        receive_wait: Duration | None = None,
        dead_letters: sqs.DeadLetterQueue | None = None,
    ) -> sqs.Queue:
        return sqs.Queue(
            self,
            id,
            encryption=sqs.QueueEncryption.SQS_MANAGED if key is None else sqs.QueueEncryption.KMS,
            encryption_master_key=key,
            enforce_ssl=True,
            max_message_size_bytes=1_048_576,  # what the front door counts on, whatever the default is
            retention_period=retention,
            visibility_timeout=visibility,
            receive_message_wait_time=receive_wait,
            dead_letter_queue=dead_letters,
        )
