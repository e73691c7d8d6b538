"""reports.markdown: inert text, tables that hold, failing rows only."""

from __future__ import annotations

import re

import pytest

from reports import markdown
from reports.source import read_folder
from reports.summary import summarise


def render(folder):
    source = read_folder(folder)
    return markdown.render(source, summarise(source), "report.html")


def test_failing_rows_only_and_a_link(failing):
    text = render(failing)
    assert text.startswith("## Parity report: FAILED")
    rows = text.split("### Failing rows (2)")[1].split("###")[0]
    assert "`backbone.stage3.7.branch2.2`" in rows and "backbone.conv1.0" not in rows
    assert text.rstrip().endswith("[Full report](report.html)")


def test_passing(passing):
    text = render(passing)
    assert "Failing rows" not in text and "First failure" not in text
    assert "| Metric (COCO) | PASSED | 12 | 0 | 0 |" in text


def test_every_table_row_has_as_many_cells_as_its_header(failing, edit):
    edit(failing, "layers", lambda data: [row.update(name_ref="a|b`c``d\n| x |", hint="p | q") for row in data["tensors"]] and None)
    width = None
    for line in render(failing).splitlines():
        if line.startswith("|"):
            cells = len(re.findall(r"(?<!\\)\|", line)) - 1
            width = width or cells
            assert cells == width, line
        else:
            width = None


@pytest.mark.parametrize(
    ("raw", "forbidden"),
    [("<script>x</script>", "<"), ("@everyone", "@"), ("[a](http://x)", "[a]("), ("a|b", "a|b"), ("# big", "\n#"), ("https://x.y", "https:/"), ("www.x.y", "www.x")],
)
def test_text_is_inert(raw, forbidden):
    assert forbidden not in markdown.text(raw)


@pytest.mark.parametrize("raw", ["plain", "with ` one", "with `` two", "`", "", "a|b"])
def test_code_spans_cannot_be_left(raw):
    span = markdown.code(raw)
    fence = re.match(r"`+", span).group()
    assert span.endswith(fence) and fence not in raw.strip("`").split() and len(fence) > max((len(run) for run in re.findall("`+", raw)), default=0)
    assert "|" not in span.replace("\\|", "")


def test_a_command_cannot_close_its_block():
    assert markdown.block("a ``` b").startswith("````sh")


def test_long_reasons_are_cut():
    assert len(markdown.text("x" * 10_000)) <= markdown.MAX_CELL
