"""docs/reference/metrics.md against what /metrics says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from redflag.alerts import metrics

PAGE = Path(__file__).resolve().parents[3] / "docs" / "reference" / "metrics.md"


def _described() -> dict[str, str]:
    rows = re.findall(r"^\| `(redflag_\w+)` \| (\w+) \|", PAGE.read_text(), re.MULTILINE)
    assert len(rows) == len(dict(rows)), "a metric is described twice"
    return dict(rows)


async def test_the_page_describes_every_metric_that_the_server_renders_and_no_other(server: Any) -> None:
    rendered = (await metrics.render(server, 60)).decode()
    types = dict(re.findall(r"^# TYPE (\w+) (\w+)$", rendered, re.MULTILINE))
    # The moment at which a histogram or a counter was made: prometheus_client's own, no metric of ours
    types = {name: kind for name, kind in types.items() if not name.endswith("_created")}
    assert _described() == types


async def test_the_page_names_the_labels_that_the_server_renders(server: Any) -> None:
    rendered = (await metrics.render(server, 60)).decode()
    page = PAGE.read_text()
    for name, labels in re.findall(r"^(\w+)(?<!_created)\{([^}]+)\}", rendered, re.MULTILINE):
        row = next(
            line for line in page.splitlines() if re.match(rf"\| `{re.sub('_(bucket|sum|count)$', '', name)}`", line)
        )
        for label in set(re.findall(r"(\w+)=", labels)) - {"le"}:
            assert f"`{label}`" in row
