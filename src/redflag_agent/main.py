"""The command line: redflag-agent enroll | run | scan | status | pin-log | version.

Every failure is one sentence on stderr with the next step, and an exit code from `errors`; a traceback never reaches
the user.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence

from redflag_agent import __version__, config, facts, journal, log, packages, runner, witness
from redflag_agent.client import Client
from redflag_agent.errors import AgentError, ConfigError, PackageError, ServerUnreachable, UsageError
from redflag_agent.files import CONFIG_NAME, StateLock, private_directory, utc_now
from redflag_agent.loop import Agent, read_status
from redflag_verify import Key, vkey

SCAN_DEADLINE = 1800.0


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run one command; its exit code."""
    arguments = _parser().parse_args(argv)
    try:
        result: int = arguments.function(arguments)
        sys.stdout.flush()
        return result
    except AgentError as error:
        print(f"redflag-agent: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader of our output has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        print(
            f"redflag-agent: a fault of the agent: {type(error).__name__}: {error}; please report it.", file=sys.stderr
        )
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="redflag-agent",
        description="Runs on a host of the fleet and does what the RedFlag server asks of it.",
        epilog="Exit codes: 0 done, 1 failed, 2 wrong usage, 3 not enrolled or unusable configuration, "
        "4 refused by the server, 5 server unreachable, 6 another agent runs, 7 journal unusable, "
        "8 package manager failed.",
    )
    default = os.environ.get(config.STATE_DIR_VARIABLE) or config.DEFAULT_STATE_DIR
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--state-dir",
        type=Path,
        default=Path(default),
        metavar="DIR",
        help=f"folder of the enrolment and the journal (default: {default}; or set {config.STATE_DIR_VARIABLE})",
    )
    as_json = argparse.ArgumentParser(add_help=False)
    as_json.add_argument("--json", action="store_true", help="print JSON in place of text")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    enroll = commands.add_parser("enroll", parents=[common, as_json], help="register this host with a server")
    enroll.add_argument("--server", required=True, metavar="URL", help="https://HOST[:PORT][/PREFIX]")
    token = enroll.add_mutually_exclusive_group(required=True)
    token.add_argument(
        "--token-file", type=Path, metavar="FILE", help="file that holds the registration token (recommended)"
    )
    token.add_argument("--token-stdin", action="store_true", help="read the registration token from standard input")
    token.add_argument(
        "--token", help="the registration token itself; other users of this host can see it while the command runs"
    )
    enroll.add_argument(
        "--ca-file", type=Path, metavar="FILE", help="PEM file of the authority that signed the server's certificate"
    )
    enroll.add_argument(
        "--log-key",
        metavar="KEY",
        help="the public key of the server's audit log, as `redflag audit key` prints it (default: the one the server gives)",
    )
    enroll.add_argument("--force", action="store_true", help="replace an existing enrolment")
    enroll.set_defaults(function=_enroll)

    run = commands.add_parser("run", parents=[common], help="run the agent until SIGTERM")
    run.set_defaults(function=_run)

    scan = commands.add_parser(
        "scan", parents=[as_json], help="list what can be upgraded on this host, without a server"
    )
    scan.add_argument("--refresh", action="store_true", help="refresh the package index first")
    scan.set_defaults(function=_scan)

    status = commands.add_parser(
        "status", parents=[common, as_json], help="show the enrolment, the last check-in and open commands"
    )
    status.set_defaults(function=_status)

    pin_log = commands.add_parser(
        "pin-log",
        parents=[common, as_json],
        help="take another log for the server's, after the administrator put it in the old one's place",
    )
    pin_log.add_argument("--log-key", required=True, metavar="KEY", help="as `redflag audit key` prints it")
    pin_log.set_defaults(function=_pin_log)

    version = commands.add_parser("version", parents=[as_json], help="print the version")
    version.set_defaults(function=_version)
    return parser


def _enroll(arguments: argparse.Namespace) -> int:
    server = config.clean_server(arguments.server)
    token = _registration_token(arguments)
    log_key = config.parse_log_key(arguments.log_key) if arguments.log_key else None
    directory: Path = arguments.state_dir
    private_directory(directory)
    lock = StateLock(directory)
    try:
        if (directory / CONFIG_NAME).exists() and not arguments.force:
            raise ConfigError(
                f"This host is enrolled already (in {directory}); see: redflag-agent status, or replace it by --force"
            )
        ca_file = str(arguments.ca_file.absolute()) if arguments.ca_file else None
        if server.startswith("http://"):
            print(
                "redflag-agent: warning: http sends the tokens unencrypted; use https outside a test.", file=sys.stderr
            )
        with contextlib.closing(Client(server, ca_file=ca_file)) as client:
            answer = client.enrol(token, dict(facts.identity(), protocol=1))
        enrolment = _enrolment(server, ca_file, answer)
        enrolment.log_key = _log_key(log_key, answer.get("log_key"), enrolment.agent_id)
        _keep_of_old(directory, enrolment)
        _put_aside_journal(directory)
        config.save(directory, enrolment)
    finally:
        lock.release()
    result = {"agent_id": enrolment.agent_id, "server": server, "check_in_interval": enrolment.check_in_interval}
    _show(arguments.json, result, f"Enrolled with {server} as {enrolment.agent_id}. Next: redflag-agent run")
    return 0


