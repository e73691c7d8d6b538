"""The READMEs: both say the same, their commands exist and take the options shown, their links lead somewhere, no figure is typed by hand."""
import importlib
import re
import shlex
from pathlib import Path

import pytest

from alignment.result import EXIT_CODES, LAST_LINES

ROOT = Path(__file__).resolve().parents[1]
ENGLISH, CHINESE = ((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "README.zh-CN.md"))
PAGES = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]}
#: Its options are in the help of these sub-commands.
WITH_COMMANDS = ("jt_nanodet", "torch_ref")


def blocks(text):
    return re.findall(r"^```\w*\n(.*?)^```$", text, re.S | re.M)


def outside_blocks(text):
    return re.sub(r"^```\w*\n.*?^```$", "", text, flags=re.S | re.M)


def without_measured_tables(text):
    return re.sub(r"<!-- table:.*?<!-- /table -->", "", text, flags=re.S)


def sections(text):
    """[(depth of the heading, its text)] of each section, in order."""
    parts = re.split(r"^(#+) .*$", outside_blocks(without_measured_tables(text)), flags=re.M)
    return list(zip((len(marks) for marks in parts[1::2]), parts[2::2]))


def rows(section):
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in section.splitlines() if line.startswith("|")]


def commands():
    """Every `python -m ...` of the code blocks, as words after `-m`."""
    lines = [line for block in blocks(ENGLISH) for line in block.splitlines() if " -m " in line and "venv .venv" not in line]
    return [shlex.split(line.split(" -m ", 1)[1]) for line in lines]


def help_of(words, capsys):
    module = importlib.import_module(words[0] if (ROOT / f"{words[0].replace('.', '/')}.py").is_file() else f"{words[0]}.__main__")
    depth = 2 if words[1:2] == ["bench"] or words[1:3] in (["voc", "mini"], ["voc", "score"]) else 1  # these have options of their own
    with pytest.raises(SystemExit) as left:
        module.main([*(words[1:1 + depth] if words[0] in WITH_COMMANDS else []), "--help"])
    assert left.value.code == 0
    return capsys.readouterr().out


def test_both_languages_have_the_same_code():
    assert blocks(ENGLISH) == blocks(CHINESE) and len(blocks(ENGLISH)) > 8


def test_both_languages_have_the_same_sections():
    english, chinese = sections(ENGLISH), sections(CHINESE)
    assert [depth for depth, _ in english] == [depth for depth, _ in chinese] and len(english) > 10
    for (_, ours), (_, theirs) in zip(english, chinese):
        assert [len(row) for row in rows(ours)] == [len(row) for row in rows(theirs)]
        assert [row[0] for row in rows(ours) if "`" in row[0]] == [row[0] for row in rows(theirs) if "`" in row[0]]
        assert ours.count("\n- ") == theirs.count("\n- ")


def test_both_languages_quote_the_same_code_and_links():
    for (_, ours), (_, theirs) in zip(sections(ENGLISH), sections(CHINESE)):
        if "README." not in ours:
            assert sorted(re.findall(r"`[^`\n]+`", ours)) == sorted(re.findall(r"`[^`\n]+`", theirs))
            assert sorted(re.findall(r"\]\(([^)]+)\)", ours)) == sorted(re.findall(r"\]\(([^)]+)\)", theirs))


def test_both_languages_have_the_same_measured_tables():
    assert re.findall(r"<!-- table: .* -->", ENGLISH) == re.findall(r"<!-- table: .* -->", CHINESE)


@pytest.mark.parametrize("target", ["parity", "test", "doctor"])
def test_the_makefiles_commands_stand_in_the_readme(target):
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    line = re.search(rf"^{target}: venv\n\t(.*)$", text, re.M).group(1)
    for name, value in {"PY": ".venv/bin/python", "OUT": "reports/out/parity", "DEVICE": "cpu", "PYTEST_ARGS": ""}.items():
        line = line.replace(f"$({name})", value)
    assert "$" not in line
    shown = [row.strip() for block in blocks(ENGLISH) for row in block.splitlines()]
    assert line.strip() in shown or line.strip().removeprefix(".venv/bin/") in shown
    assert f"make {target}" in shown


@pytest.mark.torch
@pytest.mark.parametrize("words", [pytest.param(words, id=" ".join(words[:2])) for words in commands() if words[0] not in ("pip", "pytest")])
def test_a_command_takes_what_is_shown(words, capsys):
    said = help_of(words, capsys)
    flags = [word for word in words if word.startswith("--")]
    assert [flag for flag in flags if not re.search(rf"{flag}\b", said)] == []
    assert [word for word in words if word.startswith("configs/") and not (ROOT / word).is_file()] == []


def test_every_command_is_shown():
    from jt_nanodet.__main__ import COMMANDS

    shown = {" ".join(words[:2]) for words in commands()} | {words[0] for words in commands()}
    assert [name for name in COMMANDS if f"jt_nanodet {name}" not in shown] == []
    named = {path.stem for path in (ROOT / "alignment").glob("*.py") if re.search(r'^if __name__ == "__main__"', path.read_text(encoding="utf-8"), re.M)}
    everywhere = "\n".join(PAGES.values())
    assert sorted(name for name in named if f"python -m alignment.{name}" not in everywhere) == []


def test_exit_codes_are_the_programs_own():
    table = {cells[1].strip("`"): int(cells[0]) for _, part in sections(ENGLISH) for cells in rows(part) if len(cells) == 3 and cells[0].isdigit()}
    for verdict, code in EXIT_CODES.items():
        assert table[LAST_LINES[verdict]] == code
    assert 2 in table.values()


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    folder = (ROOT / page).parent
    targets = [target for target in re.findall(r"\]\(([^)#\s]+)", PAGES[page]) if "://" not in target]
    assert [target for target in targets if not (folder / target).exists()] == []


@pytest.mark.parametrize("text", [ENGLISH, CHINESE], ids=["English", "Chinese"])
def test_no_measured_number_is_typed_by_hand(text):
    unit = r"(?:ms|s|seconds|minutes|fps|images/s|MB|MiB|GB|%|mAP|秒|分钟|毫秒|张/秒)"
    typed = rf"\d[\d.,]*\s?{unit}(?![a-zA-Z])"
    assert re.findall(typed, without_measured_tables(text)) == []
    assert re.findall(typed, "it takes 12 ms and 3 GB, 27.0 mAP, 90秒") == ["12 ms", "3 GB", "27.0 mAP", "90秒"]
