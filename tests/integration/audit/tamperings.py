"""What a superuser may do to the record and the log, beside flipping bits: SQL, by what was done to what."""

from __future__ import annotations

from dataclasses import dataclass

from integration.audit.corpus import TABLES

TEXTS = ("kind", "command_type", "action", "actor", "result", "message", "stdout", "stderr")
TIMES = ("created_at", "executed_at", "sent_at", "completed_at")
NULLABLE = {
    "command_id": "uuidv7()", "agent_id": "uuidv7()", "version": "1", "command_type": "''", "action": "''", "message": "''",
    "params": "'{}'", "sent_at": "now()", "completed_at": "now()",
    "stdout": "''", "stderr": "''", "exit_code": "0", "duration_seconds": "0",
}  # fmt: skip


@dataclass(frozen=True)
class Tampering:
    """Statements in which $p < $q stand for two positions of the log that are drawn anew each time; how often it is tried; whether
    it changes what is served; and whether fsck can tell without knowing a checkpoint that is gone.
    """

    statements: str
    times: int = 6
    served: bool = False
    told_by_fsck: bool = True


P, Q = (
    "(SELECT record_id FROM audit_entries WHERE position = $p)",
    "(SELECT record_id FROM audit_entries WHERE position = $q)",
)
OLDEST = "(SELECT min(size) FROM audit_checkpoints)"
BOTH = "((a.position, b.position) IN (($p, $q), ($q, $p)))"


def record(change: str, times: int = 4, of: str = "true") -> Tampering:
    """A change of one record among those of which something holds."""
    which = f"SELECT id, row_number() OVER (ORDER BY created_at, id) - 1 AS n, count(*) OVER () AS count FROM update_logs WHERE {of}"
    return Tampering(
        f"UPDATE update_logs SET {change} WHERE id = (SELECT id FROM ({which}) AS found WHERE n = $p % count)", times
    )


def move(which: str, to: str) -> str:
    """Gives entries other positions, by way of numbers that no entry has: inside `to`, the old one is -position - 1."""
    return f"UPDATE audit_entries SET position = -position - 1 WHERE {which}; UPDATE audit_entries SET position = {to} WHERE position < 0"


SWAP = move("position IN ($p, $q)", "CASE -position - 1 WHEN $p THEN $q ELSE $p END")
SWAP_LEAVES = f"UPDATE audit_entries a SET leaf = b.leaf FROM audit_entries b WHERE {BOTH}"


def exchange(column: str) -> str:
    """Two records exchange what they have in a column."""
    return f"""UPDATE update_logs a SET {column} = b.{column} FROM update_logs b
               WHERE (a.id, b.id) IN (({P}, {Q}), ({Q}, {P})) AND a.{column} IS DISTINCT FROM b.{column}"""


DELETED = {
    "a record": Tampering(f"DELETE FROM update_logs WHERE id = {P}", 20),
    "the records of a period": Tampering(
        "DELETE FROM update_logs WHERE id IN (SELECT record_id FROM audit_entries WHERE position BETWEEN $p AND $q)"
    ),
    "an entry": Tampering("DELETE FROM audit_entries WHERE position = $p", 20, served=True),
    "the last entry": Tampering(
        "DELETE FROM audit_entries WHERE position = (SELECT max(position) FROM audit_entries)", 1, served=True
    ),
    "a record with its entry": Tampering(
        f"DELETE FROM update_logs WHERE id = {P}; DELETE FROM audit_entries WHERE position = $p", 10, served=True
    ),
    "a record with its entry, and the rest closes up": Tampering(
        f"""DELETE FROM update_logs WHERE id = {P}; DELETE FROM audit_entries WHERE position = $p;
            {move("position > $p", "-position - 2")};
            UPDATE audit_log SET sequenced = sequenced - 1, integrated = integrated - 1""",
        10, served=True,
    ),
    "the end of the log": Tampering(
        """DELETE FROM update_logs WHERE id IN (SELECT record_id FROM audit_entries WHERE position >= $q);
           DELETE FROM audit_entries WHERE position >= $q; UPDATE audit_log SET sequenced = $q, integrated = $q""",
        10, served=True,
    ),
    "the end of the log with its checkpoints": Tampering(
        f"""DELETE FROM update_logs WHERE id IN (SELECT record_id FROM audit_entries WHERE position >= {OLDEST});
            DELETE FROM audit_entries WHERE position >= {OLDEST}; DELETE FROM audit_tiles WHERE level + index > 0;
            UPDATE audit_tiles SET hashes = substr(hashes, 1, {OLDEST}::integer * 32); DELETE FROM agent_commands;
            UPDATE audit_log SET sequenced = {OLDEST}, integrated = {OLDEST};
            DELETE FROM audit_checkpoints WHERE size > {OLDEST}""",
        1, served=True, told_by_fsck=False,
    ),
    "a full tile": Tampering("DELETE FROM audit_tiles WHERE level = 0 AND index = 0", 1, served=True),
    "a partial tile": Tampering("DELETE FROM audit_tiles WHERE level = 0 AND index = 1", 1, served=True),
    "a higher tile": Tampering("DELETE FROM audit_tiles WHERE level = 1", 1, served=True),
    "the newest checkpoint": Tampering(
        "DELETE FROM audit_checkpoints WHERE size = (SELECT max(size) FROM audit_checkpoints)",
        1, served=True, told_by_fsck=False,
    ),
    "all records": Tampering("TRUNCATE update_logs", 1),
    "all entries": Tampering("TRUNCATE audit_entries", 1, served=True),
    "all tiles": Tampering("TRUNCATE audit_tiles", 1, served=True),
    "all checkpoints": Tampering("TRUNCATE audit_checkpoints CASCADE", 1, served=True),
    "everything": Tampering(
        f"TRUNCATE {', '.join(TABLES)} CASCADE; INSERT INTO audit_log DEFAULT VALUES", 1, served=True, told_by_fsck=False
    ),
}  # fmt: skip

