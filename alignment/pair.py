"""``--pair FILE.py``: structure and layers of any two models, one in PyTorch and one in Jittor.

`alignment.structure` and `alignment.layers` come here when they are given ``--pair``. The modules are paired (`pairing`), the reference's weights taken
over, and every call of every paired module is run again on the reference's input, as for the built-in pair. docs/pairs.md is the user's page.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from alignment import locate, pair_backward, pair_file, pairing
from alignment.bundle import Bundle, comparable
from alignment.cli import finish, parent_parser, prepare_output, say
from alignment.compare import compare_tensors
from alignment.noise import EXACT, Floor, Tolerance, tolerance_from_floor
from alignment.reasons import Gate, Reason, Verdict
from alignment.result import Result, TensorResult, check_row
from alignment.runners import child
from alignment.structure_diff import diff_structure
from jt_nanodet.errors import UserError, printable

#: Where the sides' bundles lie in the output folder.
BUNDLES, BACKWARD = "bundles", "backward"
HELP = "a pair of models of your own (docs/pairs.md) instead of --config"


def asked(argv: list[str]) -> bool:
    return any(word == "--pair" or word.startswith("--pair=") for word in argv)


def parser(command: str) -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog=f"python -m alignment.{command}", description=__doc__.split("\n\n")[0], parents=[parent_parser(config_required=False)],
                                   epilog=f"example: python -m alignment.{command} --pair docs/examples/resnet.py --output out")
    made.add_argument("--pair", metavar="FILE.py", required=True, help=f"{HELP}; or module:function")
    made.add_argument("--layer-map", metavar="YAML", type=Path, help="`reference path: candidate path`, one pair a line, over what is guessed")
    if command == "layers":
        made.add_argument("--backward", action="store_true", help="compare the gradients of every call and parameter as well, from the pair's loss(outputs) if it has one")
    made.add_argument("--threads", metavar="N", type=int, help="CPU threads of both sides")
    made.add_argument("--timeout", metavar="S", type=float, default=600.0, help="stop a side that is not done after so many seconds (default: 600)")
    return made


def read_layer_map(path: Path | None) -> dict[str, str]:
    if path is None:
        return {}
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"{path} cannot be read ({' '.join(str(error).split())}): give a YAML file of `reference path: candidate path` with --layer-map") from error
    if not isinstance(found, dict) or not all(isinstance(k, str) and isinstance(v, str) for k, v in found.items()):
        raise UserError(f"{path} is no map of paths: write `reference path: candidate path`, one pair a line")
    return found


def main(argv: list[str], command: str) -> int:
    args = parser(command).parse_args(argv)
    check_arguments(args)
    overrides = read_layer_map(args.layer_map)
    folder = prepare_output(args.output)
    run_sides(args, folder, overrides)
    ref, cand, result = opened(command, folder)
    result.parts = {"pair": args.pair, **result.parts}
    tree = None
    if not result.objections:
        tree = judge(command, ref, cand, result)
        if getattr(args, "backward", False):
            judge_backward(folder, ref, cand, result)
        elif command == "layers":
            result.leave_out("backward pass", "not asked for: add --backward")
    if args.verbosity >= 0:
        show(cand, result, tree)
    if tree is not None:
        (folder / "structure.txt").write_text(tree + "\n", encoding="utf-8")
    return finish(result, folder, verbosity=args.verbosity)


def check_arguments(args: argparse.Namespace) -> None:
    """What is wrong with the flags or the pair file is said before a framework starts. Raises UserError."""
    if args.config is not None:
        raise UserError("--config belongs to the built-in pair and --pair to one of yours: give one of them")
    if args.timeout <= 0 or args.seed < 0 or (args.threads is not None and args.threads < 1):
        raise UserError("--timeout and --threads must be above 0 and --seed at least 0: give such a number")
    pair_file.check(args.pair)


def common(args: argparse.Namespace) -> dict[str, Any]:
    """What every task of the runners is given."""
    place = str(Path(args.pair).resolve()) if pair_file.is_file(args.pair) else args.pair
    return {"pair": place, "device": args.device, "seed": args.seed, "threads": args.threads}


def opened(command: str, folder: Path) -> tuple[Bundle, Bundle, Result]:
    """Both sides' bundles, and a result without rows that says what they are and why they may not be compared."""
    ref, cand = (Bundle.open(folder / BUNDLES / side) for side in child.MODULES)
    result = Result(command, device=ref.header.device, seeds={"seed": ref.header.seed}, versions={**ref.header.versions, **cand.header.versions})
    result.hashes = {"pair": ref.header.config_sha256, "weights": ref.header.weights_sha256, "inputs": ref.header.inputs_sha256}
    result.parts = {"matches": cand.header.extra["matches"]}
    for objection in comparable(ref, cand):
        result.object(objection.reason, objection.text)
    return ref, cand, result


