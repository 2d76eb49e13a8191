"""The pages let in whoever has a session, and an act only from our own pages."""

from __future__ import annotations

import re

import pytest

from redflag.access.roles import PERMISSIONS, Role
from redflag.web.app import make_admin
from redflag.web.dashboard import door
from redflag.web.guards import GuardedRoute


def _pages() -> list[tuple[str, str, object]]:
    found = []

    def walk(routes):
        for route in routes:
            if included := getattr(route, "original_router", None):
                walk(included.routes)
            elif isinstance(route, GuardedRoute) and route.page:
                found.extend((method, route.path, route.permission) for method in sorted(route.methods))

    walk(make_admin().routes)
    return found


PAGES = _pages()
NOBODY = "00000000-0000-0000-0000-000000000000"


def _path(path: str) -> str:
    return re.sub(r"\{[a-z_]+\}", NOBODY, path)


@pytest.mark.parametrize(("method", "path", "permission"), PAGES, ids=str)
async def test_whoever_has_no_session_is_sent_to_log_in(nobody, role_token, method, path, permission):
    for cookie in (None, "wrong", "a" * 64, role_token):
        cookies = {"Cookie": f"{door.COOKIE}={cookie}"} if cookie else {}
        answer = await nobody.request(method, _path(path), headers={"Accept": "text/html", **cookies})
        if path.startswith("/live"):
            assert answer.status_code == 401
        else:
            assert (answer.status_code, answer.headers["location"].partition("?")[0]) == (303, "/login"), answer.text


@pytest.mark.parametrize(("method", "path", "permission"), [page for page in PAGES if page[0] != "GET"], ids=str)
async def test_an_act_needs_the_word_of_our_own_page(admin, method, path, permission):
    for headers in (
        {},
        {"X-CSRF-Token": "0" * 64},
        {"X-CSRF-Token": door.csrf_of("another session")},
        {"X-CSRF-Token": admin.csrf, "Sec-Fetch-Site": "cross-site"},
        {"X-CSRF-Token": admin.csrf, "Origin": "https://elsewhere.example"},
        {"X-CSRF-Token": admin.csrf, "Origin": "null"},
    ):
        answer = await admin.request(method, _path(path), headers=headers)
        assert answer.status_code == 403, (headers, answer.status_code, answer.text)


@pytest.mark.parametrize("role", [Role.VIEWER, Role.OPERATOR, Role.AUDITOR])
async def test_a_role_may_do_what_it_may_and_nothing_else(person, role):
    somebody = await person(role)
    for method, path, permission in PAGES:
        if path.startswith("/live") or path == "/logout" or permission in PERMISSIONS[role]:
            continue
        headers = {"X-CSRF-Token": somebody.csrf, "Accept": "text/html"}
        answer = await somebody.request(method, _path(path), headers=headers)
        assert answer.status_code == 403, (method, path, answer.status_code)


@pytest.mark.parametrize("role", list(Role))
async def test_the_menu_names_what_the_role_may_see_and_each_page_opens(person, role):
    somebody = await person(role)
    home = await somebody.page("/")
    menu = re.findall(r'class="nav-link" href="([^"]+)"', home)
    assert ("/history" in menu) == ("read_history" in PERMISSIONS[role])
    for path in menu:
        await somebody.page(path)


async def test_a_generated_password_opens_nothing_but_its_own_change(person, nobody):
    somebody = await person(Role.ADMIN, must_change_password=True)
    for method, path, _permission in PAGES:
        if method == "GET" and not path.startswith("/live") and path != "/password":
            answer = await somebody.get(_path(path))
            assert (answer.status_code, answer.headers.get("location")) == (303, "/password"), path
    answer = await somebody.post(
        "/password",
        data={
            "csrf": somebody.csrf,
            "old_password": "correct horse battery",
            "new_password": "x" * 12,
            "again": "y" * 12,
        },
    )
    assert answer.status_code == 422
    assert "differ" in answer.text
    answer = await somebody.post(
        "/password",
        data={
            "csrf": somebody.csrf,
            "old_password": "correct horse battery",
            "new_password": "y" * 12,
            "again": "y" * 12,
        },
    )
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    await somebody.page("/")
    assert (await nobody.log_in(somebody.name, "y" * 12)).status_code == 303


async def test_a_wrong_password_says_so_and_keeps_the_name(nobody, admin):
    answer = await nobody.log_in(admin.name, "wrong")
    assert answer.status_code == 401
    assert "wrong" in answer.text
    assert f'value="{admin.name}"' in answer.text
    assert door.COOKIE not in nobody.cookies


