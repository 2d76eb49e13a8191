"""The API describes itself in the vocabulary that has one home."""

from __future__ import annotations

from redflag.access.roles import Role
from redflag.commands.states import Kind, Result, Status
from redflag.updates import states as updates
from redflag.web.app import make_admin


def _enums() -> dict[str, list[str]]:
    schemas = make_admin().openapi()["components"]["schemas"]
    return {name: schema["enum"] for name, schema in schemas.items() if "enum" in schema}


def test_the_enums_of_the_api_are_those_of_the_vocabulary():
    found = {frozenset(values) for values in _enums().values()}
    for vocabulary in (Status, Result, Kind, Role, updates.Status, updates.Severity):
        assert frozenset(vocabulary) in found, vocabulary


def test_every_route_says_what_it_does():
    for path, methods in make_admin().openapi()["paths"].items():
        for method, described in methods.items():
            assert described.get("description"), f"{method} {path}"
