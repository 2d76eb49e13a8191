"""`redflag simulate`: a fleet of agents that are none, against a server of one's own, and what that server made of it."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from redflag import words
from redflag.cli import client, simulated
from redflag.cli.ask import confirm
from redflag.cli.exits import ServerUnreachable
from redflag.cli.lookup import Yes
from redflag.cli.output import AsJson, note, print_json, progress, say
from redflag.cli.place import place
from redflag.errors import InvalidInput, NotAuthenticated, NotPermitted
from redflag.settings import settings
from redflag.simulation import engine, plan, target
from redflag.simulation.job import Credential
from redflag.simulation.membership import Membership
from redflag.simulation.plan import Plan, Protocol
from redflag.simulation.report import Report
from redflag.simulation.state import State

_SHAPE, _COMMANDS, _MACHINE = "The fleet", "Its commands", "This machine"


def simulate(
    agents: Annotated[int, typer.Option(min=1, max=1_000_000, help="So many.", rich_help_panel=_SHAPE)] = 100,
    interval: Annotated[str, typer.Option(help="An agent comes by so often.", rich_help_panel=_SHAPE)] = "60s",
    duration: Annotated[
        str,
        typer.Option(
            help="Measure for so long, once all agents have joined. Ctrl-C ends it in order.", rich_help_panel=_SHAPE
        ),
    ] = "5m",
    protocol: Annotated[
        Protocol,
        typer.Option(
            help="As RedFlag's own agents, which poll; or as this project's, whose calls are held.",
            rich_help_panel=_SHAPE,
        ),
    ] = Protocol.REDFLAG,
    closed: Annotated[
        bool,
        typer.Option(
            "--closed",
            help="Find what the server can do: ask again as soon as the last was answered.",
            rich_help_panel=_SHAPE,
        ),
    ] = False,
    concurrency: Annotated[
        int,
        typer.Option(
            "--concurrency",
            "-c",
            min=1,
            max=100_000,
            help="With --closed: on so many connections.",
            rich_help_panel=_SHAPE,
        ),
    ] = 64,
    connections: Annotated[
        int, typer.Option(min=0, help="Shared by the agents; 0: each has its own.", rich_help_panel=_SHAPE)
    ] = 0,
    ramp: Annotated[
        float, typer.Option(min=1, help="Agents that join a second, at the most.", rich_help_panel=_SHAPE)
    ] = 1000.0,
    command_share: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="Enqueue a command for this share of the agents in each interval.",
            show_default=False,
            rich_help_panel=_COMMANDS,
        ),
    ] = None,
    commands_per_minute: Annotated[
        float | None,
        typer.Option(min=0, help="Enqueue so many commands a minute.", show_default=False, rich_help_panel=_COMMANDS),
    ] = None,
    work: Annotated[
        float,
        typer.Option(min=0, max=600, help="A command takes so many seconds, on average.", rich_help_panel=_COMMANDS),
    ] = 2.0,
    output: Annotated[
        int, typer.Option(min=0, max=1_000_000, help="A command prints so many bytes.", rich_help_panel=_COMMANDS)
    ] = 2048,
    lost: Annotated[
        float,
        typer.Option(min=0, max=1, help="This share of the commands is never reported.", rich_help_panel=_COMMANDS),
    ] = 0.0,
    command_timeout: Annotated[
        str, typer.Option(help="The server ends what was enqueued after so long.", rich_help_panel=_COMMANDS)
    ] = "2m",
    processes: Annotated[
        int, typer.Option(min=0, max=64, help="So many; 0: as many as it takes.", rich_help_panel=_MACHINE)
    ] = 0,
    enrolment_token: Annotated[
        str,
        typer.Option(
            envvar="REDFLAG_ENROLMENT_TOKEN",
            help="Enrol with this one, not with one made by the API token.",
            show_default=False,
            rich_help_panel=_MACHINE,
        ),
    ] = "",
    state: Annotated[
        Path | None,
        typer.Option(
            help="Where the agents' tokens are kept; else simulation.json in the data folder.",
            show_default=False,
            rich_help_panel=_MACHINE,
        ),
    ] = None,
    mine: Annotated[
        bool,
        typer.Option(
            "--yes-this-is-my-server", help="Needed for a server on another machine.", rich_help_panel=_MACHINE
        ),
    ] = False,
    remove: Annotated[
        bool, typer.Option("--remove", help="Remove all simulated agents from the server, and do nothing else.")
    ] = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Simulate a fleet against a server of your own: a live table, then a report. It speaks the agents' real protocol."""
    here = settings()
    folder = place(here)
    url, token, certificates, pinned = _whereabouts()
    file = state.expanduser().resolve() if state else folder.root / "simulation.json"
    kept = State.load(file, url)
    seconds = _seconds(interval)
    if command_share is not None and commands_per_minute is not None:
        raise InvalidInput("--command-share and --commands-per-minute say the same", "Give one of them")
    wanted = Plan(
        protocol=protocol,
        interval=seconds,
        duration=_seconds(duration),
        closed=concurrency if closed else 0,
        connections=connections,
        ramp=ramp,
        processes=processes,
        work=work,
        output=output,
        lost=lost,
        commands=command_share * agents / seconds if command_share is not None else (commands_per_minute or 0.0) / 60,
        admin_token=token,
        command_timeout=_seconds(command_timeout),
    )
    wanted.check()
    with _unreachable():
        found = asyncio.run(_find(url, certificates, pinned, mine))
    if remove:
        confirm(f"Remove all simulated agents from {url}?", yes)
        with progress("Removing") as tell, _unreachable():
            removed = asyncio.run(Membership(found, kept, token, tell, _warn).remove())
        if as_json:
            print_json({"removed": removed})
        else:
            say(f"{words.count(removed, 'simulated agent')} removed. Their history stays.")
        return
    plan.processes(wanted, agents)
    plan.sources(wanted, agents, found)
    with _unreachable():
        try:
            report = asyncio.run(_simulate(wanted, found, kept, agents, token, enrolment_token))
        except asyncio.CancelledError:
            raise typer.Abort from None
    if as_json:
        print_json(report.summary())
    else:
        simulated.print_report(report)