def _registration_token(arguments: argparse.Namespace) -> str:
    if arguments.token is not None:
        token = arguments.token
    elif arguments.token_stdin:
        token = sys.stdin.readline(16384)
    else:
        try:
            token = arguments.token_file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is no text"
            raise UsageError(f"The token file {arguments.token_file} cannot be read: {reason}.") from None
    token = token.strip()
    if not config.clean_token(token):
        raise UsageError(
            "The registration token is empty or holds characters that no token has; copy it again from the server."
        )
    return str(token)


def _enrolment(server: str, ca_file: Optional[str], answer: Mapping[str, Any]) -> config.Config:
    tokens = [answer.get("token"), answer.get("refresh_token")]
    if not config.is_uuid(answer.get("agent_id")) or not all(config.clean_token(token) for token in tokens):
        raise ServerUnreachable(f"{server} answered without an agent id and tokens; check that it is a RedFlag server.")
    settings = answer.get("config")
    interval = settings.get("check_in_interval") if isinstance(settings, dict) else None
    return config.Config(
        server=server,
        agent_id=str(answer["agent_id"]),
        access_token=str(tokens[0]),
        refresh_token=str(tokens[1]),
        check_in_interval=config.clean_interval(interval, config.DEFAULT_INTERVAL),
        ca_file=ca_file,
    )


def _log_key(wanted: Optional[Key], told: object, agent_id: str) -> Optional[str]:
    """The log's key to pin: the one from the command line, which the server has to agree with, else the server's."""
    try:
        given = config.parse_log_key(told) if isinstance(told, str) else None
    except UsageError as error:
        print(f"redflag-agent: warning: the server gave no key of its log: {error}", file=sys.stderr)
        given = None
    if wanted is not None and given is not None and wanted.public != given.public:
        raise ConfigError(
            f"The server's log has the key {vkey(given)}, which is not the one of --log-key; this host is not enrolled. "
            f"Find out which is right, and have agent {agent_id} removed on the server."
        )
    key = wanted or given
    return vkey(key) if key is not None else None


def _keep_of_old(directory: Path, enrolment: config.Config) -> None:
    """What the administrator of this host allows does not change with the server, and neither does what it saw of its log."""
    keeps_log = False
    if (directory / CONFIG_NAME).exists():
        try:
            old = config.load(directory)
        except ConfigError as error:
            print(f"redflag-agent: warning: what the old enrolment allowed is not kept: {error}", file=sys.stderr)
        else:
            enrolment.allow_reboot, enrolment.allow_commands = old.allow_reboot, old.allow_commands
            if old.log_key and enrolment.log_key:
                keeps_log = config.parse_log_key(old.log_key).public == config.parse_log_key(enrolment.log_key).public
    if not keeps_log:
        witness.forget(directory)


def _put_aside_journal(directory: Path) -> None:
    """A new server must not be sent what an old one's commands gave."""
    path = directory / journal.JOURNAL_NAME
    if path.exists():
        path.replace(path.with_name(f"{journal.JOURNAL_NAME}.{utc_now()[:19].replace(':', '')}"))


def _run(arguments: argparse.Namespace) -> int:
    directory: Path = arguments.state_dir
    log.configure()
    settings = config.load(directory)
    private_directory(directory)
    if settings.server.startswith("http://"):
        log.logger.warning("the server's address is http: tokens and output are sent unencrypted")
    agent = Agent(directory, settings)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: agent.stop())
    agent.run()
    return 0


