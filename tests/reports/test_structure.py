"""reports.structure: rows become one tree of both sides."""

from __future__ import annotations

from reports import structure


def row(path, status="match", **more):
    return {"path": path, "type_ref": "Conv2d", "type_cand": "Conv2d", "status": status, "parameters_ref": 9, "parameters_cand": 9} | more


def test_tree_counts_differences_on_the_way_down():
    data = {"rows": [row("a"), row("a.b"), row("a.c", "diff", differences=[{"field": "eps", "ref": 1e-05, "cand": 0.001}]), row("d")]}
    root, shown, hidden = structure.build_tree(data)
    assert (shown, hidden, root.bad, root.children["a"].bad, root.children["d"].bad) == (4, 0, 1, 1, 0)
    node = root.children["a"].children["c"]
    assert node.change == "eps: 1e-05 → 0.001" and node.params == "9"


def test_rows_below_the_structure_entry_and_other_field_names():
    old = {"path_ref": "x", "path_cand": "y", "type_ref": "A", "type_cand": "B", "status": "diff", "hyper_diff": {"groups": [1, 2]}, "params": {"ref": 1, "cand": 2}}
    node = structure.build_tree({"structure": {"rows": [old]}})[0].children["x"]
    assert (node.ref, node.cand, node.change, node.params) == ("A", "B (y)", "groups: 1 → 2", "1 / 2")


def test_one_sided_modules():
    gone = {"path": "g", "type_ref": None, "type_cand": "Scale", "status": "only_cand"}
    node = structure.build_tree({"rows": [gone]})[0].children["g"]
    assert (node.ref, node.cand, node.status) == ("", "Scale", "only_cand")


def test_depth_and_size_are_bounded():
    root, shown, hidden = structure.build_tree({"rows": [row(".".join("a" * 5000))] + [row(f"r{n}") for n in range(structure.MAX_ROWS)]})
    assert (shown, hidden) == (structure.MAX_ROWS, 1)
    depth = 0
    while root.children:
        root, depth = next(iter(root.children.values())), depth + 1
    assert depth <= structure.MAX_DEPTH


def test_totals():
    data = {"totals": {"pytorch": {"parameters": 1000, "flops": 5}, "jittor": {"parameters": 1001, "flops": 5}, "parameters_at_inference": 900}}
    assert structure.totals(data) == [
        ("parameters", "1,000", "1,001", False), ("flops", "5", "5", True), ("parameters at inference", "900", "", None),
    ]  # fmt: skip
    assert structure.totals({"totals": "x"}) == []


def test_junk_is_ignored():
    root, shown, _ = structure.build_tree({"rows": ["x", None, {}, {"path": 3, "params": "many", "hyper_diff": 7}]})
    assert shown == 2 and root.children["3"].params == "many"