async def test_log_in_is_refused_from_another_sites_page(nobody, admin):
    answer = await nobody.post(
        "/login", data={"username": admin.name, "password": "correct horse battery"},
        headers={"Sec-Fetch-Site": "cross-site"},
    )  # fmt: skip
    assert answer.status_code == 403
    assert door.COOKIE not in nobody.cookies


async def test_who_logs_in_comes_back_to_where_they_were_and_never_elsewhere(nobody, admin):
    sent = await nobody.get("/history?result=timed_out")
    assert sent.headers["location"] == "/login?next=%2Fhistory%3Fresult%3Dtimed_out"
    for asked, back in (
        ("/history?result=timed_out", "/history?result=timed_out"),
        ("https://elsewhere.example/", "/"),
        ("//elsewhere.example/", "/"),
        ("/\\elsewhere.example", "/"),
        ("/login?next=/x", "/"),
        ("/a\nb", "/"),
    ):
        data = {"username": admin.name, "password": "correct horse battery", "next": asked}
        answer = await nobody.post("/login", data=data)
        assert (answer.status_code, answer.headers["location"]) == (303, back)


async def test_the_cookie_is_for_this_host_and_no_script(nobody, admin, base_url):
    answer = await nobody.log_in(admin.name)
    said = answer.headers["set-cookie"]
    assert "HttpOnly" in said
    assert "SameSite=lax" in said
    assert "Path=/" in said
    assert "Domain" not in said


async def test_who_logs_out_is_out(person, pool):
    somebody = await person(Role.VIEWER)
    token = somebody.cookies[door.COOKIE]
    answer = await somebody.post("/logout", data={"csrf": somebody.csrf})
    assert (answer.status_code, answer.headers["location"]) == (303, "/login")
    assert door.COOKIE not in somebody.cookies
    answer = await somebody.get("/", headers={"Cookie": f"{door.COOKIE}={token}"})
    assert answer.headers["location"] == "/login"
    assert (
        await pool.fetchval(
            "SELECT count(*) FROM update_logs WHERE action = 'logout' AND actor = $1", f"user:{somebody.name}"
        )
        == 1
    )


async def test_a_refused_page_is_a_page_and_a_record(viewer, pool):
    text = await viewer.page("/history", 403)
    assert "may not do this" in text
    assert await pool.fetchval(
        "SELECT count(*) FROM update_logs WHERE action = 'access_refused' AND result = 'denied' AND actor = $1",
        f"user:{viewer.name}",
    )


async def test_pages_carry_a_policy_that_lets_no_foreign_or_inline_script_run(admin):
    answer = await admin.get("/")
    policy = answer.headers["content-security-policy"]
    assert "script-src 'self';" in policy
    assert "style-src 'self';" in policy
    assert "unsafe" not in policy
    assert "default-src 'none'" in policy
    assert not re.search(r"<script(?![^>]*src=)", answer.text)
    assert not re.search(r"\sstyle=|\son[a-z]+=", answer.text)
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["referrer-policy"] == "same-origin"


async def test_files_never_change_under_their_name_and_no_other_is_served(nobody, admin):
    text = await admin.page("/")
    files = set(re.findall(r'"(/static/[^"#]+)', text))
    assert len(files) >= 4
    for name in files:
        answer = await nobody.get(name)
        assert answer.status_code == 200
        assert "immutable" in answer.headers["cache-control"]
    for name in ("manifest.json", "..%2Fapp.py", "app.js", "x.js.gz"):
        assert (await nobody.get(f"/static/{name}")).status_code == 404


async def test_a_part_of_a_page_whose_session_is_over_sends_the_whole_page_to_log_in(nobody):
    headers = {"HX-Request": "true", "HX-Target": "x", "HX-Current-URL": "http://here/agents?tag=a"}
    answer = await nobody.get("/agents", headers=headers)
    assert answer.status_code == 204
    assert answer.headers["hx-redirect"] == "/login?next=%2Fagents%3Ftag%3Da"


@pytest.mark.parametrize("address", ["http://[", "http://[::1", "//[x]", "http://\N{FRACTION SLASH}", "\xff"])
async def test_an_address_that_is_none_is_no_fault_of_the_servers(nobody, admin, address):
    said = address.encode()
    answer = await nobody.post("/login", data={"username": "x", "password": "y"}, headers={"Origin": said})
    assert answer.status_code == 403
    answer = await admin.post("/timeouts/run", headers={"X-CSRF-Token": admin.csrf, "Origin": said})
    assert answer.status_code == 403
    answer = await nobody.get("/agents", headers={"HX-Request": "true", "HX-Current-URL": said})
    assert answer.status_code == 204
    assert answer.headers["hx-redirect"].startswith("/login")
    answer = await nobody.post("/timeouts/run", headers={"Referer": said})
    assert answer.status_code == 303
