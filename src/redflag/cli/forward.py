"""`redflag audit forward`: receivers of syslog, to which every record is sent as it comes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.text import Text

from redflag import words
from redflag.audit.export import forwarding, syslog
from redflag.audit.export.syslog import Body
from redflag.cli import lookup
from redflag.cli.ask import confirm
from redflag.cli.client import Client, Json, connect
from redflag.cli.output import AsJson, note, print_json, print_table, say
from redflag.errors import InvalidInput

app = typer.Typer(no_args_is_help=True, help="Live forwarding: every record as syslog, to receivers of yours.")

FORWARDER = lookup.Kind(
    "receiver", "/api/v1/audit/forwarders", "forwarders", "redflag audit forward list", paged=False, names=("name",)
)

Id = Annotated[str, typer.Argument(metavar="ID", help="The receiver's id, its beginning, or its name.")]
Transport = Annotated[
    Literal["tcp", "tls"] | None, typer.Option(help="tls checks the receiver's certificate; tcp is open to all.")
]
Ca = Annotated[
    Path | None,
    typer.Option("--ca", help="The authority (PEM) of the receiver's certificate; else this machine's.", show_default=False),
]  # fmt: skip
BodyOption = Annotated[Body | None, typer.Option("--body", help="What a message says.", show_default=False)]
Facility = Annotated[
    int | None, typer.Option(min=0, max=23, help=f"{syslog.FACILITY} is the audit's.", show_default=False)
]
MaxMessage = Annotated[
    int | None,
    typer.Option(
        min=forwarding.SMALLEST_MAX_MESSAGE, max=forwarding.LARGEST_MAX_MESSAGE, show_default=False,
        help=f"Bytes of a message; long fields are shortened to it. {forwarding.MAX_MESSAGE:,} if not given.",
    ),
]  # fmt: skip


@app.command("list")
def list_receivers(as_json: AsJson = False) -> None:
    """List receivers: how far each is, when it last took records, and what went wrong last."""
    with connect() as api:
        answer = api.get(FORWARDER.path)
    if as_json:
        print_json(answer)
        return
    now = words.now()
    rows = answer["forwarders"]
    ids = lookup.shortened(row["id"] for row in rows)
    print_table(
        ["id", "name", "receiver", "body", "state", "has", "last taken", "confirmed by", "last error"],
        (
            [
                ids[row["id"]],
                row["name"],
                _address(row),
                row["body"],
                _state(row, now),
                f"before {row['position']:,}",
                words.when(row["last_ok_at"], now),
                row["confirmed_by"] or "",
                f"{words.when(row['last_error_at'], now)}: {row['last_error']}" if row["last_error"] else "",
            ]
            for row in rows
        ),
        empty="Records are sent nowhere. `redflag audit forward add NAME HOST 6514` sends them to a receiver of syslog.",
    )


@app.command()
def add(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What it is called here.")],
    host: Annotated[str, typer.Argument(metavar="HOST", help="Its name, as its certificate has it, or its address.")],
    port: Annotated[int, typer.Argument(metavar="PORT", min=1, max=65535, help="6514 for TLS, as a rule.")],
    transport: Transport = "tls",
    ca: Ca = None,
    body: BodyOption = None,
    facility: Facility = None,
    max_message: MaxMessage = None,
    begin: Annotated[
        str, typer.Option("--from", help="now, beginning, or a position of the log: the first record that it gets.")
    ] = "now",
    as_json: AsJson = False,
) -> None:
    """Add a receiver. Records are sent to it from now on, or from the beginning."""
    given: Json = {
        "name": name,
        "host": host,
        "port": port,
        "transport": transport,
        "ca": _read(ca),
        "body": body,
        "facility": facility,
        "max_message": max_message,
        "position": None if begin == "now" else _position(begin),
    }
    with connect() as api:
        answer = api.post(FORWARDER.path, {key: value for key, value in given.items() if value is not None})
    if as_json:
        print_json(answer)
        return
    say(
        f"Records go to {answer['name']} from position {answer['position']:,} on. "
        "`redflag audit forward list` says whether they arrive."
    )
    if answer["transport"] == "tcp":
        note(
            "They go over the network as they are: whoever stands between reads them, and can hold them back. TLS ends that."
        )


@app.command("set")
def set_receiver(
    receiver: Id,
    host: Annotated[str | None, typer.Option(help="Another host.", show_default=False)] = None,
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="Another port.", show_default=False)] = None,
    transport: Transport = None,
    ca: Ca = None,
    no_ca: Annotated[
        bool, typer.Option("--no-ca", help="Trust the authorities that the server's machine trusts.")
    ] = False,
    body: BodyOption = None,
    facility: Facility = None,
    max_message: MaxMessage = None,
    begin: Annotated[
        str | None,
        typer.Option(
            "--from", help="beginning, or a position of the log: where it goes on. Recorded.", show_default=False
        ),
    ] = None,
    yes: lookup.Yes = False,
    as_json: AsJson = False,
) -> None:
    """Change a receiver; what is not given stays. With --from its cursor is moved, and records are sent again or left out."""
    if ca is not None and no_ca:
        raise InvalidInput("--ca and --no-ca contradict each other", "Give one of them")
    given: Json = {
        "host": host,
        "port": port,
        "transport": transport,
        "ca": "" if no_ca else _read(ca),
        "body": body,
        "facility": facility,
        "max_message": max_message,
        "position": None if begin is None else _position(begin),
    }
    change = {key: value for key, value in given.items() if value is not None}
    if not change:
        raise InvalidInput("Nothing is to be changed", "Give one of the options; `--help` names them")
    with connect() as api:
        receiver_id = lookup.one(api, FORWARDER, receiver)
        if begin is not None:
            confirm(f"Go on at {begin}? What lies between is sent again, or never", yes)
        _changed(api, receiver_id, change, as_json)


@app.command()
def pause(receiver: Id, as_json: AsJson = False) -> None:
    """Send nothing to a receiver for now. It goes on later where it stands."""
    with connect() as api:
        _changed(api, lookup.one(api, FORWARDER, receiver), {"enabled": False}, as_json)


@app.command()
def resume(receiver: Id, as_json: AsJson = False) -> None:
    """Go on with a receiver that was paused, or try one at once that fails."""
    with connect() as api:
        _changed(api, lookup.one(api, FORWARDER, receiver), {"enabled": True}, as_json)


@app.command()
def remove(receiver: Id, yes: lookup.Yes = False, as_json: AsJson = False) -> None:
    """Remove a receiver: nothing more is sent to it."""
    with connect() as api:
        receiver_id = lookup.one(api, FORWARDER, receiver)
        confirm(f"Send no more records to {receiver}?", yes)
        answer = api.delete(f"{FORWARDER.path}/{receiver_id}")
    if as_json:
        print_json(answer)
    else:
        say(f"No more records go to {receiver}.")


def _changed(api: Client, receiver_id: str, change: Json, as_json: bool) -> None:
    answer = api.patch(f"{FORWARDER.path}/{receiver_id}", change)
    if as_json:
        print_json(answer)
    elif answer["enabled"]:
        say(f"Records go to {answer['name']} at {_address(answer)} from position {answer['position']:,} on.")
    else:
        say(
            f"No records go to {answer['name']} for now; it has those before position {answer['position']:,}. "
            f"`redflag audit forward resume {answer['name']}` goes on."
        )


def _address(row: Json) -> str:
    host = f"[{row['host']}]" if ":" in row["host"] else row["host"]
    return f"{row['transport']}://{host}:{row['port']}"


def _state(row: Any, now: Any) -> Text:
    if not row["enabled"]:
        return Text("paused", "dim")
    if row["failing_since"]:
        return Text(f"fails, since {words.when(row['failing_since'], now)}; {row['lag']:,} behind", "red")
    return Text(f"{row['lag']:,} behind") if row["lag"] else Text("up to date", "green")


def _position(text: str) -> int:
    if text == "beginning":
        return 0
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise InvalidInput(f"{text[:50]!r} is no position of the log", "Give a number, or beginning")
    return int(text)


def _read(file: Path | None) -> str | None:
    if file is None:
        return None
    text = file.read_bytes()[: forwarding.LONGEST_CA + 1].decode("utf-8", "replace")
    if not text.strip():
        raise InvalidInput(f"{file} is empty", "Give the file of the receiver's CA")
    return text