def run_sides(args: argparse.Namespace, folder: Path, overrides: dict[str, str]) -> dict[str, Any]:
    """Both sides' bundles, one process each; returns the runners' reports."""
    reports = {}
    for side in child.MODULES:
        say(f"{side}: {args.pair}", args.verbosity)
        asked = tasks(side, folder, overrides, backward=getattr(args, "backward", False))
        reports[side] = child.run(side, asked, common(args), folder, verbosity=args.verbosity, timeout=args.timeout)
    return reports


def tasks(side: str, folder: Path, overrides: dict[str, str], *, backward: bool) -> list[dict[str, Any]]:
    """What the runner of `side` is asked to do; the reference must have run before the candidate."""
    reference = {} if side == "pytorch" else {"reference": str(folder / BUNDLES / "pytorch"), "layer_map": overrides}
    asked = [{"kind": "pair", "output": str(folder / BUNDLES / side), **reference}]
    if backward:
        more = {"reference": str(folder / BUNDLES / "pytorch")} if side == "pytorch" else {"backward": str(folder / BACKWARD / "pytorch")}
        asked.append({"kind": "pair_backward", "output": str(folder / BACKWARD / side), **reference, **more})
    return asked


def judge_backward(folder: Path, ref: Bundle, cand: Bundle, result: Result) -> None:
    ones, others = (Bundle.open(folder / BACKWARD / side) for side in child.MODULES)
    for objection in comparable(ones, others):
        result.object(objection.reason, objection.text)
    pair_backward.judge(ones, others, ref, [pairing.Match(**m) for m in cand.header.extra["matches"]], result)


def judge(command: str, ref: Bundle, cand: Bundle, result: Result) -> str | None:
    """Add the rows of `command` to `result`; the trees as text for `structure`."""
    matches = [pairing.Match(**m) for m in cand.header.extra["matches"]]
    result.add(weight_rows(cand.header.extra["account"], cand.header.extra["unfilled"]))
    if command == "structure":
        return structure(ref, cand, matches, result)
    layers(ref, cand, matches, result)
    return None


def weight_rows(account: list[dict[str, Any]], unfilled: list[str]) -> list[TensorResult]:
    """A failed row for every key that has no partner; those that have one count as a single passed row."""
    lost = [r for r in account if r["target"] is None and r["source"].rpartition(".")[2] not in pairing.COUNTERS]
    rows = [missing(f"weight/{r['source']}", Reason.MISSING, r["reason"], stage="weights") for r in lost]
    rows += [missing(f"weight/{name}", Reason.EXTRA, "no weight of the reference comes here", stage="weights") for name in unfilled]
    moved = sum(r["target"] is not None for r in account)
    if moved:
        rows.append(TensorResult("weights", "weights", Verdict.PASS, Reason.OK, Gate.KEYS, stage="weights", hint=f"{moved} of {len(account)} keys taken over"))
    return rows


def missing(name: str, reason: Reason, hint: str, stage: str = "forward") -> TensorResult:
    return TensorResult(name, name, Verdict.FAIL, reason, Gate.KEYS, stage=stage, hint=hint)


def bare(path: str, rows: list[dict[str, Any]]) -> bool:
    """Whether neither the module nor anything below it holds weights: then the other side may do the same in a function."""
    return not any(r["params"] for r in rows if r["path"] == path or r["path"].startswith(path + "."))


def spared(path: str, rows: list[dict[str, Any]], alone: set[str]) -> bool:
    """Whether a module of one side may lack a twin: it has no weights of its own, and what has some below it is not `alone`. A list of layers is one."""
    return not any(r["params"] for r in rows if r["path"] == path or r["path"].startswith(path + ".") and r["path"] in alone)


