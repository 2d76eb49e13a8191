"""No route lets in who was not meant: all of them are walked."""

from __future__ import annotations

import uuid

import httpx
import pytest
from fastapi.routing import APIRoute
from starlette.routing import Route

from redflag.access.roles import PERMISSIONS, Permission, Role
from redflag.web.agent import downloads
from redflag.web.agent.routes import routes as agent_routes
from redflag.web.app import make_admin
from redflag.web.guards import GuardedRoute, public

PUBLIC = {"/healthz", "/api/v1/auth/login", "/login", "/static/{name}"}


def _walk(routes: list) -> list[tuple[str, str, object]]:
    found = []
    for route in routes:
        if included := getattr(route, "original_router", None):
            found += _walk(included.routes)
        else:
            assert isinstance(route, GuardedRoute), f"{route} is not guarded"
            if route.page:
                continue  # tests/integration/dashboard/test_door.py walks the pages
            found += [(method, route.path, route.permission) for method in sorted(route.methods)]
    return found


def _admin_routes() -> list[tuple[str, str, object]]:
    return _walk(make_admin().routes)


ADMIN = _admin_routes()
NOBODY = uuid.UUID(int=0)


def _path(path: str) -> str:
    for name in ("agent_id", "command_id", "token_id", "user_id", "update_id"):
        path = path.replace("{" + name + "}", str(NOBODY))
    return path.replace("{command_type}", "reboot")


def test_the_walk_finds_the_routes_that_there_are():
    assert len(ADMIN) > 35
    assert {path for _, path, permission in ADMIN if permission == "public"} == PUBLIC


def test_a_route_that_does_not_say_whom_it_lets_in_cannot_be_made():
    async def open_to_all() -> None: ...

    with pytest.raises(TypeError, match="does not say who may call it"):
        GuardedRoute("/anything", open_to_all)
    assert GuardedRoute("/anything", public(open_to_all)).permission == "public"
    assert issubclass(GuardedRoute, APIRoute)


@pytest.mark.parametrize(("method", "path", "permission"), ADMIN, ids=str)
async def test_a_route_of_the_api_refuses_whoever_may_not_call_it(
    anonymous: httpx.AsyncClient, role_tokens, enrol, method, path, permission
):
    if permission == "public":
        return
    path = _path(path)
    agent = await enrol()
    for token in (None, "wrong", "a" * 64, agent.token, agent.refresh_token):
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        answer = await anonymous.request(method, path, headers=headers)
        assert answer.status_code == 401, (token, answer.text)
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["status"] == 401
    if path == "/api/v1/auth/logout":
        return  # a token has no session to end, whatever its role
    for role in Role:
        answer = await anonymous.request(method, path, headers={"Authorization": f"Bearer {role_tokens[role]}"})
        assert (answer.status_code == 403) == (permission not in PERMISSIONS[role]), (
            role,
            answer.status_code,
            answer.text,
        )


@pytest.mark.parametrize("route", agent_routes, ids=lambda route: route.path)
async def test_an_agents_route_refuses_whoever_is_not_that_agent(anonymous, role_tokens, enrol, route: Route):
    if "{agent_id}" not in route.path:
        answer = await anonymous.post(route.path, json={"agent_id": str(NOBODY), "hostname": "x"})
        assert answer.status_code in {401, 404}
        assert set(answer.json()) == {"error"}
        return
    one, other = await enrol(), await enrol()
    method = next(iter(route.methods - {"HEAD"}))
    path = route.path.replace("{agent_id}", one.id)
    for token, status in (
        (None, 401),
        ("wrong", 401),
        (role_tokens[Role.ADMIN], 401),
        (one.refresh_token, 401),
        (other.token, 403),
    ):
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        answer = await anonymous.request(method, path, json={}, headers=headers)
        assert answer.status_code == status, (token, answer.text)
        assert set(answer.json()) == {"error"}


async def test_what_a_new_host_downloads_is_open_to_all(anonymous):
    for route in downloads.routes:
        answer = await anonymous.get(route.path)
        assert answer.status_code == 200


async def test_a_path_that_is_not_there_says_so(anonymous):
    answer = await anonymous.get("/api/v1/nothing")
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"


async def test_a_refusal_of_somebody_known_is_recorded_once_a_minute(anonymous, role_tokens, owner):
    name = await owner.fetchval(
        "SELECT name FROM api_tokens WHERE role = 'viewer' AND name LIKE 'viewer-%' ORDER BY created_at DESC LIMIT 1"
    )
    for _ in range(5):
        answer = await anonymous.get("/api/v1/users", headers={"Authorization": f"Bearer {role_tokens[Role.VIEWER]}"})
        assert answer.status_code == 403
    minutes = await owner.fetch(
        "SELECT date_trunc('minute', executed_at) AS minute, count(*) AS records FROM update_logs "
        "WHERE actor = $1 AND result = 'denied' GROUP BY 1",
        f"token:{name}",
    )
    assert minutes
    assert all(row["records"] == 1 for row in minutes)


def test_every_permission_is_asked_for_somewhere():
    assert {permission for _, _, permission in ADMIN} - {"public"} == set(Permission)
