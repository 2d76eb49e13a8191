"""`redflag audit targets`: where checkpoints are sent, so that somebody else keeps them."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import httpx
import typer
from rich.text import Text

from redflag import words
from redflag.cli import lookup
from redflag.cli.ask import confirm
from redflag.cli.client import TIMEOUT, Json, connect
from redflag.cli.exits import NeedsAttention
from redflag.cli.output import AsJson, note, print_json, print_table, progress, say
from redflag.errors import InvalidInput
from redflag.publishing.targets import Kind

app = typer.Typer(
    no_args_is_help=True, help="Where checkpoints are sent: witnesses, files, git repositories, webhooks."
)

TARGET = lookup.Kind(
    "target", "/api/v1/audit/targets", "targets", "redflag audit targets list", paged=False, names=("name",)
)
# The server tries twice at the most, and gives up itself
TRY_TIMEOUT = httpx.Timeout(90.0, connect=TIMEOUT.connect)

Id = Annotated[str, typer.Argument(metavar="ID", help="The target's id, its beginning, or its name.")]
Every = Annotated[
    str, typer.Option("--every", help="At the most one checkpoint in this time, as 10s or 1h.", show_default=False)
]
SecretFromStdin = Annotated[
    bool, typer.Option("--secret-stdin", help="Read a webhook's secret (whsec_…) from stdin, one line.")
]


@app.command("list")
def list_targets(as_json: AsJson = False) -> None:
    """List targets: how far each is behind the newest checkpoint, and what went wrong last."""
    with connect() as api:
        answer = api.get(TARGET.path)
    if as_json:
        print_json(answer)
        return
    now = words.now()
    rows = answer["targets"]
    ids = lookup.shortened(row["id"] for row in rows)
    print_table(
        ["id", "name", "kind", "address", "every", "state", "has", "last sent", "last error"],
        (
            [
                ids[row["id"]],
                row["name"],
                row["kind"],
                row["address"],
                words.exact(row["every"]),
                _state(row),
                words.count(row["acknowledged_size"], "record"),
                words.when(row["last_ok_at"], now),
                f"{words.when(row['last_error_at'], now)}: {row['last_error']}" if row["last_error"] else "",
            ]
            for row in rows
        ),
        empty="Checkpoints are sent nowhere. `redflag audit targets add witness NAME ADDRESS --key VKEY` asks a witness for its word.",
    )


@app.command()
def add(
    kind: Annotated[Kind, typer.Argument(metavar="KIND", help=", ".join(Kind))],
    name: Annotated[str, typer.Argument(metavar="NAME", help="What it is called here.")],
    address: Annotated[
        str,
        typer.Argument(
            metavar="ADDRESS",
            help="The URL of a witness (its submission prefix) or webhook; of a file or git repository its name in the folder.",
        ),
    ],
    vkey: Annotated[str, typer.Option("--key", help="The witness's key (vkey).", show_default=False)] = "",
    every: Every = "",
    secret_stdin: SecretFromStdin = False,
    as_json: AsJson = False,
) -> None:
    """Add a target; the newest checkpoint is sent to it at once. The secret of a webhook is shown this once."""
    body: Json = {"kind": kind, "name": name, "address": address}
    body |= {"vkey": vkey} if vkey else {}
    body |= {"every": words.duration(every)} if every else {}
    body |= {"secret": _secret()} if secret_stdin else {}
    with connect() as api:
        answer = api.post(TARGET.path, body)
    if as_json:
        print_json(answer)
        return
    told = (
        f"Checkpoints go to the {answer['kind']} {answer['name']}, one in {words.exact(answer['every'])} at the most."
    )
    if "secret" in answer:
        note(f"{told} They are signed with this secret, which cannot be shown again:")
        say(answer["secret"])
    else:
        say(f"{told} `redflag audit targets try {answer['name']}` says whether they arrive.")


@app.command("set")
def set_target(
    target: Id,
    name: Annotated[str | None, typer.Option(help="Another name.", show_default=False)] = None,
    address: Annotated[str | None, typer.Option(help="Another address.", show_default=False)] = None,
    every: Every = "",
    enabled: Annotated[
        bool | None, typer.Option("--enable/--disable", help="Send to it, or for now not.", show_default=False)
    ] = None,
    secret_stdin: SecretFromStdin = False,
    as_json: AsJson = False,
) -> None:
    """Change a target; what is not given stays. Another witness is another target."""
    given: Json = {"name": name, "address": address, "every": words.duration(every) if every else None}
    given |= {"enabled": enabled, "secret": _secret() if secret_stdin else None}
    body = {key: value for key, value in given.items() if value is not None}
    if not body:
        raise InvalidInput("Nothing is to be changed", "Give one of the options; `--help` names them")
    with connect() as api:
        answer = api.patch(f"{TARGET.path}/{lookup.one(api, TARGET, target)}", body)
    if as_json:
        print_json(answer)
    else:
        goes = "go" if answer["enabled"] else "do not go"
        say(
            f"Checkpoints {goes} to the {answer['kind']} {answer['name']} at {answer['address']}, "
            f"one in {words.exact(answer['every'])} at the most."
        )


@app.command()
def remove(target: Id, yes: lookup.Yes = False, as_json: AsJson = False) -> None:
    """Remove a target: nothing more is sent to it. The cosignatures that it gave stay."""
    with connect() as api:
        target_id = lookup.one(api, TARGET, target)
        confirm(f"Send no more checkpoints to {target}?", yes)
        answer = api.delete(f"{TARGET.path}/{target_id}")
    if as_json:
        print_json(answer)
    else:
        say(f"No more checkpoints go to {target}.")


@app.command("try")
def try_target(target: Id, as_json: AsJson = False) -> None:
    """Send the newest checkpoint to a target now, due or not. Exit code 7 if it does not arrive."""
    with connect(TRY_TIMEOUT) as api, progress(f"Sending to {target}"):
        answer = api.post(f"{TARGET.path}/{lookup.one(api, TARGET, target)}/try")
    if as_json:
        print_json(answer)
    if not answer["ok"]:
        raise NeedsAttention(f"The checkpoint did not reach {answer['target']['name']}: {answer['error']}")
    if not as_json:
        told = answer["target"]
        say(
            f"The {told['kind']} {told['name']} has a checkpoint of {words.count(told['acknowledged_size'], 'record')}."
        )


def _state(row: Any) -> Text:
    if not row["enabled"]:
        return Text("off", "dim")
    if row["failures_in_a_row"]:
        return Text(f"failed {words.count(row['failures_in_a_row'], 'time')} in a row", "red")
    if row["last_ok_at"] is None:
        return Text("not tried yet", "yellow")
    return Text(f"{row['behind']:,} behind", "") if row["behind"] else Text("up to date", "green")


def _secret() -> str:
    given = sys.stdin.readline().strip()
    if not given:
        raise InvalidInput("There is no secret on stdin", "Pipe it in")
    return given
