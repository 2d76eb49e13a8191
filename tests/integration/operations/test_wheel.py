"""A wheel carries all that the server needs, the dashboard's files ready-made among it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


def test_a_wheel_has_the_dashboards_files_the_templates_and_the_migrations(tmp_path):
    # Beside the checkout, since setuptools builds in the folder that it is given
    kept = shutil.ignore_patterns(
        ".venv", "node_modules", ".git", "var", "build", "*.egg-info", "__pycache__", "docs", "tests"
    )
    shutil.copytree(ROOT, tmp_path / "source", ignore=kept, symlinks=True)
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--disable-pip-version-check",
         "--wheel-dir", str(tmp_path), str(tmp_path / "source")],
        check=True, capture_output=True, timeout=110,
    )  # fmt: skip
    wheel = next(tmp_path.glob("redflag-*.whl"))
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        manifest = json.loads(archive.read("redflag/web/dashboard/built/manifest.json"))
    for hashed in manifest.values():
        assert f"redflag/web/dashboard/built/{hashed}" in names
        assert f"redflag/web/dashboard/built/{hashed}.gz" in names
    assert {"app.js", "app.css", "icons.svg"} <= set(manifest)
    for folder, pattern in (("web/dashboard/templates", "*.html"), ("database/migrations", "*.sql"), (".", "**/*.sql")):
        for path in (ROOT / "src/redflag" / folder).glob(pattern):
            assert f"redflag/{path.relative_to(ROOT / 'src/redflag').as_posix()}" in names, path
    assert not [name for name in names if "node_modules" in name or name.startswith("tests/")]