INSERTED = {
    "a record that does not wait for a position": Tampering(
        "INSERT INTO update_logs (id, actor, result, message) VALUES (uuidv7(), 'user:bob', 'success', 'forged')", 1
    ),
    "a record once more, at another time": Tampering(
        f"""INSERT INTO update_logs
            SELECT (jsonb_populate_record(u, jsonb_build_object('created_at', u.created_at + interval '1 second'))).*
            FROM update_logs u WHERE id = {P}"""
    ),
    "an entry, and the rest moves up": Tampering(
        f"""{move("position >= $p", "-position")};
            INSERT INTO audit_entries SELECT $p, uuidv7(), recorded_at, leaf FROM audit_entries WHERE position = $q + 1;
            UPDATE audit_log SET sequenced = sequenced + 1, integrated = integrated + 1""",
        served=True,
    ),
    "an entry after the last": Tampering("INSERT INTO audit_entries SELECT sequenced, uuidv7(), now(), 'x' FROM audit_log", 1),
    "a hash more than the tree has": Tampering("UPDATE audit_tiles SET hashes = hashes || sha256('x') WHERE index = 1", 1),
    "a hash more than the tree has, higher up": Tampering("UPDATE audit_tiles SET hashes = hashes || sha256('x') WHERE level = 1", 1),
    "a tile beside the tree": Tampering("INSERT INTO audit_tiles (level, index, hashes) VALUES (0, 2 + $p, sha256('x'))", 2),
    "a tile above the tree": Tampering("INSERT INTO audit_tiles (level, index, hashes) VALUES (2, 0, sha256('x'))", 1),
    "a checkpoint between the others": Tampering(
        """INSERT INTO audit_checkpoints (size, root, note)
           SELECT size + 10 + $p % 60, root, note FROM audit_checkpoints ORDER BY size LIMIT 1"""
    ),
    "an old checkpoint as the newest": Tampering(
        """INSERT INTO audit_checkpoints (size, root, note)
           SELECT 1000 + $p, root, note FROM audit_checkpoints ORDER BY size LIMIT 1""",
        served=True,
    ),
    "what has a position into the outbox": Tampering(
        "INSERT INTO audit_pending (id, created_at) SELECT record_id, recorded_at FROM audit_entries WHERE position = $p", 1
    ),
    "what is no record into the outbox": Tampering(
        "INSERT INTO audit_pending (id, created_at) VALUES (uuidv7(), now())", 1
    ),
}  # fmt: skip

