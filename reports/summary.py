"""From result files to the verdict, the table of checks and the list of compared tensors.

No number is computed here beyond counting rows: what is equal was decided by `alignment`.
The one decision taken is a cautious one: the report shows the *worst* verdict it finds, so an edited
or stale report.json cannot turn a failing part green.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from reports.rows import BAD, LABELS, SEVERITY, Row, first_failure, objections, tensor_rows, verdict_of, worst
from reports.parts import TITLES
from reports.source import Part, Source, as_count, as_dict, as_list, as_number, as_text
from reports.structure import totals


#: Checks that only a detector has: a report of another pair of models does not list them as missing.
DETECTOR_ONLY = ("decode", "inference", "metric", "speed")


@dataclass
class Check:
    """One line of the summary table; counts are None where the result files state none."""

    key: str
    title: str
    verdict: str
    compared: int | None = None
    failed: int | None = None
    skipped: int | None = None
    note: str = ""
    anchor: str = ""

    @property
    def label(self) -> str:
        return LABELS[self.verdict]


@dataclass
class Summary:
    """Everything above the details of a report."""

    verdict: str
    compared: int
    failed: int
    skipped: int
    first: dict[str, str]
    checks: list[Check]
    rows: list[Row]
    not_run: list[tuple[str, str]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def label(self) -> str:
        return LABELS[self.verdict]

    @property
    def line(self) -> str:
        """The last line of output that every command of the project prints."""
        return f"{self.label} | {self.compared} compared, {self.failed} failed, {self.skipped} skipped"


def count_rows(key: str, title: str, rows: list[Row], anchor: str) -> Check:
    """A check made of tensor rows, counted as `alignment.result` counts. Nothing compared is not comparable."""
    failed = sum(row.verdict == "fail" for row in rows)
    skipped = sum(row.verdict in ("skip", "not_comparable") for row in rows)
    verdict = worst([row.verdict for row in rows if row.verdict != "skip"])
    if verdict in ("not_run", "info"):
        verdict = "not_comparable"
    first = next((row for row in rows if row.bad), None)
    note = "" if first is None else f"{first.name}: {first.why}" if first.why else first.name
    return Check(key, title, verdict, len(rows) - skipped, failed, skipped, note, anchor)


def from_part(key: str, title: str, part: Part | None, anchor: str) -> Check:
    """A check that takes verdict and counts from the top of a result file."""
    if part is None or part.data is None:
        return absent(key, title, part)
    data = part.data
    verdict = verdict_of(data.get("verdict"))
    if verdict == "pass" and as_count(data.get("compared")) == 0:
        verdict = "not_comparable"
    counts = [as_count(data.get(name)) for name in ("compared", "failed", "skipped")]
    note = objections(data) or first_failure(data).get("name", "") if verdict in BAD else ""
    return _consistent(Check(key, title, verdict, *counts, note, anchor))


def _consistent(check: Check) -> Check:
    """A check that counts failures does not pass, whatever its verdict says."""
    if check.failed and SEVERITY.index(check.verdict) < SEVERITY.index("inconclusive"):
        check.verdict = "fail"
    return check


def absent(key: str, title: str, part: Part | None, reason: str = "") -> Check:
    """A check that was not run, or whose result file is damaged (then it is inconclusive)."""
    if part is not None and part.damaged:
        return Check(key, title, "inconclusive", note=part.problem)
    return Check(key, title, "not_run", note=reason or (part.problem if part else "no result file"))


def explicit(entry: dict) -> Check:
    """A check as a result file states it: name, verdict, compared, failed, skipped, reason."""
    name = as_text(entry.get("name") or entry.get("key")) or "(no name)"
    counts = (as_count(entry.get(key)) for key in ("compared", "failed", "skipped"))
    note = as_text(entry.get("reason") or entry.get("note"))
    key = name.lower().replace("decode/nms", "decode")
    return _consistent(Check(key, name, verdict_of(entry.get("verdict")), *counts, note, ""))


def build_checks(source: Source, rows: list[Row]) -> list[Check]:
    """The seven checks of the report, then one for each further result folder.

    An entry of a `checks` list in any result file takes the place of the derived one.
    """
    parts = source.parts
    infer = parts.get("infer")
    by_stage = {stage: [row for row in rows if row.stage == stage] for stage in ("weights", "param", "decode", "post", "metric")}
    same = by_stage["weights"] + by_stage["param"]
    after = [row for row in by_stage["decode"] + by_stage["post"] if row.part != "infer"]
    layers = [row for row in rows if row.part == "layers" and row.stage not in by_stage]
    checks = [from_part("structure", "Structure", parts.get("structure"), "structure")]
    if same:
        checks.append(count_rows("weights", "Weights", same, f"stage-{same[0].stage}"))
    elif parts["weights"].data is not None:
        checks.append(from_part("weights", "Weights", parts["weights"], ""))
    else:
        checks.append(absent("weights", "Weights", parts["weights"], "no result file compares weights"))
    if layers:
        checks.append(count_rows("layers", "Layers", layers, "layers"))
    else:
        checks.append(from_part("layers", "Layers", parts.get("layers"), "layers"))
    if after:
        checks.append(count_rows("decode", "Decode / NMS", after, f"stage-{after[0].stage}"))
    else:
        checks.append(absent("decode", "Decode / NMS", None, "no result file compares decoding or NMS"))
    checks += [_inference(infer), _metric(infer, by_stage["metric"]), _speed(infer)]
    known = {"structure", "weights", "layers", "infer"}
    checks += [from_part(name, TITLES.get(name, name), part, name if name in TITLES else "") for name, part in parts.items() if name not in known]
    stated = [source.top, *source.usable()]
    for entry in [e for part in stated if part.data for e in as_list(part.data.get("checks")) if isinstance(e, dict)]:
        given = explicit(entry)
        place = next((i for i, check in enumerate(checks) if check.key == given.key), None)
        if place is None:
            checks.append(given)
        else:
            given.title, given.anchor = checks[place].title, checks[place].anchor
            checks[place] = given
    pair = bool((source.top.data or {}).get("pair"))
    return [check for check in checks if check.verdict != "not_run" or not (source.single or (pair and check.key in DETECTOR_ONLY))]


def _inference(part: Part | None) -> Check:
    check = from_part("inference", "Inference", part, "inference")
    found = as_dict(as_dict(part.data).get("detections")) if part and part.data else {}
    if not found:
        return check
    kinds = [as_count(found.get(kind)) or 0 for kind in ("matched", "moved", "missing", "extra", "relabelled")]
    check.compared, check.failed, check.skipped = sum(kinds), as_count(found.get("unexplained")), 0
    check.note = check.note or f"{kinds[0]} of {check.compared} detections matched within the limits"
    return _consistent(check)


def _metric(part: Part | None, rows: list[Row]) -> Check:
    """Judged by the rows of stage "metric"; without them by `metrics.limit`; without that only measured."""
    metrics = as_dict(as_dict(part.data).get("metrics")) if part and part.data else {}
    delta = [number for number in map(as_number, as_dict(metrics.get("delta")).values()) if number is not None]
    largest = max((abs(number) for number in delta), default=None)
    note = "" if largest is None else f"largest difference {largest:.1e}"
    numbers = [as_number(value) for side in ("pytorch", "jittor") for value in as_dict(metrics.get(side)).values()]
    if numbers and not any(number for number in numbers if number is not None and number > 0):
        note += "; no number is above 0, so this says little"
    if rows:
        check = count_rows("metric", "Metric (COCO)", rows, "metric")
        check.note = check.note or note
        return check
    if not delta:
        reason = "no annotations were given, so there is no mAP" if part and part.data else ""
        return absent("metric", "Metric (COCO)", part, reason)
    limit = as_number(metrics.get("limit"))
    over = None if limit is None else sum(not abs(number) <= limit for number in delta)
    verdict = "info" if over is None else "fail" if over else "pass"
    note += "" if limit is None else f", limit {limit:.1e}"
    return Check("metric", "Metric (COCO)", verdict, len(delta), over, 0, note, "metric")


def _speed(part: Part | None) -> Check:
    fps = as_dict(as_dict(part.data).get("fps")) if part and part.data else {}
    found = [(side, as_number(as_dict(fps.get(side)).get("fps"))) for side in ("pytorch", "jittor")]
    shown = [f"{side} {value:.1f} images/s" for side, value in found if value is not None]
    if not shown:
        return absent("speed", "Speed", part, "no speed was measured" if part and part.data else "")
    return Check("speed", "Speed", "info", note=", ".join(shown), anchor="speed")


def collect_not_run(source: Source, checks: list[Check], rows: list[Row]) -> list[tuple[str, str]]:
    """Everything that was not done, with the reason: absent parts, `not_run` lists, skipped tensors."""
    listed = [(check.title, check.note) for check in checks if check.verdict == "not_run"]
    for part in [source.top, *source.usable()]:
        value = (part.data or {}).get("not_run")
        for entry in value if isinstance(value, list) else [value] if value else []:
            if isinstance(entry, dict):
                what = next((as_text(entry[k]) for k in ("name", "what", "check", "test") if entry.get(k)), part.name)
                listed.append((what, as_text(entry.get("reason") or entry.get("why"))))
            else:
                listed.append((part.name, as_text(entry)))
    listed += [(row.name, row.text["hint"] or row.reason or "no reason given") for row in rows if row.verdict == "skip"]
    return list(dict.fromkeys(listed))


def summarise(source: Source) -> Summary:
    """Build the summary of a report folder; see the module's note on the worst verdict."""
    warnings: list[str] = []
    rows = tensor_rows(source, warnings)
    checks = build_checks(source, rows)
    top = source.top.data or {}
    found = worst([check.verdict for check in checks] + [verdict_of(p.data.get("verdict")) for p in source.usable()])
    found = {"warn": "pass", "info": "inconclusive", "not_run": "inconclusive"}.get(found, found)
    verdict = found
    if source.top.damaged:
        verdict = worst([found, "inconclusive"])
        warnings.append(source.top.problem)
    elif top:
        stated = {"warn": "pass"}.get(verdict_of(top.get("verdict")), verdict_of(top.get("verdict")))
        # Which of the two red verdicts outranks the other is for the program that compared to say.
        verdict = stated if stated in ("fail", "not_comparable") else worst([stated, found])
        if verdict != stated:
            warnings.append(f"report.json says {LABELS[stated]}, but its parts say {LABELS[found]}; the worse is shown")
    counts = [as_count(top.get(name)) for name in ("compared", "failed", "skipped")]
    if None in counts:
        counts = [sum(getattr(c, name) or 0 for c in checks) for name in ("compared", "failed", "skipped")]
    if verdict == "pass" and counts[1]:
        verdict = "fail"
        warnings.append(f"{counts[1]} comparisons failed, so the stated verdict PASSED is not shown")
    if verdict == "pass" and counts[0] == 0:
        verdict = "not_comparable"
        warnings.append("nothing was compared, and a comparison of nothing does not pass")
    for what, ref, cand, same in totals(source.parts["structure"].data or {}):
        if same is False:
            warnings.append(f"structure: the sides differ in {what}: {ref or 0} and {cand or 0}")
    texts = [(part.name, objections(part.data or {})) for part in [source.top, *source.usable()]]
    warnings += [f"{name}: {text}" for name, text in texts if text]
    first = first_failure(top)
    if not first and verdict != "pass":
        first = next((f for f in (first_failure(p.data) for p in source.usable()) if f), {})
    if not first and verdict != "pass":
        bad = next((row for row in rows if row.bad), None)
        first = {"name": bad.name} if bad else {}
    target = next((r for r in rows if first and r.bad and first["name"] in (r.name, r.other)), None)
    if target:
        facts = {"stage": target.stage, "reason": target.reason, "hint": target.text["hint"]}
        first = {**{key: text for key, text in facts.items() if text}, **first, "anchor": target.anchor}
    return Summary(verdict, *counts, first, checks, rows, collect_not_run(source, checks, rows), warnings)