def _scan(arguments: argparse.Namespace) -> int:
    managers = packages.available()
    if not managers:
        raise PackageError("This host has no package manager that the agent knows (it knows: apt).")
    deadline, stop = runner.Deadline(SCAN_DEADLINE), runner.Stop()

    def run(
        argv: Sequence[str], *, env: Optional[Mapping[str, str]] = None, keep: Optional[int] = None
    ) -> runner.Completed:
        return runner.run(argv, deadline, stop, env=env, keep=keep or runner.KEEP)

    updates = [update for manager in managers.values() for update in manager.scan(run, refresh=arguments.refresh)]
    if arguments.json:
        print(
            json.dumps({"package_types": list(managers), "updates": [update.to_json() for update in updates]}, indent=2)
        )
        return 0
    rows = [[u.package_name, u.current_version, u.available_version, u.severity, u.repository_source] for u in updates]
    if rows:
        _table(["PACKAGE", "INSTALLED", "AVAILABLE", "SEVERITY", "SOURCE"], rows)
    security = sum(update.severity == "important" for update in updates)
    print(f"{len(updates)} packages can be upgraded, {security} of them for security.")
    return 0


def _status(arguments: argparse.Namespace) -> int:
    directory: Path = arguments.state_dir
    settings = config.load(directory)
    noted = read_status(directory)
    try:
        entries, _ = journal.read(directory / journal.JOURNAL_NAME)
    except OSError as error:
        raise ConfigError(
            f"The journal in {directory} cannot be read: {error.strerror}; run as the agent's user."
        ) from None
    open_commands = [
        {"id": entry.id, "type": entry.type, "state": entry.state, "since": entry.at}
        for entry in entries.values()
        if not entry.is_done
    ]
    refused = [
        {"id": entry.id, "type": entry.type, "status": entry.status, "answer": entry.answer}
        for entry in entries.values()
        if entry.state == "reported" and entry.status != 200
    ]
    status: Dict[str, Any] = {
        "version": __version__,
        "server": settings.server,
        "agent_id": settings.agent_id,
        "check_in_interval": settings.check_in_interval,
        "allow_reboot": settings.allow_reboot,
        "allow_commands": settings.allow_commands,
        "last_check_in": noted.get("last_check_in"),
        "last_error": noted.get("last_error") or None,
        "open_commands": open_commands,
        "unsent_results": sum(command["state"] == "finished" for command in open_commands),
        "refused_results": refused[-20:],
    }
    status["log"] = seen = _seen_of_log(directory, settings)
    lines = [
        f"Enrolled with   {status['server']}",
        f"Agent id        {status['agent_id']}",
        f"Last check-in   {status['last_check_in'] or 'none yet'}",
        f"Audit log       {seen['size']} records of {seen['origin']}, seen {seen['seen_at']}"
        if seen["seen_at"]
        else "Audit log       not seen yet",
    ]
    if seen["doubted"]:
        alarm = seen["alarm"] or {}
        lines.append(f"LOG DOUBTED     {alarm.get('at')} {alarm.get('message')}. {witness.NEXT_STEP}")
    if status["last_error"]:
        lines.append(f"Last error      {noted.get('last_error_at')} {status['last_error']}")
    lines.append(
        f"Commands        {len(open_commands)} open, {status['unsent_results']} results unsent, {len(refused)} refused"
    )
    _show(arguments.json, status, "\n".join(lines))
    if open_commands and not arguments.json:
        _table(["COMMAND", "TYPE", "STATE", "SINCE"], [list(command.values()) for command in open_commands])
    return 0


def _seen_of_log(directory: Path, settings: config.Config) -> Dict[str, Any]:
    memory = witness.read_memory(directory)
    key = config.parse_log_key(settings.log_key) if settings.log_key else None
    opened = witness.open_held(key, memory.note) if key is not None and memory.note else None
    return {
        "key": settings.log_key,
        "origin": opened[1].origin if opened else key.name if key is not None else None,
        "size": opened[1].size if opened else 0,
        "seen_at": memory.seen_at if opened else None,
        "doubted": memory.doubted,
        "alarm": memory.alarm,
    }


def _pin_log(arguments: argparse.Namespace) -> int:
    directory: Path = arguments.state_dir
    key = config.parse_log_key(arguments.log_key)
    settings = config.load(directory)
    lock = StateLock(directory)
    try:
        witness.forget(directory)
        settings.log_key = vkey(key)
        config.save(directory, settings)
    finally:
        lock.release()
    _show(arguments.json, {"log_key": settings.log_key}, f"Pinned the log {key.name}. Next: start the agent again")
    return 0


def _version(arguments: argparse.Namespace) -> int:
    _show(arguments.json, {"version": __version__, "protocol": 1}, f"redflag-agent {__version__}")
    return 0


def _show(as_json: bool, data: Mapping[str, Any], text: str) -> None:
    print(json.dumps(data, indent=2) if as_json else text)


def _table(head: List[str], rows: List[List[str]]) -> None:
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    for row in [head, *rows]:
        print("  ".join(row[column].ljust(width) for column, width in enumerate(widths)).rstrip())
