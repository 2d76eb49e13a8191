"""Every SQL file loads, and says what each query is for."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import redflag
from redflag.database.queries import Queries

FOLDER = Path(redflag.__file__).parent
# Scripts, not named queries
SCRIPTS = {"roles.sql", "embedded_roles.sql", "empty_schema.sql"}
FILES = [
    path for path in sorted(FOLDER.rglob("*.sql")) if path.parent.name != "migrations" and path.name not in SCRIPTS
]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(FOLDER)))
def test_a_file_of_queries_loads_and_each_says_what_it_is_for(path):
    queries = Queries(path)
    text = path.read_text()
    names = re.findall(r"^-- name: (\w+)\n(-- \S.*)?", text, re.MULTILINE)
    assert names
    for name, said in names:
        assert getattr(queries, name).text
        assert said, f"{name} does not say what it is for"


@pytest.mark.parametrize(
    "path", [*FILES, *sorted((FOLDER / "database" / "migrations").glob("*.sql"))], ids=lambda path: path.name
)
def test_no_query_names_a_schema_or_the_clock_of_a_client(path):
    text = re.sub(r"--.*", "", path.read_text())
    assert not re.search(r"\bpublic\.", text)
    assert not re.search(r"\bcurrent_time\b|\blocaltimestamp\b", text, re.IGNORECASE)


def test_a_query_with_a_missing_parameter_is_an_error_and_not_a_null():
    query = Queries(FOLDER / "commands" / "queue.sql").command
    with pytest.raises(TypeError, match="command takes"):
        query.arguments({})
    with pytest.raises(KeyError):
        query.arguments({"wrong": 1})


def test_no_sql_is_put_together_from_strings():
    found = [
        path.name
        for path in FOLDER.rglob("*.py")
        if re.search(r"""f["'](?:SELECT|INSERT|UPDATE|DELETE|WITH|CREATE|ALTER)\b""", path.read_text())
    ]
    assert found == []
