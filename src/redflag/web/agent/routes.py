"""The agents' routes, and the files with which a host becomes an agent."""

from __future__ import annotations

from starlette.routing import Route

from redflag.web.agent import checkin, enrol, log_alarm, reports

routes = [
    Route("/api/v1/agents/register", enrol.register, methods=["POST"]),
    Route("/api/v1/agents/renew", enrol.renew, methods=["POST"]),
    Route("/api/v1/agents/{agent_id}/commands", checkin.check_in, methods=["GET"]),
    Route("/api/v1/agents/{agent_id}/progress", checkin.progress, methods=["POST"]),
    Route("/api/v1/agents/{agent_id}/logs", reports.logs, methods=["POST"]),
    Route("/api/v1/agents/{agent_id}/updates", reports.updates, methods=["POST"]),
    Route("/api/v1/agents/{agent_id}/dependencies", reports.report_dependencies, methods=["POST"]),
    Route("/api/v1/agents/{agent_id}/system-info", reports.system_info, methods=["POST"]),
    Route("/api/v1/agents/{agent_id}/log-alarm", log_alarm.log_alarm, methods=["POST"]),
]
