"""The HTTP client against real sockets."""

from __future__ import annotations

import datetime
import email.utils
import ipaddress
import ssl
import time
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from redflag_agent import config
from redflag_agent.api import Api, back_off
from redflag_agent.client import MAX_ANSWER, Client, parse_retry_after
from redflag_agent.config import Config, clean_server
from redflag_agent.errors import ServerRefused, ServerUnreachable, UsageError
from unit.agent.fake_server import AGENT_ID, REGISTRATION_TOKEN, FakeServer


@pytest.fixture
def api(server: FakeServer, state: Path) -> Api:
    return Api(state, config.load(state))


def test_a_401_renews_the_token_once_saves_it_and_repeats_the_call(server: FakeServer, api: Api, state: Path) -> None:
    server.access_token = "access-2"

    assert api.post("system-info", {"uptime": "1"}) == {}

    assert [call.name for call in server.calls] == ["system-info", "renew", "system-info"]
    assert server.calls[1].body == {"agent_id": AGENT_ID, "refresh_token": "refresh-1"}
    assert "authorization" not in server.calls[1].headers
    assert config.load(state).access_token == "access-2"
    api.client.close()


def test_a_renewal_keeps_what_an_administrator_changed_meanwhile(server: FakeServer, api: Api, state: Path) -> None:
    edited = config.load(state)
    edited.allow_commands = ["collect_specs"]
    config.save(state, edited)
    server.access_token = "access-2"
    api.post("system-info", {})
    api.client.close()

    saved = config.load(state)
    assert (saved.access_token, saved.allow_commands) == ("access-2", ["collect_specs"])


def test_a_401_after_the_renewal_is_the_answer(server: FakeServer, api: Api) -> None:
    server.answer_next("system-info", 401)
    server.answer_next("system-info", 401)

    with pytest.raises(ServerRefused) as refused:
        api.post("system-info", {})

    assert refused.value.status == 401
    assert [call.name for call in server.calls] == ["system-info", "renew", "system-info"]
    api.client.close()


def test_a_redirect_is_refused_and_the_token_goes_nowhere_else(server: FakeServer, api: Api) -> None:
    with FakeServer() as other:
        server.answer_next("logs", 307, {"Location": other.url + "/api/v1/agents/x/logs"})
        with pytest.raises(ServerRefused, match="redirects elsewhere"):
            api.post("logs", {})
        assert other.calls == []
    api.client.close()


def test_an_answer_that_is_too_large_is_given_up(server: FakeServer, api: Api) -> None:
    server.answer_next("commands", 200, body=b" " * (MAX_ANSWER + 1))

    with pytest.raises(ServerUnreachable, match="larger than"):
        api.check_in({}, 0)


def test_an_answer_that_ends_early_does_not_pass_for_a_whole_one(server: FakeServer, api: Api) -> None:
    server.answer_next("logs", 200, {"Content-Length": "500", "Connection": "close"}, b"{}")

    with pytest.raises(ServerUnreachable):
        api.post("logs", {})


def test_a_200_that_is_no_json_object_confirms_nothing(server: FakeServer, api: Api) -> None:
    server.answer_next("logs", 200, body=b"<html>log in first</html>")

    with pytest.raises(ServerUnreachable, match="no JSON object"):
        api.post("logs", {})
    api.client.close()


def test_an_error_carries_the_servers_words_and_retry_after(server: FakeServer, api: Api) -> None:
    server.answer_next("logs", 429, {"Retry-After": "7"}, b'{"error": "too many calls; wait"}')

    with pytest.raises(ServerRefused, match="too many calls; wait") as refused:
        api.post("logs", {})

    assert refused.value.retry_after == 7
    api.client.close()


def test_calls_share_one_connection(server: FakeServer, api: Api) -> None:
    for _ in range(3):
        api.post("system-info", {})

    assert server.connections == 1
    api.client.close()


def test_a_kept_connection_that_the_server_closed_is_opened_again(server: FakeServer, api: Api) -> None:
    server.answer_next("system-info", 200, {"Keep-Alive": "timeout=0"})
    api.post("system-info", {})
    connection = api.client._local.connection
    connection.sock.shutdown(2)  # what the network does behind the agent's back

    api.post("system-info", {})

    assert server.connections == 2
    api.client.close()


def test_a_check_in_is_a_get_with_a_json_body_under_the_path_prefix(tmp_path: Path) -> None:
    with FakeServer(prefix="/fleet") as server:
        api = Api(tmp_path, Config(server.url, AGENT_ID, server.access_token, server.refresh_token))
        api.check_in({"held": []}, 0)
        api.client.close()

        call = server.calls[0]
        assert (call.method, call.path) == ("GET", f"/fleet/api/v1/agents/{AGENT_ID}/commands")
        assert call.body == {"held": []}


def test_enrolment_sends_the_token_in_the_header_and_in_the_body(server: FakeServer) -> None:
    client = Client(server.url)
    assert client.enrol(REGISTRATION_TOKEN, {"hostname": "h"})["agent_id"] == AGENT_ID
    client.close()

    assert server.calls[0].headers["authorization"] == f"Bearer {REGISTRATION_TOKEN}"
    assert server.calls[0].body == {"hostname": "h", "registration_token": REGISTRATION_TOKEN}


def test_a_server_that_does_not_answer_in_time_is_unreachable(server: FakeServer) -> None:
    client = Client(server.url, timeout=0.3)
    with server.changed, pytest.raises(ServerUnreachable, match="no answer in time"):
        client.enrol(REGISTRATION_TOKEN, {})


def test_no_error_names_a_token(server: FakeServer, api: Api) -> None:
    server.access_token, server.refresh_token = "other-access", "other-refresh"

    with pytest.raises(ServerRefused) as refused:
        api.post("logs", {})

    text = f"{refused.value} {api.config!r} {refused.value.__dict__}"
    assert "access-1" not in text
    assert "refresh-1" not in text
    api.client.close()


def _self_signed(directory: Path) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    certificate_file, key_file = directory / "cert.pem", directory / "key.pem"
    certificate_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return certificate_file, key_file


def test_a_certificate_is_verified_and_a_private_authority_can_be_named(tmp_path: Path) -> None:
    certificate, key = _self_signed(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server = FakeServer()
    server.http.socket = context.wrap_socket(server.http.socket, server_side=True)
    with server:
        url = server.url.replace("http://", "https://")
        with pytest.raises(ServerUnreachable, match="cannot be verified"):
            Client(url).enrol(REGISTRATION_TOKEN, {})
        assert server.calls == []

        trusting = Client(url, ca_file=str(certificate))
        assert trusting.enrol(REGISTRATION_TOKEN, {})["agent_id"] == AGENT_ID
        trusting.close()


@pytest.mark.parametrize(
    "url", ["ftp://h", "https://", "h:80", "https://u:p@h", "https://h?x=1", "https://h:99999", "https://h/a b"]
)
def test_a_server_url_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match="server URL"):
        clean_server(url)


def test_retry_after_is_understood_in_both_forms() -> None:
    soon = email.utils.formatdate(time.time() + 90, usegmt=True)

    assert parse_retry_after("12") == 12
    assert 80 < (parse_retry_after(soon) or 0) <= 90
    assert parse_retry_after("999999999999") == 3600
    assert parse_retry_after("soon") is None
    assert parse_retry_after(None) is None


def test_back_off_doubles_up_to_five_minutes_and_honours_retry_after() -> None:
    assert 0.5 <= back_off(1) <= 1
    assert 4 <= back_off(4) <= 8
    assert 150 <= back_off(1000) <= 300
    assert back_off(1, retry_after=1200) == 1200
