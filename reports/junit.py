"""junit.xml: one test case for every compared tensor and one for every check, so that CI shows the name.

`fail` is a failure; `inconclusive` and `not_comparable` are errors (nothing was decided); `skip` and checks
that were not run are listed as skipped.
"""

from __future__ import annotations

from xml.etree import ElementTree as xml

from reports.source import Source, as_dict, as_number
from reports.summary import Summary
from reports.tables import sci


def _case(suite: xml.Element, group: str, name: str, verdict: str, why: str, body: str = "") -> None:
    """Append one test case; `why` is the message CI shows."""
    case = xml.SubElement(suite, "testcase", {"classname": f"parity.{group}", "name": name, "time": "0"})
    message = why or verdict.replace("_", " ")
    if verdict == "fail":
        xml.SubElement(case, "failure", {"type": "fail", "message": message}).text = body or message
    elif verdict in ("inconclusive", "not_comparable"):
        xml.SubElement(case, "error", {"type": verdict, "message": message}).text = body or message
    elif verdict in ("skip", "not_run"):
        xml.SubElement(case, "skipped", {"message": message})
    elif verdict == "warn":
        xml.SubElement(case, "system-out").text = message


def _totals(suite: xml.Element) -> dict[str, int]:
    """Counts for a suite's attributes, and the attributes themselves set."""
    cases = suite.findall("testcase")
    counts = {"tests": len(cases)}
    for tag, name in (("failure", "failures"), ("error", "errors"), ("skipped", "skipped")):
        counts[name] = sum(case.find(tag) is not None for case in cases)
    suite.attrib.update({key: str(number) for key, number in counts.items()})
    return counts


def render(source: Source, summary: Summary) -> str:
    """The whole file as text."""
    root = xml.Element("testsuites", {"name": "parity"})
    checks = xml.SubElement(root, "testsuite", {"name": "checks"})
    _case(checks, "checks", "verdict", summary.verdict, summary.first.get("name", "") or "; ".join(summary.warnings), summary.line)
    for check in summary.checks:
        _case(checks, "checks", check.title, check.verdict, check.note)
    suites = {"checks": checks}
    for row in summary.rows:
        key = f"{row.part}.{row.stage}" if row.stage != row.part else row.part
        if key not in suites:
            suites[key] = xml.SubElement(root, "testsuite", {"name": key})
        shown = [f"{name} {sci(value)}" for name, value in row.values.items() if value is not None]
        place = [f"index {row.text['index']}"] if row.text["index"] else []
        _case(suites[key], key, row.name, row.verdict, row.why, "\n".join([row.why, *place, *shown]))
    total: dict[str, int] = {}
    for name, suite in suites.items():
        for key, number in _totals(suite).items():
            total[key] = total.get(key, 0) + number
        part = source.parts.get(name.split(".")[0])
        spent = as_dict((part.data if part else source.top.data) or {}).get("durations")
        suite.set("time", f"{as_number(as_dict(spent).get('total')) or 0:.3f}")
    root.attrib.update({key: str(number) for key, number in total.items()})
    xml.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + xml.tostring(root, encoding="unicode") + "\n"
