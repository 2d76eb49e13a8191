"""Fills databases quickly, as no installation could: by the superuser, with triggers off and indexes made afterwards.

What is filled in is what the server would have made; only its records' places in the log are missing, which no row measures.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import uuid
from collections.abc import AsyncIterator
from typing import Any

from redflag.database import pool

# Agent number 1 has this id, and a token that follows from its number: a load generator needs no list
_FIRST_AGENT = 0x01900000_0000_7000_8000_000000000000
_AGENT_SQL = "('01900000-0000-7000-8000-' || lpad(to_hex({0}::bigint), 12, '0'))::uuid"
_DAY = 86400


def agent_id(number: int) -> uuid.UUID:
    """The agent of a number from 1 on."""
    return uuid.UUID(int=_FIRST_AGENT + number)


def agent_token(number: int) -> str:
    """Its access token."""
    return hashlib.sha256(b"bench agent %d" % number).hexdigest()


@contextlib.asynccontextmanager
async def bare(connection: Any, *tables: str, indexes: bool = True) -> AsyncIterator[None]:
    """While this is open the tables have no triggers and, with `indexes`, no index; afterwards they are as they were."""
    triggers = await connection.fetch(
        "SELECT t.tgrelid::regclass::text AS place, t.tgname AS name, t.tgenabled = 'A' AS always FROM pg_trigger t"
        " WHERE NOT t.tgisinternal AND (t.tgrelid = ANY ($1::regclass[]) OR t.tgrelid IN"
        "   (SELECT p.relid FROM unnest($1::regclass[]) AS given, pg_partition_tree(given) AS p))",
        list(tables),
    )
    dropped: list[Any] = []
    constraints: list[Any] = []
    if indexes:
        constraints = await connection.fetch(
            "SELECT conrelid::regclass::text AS place, conname AS name, pg_get_constraintdef(oid) AS definition FROM pg_constraint"
            " WHERE contype IN ('p', 'u') AND conparentid = 0 AND conrelid = ANY ($1::regclass[])"
            "   AND NOT EXISTS (SELECT FROM pg_constraint f WHERE f.contype = 'f' AND f.confrelid = pg_constraint.conrelid)",
            list(tables),
        )
        dropped = await connection.fetch(
            "SELECT indexrelid::regclass::text AS name, pg_get_indexdef(indexrelid) AS definition FROM pg_index"
            " WHERE indrelid = ANY ($1::regclass[]) AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = indexrelid)",
            list(tables),
        )
    for one in triggers:
        await connection.execute(f'ALTER TABLE {one["place"]} DISABLE TRIGGER "{one["name"]}"')
    for one in constraints:
        await connection.execute(f'ALTER TABLE {one["place"]} DROP CONSTRAINT "{one["name"]}"')
    for one in dropped:
        await connection.execute(f"DROP INDEX {one['name']}")
    # Foreign keys are triggers of the system's own
    await connection.execute("SET session_replication_role = replica")
    yield
    await connection.execute("RESET session_replication_role")
    await connection.execute("SET maintenance_work_mem = '1GB'; SET max_parallel_maintenance_workers = 2")
    for one in constraints:
        await connection.execute(
            f'ALTER TABLE {one["place"]} ADD CONSTRAINT "{one["name"]}" {one["definition"]}', timeout=900
        )
    for one in dropped:
        # Of a partitioned table: with all its partitions
        await connection.execute(one["definition"].replace(" ON ONLY ", " ON "), timeout=900)
    for one in triggers:
        how = "ENABLE ALWAYS" if one["always"] else "ENABLE"
        await connection.execute(f'ALTER TABLE {one["place"]} {how} TRIGGER "{one["name"]}"')


async def agents(connection: Any, count: int, *, first: int = 1) -> None:
    """So many agents that have checked in before, each with a token that is valid for a day."""
    numbers = range(first, first + count)
    async with bare(connection, "agents", "agent_presence", "agent_tokens", indexes=count > 50_000):
        await connection.execute(
            f"INSERT INTO agents (id, hostname, os_type, os_version, os_architecture, agent_version, protocol, created_at)"
            f" SELECT {_AGENT_SQL.format('g')}, 'host-' || g, 'linux', '12', 'amd64', '1.0.0', 1, now() - interval '90 days'"
            f" FROM generate_series($1::integer, $2::integer) g",
            first, first + count - 1, timeout=600,
        )  # fmt: skip
        await connection.execute(
            f"INSERT INTO agent_presence (agent_id, last_seen, address, metrics)"
            f" SELECT {_AGENT_SQL.format('g')}, now() - interval '1 minute', '127.0.0.1',"
            f"   jsonb_build_object('cpu_percent', g % 100, 'memory_percent', 40.5, 'disk_percent', 61, 'uptime', '12 days')"
            f" FROM generate_series($1::integer, $2::integer) g",
            first, first + count - 1, timeout=600,
        )  # fmt: skip
        await connection.execute(
            f"INSERT INTO agent_tokens (token_hash, agent_id, purpose, expires_at)"
            f" SELECT hash, {_AGENT_SQL.format('g')}, 'access', now() + interval '1 day'"
            f" FROM unnest($1::bytea[]) WITH ORDINALITY AS t (hash, place), LATERAL (SELECT place + $2::integer - 1 AS g) AS n",
            [hashlib.sha256(agent_token(number).encode()).digest() for number in numbers], first, timeout=600,
        )  # fmt: skip


async def updates(connection: Any, of_agents: int, *, each: int) -> None:
    """So many updates for every agent: of some 2,000 packages, in every severity and in most states."""
    async with bare(connection, "updates", indexes=of_agents * each > 100_000):
        await connection.execute(
            "INSERT INTO updates (agent_id, package_type, package_name, description, current_version, available_version, severity,"
            " repository_source, size_bytes, status, first_seen_at, last_seen_at, status_at)"
            f" SELECT {_AGENT_SQL.format('g')}, 'apt', 'libexample' || (g * 7 + n * 211) % 2000, 'an example', '1.0-' || n, '1.1-' || n,"
            "  (ARRAY['unknown', 'low', 'moderate', 'important', 'critical'])[1 + (g + n * n) % 5], 'stable', 10000 * (1 + n),"
            "  CASE WHEN (g + n) % 3 = 0 THEN 'installed' WHEN (g + n) % 50 = 1 THEN 'approved' WHEN (g + n) % 50 = 2 THEN 'failed'"
            "    WHEN (g + n) % 50 = 4 THEN 'rejected' ELSE 'pending' END,"
            "  now() - interval '30 days', now() - interval '1 hour', now() - interval '1 day'"
            " FROM generate_series(1, $1::integer) g, generate_series(1, $2::integer) n",
            of_agents, each, timeout=900,
        )  # fmt: skip


async def pending(
    connection: Any,
    count: int,
    *,
    of_agents: int,
    due: str = "now() + interval '2 hours'",
    handed_out: bool = False,
    first_agent: int = 1,
    records: bool = True,
    indexes: bool | None = None,
) -> None:
    """So many commands, spread over the agents, as they are after their enqueueing, or, `handed_out`, after their delivery.

    `due`: when the g-th of them (from 1 on) is past its deadline, as SQL. With the records of what was done to them so far.
    """
    agent = _AGENT_SQL.format(f"({first_agent} + g % {of_agents})")
    status, kind, version = ("sent", "execution", 2) if handed_out else ("pending", "delivery", 1)
    lasts = "interval '2 hours'" if handed_out else "interval '30 minutes'"
    act = "jsonb_build_object('actor', 'user:bench', 'request_id', gen_random_uuid(), 'address', '127.0.0.1')"
    if indexes is None:
        held = await connection.fetchval("SELECT reltuples FROM pg_class WHERE oid = 'agent_commands'::regclass")
        indexes = count > 100_000 and max(held, 0) < count
    async with bare(connection, "agent_commands", *(["update_logs"] if records else []), indexes=indexes):
        await connection.execute(
            "CREATE TEMP TABLE filled AS SELECT uuidv7() AS id, g, "
            f"{agent} AS agent_id, {due} AS due FROM generate_series(1, {int(count)}) g",
            timeout=600,
        )
        await connection.execute(
            "INSERT INTO agent_commands (id, agent_id, command_type, status, version, created_at, sent_at, deliveries, delivery_timeout,"
            " start_timeout, execution_timeout, next_deadline_at, deadline_kind, act)"
            f" SELECT id, agent_id, 'scan_updates', '{status}', {version}, due - {lasts},"
            f"  {f'due - {lasts}' if handed_out else 'NULL'}, {int(handed_out)}, '30 minutes', '60 seconds', '2 hours',"
            f"  due, '{kind}', {act} FROM filled",
            timeout=600,
        )
        if records:
            for number, result in ((1, "pending"), (2, "sent"))[:version]:
                await connection.execute(
                    "INSERT INTO update_logs (kind, command_id, agent_id, version, command_type, actor, result, metadata, params,"
                    " sent_at, executed_at, salt) SELECT 'transition', id, agent_id, $1, 'scan_updates', 'user:bench', $2,"
                    f" jsonb_build_object('request_id', id), CASE WHEN $1 = 1 THEN '{{}}'::jsonb END,"
                    f" CASE WHEN $1 = 2 THEN due - {lasts} END, due - {lasts}, sha256(id::text::bytea) FROM filled",
                    number, result, timeout=600,
                )  # fmt: skip
        await connection.execute("DROP TABLE filled")


TYPES = ("scan_updates", "dry_run_update", "install_updates", "collect_specs", "enable_heartbeat", "disable_heartbeat",
         "confirm_dependencies", "reboot", "rotate_token", "run_script", "update_agent", "collect_logs")  # fmt: skip
USERS = ("user:ada", "user:grace", "user:linus", "token:deploy", "token:ci")
RARE = ("kind", "action", "actor", "command_type", "result")

# A record in ten is of an access or a change; of the others three are the life of one command. Every column follows from g.
# Five records of all have a rare kind, five others a rare action, and so on: what is rare is what makes a filter slow.
_HISTORY = """
INSERT INTO {part} (id, created_at, executed_at, kind, command_id, agent_id, version, command_type, action, actor, result, message,
  metadata, params, sent_at, completed_at, stdout, stderr, exit_code, duration_seconds, salt)
