"""The rules file for Prometheus: what it says, and when it fires."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from redflag.alerts import metrics, rules

FILE = Path(rules.__file__).with_name("redflag-rules.yml")
TESTS = Path(__file__).with_name("redflag-rules-test.yml")


@dataclass(frozen=True)
class Alert:
    """What the file says of one alert."""

    expression: str
    severity: str
    summary: str
    description: str
    text: str


def _alerts() -> dict[str, Alert]:
    # Read line by line: the file is ours, and YAML is nobody's dependency here. Whether it is YAML, promtool says.
    found = {}
    for text in FILE.read_text().split("- alert: ")[1:]:
        name, _, rest = text.partition("\n")
        expression = rest.partition("expr: |\n")[2].partition("        labels:\n")[0]
        said = dict(re.findall(r"^ +(severity|summary|description): (.+)$", rest, re.MULTILINE))
        found[name] = Alert(expression, said["severity"], said["summary"], said["description"].strip("'"), rest)
    return found


def _promtool(*arguments: str) -> None:
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("promtool is not installed; it comes with Debian's package prometheus")
    result = subprocess.run([program, *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("rule", rules.RULES, ids=lambda rule: rule.name)
def test_a_rule_of_the_server_has_the_same_name_severity_and_summary_in_the_file(rule: rules.Rule) -> None:
    alert = _alerts()[rule.name]
    assert alert.severity == rule.severity
    assert alert.summary == rule.summary


@pytest.mark.parametrize("rule", rules.RULES, ids=lambda rule: rule.name)
def test_a_rule_of_the_server_has_the_same_bound_and_time_in_the_file(rule: rules.Rule) -> None:
    expression = _alerts()[rule.name].expression
    minutes = int(rule.within.total_seconds() // 60)
    assert {f"{minutes}m"} == set(re.findall(r"_total\[(\w+)\]", expression)) - {"1d"}
    assert f"offset {minutes}m" in expression
    assert re.search(rf"> {rule.more_than}\b", expression)
    assert not re.search(r"^ +for:", _alerts()[rule.name].text, re.MULTILINE), "it fires at once"


def test_the_metric_of_each_fault_is_the_one_that_the_server_renders() -> None:
    for rule in rules.RULES:
        expression = _alerts()[rule.name].expression
        name = metrics.FAULT_METRICS.get(rule.kind, ("redflag_timeout_service_failures", ""))[0]
        assert set(re.findall(r"redflag_\w+", expression)) == {f"{name}_total"}


def test_every_alert_of_the_file_has_a_severity_a_summary_and_says_what_to_do() -> None:
    for name, alert in _alerts().items():
        assert name.startswith("RedFlag")
        assert alert.severity in {"warning", "critical"}
        assert alert.summary
        assert alert.description.endswith(".")


def test_prometheus_reads_the_file() -> None:
    _promtool("check", "rules", str(FILE))


def test_the_alerts_fire_when_they_should_and_only_then(tmp_path: Path) -> None:
    file = tmp_path / "test.yml"
    file.write_text(TESTS.read_text().replace("RULES_FILE", str(FILE)))
    _promtool("test", "rules", str(file))


def test_the_reference_page_names_every_alert_of_the_file_with_its_severity() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "reference" / "metrics.md").read_text()
    told = dict(re.findall(r"^\| `(RedFlag\w+)` \| (\w+) \|", page, re.MULTILINE))
    assert told == {name: alert.severity for name, alert in _alerts().items()}
