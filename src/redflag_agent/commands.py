"""What the agent does for each command type of the protocol.

A handler takes a Task and returns an Outcome. Promises: nothing from the server reaches a shell or is read as an
option; a type that is unknown, or that this host's configuration does not allow, is refused before it starts; whatever
a handler raises becomes a failed Outcome. Only a command that was cut short because the agent itself stops has no
Outcome: what it did is not known.
"""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import List, Mapping, Optional, Sequence
from urllib.parse import urlsplit

from redflag_agent import facts, runner
from redflag_agent.config import Config
from redflag_agent.errors import AgentError
from redflag_agent.files import utc_now
from redflag_agent.log import logger
from redflag_agent.packages import choose
from redflag_agent.packages.base import Change, ProgramFailed
from redflag_agent.runner import Deadline, Stop
from redflag_agent.task import Handler, Json, Outcome, Task, failed

REBOOT_PATIENCE = 600.0  # seconds after the announced time within which a host should have gone down
UNKNOWN_END = "the agent stopped while the command ran; what it did is unknown"


def refusal(command_type: str, config: Config, handlers: Mapping[str, Handler]) -> Optional[str]:
    """Why a command of this type is not run on this host, or None."""
    if command_type not in handlers:
        return f"this agent does not know the command type {command_type!r}"
    if config.allow_commands is not None and command_type not in config.allow_commands:
        return f"this host does not allow {command_type}; add it to allow_commands in the agent's config.json"
    if command_type == "reboot" and not config.allow_reboot:
        return "this host does not allow reboot; set allow_reboot in the agent's config.json"
    return None


def execute(task: Task, handlers: Mapping[str, Handler]) -> Optional[Outcome]:
    """Run a command to its outcome; None if the agent stops and what it did is unknown."""
    try:
        outcome = handlers[task.type](task)
    except ProgramFailed as error:
        outcome = Outcome("failed", str(error), action=task.type).with_output(error.completed)
    except AgentError as error:
        outcome = failed(str(error), task.type)
    except Exception as error:  # a fault in a handler must end its command, not the agent
        logger.exception("command %s (%s) failed by a fault of the agent", task.id, task.type)
        outcome = failed(f"the agent itself failed: {type(error).__name__}: {error}", task.type)
    if task.ended_by == "stopping":
        return None
    if task.ended_by:
        outcome.result = "failed"
        outcome.killed = task.ended_by == "deadline"
        why = "its deadline had come" if outcome.killed else "the server had ended it"
        outcome.message = f"the agent stopped the command because {why}"
    return outcome


def scan_updates(task: Task) -> Outcome:
    """Report every package that can be upgraded."""
    if not task.host.managers:
        return failed("this host has no package manager that the agent knows", "scan_updates")
    updates: List[Json] = []
    covered: List[str] = []
    lines: List[str] = []
    problem: Optional[ProgramFailed] = None
    for package_type, manager in task.host.managers.items():
        try:
            found = manager.scan(task.run, refresh=task.params.get("refresh") is True)
        except ProgramFailed as error:
            problem = error
            lines.append(f"{package_type}: {error}")
            continue
        security = sum(update.severity in {"important", "critical"} for update in found)
        lines.append(f"{package_type}: {len(found)} packages can be upgraded, {security} of them for security")
        covered.append(package_type)
        updates += [update.to_json() for update in found]
    outcome = Outcome("failed" if problem else "success", "; ".join(lines), action="scan_updates")
    if problem:
        outcome.with_output(problem.completed)
    outcome.stdout = "\n".join(lines) + "\n"
    outcome.metadata = {"count": len(updates), "package_types": covered}
    if covered:
        body = {"command_id": task.id, "timestamp": utc_now(), "package_types": covered, "updates": updates}
        outcome.posts.append(("updates", body))
    return outcome


def dry_run_update(task: Task) -> Outcome:
    """Report what an installation would change besides the packages themselves."""
    manager = choose(task.host.managers, task.params.get("package_type"))
    packages = _packages(task.params)
    if not packages:
        raise AgentError("dry_run_update needs package_name or packages")
    begin = time.monotonic()
    done, changes = manager.plan(task.run, packages)
    others = _others(changes, packages)
    summary = f"{len(changes)} packages would change, {len(others)} besides those asked for"
    outcome = Outcome("success", summary, action="dry_run").with_output(done)
    outcome.metadata = {"changes": [asdict(change) for change in changes[:500]]}
    result = {
        "success": True,
        "error_message": "",
        "stdout": done.stdout,
        "stderr": done.stderr,
        "exit_code": done.exit_code,
        "duration_seconds": round(time.monotonic() - begin),
        "action": "dry_run",
        "packages_installed": [change.name for change in changes if change.action != "remove"],
        "containers_updated": [],
        "dependencies": others,
        "is_dry_run": True,
    }
    body = {
        "package_name": str(task.params.get("package_name") or packages[0]),
        "package_type": manager.package_type,
        "dependencies": others,
        "update_id": task.params.get("update_id"),
        "dry_run_result": result,
    }
    outcome.posts.append(("dependencies", body))
    return outcome


