"""What each role may do."""

from __future__ import annotations

import pytest

from redflag.access.roles import PERMISSIONS, Permission, Role, require_ceiling, role_of
from redflag.errors import InvalidInput, NotPermitted

READS = {Permission.READ_FLEET, Permission.READ_HISTORY, Permission.READ_AUDIT, Permission.READ_METRICS}


def test_every_role_has_its_permissions() -> None:
    assert set(PERMISSIONS) == set(Role)
    assert all(PERMISSIONS.values())


def test_an_admin_may_do_everything() -> None:
    assert PERMISSIONS[Role.ADMIN] == set(Permission)


def test_a_viewer_reads_the_fleet_and_nothing_else() -> None:
    assert PERMISSIONS[Role.VIEWER] == {Permission.READ_FLEET}


def test_an_auditor_reads_everything_and_changes_nothing() -> None:
    assert PERMISSIONS[Role.AUDITOR] == READS


def test_an_operator_works_with_the_fleet_but_decides_nothing_about_people_policies_or_the_audit() -> None:
    assert set(Permission) - PERMISSIONS[Role.OPERATOR] == {
        Permission.READ_AUDIT,
        Permission.MANAGE_POLICIES,
        Permission.MANAGE_USERS,
        Permission.MANAGE_TOKENS,
        Permission.MANAGE_LOG,
    }


@pytest.mark.parametrize("giver", Role)
@pytest.mark.parametrize("given", Role)
def test_nobody_gives_a_role_that_may_do_more_than_they_may(giver: Role, given: Role) -> None:
    if PERMISSIONS[given] - PERMISSIONS[giver]:
        with pytest.raises(NotPermitted):
            require_ceiling(giver, given)
    else:
        require_ceiling(giver, given)


def test_an_operator_and_an_auditor_cannot_give_each_others_role() -> None:
    for giver, given in ((Role.OPERATOR, Role.AUDITOR), (Role.AUDITOR, Role.OPERATOR)):
        with pytest.raises(NotPermitted):
            require_ceiling(giver, given)


def test_a_role_that_does_not_exist_is_invalid_input() -> None:
    assert role_of("auditor") is Role.AUDITOR
    with pytest.raises(InvalidInput, match="admin, operator, auditor, viewer"):
        role_of("root")