def structure(ref: Bundle, cand: Bundle, matches: list[pairing.Match], result: Result) -> str:
    left, right = ref.header.extra["modules"], {r["path"]: r for r in cand.header.extra["modules"]}
    names = {m.cand: m.ref for m in matches if m.ref is not None and m.cand is not None}
    left_alone, right_alone = {m.ref for m in matches if m.cand is None}, {m.cand for m in matches if m.ref is None}
    ones, others = [], []
    for row in left:
        params = [p for p in row["params"] if p["name"] not in pairing.COUNTERS]
        if row["path"] and not (row["path"] in left_alone and spared(row["path"], left, left_alone)):
            ones.append({**row, "params": params, "type": row["type"] if row["leaf"] else "(composite)", "flops": None})
    by_ref = {names[p]: r for p, r in right.items() if p in names}
    for row in left:
        if row["path"] and row["path"] in by_ref:
            twin = by_ref[row["path"]]
            order = [p["name"] for p in row["params"]]
            others.append({**twin, "path": row["path"], "type": twin["type"] if twin["leaf"] else "(composite)", "flops": None,
                           "params": sorted(twin["params"], key=lambda p: order.index(p["name"]) if p["name"] in order else 99),
                           "hyper": {k: v for k, v in twin["hyper"].items() if k in row["hyper"]}})
            ones = [{**o, "hyper": {k: v for k, v in o["hyper"].items() if k in twin["hyper"]}} if o["path"] == row["path"] else o for o in ones]
    others += [r for p, r in right.items() if p and p in right_alone and not spared(p, list(right.values()), right_alone)]
    diff = diff_structure(ones, others, same_type=pairing.TYPES)
    result.add(diff.results())
    report_one_sided(left, list(right.values()), matches, result, holders=True)
    document = diff.to_json()
    result.parts.update(structure=document, rows=document["rows"])
    return diff.tree()


def report_one_sided(left: list, right: list, matches: list[pairing.Match], result: Result, *, holders: bool = False) -> None:
    """What needs no twin is listed as not run; with `holders` modules that only hold others too, which `layers` lists by their calls."""
    for m in matches:
        path, rows, other = (m.ref, left, "candidate") if m.cand is None else (m.cand, right, "reference")
        alone = {(one.ref if m.cand is None else one.cand) for one in matches if (one.cand if m.cand is None else one.ref) is None}
        if not m.how and bare(path, rows):
            result.leave_out(path, f"the {other} has no module for it, and it holds no weights: what contains it is compared")
        elif holders and not m.how and spared(path, rows, alone):
            result.leave_out(path, f"the {other} has no module for it, and it has no weights of its own: its parts and what contains it are compared")


def tolerance(document: dict[str, Any] | None) -> Tolerance | None:
    if document is None:
        return None
    return tolerance_from_floor(Floor(**{k: tuple(v) if isinstance(v, list) else v for k, v in document.items()}))


def observer(side: str, moved: dict[str, float], floors: dict[str, Any]) -> TensorResult:
    """Whether recording changed the side's output: not in a bit, within the bound of the whole run (a warning), or more.

    A lazy framework fuses what nobody looks at. In a port with arithmetic between modules, looking can cost the last bit; that is rounding
    like any other, and is held to the same measured bound.
    """
    if not moved:
        return check_row(f"observer/{side}", True, Reason.OBSERVER_CHANGED_RESULT, stage="observer")
    bounds = {name: bound.bound if (bound := tolerance(floors.get(name))) else 0.0 for name in moved}
    name = max(moved, key=lambda n: moved[n] / bounds[n] if bounds[n] else float("inf"))
    hint = f"recording the {side} side moved its output {name} by {moved[name]:.3g}, bound {bounds[name]:.3g}"
    row = check_row(f"observer/{side}", False, Reason.OBSERVER_CHANGED_RESULT, hint, stage="observer")
    return row if moved[name] > bounds[name] else replace(row, verdict=Verdict.WARN)