async def _find(url: str, certificates: Path | None, pinned: bool, mine: bool) -> target.Target:
    found = await target.resolve(url, certificates, pinned=pinned)
    if not mine and not all(one.is_loopback for one in found):
        raise NotPermitted(
            f"{url} is another machine, and a simulated fleet is a heavy load",
            "If that server is yours, add --yes-this-is-my-server",
        )
    return await target.reach(found)


async def _simulate(
    wanted: Plan, found: target.Target, kept: State, agents: int, token: str, enrolment_token: str
) -> Report:
    with progress("Enrolling") as tell:
        membership = Membership(found, kept, token, tell, _warn)
        await membership.check()
        await membership.enrol(agents, wanted.protocol, enrolment_token)
        members = kept.agents[:agents]
        await membership.renew(members)
    stop = asyncio.Event()
    loop, running = asyncio.get_running_loop(), asyncio.current_task()

    def interrupt() -> None:
        if stop.is_set() and running is not None:
            running.cancel()
        stop.set()

    def renewed(tokens: dict[int, str]) -> None:
        for number, new in tokens.items():
            members[number].token, members[number].issued = new, time.time()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, interrupt)

    try:
        with simulated.live() as show:
            return await engine.run(
                wanted,
                found,
                [Credential(0, one.agent_id, one.token, one.refresh) for one in members],
                tell=show,
                stop=stop,
                renewed=renewed,
            )
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
        kept.save()


def _whereabouts() -> tuple[str, str, Path | None, bool]:
    """The server's address, the API token if there is one, the certificates that it is known by, and whether they are its own."""
    here = settings()
    folder = place(here)
    own = client.own_url(here, folder)
    url = client.options.url or own
    try:
        token, _ = client.find_token(here, folder, url, own)
    except NotAuthenticated:
        token = ""
    if client.options.ca_file is not None or url != own:
        return url, token, client.options.ca_file, False
    return url, token, here.tls_cert, here.tls_cert is not None


@contextlib.contextmanager
def _unreachable() -> Iterator[None]:
    try:
        yield
    except target.Unreachable as error:
        raise ServerUnreachable(error.what, error.next_step) from None


def _warn(text: str) -> None:
    note(text, "yellow")


def _seconds(text: str) -> float:
    """A length of time; a number alone is seconds."""
    with contextlib.suppress(ValueError):
        return float(text)
    return words.duration(text)
