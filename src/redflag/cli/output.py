"""What the commands print: tables and sentences for people, JSON for programs, and a sign of life for what takes long.

Promises
- Results go to stdout, everything else to stderr, so that a pipe gets the result alone.
- Colour and moving signs on a terminal only, and never with NO_COLOR.
- Text that came from a host or a person cannot steer the terminal: control characters are shown as a mark.
- With `--json` times are exact (ISO 8601); people get them in words, see `words`.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Annotated, Any, Literal

import msgspec
import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]

# Without a terminal nothing is cut: a line is as long as it is
_UNCUT = 100_000
_SAY_AFTER_SECONDS = 1.0
_SAY_EVERY_SECONDS = 10.0


def console(*, stderr: bool = False) -> Console:
    """A console on stdout or stderr as they are now."""
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else _UNCUT
    return Console(file=stream, highlight=False, markup=False, emoji=False, soft_wrap=True, width=width)


def plain(value: Any) -> str:
    """A value as text without control characters: what a host sent must not steer the terminal. None is nothing."""
    text = "" if value is None else str(value)
    return "".join(char if char.isprintable() or char == "\n" else "\N{REPLACEMENT CHARACTER}" for char in text)


def say(text: str, style: str = "") -> None:
    """A line for people on stdout."""
    console().print(Text(plain(text), style=style))


def note(text: str, style: str = "") -> None:
    """A line beside the result, on stderr."""
    console(stderr=True).print(Text(plain(text), style=style))


def print_json(data: Any) -> None:
    """Data as indented JSON on stdout; times as ISO 8601, ids and decimals as text."""
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(data), indent=2).decode() + "\n")
    sys.stdout.flush()


def print_table(titles: Sequence[str], rows: Iterable[Sequence[Any]], *, empty: str, right: Iterable[str] = ()) -> None:
    """A table on stdout, or the sentence `empty`. Columns named in `right` are set to the right; a cell may be a rich Text."""
    numbers = set(right)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="bold")
    for place, title in enumerate(titles):
        # What begins a row is what people copy: an id stays on one line
        justify: Literal["left", "right"] = "right" if title in numbers else "left"
        table.add_column(title, justify=justify, overflow="fold", no_wrap=place == 0)
    for row in rows:
        table.add_row(*(cell if isinstance(cell, Text) else Text(plain(cell)) for cell in row))
    if table.row_count:
        console().print(table, soft_wrap=False)
    else:
        say(empty)


def print_facts(facts: Iterable[tuple[str, Any]]) -> None:
    """Names and values on stdout, one pair a line, the values aligned."""
    known = list(facts)
    width = max((len(name) for name, _ in known), default=0)
    for name, value in known:
        line = Text(f"{name.ljust(width)}  ", style="bold")
        console().print(line.append(value if isinstance(value, Text) else Text(plain(value), style="not bold")))


@contextlib.contextmanager
def progress(what: str) -> Iterator[Callable[[str], None]]:
    """Shows on stderr that `what` is going on, for whatever may take over two seconds.

    Yields a function to say how far it is: `with progress("Copying") as tell: tell("12 MiB")`. On a terminal the line moves
    and goes when it is done; elsewhere `what` is printed once it has taken a second, and then how far it is every ten.
    """
    screen = console(stderr=True)
    if screen.is_terminal:
        with screen.status(Text(f"{what} …")) as status:
            yield lambda far: status.update(Text(f"{what} … {plain(far)}"))
        return
    said = time.monotonic()
    late = threading.Timer(_SAY_AFTER_SECONDS, lambda: screen.print(f"{what} …"))
    late.daemon = True
    late.start()

    def tell(far: str) -> None:
        nonlocal said
        if time.monotonic() - said >= _SAY_EVERY_SECONDS:
            said = time.monotonic()
            screen.print(f"{what} … {plain(far)}")

    try:
        yield tell
    finally:
        late.cancel()
