"""What auditors ask for by name, what in the report answers it, and what this product does not answer.

The requirements are named and said in short; their own texts decide. Whether a control is met is for an auditor to say: the
report shows evidence of what this server and its agents did, and of nothing else in the organisation.
"""

from __future__ import annotations

from dataclasses import dataclass

PCI = "PCI DSS v4.0.1"
ISO = "ISO/IEC 27001:2022"
NIST = "NIST SP 800-53 Rev. 5"
SOC = "SOC 2 (TSC 2017)"

# The sections of the report that the evidence is in, by their titles
COMPLETENESS = "Completeness"
COMMANDS = "Commands"
TIMEOUTS = "Timeouts"
ACTIVITY = "Who did what"
REFUSED = "Refused access"
DECISIONS = "Decisions on updates"
CHANGES = "Changes of users, tokens and policies"
CUSTODY = "What was done to the record"
SERVICE = "The service itself"


@dataclass(frozen=True)
class Control:
    """One requirement: what it asks, what in this report is evidence, and what is not covered."""

    framework: str
    id: str
    asks: str
    evidence: str
    not_covered: str


CONTROLS = (
    Control(
        PCI, "10.2.1", "Audit logs are enabled and active for all system components.",
        f"{COMPLETENESS}: every record of the period has its position, and none is missing. {SERVICE}: when it ran.",
        "Only this server, its database and its agents. The logs of other components, the hosts' own among them, are not collected.",
    ),
    Control(
        PCI, "10.2.1.1", "All individual user access to cardholder data.",
        "None.", "This product holds no cardholder data and does not see who reads them.",
    ),
    Control(
        PCI, "10.2.1.2", "All actions taken by any individual with administrative access.",
        f"{ACTIVITY}: each user, token and database role by name, with counts; {CHANGES}; {DECISIONS}.",
        "What a superuser of the database or root does outside the audited tables, and what is done on a host without this product.",
    ),
    Control(
        PCI, "10.2.1.3", "All access to audit logs.",
        f"{ACTIVITY}: history_read and audit_exported, once an hour for each session and filter; {CUSTODY}.",
        "Reading by a database role in SQL; turn on PostgreSQL's own logging (log_statement, pgaudit) for that.",
    ),
    Control(
        PCI, "10.2.1.4", "All invalid logical access attempts.",
        f"{REFUSED}: by name, one record for a name and action in a minute; by address, counted.",
        "Past 100 addresses in one minute the others are counted together. Attempts on hosts and on the database itself.",
    ),
    Control(
        PCI, "10.2.1.5", "All changes to identification and authentication credentials, privileges among them.",
        f"{CHANGES}: users, roles, passwords (that they were set), API tokens and enrolment tokens, with old and new values.",
        "Accounts of the hosts and of the database.",
    ),
    Control(
        PCI, "10.2.1.6", "All initialization of new audit logs, and all starting, stopping or pausing of the existing ones.",
        f"{COMPLETENESS}: the record is written by the database in the transaction of the change, so it cannot pause while changes "
        f"go on; {SERVICE}: starts, stops and gaps; {CUSTODY}.",
        "A superuser can disable a trigger; that leaves no record, and shows as a gap of versions or in fsck. Starts of PostgreSQL itself.",
    ),
    Control(
        PCI, "10.2.1.7", "All creation and deletion of system-level objects.",
        f"{COMMANDS} and {DECISIONS}: what was installed on which host by which command.",
        "Objects that are made or removed on a host by other means, and tables of the database.",
    ),
    Control(
        PCI, "10.2.2", "Each record has user, type of event, date and time, success or failure, origin, and what was affected.",
        "Every record has actor, kind and action or command type, executed_at and created_at, result, address where one is known, "
        "and the agent, the command or the changed object (entries.jsonl of the bundle).",
        "Work of the server itself has the replica's name and no address.",
    ),
    Control(
        PCI, "10.3.1", "Read access to audit logs is limited to those with a job-related need.",
        f"Reading needs the permissions read_history or read_audit (roles auditor, operator, admin); {REFUSED} shows who was kept out.",
        "Who holds which role now: see `redflag users list` and `redflag tokens list`. Rights of database roles.",
    ),
    Control(
        PCI, "10.3.2", "Audit logs are protected from modification by individuals.",
        f"{COMPLETENESS}: an RFC 6962 tree under a signed checkpoint; a changed, removed or inserted record "
        "is found by fsck and by the verifier.",
        "Changes before a record's first checkpoint (at most two seconds after its commit) by who owns the database; see SECURITY.md.",
    ),
    Control(
        PCI, "10.3.3", "Audit logs are promptly backed up to a server or media that are hard to modify.",
        f"{COMPLETENESS}: who cosigned the checkpoint; {CUSTODY}: what was exported, and when.",
        "Where copies are kept is not known here. Without a cosignature or a copy elsewhere this is not shown.",
    ),
    Control(
        PCI, "10.3.4", "Change detection on audit logs, so that existing data cannot be changed without alerts.",
        f"{COMPLETENESS}: the last fsck, its outcome, and the consistency of all checkpoints.",
        "fsck runs when it is called; have it run daily, and alert on exit code 7.",
    ),
    Control(
        ISO, "A.8.15", "Logs of activities, exceptions, faults and other relevant events are produced, stored, protected and analysed.",
        f"Produced: {COMMANDS}, {ACTIVITY}, {DECISIONS}, {CHANGES}, {SERVICE}. Exceptions: {TIMEOUTS}, {REFUSED}. "
        f"Stored and protected: {COMPLETENESS}, {CUSTODY}.",
        "That somebody analysed them is for the organisation to show; this report is a means to it. Logs of other systems.",
    ),
    Control(
        NIST, "AU-2", "The event types that the system logs are named, and are adequate for later investigations.",
        f"{ACTIVITY} has every kind of event that occurred; docs/reference/states.md names all kinds.",
        "Which events an organisation has to log is its own choice, to be reviewed by itself.",
    ),
    Control(
        NIST, "AU-3", "Records say what type of event occurred, when, where, from what source, with what outcome, and who was involved.",
        "(a) kind, action, command type; (b) executed_at, created_at; (c) agent, or the changed object; (d) actor, address and request id; "
        "(e) result, exit code, message; (f) actor, agent and subject. All of it in each record, see entries.jsonl of the bundle.",
        "Values that were erased, or redacted before they were stored: the record says that they were.",
    ),
    Control(
        NIST, "AU-9", "Audit information and tools are protected from unauthorized access, modification and deletion.",
        f"{COMPLETENESS}, {REFUSED}; the server's database role has no UPDATE, DELETE or TRUNCATE on the records.",
        "Storage on other systems (AU-9(2)) unless cosignatures or exports are shown. "
        "Cryptographic proof (AU-9(3)) covers records, not the verifier's host.",
    ),
    Control(
        NIST, "AU-10", "Irrefutable evidence that somebody performed an action.",
        "In part: each record names who acted, as the server authenticated them, and is bound to the others by the log's signature.",
        "People do not sign their actions: the log's key signs, and whoever could act under a name is that name here.",
    ),
    Control(
        SOC, "CC7.2", "System components are monitored for anomalies, which are analysed as to whether they are security events.",
        f"{TIMEOUTS}, {COMMANDS} (failed, error), {REFUSED}, {COMPLETENESS} (fsck), {SERVICE} (gaps).",
        "The analysis itself, and components outside this product. Alerts leave by Prometheus; see docs/reference/metrics.md.",
    ),
)  # fmt: skip
