"""The run of mutants: how its outcome is read, counted and kept, on a run made up by hand, and that the committed recording reaches what is asked."""

from __future__ import annotations

import json

import pytest

from jt_nanodet.errors import UserError
from tests.mutation import __main__ as command, core

MUTATED = '''
def x_step__mutmut_orig(name):
    found = match(name)
    return int(found.group(1)) if found else None
def x_step__mutmut_1(name):
    found = None
    return int(found.group(1)) if found else None
def x_step__mutmut_2(name):
    found = match(name)
    return int(found.group(2)) if found else None
def x_own__mutmut_orig(a, b=False): return a
def x_own__mutmut_1(a, b=True): return a
class _Flips:
    def xǁ_Flipsǁbase__mutmut_orig(self):
        return self.lone + self.linked
    def xǁ_Flipsǁbase__mutmut_1(self):
        return self.lone - self.linked
'''
CODES = {"alignment.flips.x_step__mutmut_1": 1, "alignment.flips.x_step__mutmut_2": 0, "alignment.flips.xǁ_Flipsǁbase__mutmut_1": -24}
VERSIONS = {"mutmut": "3", "numpy": "1"}


def ran(folder, codes=CODES):
    place = folder / "mutants" / "alignment"
    place.mkdir(parents=True, exist_ok=True)
    (place / "flips.py").write_text(MUTATED)
    (place / "flips.py.meta").write_text(json.dumps({"exit_code_by_key": codes}))
    return folder


def test_what_a_run_left_is_read(tmp_path):
    assert core.found("flips", ran(tmp_path)) == {
        "mutants": 3, "killed": 1, "timeouts": 1, "survived": 1, "survivors": [{"function": "step", "change": "return int(found.group([1 -> 2])) if found else None"}],
    }
    assert core.found("flips", ran(tmp_path, {"alignment.flips.xǁ_Flipsǁbase__mutmut_1": 33}))["survivors"] == [
        {"function": "_Flips.base", "change": "return self.lone [+ -> -] self.linked"}]
    assert core.found("flips", ran(tmp_path, {"alignment.flips.x_own__mutmut_1": 0}))["survivors"] == [{"function": "own", "change": "def (a, b=[Fals -> Tru]e): return a"}]
    assert core.plain_name("alignment.compare.x__step__mutmut_12") == "_step"


@pytest.mark.parametrize("codes", [{}, {"alignment.flips.x_step__mutmut_1": None}, {"alignment.flips.x_step__mutmut_1": 2}, {"alignment.flips.x_step__mutmut_1": -9}])
def test_a_mutant_that_was_not_judged_is_no_result(tmp_path, codes):
    with pytest.raises(UserError, match="unjudged .*remove .* and run the command again"):
        core.found("flips", ran(tmp_path, codes))


def test_an_explained_survivor_is_a_survivor():
    found = {"mutants": 40, "killed": 36, "timeouts": 1, "survived": 3, "survivors": [{"function": "f", "change": text} for text in ("a", "a", "b")]}
    explained = {("flips", "f", "a"): "nobody can see it", ("flips", "f", "c"): "gone", ("noise", "f", "c"): "not run"}
    document = command.recording({"flips": found, "locate": {"mutants": 60, "killed": 60, "timeouts": 0, "survived": 0, "survivors": []}}, explained, VERSIONS, "2026-01-02")
    flips = document["modules"]["flips"]
    assert (flips["explained"], flips["share"], document["all"]["share"], document["all"]["explained"]) == (2, 0.9, 0.96, 2)
    assert [one["why"] for one in flips["survivors"]] == ["nobody can see it", "nobody can see it", ""]
    table = document["tables"]["mutation"]
    assert table["rows"] == [["flips", 40, 36, 1, 3, 2, "90.0 %"], ["locate", 60, 60, 0, 0, 0, "100.0 %"], ["all", 100, 96, 1, 3, 2, "96.0 %"]]
    assert table["note"].endswith("2026-01-02; mutmut 3, numpy 1") and len(table["columns"]) == len(table["columns_zh"]) == 7
    assert command.unused({"flips": found}, explained) == [("flips", "f", "c")]


def test_the_command_runs_what_is_new_and_its_exit_code_is_the_share(tmp_path, monkeypatch, capsys):
    calls = []
    monkeypatch.setattr(command, "installed", lambda: VERSIONS)
    monkeypatch.setattr(core, "copy_tree", lambda module, folder: calls.append(module))
    monkeypatch.setattr(core, "check_tests", lambda module, folder: None)
    monkeypatch.setattr(core, "mutate", lambda module, folder, children, progress: ran(folder))
    words = ["--only", "flips", "--output", str(tmp_path)]
    assert command.main(words) == 1 and command.main(words) == 1 and calls == ["flips"]
    assert "survived: flips: step: return int(found.group([1 -> 2]))" in capsys.readouterr().out
    assert json.loads((tmp_path / "mutation.json").read_text())["all"]["share"] == pytest.approx(1 / 3)
    monkeypatch.setattr(core, "mutate", lambda module, folder, children, progress: ran(folder, {"alignment.flips.x_step__mutmut_1": 1}))
    (tmp_path / "found_flips.json").write_text("{")  # cut short: run again
    assert command.main(words) == 0 and calls == ["flips", "flips"]
    monkeypatch.setattr(core, "found", lambda module, folder: {"mutants": 1, "killed": 1, "timeouts": 0, "survived": 0, "survivors": []})
    assert [command.main(["--only", "result", "--output", str(tmp_path)]) for _ in range(2)] == [0, 0] and calls[2:] == ["result"]


