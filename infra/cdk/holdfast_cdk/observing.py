"""What people look at, and what calls them: the dashboard and the alarms of a cluster, the same as the template's.

Rules: everything is a child of the cluster itself, so that the names that CloudFormation knows it by do not change with our files.
Numbers that coordinators tell of themselves once a minute are in the namespace Holdfast, by the name of the stack (docs/operations.md).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from aws_cdk import Duration, Stack
from aws_cdk import aws_cloudwatch as cloudwatch

if TYPE_CHECKING:
    from holdfast_cdk.cluster import HoldfastCluster

# Alarms on what coordinators tell of themselves: metric, statistic, minutes, threshold, periods, what is wrong (docs/operations.md).
TOLD: Final = {
    "PoisonMessages": ("MessagesRefused", "Sum", 5, 0, 1, "A message cannot become an invocation; see inbox.refused."),
    "PagesNotWritten": ("OldestDirtyPageAge", "Maximum", 5, 3600, 1, "Changed pages have not been written to the table for an hour."),
    "ShardsWithoutOwner": ("ShardsUnowned", "Minimum", 5, 0, 2, "A part of the work has had no coordinator for ten minutes."),
    "ShardsLostOften": ("ShardsLost", "Sum", 15, 8, 2, "Coordinators lose shards to each other, or stand still; see shard.lost."),
    "SlowAppends": ("AppendLatencyP99", "Average", 5, 1000, 3, "Writing to the log takes more than a second; see log.retry."),
    "WakeupsFailing": ("WakeupsFailed", "Sum", 15, 10, 2, "Schedules for far timers are refused; see wakeups.failed."),
}
WIDTH: Final = 12  # of a widget: two in a row
HEIGHT: Final = 6


def alarms(cluster: HoldfastCluster) -> list[cloudwatch.Alarm]:
    """Without actions: whose stack it is adds its own."""
    missing = cloudwatch.TreatMissingData
    minutes = Duration.minutes(5)
    sampled = cluster.service.metric_cpu_utilization(statistic="SampleCount", period=minutes)
    throttled = _of_table(cluster, "WriteThrottleEvents", minutes)
    refused = cluster.dead_letters.metric_approximate_number_of_messages_visible(statistic="Maximum", period=minutes)
    oldest = cluster.inbox.metric_approximate_age_of_oldest_message(statistic="Maximum", period=minutes)
    above, below = cloudwatch.ComparisonOperator.GREATER_THAN_THRESHOLD, cloudwatch.ComparisonOperator.LESS_THAN_THRESHOLD
    # name: metric, threshold, comparison, periods, what no data means, what to do
    wanted = {
        "RefusedMessages": (refused, 0, above, 1, missing.NOT_BREACHING, "Messages could not become invocations; see inbox.refused."),
        "OldMessages": (oldest, 300, above, 2, missing.NOT_BREACHING, "Nobody takes messages. Is the coordinator running?"),
        "NoCoordinator": (sampled, 1, below, 2, missing.BREACHING, "No coordinator has reported for ten minutes."),
        "Throttled": (throttled, 100, above, 2, missing.NOT_BREACHING, "DynamoDB throttles the table; work slows down."),
        **{
            name: (_told(cluster, metric, statistic, Duration.minutes(period)), threshold, above, periods, missing.NOT_BREACHING, text)
            for name, (metric, statistic, period, threshold, periods, text) in TOLD.items()
        },
    }
    return [
        cloudwatch.Alarm(
            cluster,
            name,
            metric=metric,
            threshold=threshold,
            comparison_operator=comparison,
            evaluation_periods=periods,
            treat_missing_data=absent,
            alarm_description=text,
        )
        for name, (metric, threshold, comparison, periods, absent, text) in wanted.items()
    ]


def dashboard(cluster: HoldfastCluster) -> cloudwatch.Dashboard:
    """`<stack>-holdfast`: five graphs, and the last warnings of the log."""
    minute, minutes = Duration.minutes(1), Duration.minutes(5)
    table = [_of_table(cluster, f"Consumed{kind}CapacityUnits", minute) for kind in ("Write", "Read")]
    queues = [
        cluster.inbox.metric_approximate_number_of_messages_visible(statistic="Maximum", period=minute),
        cluster.inbox.metric_approximate_age_of_oldest_message(statistic="Maximum", period=minute),
        cluster.dead_letters.metric_approximate_number_of_messages_visible(statistic="Maximum", period=minute),
    ]
    coordinators = [
        cluster.service.metric_cpu_utilization(statistic="Average", period=minute),
        cluster.service.metric_memory_utilization(statistic="Average", period=minute),
    ]
    slow, old = (_told(cluster, name, "Maximum", minute) for name in ("AppendLatencyP99", "OldestDirtyPageAge"))
    trouble = [_told(cluster, name, "Sum", minutes) for name in ("MessagesRefused", "ShardsLost", "WakeupsFailed")]
    unowned = _told(cluster, "ShardsUnowned", "Minimum", minutes)
    return cloudwatch.Dashboard(
        cluster,
        "Dashboard",
        dashboard_name=f"{Stack.of(cluster).stack_name}-holdfast",
        widgets=[
            [
                _graph("Table, units", "Sum", minute, [*table, _of_table(cluster, "WriteThrottleEvents", minute)]),
                _graph("Queues", "Maximum", minute, queues),
            ],
            [_graph("Coordinators", "Average", minute, coordinators), _warnings(cluster)],
            [_graph("Log and pages", "Maximum", minute, [slow], right=[old]), _graph("Trouble", "Sum", minutes, [*trouble, unowned])],
        ],
    )


def _graph(
    title: str, statistic: str, period: Duration, left: list[cloudwatch.Metric], *, right: list[cloudwatch.Metric] | None = None
) -> cloudwatch.GraphWidget:
    """right: what has another unit, on the axis on the right."""
    return cloudwatch.GraphWidget(title=title, width=WIDTH, height=HEIGHT, statistic=statistic, period=period, left=left, right=right)


def _warnings(cluster: HoldfastCluster) -> cloudwatch.LogQueryWidget:
    query = ["fields @timestamp, @message", "filter level in ['WARNING', 'ERROR']", "sort @timestamp desc", "limit 50"]
    names = [cluster.log_group.log_group_name]
    return cloudwatch.LogQueryWidget(title="Warnings", width=WIDTH, height=HEIGHT, log_group_names=names, query_lines=query)


def _of_table(cluster: HoldfastCluster, metric: str, period: Duration) -> cloudwatch.Metric:
    """The sum of one of DynamoDB's metrics over all operations of the table."""
    by = {"TableName": cluster.table.table_name}
    return cloudwatch.Metric(namespace="AWS/DynamoDB", metric_name=metric, dimensions_map=by, statistic="Sum", period=period)


def _told(cluster: HoldfastCluster, metric: str, statistic: str, period: Duration) -> cloudwatch.Metric:
    """What coordinators tell of themselves once a minute."""
    by = {"Cluster": Stack.of(cluster).stack_name}
    return cloudwatch.Metric(namespace="Holdfast", metric_name=metric, dimensions_map=by, statistic=statistic, period=period)