SELECT uuidv7(at - now()), at, at,
  CASE WHEN rare = 0 THEN 'late_result' WHEN NOT life THEN CASE WHEN g % 4 = 0 THEN 'change' ELSE 'access' END ELSE 'transition' END,
  CASE WHEN life THEN ('01900000-0000-7000-9000-' || lpad(to_hex(g / 3), 12, '0'))::uuid END,
  CASE WHEN life OR g % 4 = 0 THEN ('01900000-0000-7000-8000-' || lpad(to_hex(agent), 12, '0'))::uuid END,
  CASE WHEN life THEN 1 + g % 3 END,
  CASE WHEN rare = 3 THEN 'rare_type' WHEN life THEN ({types})[1 + (sqrt(hash % 144))::integer % 12] END,
  CASE WHEN rare = 1 THEN 'rare_action'
    WHEN NOT life THEN (ARRAY['history_read', 'logged_in', 'agent_changed', 'access_refused'])[1 + g % 4]
    WHEN g % 3 = 2 THEN (ARRAY['scan_updates', 'dry_run', 'install', 'update'])[1 + hash % 4] END,
  CASE WHEN rare = 2 THEN 'user:rare' WHEN NOT life OR g % 3 = 0 THEN ({users})[1 + hash % 5]
    ELSE 'agent:01900000-0000-7000-8000-' || lpad(to_hex(agent), 12, '0') END,
  CASE WHEN rare = 4 THEN 'partial' WHEN NOT life THEN 'success' WHEN g % 3 = 0 THEN 'pending' WHEN g % 3 = 1 THEN 'sent'
    WHEN hash % 100 < 3 THEN 'timed_out' WHEN hash % 100 < 9 THEN 'failed' ELSE 'success' END,
  CASE WHEN NOT life THEN 'host-' || agent || ': tags: web' WHEN g % 3 = 2 THEN agent % 40 || ' packages' END,
  jsonb_build_object('from', 'sent', 'address', '10.0.' || agent % 250 || '.7', 'request_id', md5(g::text)),
  CASE WHEN life AND g % 3 = 0 THEN '{{}}'::jsonb END,
  CASE WHEN life AND g % 3 > 0 THEN at END, CASE WHEN life AND g % 3 = 2 THEN at END,
  CASE WHEN life AND g % 3 = 2 THEN 'Reading package lists... Building dependency tree... ' || md5(g::text) || chr(10)
    || 'Setting up libexample (1.2.' || agent || ') ...' || chr(10) || repeat('.', 60) END,
  CASE WHEN life AND g % 3 = 2 THEN '' END, CASE WHEN life AND g % 3 = 2 THEN 0 END,
  CASE WHEN life AND g % 3 = 2 THEN (hash % 90)::integer END,
  sha256(g::text::bytea)