EXCHANGED = {
    **{
        f"{column} of two records": Tampering(exchange(column))
        for column in (*TEXTS, *TIMES, "id", "command_id", "agent_id", "metadata", "params", "exit_code", "duration_seconds", "salt")
    },
    "the places of two entries": Tampering(SWAP, 15, served=True),
    "the places of two neighbours": Tampering(
        move("position IN ($p, $p + 1)", "CASE -position - 1 WHEN $p THEN $p + 1 ELSE $p END"), 15, served=True
    ),
    "the leaves of two entries": Tampering(SWAP_LEAVES, 15, served=True),
    "the records of two entries": Tampering(f"{SWAP}; {SWAP_LEAVES}", 10),
    "two hashes of a tile": Tampering(
        """UPDATE audit_tiles t SET hashes = overlay(overlay(hashes PLACING substr(hashes, other, 32) FROM one)
             PLACING substr(hashes, one, 32) FROM other)
           FROM (VALUES (1 + 32 * ($p % 100), 1 + 32 * ($q % 100 + 100))) AS places (one, other)
           WHERE level = 0 AND index = 0""",
        served=True,
    ),
    "two tiles": Tampering(
        "UPDATE audit_tiles SET index = index + 10 WHERE level = 0; UPDATE audit_tiles SET index = 11 - index WHERE level = 0",
        1, served=True,
    ),
    "the notes of two checkpoints": Tampering(
        """UPDATE audit_checkpoints a SET note = b.note
           FROM audit_checkpoints b, (SELECT min(size), max(size) FROM audit_checkpoints) AS m (low, high)
           WHERE (a.size, b.size) IN ((low, high), (high, low))""",
        1, served=True,
    ),
    "the order of checkpoints": Tampering(
        "UPDATE audit_checkpoints SET size = -size; UPDATE audit_checkpoints SET size = 1000 + size", 1, served=True
    ),
}  # fmt: skip

CUT = {
    **{f"{column} of a record": record(f"{column} = left({column}, -1)", of=f"length({column}) > 0") for column in TEXTS},
    **{
        f"{column} of a record altogether": record(f"{column} = NULL", of=f"{column} IS NOT NULL")
        for column in (*NULLABLE, "salt")
    },
    "a value and its salt": record("message = NULL, salt = NULL"),
    "a value, and its salt as by an erasure": record(
        "message = NULL, salt = NULL, salts = jsonb_build_object('actor', encode(salt, 'hex'))"
    ),
    "the end of a leaf": Tampering(
        "UPDATE audit_entries SET leaf = substr(leaf, 1, octet_length(leaf) - 1) WHERE position = $p", served=True
    ),
    "a whole leaf": Tampering("UPDATE audit_entries SET leaf = '' WHERE position = $p", served=True),
    "a tile": Tampering(
        "UPDATE audit_tiles SET hashes = substr(hashes, 1, octet_length(hashes) - 32) WHERE level = 0 AND index = $p % 2",
        4, served=True,
    ),
    "a hash of a tile": Tampering(
        "UPDATE audit_tiles SET hashes = substr(hashes, 1, octet_length(hashes) - 1) WHERE level = 0 AND index = $p % 2",
        4, served=True,
    ),
    "a note": Tampering("UPDATE audit_checkpoints SET note = left(note, -1 - $p % 60)", served=True),
    "a signature": Tampering("UPDATE audit_checkpoints SET note = split_part(note, '—', 1)", 1, served=True),
}  # fmt: skip

FILLED = {
    **{f"{column} of a record": record(f"{column} = {value}", 3, f"{column} IS NULL") for column, value in NULLABLE.items()},
    "parameters with a JSON null": record("params = 'null'", 2, "params IS NULL"),
    **{
        f"metadata with {value}": record(f"metadata = '{value}'", 1)
        for value in ("null", "5", "true", '"address"', "[]", '["address"]', "{}")
    },
    "a list of salts beside the salt": record("salts = jsonb_build_object('message', encode(salt, 'hex'))", 2),
    "a space after a leaf": Tampering("UPDATE audit_entries SET leaf = leaf || ' '::bytea WHERE position = $p", served=True),
    "a line after a note": Tampering("UPDATE audit_checkpoints SET note = note || E'\\n'", 1, served=True),
    "a line before a note": Tampering("UPDATE audit_checkpoints SET note = E'\\n' || note", 1, served=True),
    "carriage returns into a note": Tampering(
        "UPDATE audit_checkpoints SET note = replace(note, E'\\n', E'\\r\\n')", 1, served=True
    ),
}  # fmt: skip

ALL = {
    f"{said}: {name}": one
    for said, group in (("deleted", DELETED), ("inserted", INSERTED), ("exchanged", EXCHANGED), ("cut", CUT), ("filled", FILLED))
    for name, one in group.items()
}  # fmt: skip
