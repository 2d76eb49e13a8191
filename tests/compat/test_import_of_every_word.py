"""Every status and word of RedFlag's becomes one of ours, what is odd is skipped with a reason, and no secret comes along."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from compat.sources import SHAPE, Moved, checksums, definitions, make_source, target
from redflag.audit import redaction
from redflag.commands.states import Status
from redflag.database.embedded import EmbeddedDatabase
from redflag.imports import redflag as importer
from redflag.imports import secrets, words
from redflag.imports.redflag import Line
from redflag.updates.states import Status as UpdateStatus

SECRET = "hunter2-and-more"


@pytest.fixture(scope="module")
def varied(postgres: EmbeddedDatabase) -> str:
    """Every status and word, and what is odd."""
    rows = Path(__file__).with_name("varied.sql").read_text()
    return make_source(postgres, "redflag_varied", definitions(SHAPE) + rows)


@pytest_asyncio.fixture(scope="module")
async def odd(postgres: EmbeddedDatabase, varied: str) -> AsyncIterator[Moved]:
    """The varied database, imported into one where somebody has a name already."""
    async with target(postgres, "from_varied") as into:
        await into.owner.execute("INSERT INTO users (username, password_hash, role) VALUES ('Taken', 'x', 'admin')")
        before = await checksums(varied)
        outcome = await importer.run(into.owner_dsn, varied, longest_output=1024)
        yield Moved(varied, into, outcome, before)


async def test_what_is_skipped_says_why(odd: Moved) -> None:
    assert all(line.adds_up() for line in odd.outcome.lines)
    assert {line.table: line.skipped for line in odd.outcome.lines if line.skipped} == {
        "agent_tags": {"its agent is not there": 1},
        "refresh_tokens": {
            "it ran out before the import": 1, "its hash is no SHA-256": 1, "its agent is not there": 1,
        },
        "users": {
            "another imported user has the name ada": 1, "somebody here has the name taken": 1,
            "its name is none that is allowed here": 1, "its password hash is no bcrypt": 1,
        },
        "agent_commands": {"its status is unknown here: paused": 1, "its agent is not there": 2},
        "current_package_state": {"its name is empty, or longer than 500 characters": 1},
        "update_packages": {
            "a newer offer for this package is imported": 1, "a newer state of this package is there": 1, "its agent is not there": 1,
        },
        "update_version_history": {"its status is unknown here: sideways": 1},
        "update_events": {"it says nothing of a version: ignored": 1},
    }  # fmt: skip


async def test_commands_come_over_in_the_status_they_had(odd: Moved) -> None:
    rows = await odd.target.owner.fetch(
        """SELECT substr(c.id::text, 35)::integer AS n, c.status, c.params, c.result, c.completed_at IS NOT NULL AS ended,
             l.result AS recorded, l.metadata, l.exit_code, l.stdout
           FROM agent_commands c JOIN update_logs l ON l.command_id = c.id AND l.version = 1 AND l.kind = 'import'
           WHERE c.command_type = 'reboot'"""
    )
    found = {row["n"]: row for row in rows}
    assert {n: (row["status"], row["recorded"]) for n, row in found.items()} == {
        1: ("failed", "failed"), 2: ("completed", "success"), 3: ("pending", "pending"), 4: ("sent", "sent"), 5: ("running", "running"),
        6: ("timed_out", "timed_out"), 7: ("cancelled", "cancelled"), 8: ("timed_out", "timed_out"), 12: ("timed_out", "timed_out"),
    }  # fmt: skip
    assert found[1]["metadata"]["imported"] == {
        "status": "archived_failed", "result": {"token": redaction.MARK}, "completed_at": "unknown",
    }  # fmt: skip
    assert found[1]["exit_code"] == 3
    assert found[2]["stdout"] == f"password={redaction.MARK}"
    assert found[2]["params"] == {"api_key": redaction.MARK}
    assert found[5]["params"] == {}
    assert found[5]["metadata"]["imported"]["params"] == [1]
    assert found[6]["metadata"]["timeout_reason"] == "expired before import"
    assert found[7]["metadata"]["imported"]["result"] == "never mind"
    assert sorted(n for n, row in found.items() if not row["ended"]) == [3, 4, 5]
    assert odd.outcome.expired == 1


async def test_only_timeouts_that_were_not_recorded_are_reconstructed(odd: Moved) -> None:
    rows = await odd.target.owner.fetch("SELECT command_id FROM update_logs WHERE metadata ? 'reconstructed'")
    assert [str(row["command_id"])[-2:] for row in rows] == ["08"]
    assert odd.outcome.reconstructed == 1


async def test_the_trigger_counts_on_from_the_import(odd: Moved) -> None:
    command_id = await odd.target.value("SELECT id FROM agent_commands WHERE status = 'pending'")
    await odd.target.owner.execute(
        "UPDATE agent_commands SET status = 'sent', sent_at = now() WHERE id = $1", command_id
    )
    rows = await odd.target.owner.fetch(
        "SELECT kind, version, metadata FROM update_logs WHERE command_id = $1 ORDER BY version", command_id
    )
    assert [(row["kind"], row["version"]) for row in rows] == [("import", 1), ("transition", 2)]
    assert "imported" not in rows[1]["metadata"]
    assert "imported_from" not in rows[1]["metadata"]


async def test_words_of_results_are_mapped_and_kept(odd: Moved) -> None:
    rows = await odd.target.owner.fetch(
        "SELECT * FROM update_logs WHERE action = 'install' AND metadata ? 'original_id'"
    )
    found = {row["metadata"].get("reported_result"): row for row in rows}
    assert {word: row["result"] for word, row in found.items()} == {
        None: "success",
        "failure": "failed",
        "strange": "error",
    }
    assert found["failure"]["metadata"]["executed_at"] == "unknown"
    assert len(found["strange"]["stdout"]) < 1200
    assert "3976 of 5000 bytes cut" in found["strange"]["stdout"]


async def test_no_secret_comes_along(odd: Moved) -> None:
    assert odd.outcome.cleaned >= 4
    for table in ("agents", "agent_commands", "update_logs", "updates", "update_versions", "enrolment_tokens"):
        assert await odd.target.value(f"SELECT count(*) FROM {table} t WHERE t::text LIKE $1", f"%{SECRET}%") == 0, (
            table
        )
    assert (
        await odd.target.value("SELECT metadata ->> 'password' FROM agents WHERE hostname = 'web1'") == redaction.MARK
    )


async def test_updates_of_every_status_become_one_of_ours(odd: Moved) -> None:
    rows = await odd.target.owner.fetch("SELECT * FROM updates WHERE package_type = 'apt'")
    assert {row["package_name"]: row["status"] for row in rows} == {
        "pending": "pending", "approved": "approved", "updated": "installed", "failed": "failed", "ignored": "rejected",
        "installing": "installing", "checking_dependencies": "pending", "pending_dependencies": "dependencies", "undreamt": "pending",
    }  # fmt: skip
    found = {row["package_name"]: row for row in rows}
    assert found["pending"]["severity"] == "critical"
    assert found["approved"]["metadata"]["reported_severity"] == "none"
    assert found["approved"]["approved_version"] == "2"
    assert found["installing"]["command_id"] is not None
    assert found["undreamt"]["reason"] == "RedFlag called it undreamt"
    old = await odd.target.owner.fetchrow("SELECT * FROM updates WHERE package_type = 'dnf'")
    assert (old["status"], old["available_version"], old["cve_list"]) == ("approved", "2", ["CVE-1"])


async def test_tokens_people_and_hosts_are_as_they_were(odd: Moved) -> None:
    value = odd.target.value
    assert await value("SELECT array_agg(tags[1] || tags[2]) FROM agents WHERE hostname = 'web1'") == ["berlinweb"]
    assert await value("SELECT hostname FROM agents WHERE os_type = 'windows'") == str(uuid.UUID(int=2))
    assert await value("SELECT array_agg(agent_version ORDER BY os_type) FROM agents") == ["0.1.18", "0.1.16"]
    assert (
        await value(
            "SELECT count(*) FROM agent_tokens WHERE revoked_at IS NOT NULL AND token_hash = decode(repeat('0a', 32), 'hex')"
        )
        == 1
    )
    working = (
        "SELECT label FROM enrolment_tokens WHERE revoked_at IS NULL AND expires_at > now() AND seats_used < seats"
    )
    assert [row["label"] for row in await odd.target.owner.fetch(working)] == ["imported"]
    assert (
        await value("SELECT token_hash FROM enrolment_tokens WHERE label = 'imported'")
        == hashlib.sha256(b"d" * 64).digest()
    )
    rows = await odd.target.owner.fetch("SELECT username, role FROM users WHERE username <> 'Taken'")
    assert {row["username"]: row["role"] for row in rows} == {"Ada": "operator", "reader": "viewer"}


# Words and secrets


def test_every_word_of_redflags_becomes_one_of_ours() -> None:
    # What its CHECK constraints allow
    assert set(words.COMMANDS) == {
        "pending", "sent", "running", "completed", "failed", "timed_out", "cancelled", "archived_failed",
    }  # fmt: skip
    assert set(words.COMMANDS.values()) == set(Status)
    assert {"pending", "approved", "updated", "failed", "ignored", "installing", "pending_dependencies", "checking_dependencies",
            "scheduled", "installed"} <= set(words.UPDATES)  # fmt: skip
    assert set(words.UPDATES.values()) <= set(UpdateStatus)
    assert {"success", "failed", "partial", "failure", "timed_out"} <= set(words.RESULTS)
    assert {"admin", "user", "readonly"} <= set(words.ROLES)
    assert words.RESULTS["timed_out"] == "timed_out"


def test_each_pattern_of_redaction_has_its_sign() -> None:
    assert list(secrets.SIGNS) == list(redaction.PATTERNS)


@pytest.mark.parametrize(
    "text",
    [
        "-----BEGIN RSA PRIVATE KEY-----\nabc\n-----END RSA PRIVATE KEY-----",
        "https://me:pw@host/", "Authorization: Basic abc=", "proxy-Authorization=x y",
        "bearer abcdefgh123", "PASSWORD=x", "passphrase: 'a b'", "my_secret=x",
        "\u017fecret=x", "to\u212aen=x", "api-key: x", "ACCESS_KEY=x",
        "privatekey=x", "credentials: x", "client_secret = x", "run --pass x", "run -token=x", "eyJhbGciOiJI.eyJzdWIiOiIx.abcdefgh1",
        "AKIAABCDEFGHIJKLMNOP", "ghp_" + "a" * 20, "glpat-" + "a" * 20, "xoxb-" + "a" * 10, "author\u0131zation=x",
    ],
)  # fmt: skip
async def test_what_redaction_takes_out_is_always_marked(odd: Moved, text: str) -> None:
    marked = 'SELECT lower($1::text COLLATE "C") LIKE ANY ($2::text[])'
    assert redaction.text(text) != text
    assert await odd.target.value(marked, text, secrets.suspicious(more_patterns=False))
    assert await odd.target.value(marked, text, secrets.suspicious(more_patterns=True))
    assert not await odd.target.value(marked, "Setting up libfoo (1.2) ...", secrets.suspicious(more_patterns=False))


def test_a_line_that_does_not_add_up_is_seen() -> None:
    assert Line("agents", 3, 1, 1, {"why": 1}).adds_up()
    assert not Line("agents", 3, 1, 1, {}).adds_up()
