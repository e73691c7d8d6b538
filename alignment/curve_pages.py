"""The report of ``alignment.logs`` in words: for the terminal, as a Markdown section, and as a self-contained HTML page."""

from __future__ import annotations

import base64
import html
import os
from pathlib import Path

from alignment.curve_verdict import Comparison
from alignment.curves import CANNOT_TELL, DIFFERENT, EQUIVALENT, Hypothesis, Policy
from alignment.log_reader import Run
from alignment.plausibility import Finding

_COLOUR = {EQUIVALENT: "#1b7f3b", DIFFERENT: "#b00020", CANNOT_TELL: "#8a6d00"}
#: Rows in the Markdown table, which must survive in a pull request; the HTML and result.json have all.
MARKDOWN_ROWS = 14


def warnings(findings: list[Finding]) -> list[str]:
    """One line a kind of finding: the first of its kind, and how many more series show it."""
    kinds: dict[str, list[Finding]] = {}
    for finding in findings:
        kinds.setdefault(finding.code, []).append(finding)
    return [f"[{code}] {group[0].text}" + (f" (and {len(group) - 1} more like it)" if len(group) > 1 else "") for code, group in kinds.items()]


def understood(side: str, run: Run) -> str:
    """What was read from one log, in a few lines."""
    counts = ", ".join(f"{count} {name}" for name, count in sorted(run.lines.items(), key=lambda item: -item[1]))
    lines = [f"{side}: {run.path} ({run.format}, {run.encoding}): {run.total_lines} lines: {counts}"]
    groups: dict[tuple, list[str]] = {}
    for series in run.series.values():
        axis = series.axis("step") if series.axis("step") is not None else series.axis("epoch")
        where = "" if axis is None else f" from {'step' if axis is series.step else 'epoch'} {axis[0]:g} to {axis[-1]:g}"
        groups.setdefault((series.phase, len(series), where), []).append(series.name)
    for (phase, count, where), names in groups.items():
        shown = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
        lines.append(f"  {phase}, {count} points{where}: {shown}")
    for restart in run.restarts[:3]:
        lines.append(f"  restarted: after {restart[0]:g} it goes on at {restart[1]:g}; {run.repeated} earlier rows replaced by the later ones")
    for low, high in run.gaps[:3]:
        lines.append(f"  nothing between {low:g} and {high:g}")
    lines += [f"  note: {note}" for note in run.notes]
    if run.cut:
        lines.append("  the last line is cut off and was left out")
    lines += [f"  not understood, line {number}: {text[:100]}" for number, text in run.unread[:3]]
    return "\n".join(lines)


def _rank(h: Hypothesis) -> tuple:
    order = {DIFFERENT: 0, CANNOT_TELL: 1, EQUIVALENT: 2}
    return (order[h.outcome], not h.deciding)


def headline(comparison: Comparison) -> str:
    """The verdict and its first reason in one sentence."""
    if comparison.verdict == DIFFERENT:
        if comparison.facts:
            return f"different: {comparison.facts[0]['text']}"
        worst = next(h for h in comparison.hypotheses if h.outcome == DIFFERENT)
        return f"different: {worst.name} by {worst.estimate.difference:+.2%} (margin {worst.margin:.2%})"
    if comparison.verdict == EQUIVALENT:
        widest = max((h for h in comparison.hypotheses if h.deciding), key=lambda h: h.p_equivalence)
        return f"equivalent: every deciding difference is inside its margin; the closest is {widest.name}, {widest.estimate.difference:+.2%} (margin {widest.margin:.2%})"
    if comparison.holds:
        return f"cannot tell: {comparison.holds[0]['text']}"
    undecided = [h for h in comparison.hypotheses if h.deciding and h.outcome == CANNOT_TELL]
    if not undecided:
        return "cannot tell: nothing was compared"
    low, high = undecided[0].estimate.interval()
    return f"cannot tell: {undecided[0].name} differs by {low:+.2%} to {high:+.2%}, and the margin is {undecided[0].margin:.2%}"