@pytest.mark.parametrize(("words", "sentence"), [
    (["--only", "flip"], "did you mean flips\\?\\): give --only one of compare"), (["--children", "0"], "give 1 or more"),
    (["--only", "flips", "--record", "x.json"], "leave out --only, or --record"),
])
def test_refused_words(tmp_path, words, sentence):
    with pytest.raises(UserError, match=sentence):
        command.main([*words, "--output", str(tmp_path)])


def test_without_mutmut_it_says_what_to_type(tmp_path, monkeypatch):
    monkeypatch.setattr(command, "PACKAGES", ("no-such-package",))
    with pytest.raises(UserError, match=r'no-such-package is not installed: type python -m pip install -e "\.\[dev,mutation\]"'):
        command.main(["--output", str(tmp_path)])


def test_timeouts_are_run_once_more(tmp_path, monkeypatch):
    runs = []
    monkeypatch.setattr(core, "_run", lambda folder, children, progress, names: ran(folder, {**CODES, **dict.fromkeys(names, 1)}) and runs.append(names))
    core.mutate("flips", tmp_path, 1, print)
    assert runs == [[], ["alignment.flips.xǁ_Flipsǁbase__mutmut_1"]] and core.found("flips", tmp_path)["killed"] == 2


def test_a_run_that_ends_badly_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(core.sys, "executable", "/bin/false")
    (tmp_path / "flips").mkdir()
    with pytest.raises(UserError, match=r"mutmut ended with exit code 1; read .*flips\.log and run the command again"):
        core.mutate("flips", tmp_path / "flips", 1, print)


def test_properties_are_mutated_too():
    source = "class A:\n    x = 1\n\n    @property\n    def one(self):\n        return self.x\n\n    @property\n    def two(self): return 2\n\n    def three(self): return 3\n"
    made = core.plain_properties(source)
    assert made == "class A:\n    x = 1\n\n    def one(self):\n        return self.x\n    one = property(one)\n\n    def two(self): return 2\n    two = property(two)\n\n    def three(self): return 3\n"
    space = {}
    exec(made, space)
    assert (space["A"]().one, space["A"]().two, space["A"]().three()) == (1, 2, 3)
    assert core.plain_properties(made) == made


@pytest.mark.parametrize(("test", "said"), [
    ("def test_one(): pass", None), ("def test_one(): assert False", "without any change its tests do not pass"),
    # named by what changes from one run to the next in a process, so that the second run knows it no more
    ("import itertools, sys, pytest\nsys.runs = getattr(sys, 'runs', itertools.count())\n"
     "def pytest_generate_tests(metafunc): metafunc.parametrize('x', [1], ids=[str(next(sys.runs))])\ndef test_one(x): pass", "cannot be chosen one by one .*; mend tests/test_made_up.py$"),
])
def test_the_tests_must_pass_as_mutmut_chooses_them(tmp_path, monkeypatch, test, said):
    (tmp_path / "tests").mkdir()
    (tmp_path / "pyproject.toml").write_text("[tool.pytest.ini_options]\nmarkers = ['jittor', 'torch', 'slow']\n")
    (tmp_path / "tests" / "test_made_up.py").write_text(test)
    monkeypatch.setitem(core.CORE, "flips", ("test_made_up.py",))
    if said is None:
        core.check_tests("flips", tmp_path)
    else:
        with pytest.raises(UserError, match=said):
            core.check_tests("flips", tmp_path)


def test_a_copy_holds_what_the_tests_need(tmp_path):
    core.copy_tree("flips", tmp_path / "flips")
    settings = (tmp_path / "flips" / "pyproject.toml").read_text()
    assert 'only_mutate = ["alignment/flips.py"]' in settings and '["tests/alignment/test_flips.py"]' in settings
    for name in ("alignment/flips.py", "tests/conftest.py", *core.tests_of("flips")):
        assert (tmp_path / "flips" / name).read_bytes() == (core.ROOT / name).read_bytes()


@pytest.mark.parametrize("entry", [{"function": "f", "change": "a"}, {"function": "f", "change": "a", "why": ""}, {"function": "f", "change": "a", "why": "x", "more": "y"}])
def test_an_explanation_needs_all_its_words(tmp_path, entry):
    path = tmp_path / "equivalent.yml"
    path.write_text(json.dumps({"flips": [entry]}))
    with pytest.raises(UserError, match="give a module of the core, and function, change and why"):
        command.read_equivalent(path)


def test_explanations_speak_of_functions_that_are_there():
    for module, function, _ in command.read_equivalent(command.EQUIVALENT):
        source = (core.ROOT / "alignment" / f"{module}.py").read_text(encoding="utf-8")
        assert all(f"def {part}(" in source or f"class {part}" in source for part in function.split(".")), (module, function)


def test_the_recording_covers_the_core_and_reaches_what_is_asked():
    document = json.loads((core.ROOT / "reports" / "results" / "mutation.json").read_text(encoding="utf-8"))
    assert set(document["modules"]) == set(core.CORE) and document["all"]["share"] >= command.LEAST
    assert document["all"] == command.counted(list(document["modules"].values()))
    assert all(one["mutants"] == one["killed"] + one["timeouts"] + one["survived"] and one["survived"] == len(one["survivors"]) for one in document["modules"].values())
