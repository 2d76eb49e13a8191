"""The agents' routes, and the files with which a host becomes an agent."""

from __future__ import annotations

from starlette.routing import Route

from redflag.web.agent import checkin, enrol, log_alarm, reports, wire

# What an agent that has a token calls, below /api/v1/agents/{agent_id}/. The gate answers these itself when it can
CALLS: dict[tuple[str, str], wire.Caller] = {
    ("GET", "commands"): checkin.check_in,
    ("POST", "progress"): checkin.progress,
    ("POST", "logs"): reports.logs,
    ("POST", "updates"): reports.updates,
    ("POST", "dependencies"): reports.report_dependencies,
    ("POST", "system-info"): reports.system_info,
    ("POST", "log-alarm"): log_alarm.log_alarm,
}

routes = [
    Route("/api/v1/agents/register", enrol.register, methods=["POST"]),
    Route("/api/v1/agents/renew", enrol.renew, methods=["POST"]),
    *(
        Route("/api/v1/agents/{agent_id}/" + name, wire.endpoint(caller), methods=[method])
        for (method, name), caller in CALLS.items()
    ),
]
