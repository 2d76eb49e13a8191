"""Shapes that several rooms of the API share."""

from __future__ import annotations

import datetime
import uuid
from typing import Annotated, Any

import pydantic
from fastapi import Query

from redflag.commands.history import decode_cursor, encode_cursor

Limit = Annotated[int, Query(ge=1, le=500, description="how many at the most")]
Cursor = Annotated[str | None, Query(max_length=64, description="next_cursor of the page before")]
NO_NUL = r"^[^\x00]*$"
Text = Annotated[str | None, Query(max_length=200, pattern=NO_NUL, description="found anywhere, whatever its case")]
Word = Annotated[str | None, Query(max_length=300, pattern=NO_NUL)]


class Body(pydantic.BaseModel):
    """A request body: unknown fields are refused, so that a misspelt one is not passed over in silence."""

    model_config = pydantic.ConfigDict(extra="forbid", str_max_length=10_000)

    @pydantic.field_validator("*", mode="after")
    @classmethod
    def _no_nul(cls, value: Any) -> Any:
        if isinstance(value, str) and "\x00" in value:
            raise ValueError("holds a NUL byte, which text cannot")
        return value


def span(seconds: float | None) -> datetime.timedelta | None:
    """A length of time that was given in seconds, or None."""
    return None if seconds is None else datetime.timedelta(seconds=seconds)


def utc(moment: datetime.datetime | None) -> datetime.datetime | None:
    """A time that was given; without a zone it is UTC."""
    return moment.replace(tzinfo=datetime.UTC) if moment is not None and moment.tzinfo is None else moment


def position(cursor: str | None) -> tuple[datetime.datetime, uuid.UUID] | None:
    """Where a list goes on. Raises InvalidInput."""
    return decode_cursor(cursor) if cursor else None


def page(name: str, rows: list[dict[str, Any]], limit: int, key: str = "created_at") -> dict[str, Any]:
    """A page of rows that were asked for with limit + 1, and the cursor of the next one."""
    shown = rows[:limit]
    more = len(rows) > limit
    return {name: shown, "next_cursor": encode_cursor(shown[-1][key], shown[-1]["id"]) if more else None}
