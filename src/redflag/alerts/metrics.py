"""What /metrics says, in Prometheus' text format.

Totals are right with any number of server processes: they come from the database, where each change is counted in its own
transaction. What only a process knows (the time of a check-in, a step of the log that failed, maybe because the database is
away) goes through prometheus_client's multiprocess files.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from typing import Any

import prometheus_client
from prometheus_client import multiprocess
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from redflag.alerts.faults import sql as faults_sql
from redflag.audit import keeper, sequencer
from redflag.audit.export import forwarding
from redflag.commands import queue
from redflag.commands.states import LIVE
from redflag.database import queries
from redflag.fleet import agents
from redflag.timeouts import sweeper

sql = queries.load(__file__, "metrics.sql")

CHECK_IN_SECONDS = prometheus_client.Histogram(
    "redflag_check_in_seconds",
    "Time from reading a check-in to its answer",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.015, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5),
)
STEP_FAILURES = prometheus_client.Counter(
    "redflag_audit_step_failures", "Steps of the log of the audit trail that failed; should be 0", ["step"]
)
for _step in keeper.STEPS:
    STEP_FAILURES.labels(_step)
FAULT_METRICS = {
    "constraint_violation": (
        "redflag_database_constraint_violations",
        "Constraints violated by the server's own connections; should be 0",
    ),
    "audit_write_refused": (
        "redflag_audit_writes_refused",
        "Records that could not be written, and their changes with them; should be 0",
    ),
    "log_stopped": (
        "redflag_audit_log_stops",
        "Times that the log of the audit trail could not go on, and each four minutes that it lasted; should be 0",
    ),
    "log_rollback_seen": (
        "redflag_audit_log_rollbacks_seen",
        "Times that an agent refused a checkpoint of the log, once an hour for an agent and a reason; should be 0",
    ),
    "log_target_failed": (
        "redflag_audit_log_targets_unreachable",
        "Tries of targets of checkpoints that had failed three times in a row before; should be 0",
    ),
    "forwarder_failed": (
        "redflag_audit_forwarder_failures",
        "Tries of receivers of records that had taken none for a minute or longer; should be 0",
    ),
}
# Counting all records takes long in a large history, and a scrape more or less old does no harm
RECORDS_SECONDS = 15.0

_records: tuple[float, list[Any]] = (float("-inf"), [])


async def render(connection: Any, check_in_interval: int) -> bytes:
    """The whole page."""
    families = [metric async for metric in _families(connection, check_in_interval)]
    registry = prometheus_client.CollectorRegistry()
    registry.register(_Given(families))
    if os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
        multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    else:
        registry.register(CHECK_IN_SECONDS)
        registry.register(STEP_FAILURES)
    return prometheus_client.generate_latest(registry)


class _Given:
    """A collector of metrics that are already there."""

    def __init__(self, metrics: list[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        return self._metrics

    def describe(self) -> Iterator[Metric]:
        return iter(())


async def _families(connection: Any, check_in_interval: int) -> Any:
    timed_out = CounterMetricFamily(
        "redflag_commands_timed_out", "Commands that the timeout service ended", labels=["command_type"]
    )
    stuck = HistogramMetricFamily(
        "redflag_timed_out_stuck_seconds", "How long timed out commands had been stuck", labels=["command_type"]
    )
    for row in await sql.timeouts.all(connection):
        timed_out.add_metric([row["command_type"]], row["timed_out"])
        stuck.add_metric(
            [row["command_type"]],
            _buckets(sweeper.STUCK_BOUNDS, row["stuck_buckets"], row["timed_out"]),
            row["stuck_seconds"],
        )
    yield timed_out
    yield stuck
    late = await sql.lateness.one(connection)
    lateness = HistogramMetricFamily(
        "redflag_timeout_service_lateness_seconds", "How long after its deadline a command was ended"
    )
    buckets = late["buckets"] or [0] * len(sweeper.LATENESS_BOUNDS)
    lateness.add_metric([], _buckets(sweeper.LATENESS_BOUNDS, buckets, late["timed_out"]), late["seconds"])
    yield lateness

    runs = CounterMetricFamily("redflag_timeout_service_runs", "Sweeps", labels=["replica"])
    failures = CounterMetricFamily("redflag_timeout_service_failures", "Sweeps that failed", labels=["replica"])
    success = GaugeMetricFamily(
        "redflag_timeout_service_last_success_timestamp_seconds", "When a sweep last succeeded", labels=["replica"]
    )
    for row in await sql.service.all(connection):
        runs.add_metric([row["replica"]], row["runs"])
        failures.add_metric([row["replica"]], row["failures"])
        if row["last_success"] is not None:
            success.add_metric([row["replica"]], row["last_success"])
    lag = await sweeper.sql.lag.one(connection)
    yield runs
    yield failures
    yield success
    yield GaugeMetricFamily(
        "redflag_timeout_service_overdue_commands", "Commands past their deadline right now", value=lag["overdue"]
    )
    yield GaugeMetricFamily(
        "redflag_timeout_service_lag_seconds",
        "How long the longest overdue command is past its deadline",
        value=lag["lag_seconds"],
    )

    records = CounterMetricFamily("redflag_audit_records", "Records of the audit trail", labels=["kind", "result"])
    for row in await _counted_records(connection):
        records.add_metric([row["kind"], row["result"]], row["records"])
    yield records
    for metric in _log(await sequencer.health(connection)):
        yield metric
    ahead = await sql.months_ahead.value(connection)
    yield GaugeMetricFamily(
        "redflag_audit_partitions_ahead_months", "Months of the record that have a partition waiting", value=ahead
    )
    counted = {row["kind"]: row["faults"] for row in await faults_sql.totals.all(connection)}
    for kind, (name, help_text) in FAULT_METRICS.items():
        yield CounterMetricFamily(name, help_text, value=counted.get(kind, 0))

    async for metric in _checkpoints(connection):
        yield metric
    for metric in _forwarders(await forwarding.listed(connection)):
        yield metric

    commands = GaugeMetricFamily("redflag_commands", "Live commands by status", labels=["status"])
    live = {row["status"]: row["commands"] for row in await queue.sql.counts.all(connection)}
    for status in sorted(LIVE):
        commands.add_metric([status], live.get(status, 0))
    yield commands
    fleet = GaugeMetricFamily("redflag_agents", "Agents by presence", labels=["presence"])
    for presence, count in (await agents.counts(connection, check_in_interval)).items():
        fleet.add_metric([presence], count)
    yield fleet
    yield GaugeMetricFamily(
        "redflag_database_bytes", "Size of the database", value=await sql.database_bytes.value(connection)
    )


async def _checkpoints(connection: Any) -> Any:
    """Each target to which checkpoints are sent."""
    labels = ["kind", "target"]
    success = GaugeMetricFamily(
        "redflag_audit_log_target_last_success_timestamp_seconds",
        "When a checkpoint last reached the target",
        labels=labels,
    )
    failures = CounterMetricFamily(
        "redflag_audit_log_target_failures", "Tries to send a checkpoint that failed", labels=labels
    )
    acknowledged = GaugeMetricFamily(
        "redflag_audit_log_target_records", "Records of the newest checkpoint that the target has", labels=labels
    )
    for row in await sql.targets.all(connection):
        named = [row["kind"], row["name"]]
        failures.add_metric(named, row["failures"])
        acknowledged.add_metric(named, row["acknowledged_size"])
        if row["last_ok"] is not None:
            success.add_metric(named, row["last_ok"])
    yield acknowledged
    yield success
    yield failures


def _forwarders(receivers: list[dict[str, Any]]) -> Iterator[Metric]:
    """Each receiver to which records are sent as they come."""
    labels = ["forwarder"]
    lag = GaugeMetricFamily(
        "redflag_audit_forwarder_lag_records", "Records in a checkpoint that the receiver has not taken", labels=labels
    )
    success = GaugeMetricFamily(
        "redflag_audit_forwarder_last_success_timestamp_seconds", "When the receiver last took records", labels=labels
    )
    for row in receivers:
        lag.add_metric([row["name"]], row["lag"])
        if row["last_ok_at"] is not None:
            success.add_metric([row["name"]], row["last_ok_at"].timestamp())
    yield lag
    yield success


def _log(health: dict[str, Any]) -> Iterator[Metric]:
    """The log of the audit trail: what waits, and for how long, and when its head was signed."""
    yield GaugeMetricFamily(
        "redflag_audit_pending_records", "Records without a position in the log yet", value=health["pending"]
    )
    yield GaugeMetricFamily(
        "redflag_audit_lag_seconds", "Age of the oldest record without a position", value=health["lag_seconds"]
    )
    yield GaugeMetricFamily(
        "redflag_audit_unintegrated_records",
        "Records that have a position and are not in the tree yet",
        value=health["sequenced"] - health["integrated"],
    )
    yield GaugeMetricFamily(
        "redflag_audit_unpublished_seconds",
        "Age of the oldest record that no signed checkpoint has",
        value=health["unpublished_seconds"],
    )
    signed = GaugeMetricFamily("redflag_audit_checkpoint_timestamp_seconds", "When the newest checkpoint was signed")
    if health["published_at"] is not None:
        signed.add_metric([], health["published_at"].timestamp())
    yield signed
    yield GaugeMetricFamily(
        "redflag_audit_checkpoint_records", "Records of the newest checkpoint", value=health["size"]
    )


def count_failed_step(step: str) -> None:
    """One more step of the log that failed in this process."""
    STEP_FAILURES.labels(step).inc()


async def _counted_records(connection: Any) -> list[Any]:
    global _records  # noqa: PLW0603 - a cache of this process
    if time.monotonic() - _records[0] > RECORDS_SECONDS:
        _records = (time.monotonic(), await sql.records.all(connection))
    return _records[1]


def _buckets(bounds: tuple[float, ...], counts: list[int], total: int) -> list[tuple[str, float]]:
    return [(str(float(bound)), float(count)) for bound, count in zip(bounds, counts, strict=True)] + [("+Inf", total)]
