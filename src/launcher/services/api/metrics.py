"""/metrics in Prometheus' text format."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from launcher.auditing import ArtefactsRemoved, HostsAudited
from launcher.messages.notices import InstanceChanged
from launcher.messaging import Context
from launcher.models import InstanceId, VmState

STEP_BUCKETS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Metrics:
    """Counted from the requests and from the event log's notices, so that any API server can show them."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "launcher_http_requests", "Requests by endpoint", ("method", "endpoint", "status"), registry=self.registry
        )
        self.seconds = Histogram(
            "launcher_http_request_seconds", "Time to the answer", ("method", "endpoint"), registry=self.registry
        )
        self.steps = Histogram(
            "launcher_step_seconds", "Launch steps", ("step",), buckets=STEP_BUCKETS, registry=self.registry
        )
        self.ends = Counter("launcher_instances", "Instances that reached a state", ("state",), registry=self.registry)
        self.ready = Gauge("launcher_bus_ready", "Whether the broker can be used", registry=self.registry)
        self.dead = Gauge("launcher_bus_dead_letters", "Poison messages seen", registry=self.registry)
        self.findings = Gauge(
            "launcher_audit_findings", "Differences at the last look", ("trouble", "kind"), registry=self.registry
        )
        self.removed = Counter(
            "launcher_artefacts_removed", "What nobody owned and is gone", ("kind",), registry=self.registry
        )
        self._since: dict[InstanceId, tuple[str, int]] = {}

    async def hear_event(self, ctx: Context, message: InstanceChanged) -> None:
        event = message.event
        step, since_ms = self._since.pop(event.instance_id, (None, 0))
        if step:
            self.steps.labels(step).observe((event.at_ms - since_ms) / 1000)
        if event.task_state:
            self._since[event.instance_id] = (event.task_state, event.at_ms)
        elif event.vm_state is not VmState.BUILDING:
            self.ends.labels(event.vm_state).inc()

    async def hear_audit(self, ctx: Context, message: HostsAudited) -> None:
        self.findings.clear()
        for finding in message.found:
            self.findings.labels(finding.trouble, finding.kind).inc()

    async def hear_removal(self, ctx: Context, message: ArtefactsRemoved) -> None:
        for finding in message.removed:
            self.removed.labels(finding.kind).inc()

    def text(self) -> bytes:
        return generate_latest(self.registry)