FROM (
  SELECT g, hash, g % 30 >= 3 AS life, 1 + hash % {agents} AS agent,
    CASE WHEN g % {apart} < 5 AND g / {apart} < 5 THEN g % {apart} ELSE -1 END AS rare,
    timestamptz '{begin}' + g * interval '1 second' * {step} AS at
  FROM generate_series({low}::bigint, {high}::bigint - 1) g, LATERAL (SELECT abs(hashint8(g / 3))::bigint AS hash) h
) AS made
"""


async def history(connection: Any, url: str, rows: int, *, agents: int, months: int) -> None:
    """So many records, evenly over so many months until now, in the partitions that the server would have had.

    `url`: the superuser's address, for a second connection: both fill at once.
    """
    begin = await connection.fetchval(
        "SELECT date_trunc('month', now() AT TIME ZONE 'UTC')::date - make_interval(months => $1)", months
    )
    for month in range(months):
        # As update_logs_make_partitions makes them, which looks ahead only
        low, high = await connection.fetchrow(
            "SELECT $1::timestamp + make_interval(months => $2), $1::timestamp + make_interval(months => $2 + 1)", begin, month
        )  # fmt: skip
        part = f"update_logs_{low:%Y_%m}"
        await connection.execute(
            f"CREATE TABLE {part} PARTITION OF update_logs FOR VALUES FROM ('{low}+00') TO ('{high}+00');"
            f" ALTER TABLE {part} OWNER TO redflag_owner; SELECT update_logs_guard_partition('{part}')"
        )
    seconds = await connection.fetchval(
        "SELECT extract(epoch FROM now() - ($1::timestamp AT TIME ZONE 'UTC'))::float8", begin
    )
    step = (seconds - 60) / rows
    words = {
        "types": f"ARRAY{list(TYPES)!r}", "users": f"ARRAY{list(USERS)!r}", "agents": agents, "begin": f"{begin}+00",
        "step": repr(step), "apart": max(rows // 5, 10),
    }  # fmt: skip
    async with bare(connection, "update_logs"):
        second = await pool.connect(url, application="bench")
        await second.execute("SET session_replication_role = replica")
        try:
            pieces = [(low, min(low + 250_000, rows)) for low in range(0, rows, 250_000)]

            async def work(by: Any) -> None:
                while pieces:
                    low, high = pieces.pop(0)
                    await by.execute(_HISTORY.format(part="update_logs", low=low, high=high, **words), timeout=900)

            await asyncio.gather(work(connection), work(second))
        finally:
            await second.close()
