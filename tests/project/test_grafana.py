"""The dashboard and the alert rules: what they ask for exists, and what they link to as well."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.helpers.prometheus import promtool
from tests.project.test_docs import anchors

pytestmark = pytest.mark.stateless

ROOT = Path(__file__).resolve().parents[2]
GRAFANA = ROOT / "grafana"
RULES = GRAFANA / "rules.yml"
DASHBOARD: dict[str, Any] = json.loads((GRAFANA / "dashboard.json").read_text())
OBSERVABILITY = (ROOT / "docs" / "observability.md").read_text()

GOLDEN_SIGNALS = ["Latency", "Traffic", "Errors", "Saturation"]
GRID_WIDTH = 24


def rules() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = yaml.safe_load(RULES.read_text())["groups"][0]["rules"]
    return found


def panels() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = DASHBOARD["panels"]
    return found


def expressions() -> Iterator[str]:
    """Yield all expressions of the rules and the panels."""
    yield from (rule["expr"] for rule in rules())
    yield from (target["expr"] for panel in panels() for target in panel.get("targets", []))


def metrics_in(expression: str) -> set[str]:
    """Return the names of the metrics in an expression, which all have labels behind them."""
    names = set(re.findall(r"\b([a-z][a-z_]+)\{", expression))
    return {re.sub(r"_(?:bucket|count|sum)$", "", name) for name in names} - {"up"}


def documented() -> set[str]:
    return set(re.findall(r"^\| `([a-z_]+)(?:\{[a-z,]+\})?` \|", OBSERVABILITY, re.MULTILINE))


def test_the_rules_are_valid() -> None:
    assert "SUCCESS" in promtool("check", "rules", str(RULES))


def test_each_alert_fires_for_its_cause_and_is_silent_without() -> None:
    assert "SUCCESS" in promtool("test", "rules", str(GRAFANA / "rules_test.yml"))


def test_each_alert_has_such_a_test() -> None:
    tests = yaml.safe_load((GRAFANA / "rules_test.yml").read_text())["tests"]

    fired = {case["alertname"] for test in tests for case in test.get("alert_rule_test", []) if case.get("exp_alerts")}

    assert fired == {rule["alert"] for rule in rules()}


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_an_alert_links_to_its_section_of_the_operations_guide(rule: dict[str, Any]) -> None:
    path, _, anchor = rule["annotations"]["runbook"].partition("#")

    assert anchor == rule["alert"].lower()
    assert anchor in anchors(ROOT / path)


def test_the_dashboard_has_a_row_for_each_golden_signal() -> None:
    assert [panel["title"] for panel in panels() if panel["type"] == "row"] == GOLDEN_SIGNALS


def test_panels_do_not_overlap() -> None:
    taken: dict[tuple[int, int], str] = {}
    for panel in panels():
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= GRID_WIDTH, panel["title"]
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert taken.setdefault((x, y), panel["title"]) == panel["title"]
    assert len({panel["id"] for panel in panels()}) == len(panels())


def test_all_that_is_asked_for_is_documented() -> None:
    asked = set().union(*(metrics_in(expression) for expression in expressions()))

    assert asked - documented() == set()


def test_every_metric_is_on_the_dashboard_or_in_an_alert() -> None:
    asked = set().union(*(metrics_in(expression) for expression in expressions()))

    assert documented() - asked == set()