def more_runs(comparison: Comparison) -> str:
    if comparison.runs_needed is None:
        return ""
    runs, verdict = comparison.runs_needed
    if runs is None:
        return "no reasonable number of runs would decide: the difference is close to the margin"
    assumed = any("stated bound" in h.estimate.method for h in comparison.hypotheses)
    spread = "the spread is the stated bound; three runs a side would measure it and may be enough" if assumed else "difference and spread are what they seem"
    return f"about {runs} runs a side would decide (most likely: {verdict}), if {spread}"


def text(comparison: Comparison, findings: list[Finding]) -> str:
    """The summary for the terminal."""
    lines = [headline(comparison)]
    if more_runs(comparison):
        lines.append(more_runs(comparison))
    if comparison.first_difference:
        lines.append(f"first difference: {comparison.first_difference['what']}")
    for h in sorted(comparison.hypotheses, key=_rank)[:6]:
        low, high = h.estimate.interval()
        lines.append(f"  {h.outcome:12} {h.name}: {h.estimate.difference:+.3%} (95 %: {low:+.3%} to {high:+.3%}; margin {h.margin:.2%})")
    lines += [f"fact: {fact['text']}" for fact in comparison.facts[:10]]
    lines += [f"stops `equivalent`: {hold['text']}" for hold in comparison.holds[:10]]
    lines += [f"warning {line}" for line in warnings(findings)]
    lines += [f"note: {note}" for note in comparison.notes]
    unpaired = [hold["name"] for hold in comparison.holds if hold["code"] == "unpaired"]
    if unpaired:
        lines += ["names on one side only; put the pairs that belong together into a file and give it with --map:"]
        ref, cand = ([n for n in names if n in unpaired] for names in (comparison.only_ref, comparison.only_cand))
        lines.append(f"  reference: {', '.join(ref) or 'none'}\n  candidate: {', '.join(cand) or 'none'}")
    return "\n".join(lines)


def markdown(comparison: Comparison, findings: list[Finding], policy: Policy, pictures: list[str]) -> str:
    """A section for a pull request or a report."""
    lines = ["## Training logs", "", f"**{headline(comparison)}**", ""]
    if more_runs(comparison):
        lines += [more_runs(comparison) + ".", ""]
    if comparison.first_difference:
        lines += [f"First difference: {comparison.first_difference['what']}.", ""]
    lines += [f"Margins: total loss {policy.margin_loss:.2%}, parts of it twice that, mAP {100 * policy.margin_metric:.2f} points; alpha {policy.alpha:g}.", "",
              "| outcome | what | difference | 95 % interval | margin |", "|---|---|---|---|---|"]
    rows = sorted(comparison.hypotheses, key=_rank)
    for h in rows[:MARKDOWN_ROWS]:
        low, high = h.estimate.interval()
        lines.append(f"| {h.outcome} | {h.name} | {h.estimate.difference:+.3%} | {low:+.3%} to {high:+.3%} | {h.margin:.2%} |")
    if len(rows) > MARKDOWN_ROWS:
        lines.append(f"\n{len(rows) - MARKDOWN_ROWS} further rows are in `result.json`.")
    for title, entries in (("Facts", [f["text"] for f in comparison.facts]), ("What stops `equivalent`", [h["text"] for h in comparison.holds]),
                           ("Plausibility", warnings(findings)), ("Notes", comparison.notes)):
        if entries:
            lines += ["", f"### {title}", ""] + [f"- {entry}" for entry in entries[:20]]
    if comparison.metrics:
        lines += ["", "| metric | best, PyTorch (at) | best, Jittor (at) | last, PyTorch | last, Jittor |", "|---|---|---|---|---|"]
        lines += ["| " + " | ".join(row) + " |" for row in _metric_rows(comparison)[:8]]
    lines += [""] + [f"![{name.replace('_', ' ')}]({name}.png)" for name in pictures]
    return "\n".join(lines) + "\n"


def _metric_rows(comparison: Comparison) -> list[list[str]]:
    rows = []
    for m in comparison.metrics:
        best = [", ".join(f"{v:.4f} ({at:g})" for v, at in zip(m[f"best_{s}"], m[f"best_at_{s}"])) for s in ("ref", "cand")]
        last = [", ".join(f"{v:.4f}" for v in m[f"last_{s}"]) for s in ("ref", "cand")]
        rows.append([m["name"], *best, *last])
    return rows


