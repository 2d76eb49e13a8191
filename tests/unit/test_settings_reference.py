"""The page about settings names each that there is, with its default and what it is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from redflag.settings import Settings

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "reference" / "settings.md").read_text()
ROWS = {
    name: (default, what)
    for name, default, what in re.findall(r"^\| `REDFLAG_(\w+)` \| (.*?) \| (.+) \|$", PAGE, re.MULTILINE)
}


def test_the_page_has_every_setting_and_no_other():
    assert set(ROWS) == {name.upper() for name in Settings.model_fields}


@pytest.mark.parametrize("name", Settings.model_fields)
def test_a_setting_stands_there_with_its_default_and_what_it_is(name):
    field = Settings.model_fields[name]
    default, what = ROWS[name.upper()]
    if field.default_factory is None:
        expected = (
            {True: "true", False: "false"}[field.default] if isinstance(field.default, bool) else str(field.default)
        )
        assert default == ("none" if field.default in ("", None, []) else expected)
    if field.description:
        assert what == field.description
