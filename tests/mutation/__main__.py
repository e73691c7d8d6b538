"""``python -m tests.mutation``: would the tests notice if the comparator itself were wrong? Every module that judges is altered, one small change
at a time (mutmut), and the tests that judge it are run on each altered copy. A change that no test notices has *survived*.

    python -m tests.mutation --output out/mutation                                            the whole core
    python -m tests.mutation --only flips --output out/mutation                               one module, its survivors listed
    python -m tests.mutation --output out/mutation --record reports/results/mutation.json

A module that the folder already holds, made from the same source and tests, is not run again. Survivors that change nothing anybody could see are
explained in ``tests/mutation/equivalent.yml``; they are counted apart, and as survivors all the same.
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
from collections import Counter
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

from alignment.cli import prepare_output, say
from alignment.result import write_json
from jt_nanodet.errors import UserError, nearest, run_cli
from tests.mutation import core

EQUIVALENT = Path(__file__).with_name("equivalent.yml")
SCHEMA_VERSION = 1
PACKAGES = ("mutmut", "pytest", "numpy")
#: Share of mutants that the tests must kill, over the whole core.
LEAST = 0.95
COLUMNS = ["module", "mutants", "killed", "timeouts", "survived", "of these explained", "killed of all"]
COLUMNS_ZH = ["模块", "变异体", "杀死", "超时", "存活", "其中已说明", "杀死比例"]


def main(argv: list[str]) -> int:
    """Run what is asked for; exit code 1 where the share of killed mutants is below `LEAST`."""
    arguments = parse(argv)
    versions = installed()
    explained = read_equivalent(EQUIVALENT)
    folder = prepare_output(arguments.output)
    modules = {name: judged(name, folder, versions["mutmut"], arguments.children) for name in arguments.only or core.CORE}
    document = recording(modules, explained, versions, datetime.date.today().isoformat())
    write_json(folder / "mutation.json", document)
    if arguments.record:
        write_json(arguments.record, document)
    for name, one in document["modules"].items():
        for survivor in one["survivors"]:
            if not survivor["why"]:
                print(f"survived: {name}: {survivor['function']}: {survivor['change']}")
    for name, function, change in unused(modules, explained):
        print(f"explained, but it did not survive: {name}: {function}: {change}")
    for name, one in {**document["modules"], "all": document["all"]}.items():
        print(f"{name:11s} {one['mutants']:5d} mutants, {one['killed']:5d} killed, {one['timeouts']:3d} timeouts, {one['survived']:4d} survived, "
              f"{one['explained']:3d} explained: {one['share']:.1%} killed")
    return 0 if document["all"]["share"] >= LEAST else 1


def parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__.split("\n\n")[0].replace("\n", " "))
    parser.add_argument("--only", metavar="MODULE", action="append", help=f"only this module; may be given again: {', '.join(core.CORE)}")
    parser.add_argument("--output", metavar="DIR", type=Path, required=True, help="where the altered copies and the results go")
    parser.add_argument("--children", metavar="N", type=int, default=1, help="mutants that are judged at the same time (default: 1)")
    parser.add_argument("--record", metavar="FILE", type=Path, help="write the recording there")
    arguments = parser.parse_args(argv)
    for name in arguments.only or ():
        if name not in core.CORE:
            hint = nearest(name, core.CORE)
            raise UserError(f'no module "{name}" in the core{f" (did you mean {hint}?)" if hint else ""}: give --only one of {", ".join(core.CORE)}')
    if arguments.children < 1:
        raise UserError(f"--children {arguments.children} is out of range: give 1 or more")
    if arguments.record and arguments.only:
        raise UserError("a recording holds the whole core: leave out --only, or --record")
    return arguments


def installed() -> dict[str, str]:
    try:
        return {name: metadata.version(name) for name in PACKAGES}
    except metadata.PackageNotFoundError as error:
        raise UserError(f'{error.name} is not installed: type python -m pip install -e ".[dev,mutation]"') from error


def judged(module: str, folder: Path, mutmut: str, children: int) -> dict[str, Any]:
    """What one module's run found: from the folder when source and tests are the same, from a new run else."""
    # not MODULE.json: an old result.json is removed from every output folder
    path, mark = folder / f"found_{module}.json", core.fingerprint(module, mutmut)
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if document["fingerprint"] == mark:
            return document["found"]
    except (OSError, ValueError, KeyError, TypeError):
        pass
    say(f"{module}: copying the tree")
    core.copy_tree(module, folder / module)
    core.check_tests(module, folder / module)
    core.mutate(module, folder / module, children, lambda text: say(f"{module}: {text}"))
    found = core.found(module, folder / module)
    write_json(path, {"fingerprint": mark, "found": found})
    return found


Explained = dict[tuple[str, str, str], str]


def read_equivalent(path: Path) -> Explained:
    """(module, function, change) to why nobody could see it. UserError for an entry without one of its three words."""
    entries: Explained = {}
    for module, listed in (yaml.safe_load(path.read_text(encoding="utf-8")) or {}).items():
        for one in listed or ():
            if module not in core.CORE or set(one) != {"function", "change", "why"} or not all(isinstance(text, str) and text for text in one.values()):
                raise UserError(f"{path.name}: {module}: {one}: give a module of the core, and function, change and why of each mutant")
            entries[module, one["function"], one["change"]] = one["why"]
    return entries


def recording(modules: dict[str, dict[str, Any]], explained: Explained, versions: dict[str, str], date: str) -> dict[str, Any]:
    """Counts of each module and of all, every survivor with the reason where it has one, and the table for the docs."""
    kept = {}
    for name, one in modules.items():
        survivors = [{**survivor, "why": explained.get((name, survivor["function"], survivor["change"]), "")} for survivor in one["survivors"]]
        kept[name] = counted([{**one, "explained": sum(bool(survivor["why"]) for survivor in survivors)}]) | {"survivors": survivors}
    total = counted(list(kept.values()))
    rows = [[name, *(one[key] for key in ("mutants", "killed", "timeouts", "survived", "explained")), f"{100 * one['share']:.1f} %"]
            for name, one in {**kept, "all": total}.items()]
    note = f"A timeout and an explained survivor count as not killed. {date}; {', '.join(f'{name} {version}' for name, version in versions.items())}"
    return {"schema_version": SCHEMA_VERSION, "command": "python -m tests.mutation --output out/mutation --record reports/results/mutation.json", "date": date,
            "versions": versions, "modules": kept, "all": total,
            "tables": {"mutation": {"columns": COLUMNS, "columns_zh": COLUMNS_ZH, "rows": rows, "note": note}}}


def counted(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """Sums, and the share killed: of all mutants, whatever became of the others."""
    sums = Counter()
    for one in parts:
        sums.update({key: one[key] for key in ("mutants", "killed", "timeouts", "survived", "explained")})
    return dict(sums) | {"share": sums["killed"] / sums["mutants"]}


def unused(modules: dict[str, dict[str, Any]], explained: Explained) -> list[tuple[str, str, str]]:
    """Explanations, of the modules that were run, of mutants that did not survive: the source has changed, or a test kills them now."""
    alive = {(name, survivor["function"], survivor["change"]) for name, one in modules.items() for survivor in one["survivors"]}
    return [key for key in explained if key[0] in modules and key not in alive]


if __name__ == "__main__":
    sys.exit(run_cli(main))
