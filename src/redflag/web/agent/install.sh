#!/bin/sh
# Installs the RedFlag agent of @SERVER@ on this host and enrols it. Usage: sh install.sh ENROLMENT_TOKEN [LOG_KEY]
# LOG_KEY is the public key of the server's audit log (`redflag audit key`); without it the agent takes the one that the server gives.
# It writes /opt/redflag-agent, /var/lib/redflag-agent and a systemd unit, and nothing else.
set -eu
SERVER='@SERVER@'
SHA256='@SHA256@'
TOKEN=${1:-${REDFLAG_ENROLMENT_TOKEN:-}}
LOG_KEY=${2:-}
fail() { echo "redflag-agent: $1" >&2; exit 1; }
[ "$(id -u)" = 0 ] || fail "this needs root: run it with sudo"
[ -n "$TOKEN" ] || fail "give the enrolment token as the first argument; an administrator makes one with 'redflag agents invite'"
PYTHON=$(command -v python3) || fail "python3 (3.9 or newer) is missing: install it, then run this again"
"$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 9))' || fail "python3 is older than 3.9"
FILE=$(mktemp)
trap 'rm -f "$FILE"' EXIT
if command -v curl >/dev/null; then curl -fsS "$SERVER/agent/redflag-agent.pyz" -o "$FILE"
elif command -v wget >/dev/null; then wget -qO "$FILE" "$SERVER/agent/redflag-agent.pyz"
else "$PYTHON" -c 'import sys, urllib.request as u; open(sys.argv[2], "wb").write(u.urlopen(sys.argv[1], timeout=60).read())' "$SERVER/agent/redflag-agent.pyz" "$FILE"
fi || fail "could not download the agent from $SERVER"
SUM=$("$PYTHON" -c 'import hashlib, sys; print(hashlib.sha256(open(sys.argv[1], "rb").read()).hexdigest())' "$FILE")
[ "$SUM" = "$SHA256" ] || fail "the agent's SHA-256 is $SUM, and should be $SHA256: fetch this script again"
mkdir -p /opt/redflag-agent
install -m 0755 "$FILE" /opt/redflag-agent/redflag-agent.pyz
printf '%s\n' "$TOKEN" | "$PYTHON" /opt/redflag-agent/redflag-agent.pyz enroll --state-dir /var/lib/redflag-agent --server "$SERVER" --token-stdin ${LOG_KEY:+--log-key "$LOG_KEY"}
if [ -d /run/systemd/system ]; then
  cat >/etc/systemd/system/redflag-agent.service <<UNIT
[Unit]
Description=RedFlag agent
After=network-online.target
Wants=network-online.target

[Service]
ExecStart=$PYTHON /opt/redflag-agent/redflag-agent.pyz run --state-dir /var/lib/redflag-agent
Restart=always
RestartSec=5
StateDirectory=redflag-agent
StateDirectoryMode=0700
KillMode=mixed
TimeoutStopSec=30

[Install]
WantedBy=multi-user.target
UNIT
  systemctl daemon-reload
  systemctl enable --now redflag-agent.service
  echo "redflag-agent: enrolled, and running as a service. 'journalctl -u redflag-agent' shows its log."
else
  echo "redflag-agent: enrolled. This host has no systemd; start the agent with:"
  echo "  $PYTHON /opt/redflag-agent/redflag-agent.pyz run --state-dir /var/lib/redflag-agent"
fi