def page(comparison: Comparison, findings: list[Finding], ref: list[Run], cand: list[Run], policy: Policy, folder: Path, pictures: list[str]) -> str:
    """One HTML file without links to other files."""
    e = html.escape
    parts = [
        "<!doctype html><html lang='en'><meta charset='utf-8'><title>Training logs</title><style>body{font:15px/1.5 sans-serif;max-width:1100px;margin:2em auto;"
        "padding:0 1em}table{border-collapse:collapse}td,th{border:1px solid #ccc;padding:.25em .6em;text-align:left}pre{background:#f5f5f5;padding:.7em;"
        "overflow:auto}img{max-width:100%}</style><section id='logs'><h1>Training logs</h1>",
        f"<p style='font-size:1.2em;color:{_COLOUR[comparison.verdict]}'><strong>{e(headline(comparison))}</strong></p>",
    ]
    for sentence in (more_runs(comparison), comparison.first_difference and "First difference: " + comparison.first_difference["what"]):
        if sentence:
            parts.append(f"<p>{e(sentence)}.</p>")
    for title, entries in (("Facts", [f["text"] for f in comparison.facts]), ("What stops “equivalent”", [h["text"] for h in comparison.holds]),
                           ("Plausibility", [f"[{f.code}] {f.text}" for f in findings]), ("Notes", comparison.notes)):
        if entries:
            parts.append(f"<h2>{title}</h2><ul>" + "".join(f"<li>{e(entry)}</li>" for entry in entries) + "</ul>")
    for name in pictures:
        data = base64.b64encode((folder / f"{name}.png").read_bytes()).decode()
        parts.append(f"<h2>{e(name.replace('_', ' ').capitalize())}</h2><img alt='{e(name)}' src='data:image/png;base64,{data}'>")
    parts.append(f"<h2>Every comparison</h2><p>Margins: total loss {policy.margin_loss:.2%}, mAP {100 * policy.margin_metric:.2f} points; alpha {policy.alpha:g}. "
                 "Deciding ones must all be equivalent.</p><table><tr><th>outcome<th>what<th>deciding<th>difference<th>95 % interval<th>margin<th>method</tr>")
    for h in sorted(comparison.hypotheses, key=_rank):
        low, high = h.estimate.interval()
        parts.append(f"<tr><td style='color:{_COLOUR[h.outcome]}'>{h.outcome}<td>{e(h.name)}<td>{'yes' if h.deciding else 'no'}<td>{h.estimate.difference:+.3%}"
                     f"<td>{low:+.3%} to {high:+.3%}<td>{h.margin:.2%}<td>{e(h.estimate.method)}</tr>")
    parts.append("</table>")
    if comparison.metrics:
        parts.append("<h2>Metrics</h2><table><tr><th>metric<th>best, PyTorch (at)<th>best, Jittor (at)<th>last, PyTorch<th>last, Jittor</tr>")
        parts += ["<tr>" + "".join(f"<td>{e(cell)}" for cell in row) + "</tr>" for row in _metric_rows(comparison)]
        parts.append("</table>")
    parts.append("<h2>What was read</h2>")
    parts += [f"<pre>{e(understood(side, run))}</pre>" for side, runs in (("reference", ref), ("candidate", cand)) for run in runs]
    return "".join(parts) + "</section></html>\n"


def write_pages(folder: Path, comparison: Comparison, findings: list[Finding], ref: list[Run], cand: list[Run], policy: Policy, pictures: list[str]) -> None:
    """Write ``logs.md`` and ``logs.html`` into `folder`."""
    for name, content in (("logs.md", markdown(comparison, findings, policy, pictures)),
                          ("logs.html", page(comparison, findings, ref, cand, policy, folder, pictures))):
        partial = folder / f".{name}.{os.getpid()}.partial"
        partial.write_text(content, encoding="utf-8")
        os.replace(partial, folder / name)