def layers(ref: Bundle, cand: Bundle, matches: list[pairing.Match], result: Result) -> None:
    """Rows of every call in the order in which calls end: parts before the whole that holds them."""
    extra, port = ref.header.extra, cand.header.extra
    where = {m.ref: m for m in matches if m.ref is not None}
    whole: dict[str, TensorResult] = {}
    for side, bundle in (("pytorch", ref), ("jittor", cand)):
        result.add(observer(side, bundle.header.extra["observer_moved"], extra["floors_whole"]))
    failed_paths: list[str] = []
    for call, one in extra["calls"].items():
        path, match = one["path"], where[one["path"]]
        row_type = next(r["type"] for r in extra["modules"] if r["path"] == path)
        if match.cand is None:
            if not bare(path, extra["modules"]):
                if any(r["params"] for r in extra["modules"] if r["path"] == path):
                    result.add(missing(name, Reason.MISSING, match.why) for name in one["outputs"])
                else:
                    result.leave_out(call, "the candidate has no module for it: its parts and what contains it are compared")
            continue
        suffix = call[len(path):]
        for name in one["outputs"]:
            other = (match.cand + suffix or "(model)") + name[len(call or "(model)"):]
            row = call_row(call, name, other, ref, cand, whole)
            if row is None:
                result.leave_out(name, "empty, with the same shape, on both sides")
                continue
            row = replace(row, module_type=row_type, name_cand=other, match_method=match.how)
            inner = [p for p in failed_paths if p.startswith(path + ".") or not path]
            if row.failed and inner:
                row = replace(row, hint=f"{row.hint}; holds {inner[0]}, which fails too")
            if row.failed:
                failed_paths.append(path)
            result.add(row)
    made = {c["path"]: c for c in port["calls"].values()}
    owner = {m.cand: m.ref for m in matches if m.cand is not None}
    for call, one in port["calls"].items():
        known = owner.get(one["path"])
        if known is not None and known + call[len(one["path"]):] not in extra["calls"]:
            result.add(missing(name, Reason.EXTRA, "the reference makes no such call") for name in one["outputs"])
        elif known is None and any(r["params"] for r in port["modules"] if r["path"] == one["path"]):
            result.add(missing(name, Reason.EXTRA, "the reference has no such module") for name in one["outputs"])
    report_one_sided(extra["modules"], port["modules"], matches, result)
    for row in extra["modules"]:
        match = where[row["path"]]
        if row["leaf"] and row["path"] and not row["calls"] and match.cand not in made:
            result.leave_out(row["path"], "never called, on either side")
    divergence = locate.first_divergence(result.rows()) if not result.objections else None
    result.parts["first_divergence"] = vars(divergence) if divergence else None


def call_row(call: str, name: str, other: str, ref: Bundle, cand: Bundle, whole: dict[str, TensorResult]) -> TensorResult | None:
    extra, port = ref.header.extra, cand.header.extra
    shown = other if f"out/{other}" in cand else None
    if call in port["raised"]:
        return missing(name, Reason.CHILD_FAILED, f"the candidate raised {port['raised'][call]}")
    a = ref[f"out/{name}"]
    if shown is None and f"own/{name}" not in cand:
        return missing(name, Reason.MISSING, "the candidate makes no such call")
    if a.size == 0 and (shown is None or cand[f"out/{other}"].shape == a.shape) and (f"own/{name}" not in cand or cand[f"own/{name}"].shape == a.shape):
        return None

    def compared(kind: str, mine: Any) -> TensorResult:
        found = extra[f"floors_{kind}"].get(name)
        bound = tolerance(found) if found else None if a.dtype.kind == "f" else EXACT
        truth = f"{'own' if kind == 'own' else 'run'}64/{name}"
        return compare_tensors(name, a, mine, tolerance=bound, ref64=ref[truth] if truth in ref else None, allow_0d_as_1d=True)

    if shown is not None:
        whole[name] = compared("whole", cand[f"out/{other}"])
    if f"own/{name}" not in cand:
        return whole[name]
    described = extra["calls"][call]["inputs"]
    reads = [whole[n] for n in names_in(described) if n in whole]
    row = locate.combine(compared("own", cand[f"own/{name}"]), whole.get(name), reads)
    if shown is None:
        return replace(row, verdict=Verdict.FAIL, reason=Reason.MISSING, gate=Gate.KEYS, hint="the candidate makes no such call")
    return row


def names_in(described: Any) -> list[str]:
    if isinstance(described, dict):
        return [described["tensor"].removeprefix("out/")] if isinstance(described.get("tensor"), str) else [n for v in described.values() for n in names_in(v)]
    return [n for v in described for n in names_in(v)] if isinstance(described, list) else []


def show_matches(matches: list[dict[str, Any]]) -> None:
    for m in matches:
        if m["how"] in ("guess", "rename", "override"):
            print(printable(f"paired: {m['ref'] or '(model)'} and {m['cand'] or '(model)'} ({m['how']}: {m['why']})"))


def show(cand: Bundle, result: Result, tree: str | None) -> None:
    if tree:
        print(tree)
    show_matches(cand.header.extra["matches"])
    show_divergence(result)


def show_divergence(result: Result) -> None:
    for what, found in (("", result.parts.get("first_divergence")), (" of the backward pass", result.parts.get("backward", {}).get("first_divergence"))):
        if not found:
            continue
        print(printable(f"first divergence{what}: {found['name']} ({found['kind']}): {found['hint'] or found['reason']}; {found['note']}"))
        for cause in found["causes"]:
            print(printable(f"  possible cause: {cause}"))
