"""Loads the named SQL that stands beside the code that uses it.

Each query in a `.sql` file begins with `-- name: verb_noun` and a line that says what it is for; parameters are named
(`:agent_id`). aiosql reads the files; the call says what shape it wants back: `sql.deliver.all(connection, limit=10)`.
SQL is never put together from strings: what varies goes in as a parameter.
"""

from __future__ import annotations

import functools
import logging
from pathlib import Path
from typing import Any

import aiosql
from aiosql.adapters.asyncpg import AsyncPGAdapter

# It warns of every WITH … UPDATE … RETURNING that is read without an operator; ours have none
logging.getLogger("aiosql").setLevel(logging.ERROR)


class Query:
    """One named statement. A missing or a superfluous parameter is a KeyError or a TypeError, never a NULL."""

    def __init__(self, name: str, text: str, order: list[str]) -> None:
        self.name = name
        self.text = text
        self.order = order

    def arguments(self, parameters: dict[str, Any]) -> list[Any]:
        """The parameters in the statement's order."""
        if len(parameters) != len(self.order):
            raise TypeError(f"{self.name} takes {self.order}, not {sorted(parameters)}")
        return [parameters[name] for name in self.order]

    async def all(self, connection: Any, **parameters: Any) -> list[Any]:
        """Every row."""
        rows: list[Any] = await connection.fetch(self.text, *self.arguments(parameters))
        return rows

    async def one(self, connection: Any, **parameters: Any) -> Any:
        """The first row, or None."""
        return await connection.fetchrow(self.text, *self.arguments(parameters))

    async def value(self, connection: Any, **parameters: Any) -> Any:
        """The first column of the first row, or None."""
        return await connection.fetchval(self.text, *self.arguments(parameters))

    async def run(self, connection: Any, **parameters: Any) -> int:
        """Runs it; returns how many rows it touched."""
        status: str = await connection.execute(self.text, *self.arguments(parameters))
        last = status.rsplit(" ", 1)[-1]
        return int(last) if last.isdigit() else 0


class Queries:
    """The queries of one file, each an attribute."""

    def __init__(self, path: Path) -> None:
        self._text = path.read_text()

    @functools.cached_property
    def _queries(self) -> dict[str, Query]:
        # At the first use: taking all files apart costs a fifth of a second, and a command line needs few of them
        adapter = AsyncPGAdapter()  # type: ignore[no-untyped-call]
        loaded = aiosql.from_str(self._text, lambda: adapter, mandatory_parameters=False)
        return {
            name: Query(name, getattr(loaded, name).sql, adapter.var_sorted[name])
            for name in loaded.available_queries
            if not name.endswith("_cursor")
        }

    def __getattr__(self, name: str) -> Query:
        try:
            return self._queries[name]
        except KeyError:
            raise AttributeError(name) from None


def load(module_file: str, name: str = "queries.sql") -> Queries:
    """The queries of `name` beside the module whose `__file__` is given."""
    return Queries(Path(module_file).with_name(name))


def containing(text: str) -> str:
    """The pattern by which LIKE finds a text anywhere. A NUL byte, which no text of the database holds, is left out."""
    return "%" + text.replace("\x00", "").replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_") + "%"
