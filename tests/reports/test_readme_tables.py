"""reports.readme_tables: tables come from files, and stale ones are found."""

from __future__ import annotations

import pytest

from jt_nanodet.errors import UserError
from reports import readme_tables
from tests.reports.made_up import put, side_speed

README = "# x\n\n<!-- table: speed.json cold -->\nold\n<!-- /table -->\n\ntext\n"


@pytest.fixture
def root(tmp_path):
    table = {"columns": ["what", "seconds"], "columns_zh": ["项目", "秒"], "rows": [["cold", 412.5], ["warm", 61]], "note": "2 cores"}
    put(tmp_path / "reports" / "results" / "speed.json", {"tables": {"cold": table}, "fps": {"pytorch": side_speed(1.0)}})
    (tmp_path / "README.md").write_text(README)
    (tmp_path / "README.zh-CN.md").write_text(README)
    return tmp_path


def test_fills_checks_and_is_stable(root, capsys):
    assert readme_tables.main(["--check", "--root", str(root)]) == 1
    assert (root / "README.md").read_text() == README
    assert readme_tables.main(["--root", str(root)]) == 0
    text = (root / "README.md").read_text()
    assert "| what | seconds |\n| --- | ---: |\n| cold | 412.5 |\n| warm | 61 |\n\n2 cores\n<!-- /table -->\n\ntext" in text
    assert "| 项目 | 秒 |" in (root / "README.zh-CN.md").read_text()
    assert readme_tables.main(["--check", "--root", str(root)]) == 0
    assert "up to date" in capsys.readouterr().out


def test_a_long_note_is_shown_whole(root):
    note = "measured while the machine had other work: " + "x" * 500
    put(root / "reports" / "results" / "speed.json", {"tables": {"cold": {"columns": ["a"], "rows": [["b"]], "note": note}}})
    readme_tables.main(["--root", str(root)])
    assert f"\n\n{note}\n<!-- /table -->" in (root / "README.md").read_text()


def test_a_changed_result_makes_it_stale(root):
    readme_tables.main(["--root", str(root)])
    put(root / "reports" / "results" / "speed.json", {"tables": {"cold": {"columns": ["a"], "rows": [["b"]]}}})
    assert [path.name for path in readme_tables.stale(root)] == ["README.md", "README.zh-CN.md"]


def test_derived_tables(root):
    (root / "README.md").write_text(README.replace("cold", "fps"))
    readme_tables.main(["--root", str(root)])
    assert "| PyTorch | 28.2 |" in (root / "README.md").read_text()


@pytest.mark.parametrize(
    ("mark", "sentence"),
    [
        ("<!-- table: spead.json cold -->\n<!-- /table -->", "did you mean speed.json"),
        ("<!-- table: speed.json colds -->\n<!-- /table -->", "has no table 'colds'; name one of cold"),
        ("<!-- table: ../speed.json cold -->\n<!-- /table -->", "correct the mark"),
        ("<!-- table: speed.json cold -->\n", "is not closed"),
    ],
)
def test_wrong_marks(root, mark, sentence):
    (root / "README.md").write_text(mark)
    with pytest.raises(UserError, match=sentence):
        readme_tables.stale(root)


@pytest.mark.parametrize("table", [{}, {"columns": ["a"], "rows": []}, {"columns": ["a", "b"], "rows": [["x"]]}, {"columns": "a", "rows": 3}])
def test_empty_and_ragged_tables(root, table):
    put(root / "reports" / "results" / "speed.json", {"tables": {"cold": table}})
    with pytest.raises(UserError, match="empty or ragged"):
        readme_tables.stale(root)


def test_the_committed_readmes_are_up_to_date():
    assert readme_tables.stale() == []