def install_updates(task: Task) -> Outcome:
    """Install or upgrade what was named, or everything if only the package type was."""
    manager = choose(task.host.managers, task.params.get("package_type"))
    packages = _packages(task.params)
    done = manager.install(task.run, packages, may_remove=False)
    what = ", ".join(packages)[:200] if packages else "everything that could be upgraded"
    return Outcome("success", f"installed {what}", action="install" if packages else "upgrade").with_output(done)


def confirm_dependencies(task: Task) -> Outcome:
    """Install a package, provided that it changes nothing besides what a dry run showed and the server confirmed."""
    manager = choose(task.host.managers, task.params.get("package_type"))
    packages = _packages(task.params)
    if not packages:
        raise AgentError("confirm_dependencies needs package_name")
    confirmed = _names(task.params.get("dependencies"), "dependencies")
    _, changes = manager.plan(task.run, packages)
    surprises = [name for name in _others(changes, packages) if name not in confirmed]
    if surprises:
        raise AgentError(
            f"the installation would now also change {', '.join(surprises)[:500]}; make a new dry run and confirm that"
        )
    done = manager.install(task.run, packages, may_remove=True)
    return Outcome("success", f"installed {', '.join(packages)}", action="install_with_dependencies").with_output(done)


def enable_heartbeat(task: Task) -> Outcome:
    """Check in every few seconds for a while."""
    minutes = _minutes(task.params.get("duration_minutes"), 10, least=1)
    task.host.set_rapid(minutes)
    return Outcome("success", f"rapid check-ins for {minutes} min", action="enable_heartbeat")


def disable_heartbeat(task: Task) -> Outcome:
    """Check in at the normal interval again."""
    task.host.set_rapid(0)
    return Outcome("success", "rapid check-ins are off", action="disable_heartbeat")


def collect_specs(task: Task) -> Outcome:
    """Report what the host is made of."""
    specs = facts.system_info(urlsplit(task.host.config.server).hostname or "")
    return Outcome("success", "specifications collected", action="collect_specs", posts=[("system-info", specs)])


def reboot(task: Task) -> Outcome:
    """Restart the host. Its success is found after the restart, by the boot id: here it can only fail."""
    minutes = _minutes(task.params.get("delay_minutes"), 1, least=0)
    text = "".join(c for c in str(task.params.get("message") or "") if c.isprintable())[:200]
    done = task.run(["shutdown", "-r", "--", f"+{minutes}", text or "restart ordered through RedFlag"])
    if not done.ok:
        return Outcome("failed", "the restart could not be ordered", action="reboot").with_output(done)
    task.message = f"the host restarts in {minutes} min"
    gone_by = minutes * 60 + REBOOT_PATIENCE
    if task.stop.wait(min(gone_by, task.deadline.remaining())):
        task.ended_by = task.stop.reason
    elif task.deadline.remaining() <= 0:
        task.ended_by = "deadline"
    if task.ended_by != "stopping":
        runner.run(["shutdown", "-c"], Deadline(30), Stop())
    return Outcome("failed", "the host did not restart; the order was withdrawn", action="reboot").with_output(done)


HANDLERS: Mapping[str, Handler] = {
    "scan_updates": scan_updates,
    "dry_run_update": dry_run_update,
    "install_updates": install_updates,
    "confirm_dependencies": confirm_dependencies,
    "enable_heartbeat": enable_heartbeat,
    "disable_heartbeat": disable_heartbeat,
    "collect_specs": collect_specs,
    "reboot": reboot,
}
# These take no time and must not wait behind an installation, which may be what they are meant to watch.
IMMEDIATE = frozenset({"enable_heartbeat", "disable_heartbeat"})


def _packages(params: Json) -> List[str]:
    """The packages that a command names; an empty list only if it names none at all, for that may mean everything."""
    if params.get("packages") is not None:
        packages = _names(params["packages"], "packages")
        if not packages:
            raise AgentError("the command has an empty list of packages; name one, or leave the list out")
        return packages
    name = params.get("package_name")
    return [] if name in {None, ""} else _names([name], "package_name")


def _names(value: object, what: str) -> List[str]:
    if not isinstance(value, list) or not all(isinstance(name, str) and name for name in value):
        raise AgentError(f"{what} must be a list of package names")
    return list(dict.fromkeys(value))


def _others(changes: Sequence[Change], packages: Sequence[str]) -> List[str]:
    asked = {package.partition("=")[0] for package in packages}
    return list(
        dict.fromkeys(change.name for change in changes if change.name not in asked or change.action == "remove")
    )


def _minutes(value: object, default: int, *, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value <= 10080:
        return default
    return int(value)
