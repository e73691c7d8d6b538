"""reports.page: one page, self-contained, escaped, complete."""

from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser

import pytest

from reports import page, write
from reports.source import read_folder
from reports.summary import summarise
from tests.reports.made_up import get, put


def render(folder):
    source = read_folder(folder)
    return page.render(source, summarise(source))


class Reader(HTMLParser):
    """Collects tags, ids and addresses; notes tags that are closed in the wrong order."""

    VOID = {"meta", "input", "br", "hr", "img", "link"}

    def __init__(self, text: str):
        super().__init__()
        self.tags, self.ids, self.addresses, self.stack, self.crossed, self.handlers = [], [], [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag not in self.VOID:
            self.stack.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value)
            elif name in ("href", "src", "xlink:href"):
                self.addresses.append(value)
            elif name.startswith("on"):
                self.handlers.append(value)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.stack.pop()

    def handle_endtag(self, tag):
        if not self.stack or self.stack.pop() != tag:
            self.crossed.append(tag)


@pytest.mark.parametrize("colour", ["passing", "failing"])
def test_self_contained_and_well_formed(colour, request):
    text = render(request.getfixturevalue(colour))
    read = Reader(text)
    assert not read.crossed and not read.stack
    assert read.tags.count("script") == 1 and read.tags.count("style") == 1
    assert all(address.startswith(("#", "data:image/jpeg;base64,")) for address in read.addresses)
    assert "default-src 'none'" in text and "@import" not in text and "url(http" not in text
    assert len(text) < 5_000_000


def test_inside_links_have_targets(failing):
    read = Reader(render(failing))
    assert len(read.ids) == len(set(read.ids))
    assert {address[1:] for address in read.addresses if address.startswith("#")} <= set(read.ids)


def test_verdict_first_failure_and_every_section(failing):
    text = render(failing)
    assert text.index('class="banner v-fail"') < text.index('id="first"') < text.index('id="checks"')
    for name in ("layers", "structure", "inference", "metric", "speed", "environment", "repeat", "notrun"):
        assert f'id="{name}"' in text
    assert "python -m alignment.report --config configs/nanodet-plus-m_320.yml --output out" in text
    assert "moved: unexplained" in text and "no CUDA device on this machine" in text


def test_a_passing_page_has_no_failure_box(passing):
    text = render(passing)
    assert 'class="banner v-pass"' in text and 'id="first"' not in text


EVIL = "<script>alert(1)</script>\n\"'><img src=x onerror=alert(2)>{{ 7*7 }}</style></svg>\u202e\ud800]]>"


def poison(value):
    """Every string of a JSON value, keys too, replaced or extended by hostile text."""
    if isinstance(value, str):
        return value + EVIL
    if isinstance(value, list):
        return [poison(item) for item in value]
    if isinstance(value, dict):
        keep = ("verdict", "stage", "status", "bbox", "path")
        return {key: item if key in keep else poison(item) for key, item in value.items()} | {EVIL: EVIL}
    return value


def test_hostile_text_everywhere_is_only_text(failing):
    for path in [failing / "report.json", *failing.glob("*/result.json")]:
        put(path, poison(get(path)))
    paths = write(failing)
    text = paths["html"].read_text(encoding="utf-8")
    read = Reader(text)
    assert read.tags.count("script") == 1 and "img" not in read.tags and not read.handlers and not read.crossed
    assert "49" not in re.findall(r"&gt;(\d+)&lt;/style", text)
    assert "\u202e" not in text
    outside_code = re.sub(r"(?<!`)(`+)(?!`).*?(?<!`)\1(?!`)", "", paths["markdown"].read_text(encoding="utf-8"), flags=re.S)
    assert "<" not in outside_code.replace("<br>", "")


@pytest.mark.parametrize("junk", [None, 1, "x", [], {}, [1], {"a": []}, True, [None], {"pytorch": 3, "jittor": []}])
def test_no_wrong_type_anywhere_raises(passing, junk):
    for part in ("structure", "layers", "infer"):
        path = passing / part / "result.json"
        data = get(path)
        put(path, {key: junk for key in data})
    put(passing / "report.json", {key: junk for key in get(passing / "report.json")})
    source = read_folder(passing)
    summary = summarise(source)
    assert summary.verdict != "pass"
    page.render(source, summary)


def test_one_wrong_field_at_a_time(failing):
    data = get(failing / "infer" / "result.json")
    for key in ("metrics", "detections", "fps", "pictures"):
        for inner in list(data[key]) if isinstance(data[key], dict) else range(len(data[key])):
            for junk in (None, "x", [1], {"a": {}}):
                changed = json.loads(json.dumps(data))
                changed[key][inner] = junk
                put(failing / "infer" / "result.json", changed)
                source = read_folder(failing)
                summarise(source)
                page.inference(source.parts["infer"].data)
                page.build_pictures(failing, source.parts["infer"].data)


def test_many_rows_are_cut_but_never_a_failing_one(passing, edit):
    def grow(data):
        base = next(row for row in data["tensors"] if row["stage"] == "forward")
        data["tensors"] = [base | {"name_ref": f"n{n}"} for n in range(5000)]
        data["tensors"][4999]["verdict"] = "fail"

    edit(passing, "layers", grow)
    text = render(passing)
    assert "n4999" in text and "n3000" not in text and "3,499 further rows" in text
    assert len(text) < 5_000_000


def test_parts_that_were_not_run_leave_no_empty_section(passing):
    for part in ("structure", "infer"):
        shutil.rmtree(passing / part)
    text = render(passing)
    assert 'id="structure"' not in text and 'id="metric"' not in text
    assert "no infer/result.json" in text


def test_labels_have_a_chinese_twin():
    assert 'data-zh="逐层"' in page.translate("Layers")
    assert page.translate("<b>") == "&lt;b&gt;"
