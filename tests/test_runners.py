"""alignment.runners: tapping, re-feeding and starting children, tried on a side without a framework; then what each framework's runner adds."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import numpy as np
import pytest

from alignment.runners import backend, child, tasks
from jt_nanodet.errors import UserError

ROOT = Path(__file__).resolve().parents[1]


class Tensor:
    """Anything with a shape counts as a tensor."""

    def __init__(self, values):
        self.values = np.asarray(values, np.float32)
        self.shape = self.values.shape


NESTED = {"a": (Tensor([1]), [Tensor([2, 3]), "text"]), "b": None}


def test_tensors_of_nested_values_in_order():
    assert [one.values.tolist() for one in backend.tensors_of(NESTED)] == [[1], [2, 3]]
    assert backend.tensors_of(3) == []


def test_map_keeps_the_form():
    found = backend.map_tensors(NESTED, lambda tensor: tensor.values.sum())
    assert found == {"a": (1.0, [5.0, "text"]), "b": None} and isinstance(found["a"], tuple)


def test_described_inputs_come_back_through_json():
    held: dict[str, Tensor] = {}

    def name(tensor):
        held[f"t{len(held)}"] = tensor
        return f"t{len(held) - 1}"
    inputs = (NESTED, 7, (Tensor([4]),))
    described = json.loads(json.dumps(backend.describe(inputs, name)))
    back = backend.rebuild(described, held.__getitem__)
    assert back[1] == 7 and back[0]["b"] is None and back[0]["a"][1][1] == "text"
    assert [one.values.tolist() for one in backend.tensors_of(back)] == [[1], [2, 3], [4]]


def test_names_of_calls_and_outputs():
    assert [backend.call_name("head.act", k) for k in (1, 2)] == ["head.act", "head.act@2"]
    found = tasks.outputs("fpn", (Tensor([1]), Tensor([2])), lambda tensor: tensor.values)
    assert list(found) == ["fpn/0", "fpn/1"]
    assert list(tasks.outputs("head", Tensor([1]), lambda tensor: tensor.values)) == ["head"]


class Plain(backend.Backend):
    """A side of two layers in NumPy."""

    side, framework = "jittor", "none"

    def modules(self): yield from (("", self), ("head", self))
    def children(self, module): return []
    def hyper(self, module): return {"in_channels": 6, "kernel_size": [3, 5], "groups": 2}
    def tap(self, seen): return contextlib.nullcontext()
    def array(self, tensor): return tensor.values
    def tensor(self, array): return Tensor(array)
    def decode(self, images): return {"raw": images}
    def versions(self): return {}


#: What the tests below do not need may stay abstract.
Plain.__abstractmethods__ = frozenset()


@pytest.fixture
def plain():
    return Plain()


def test_multiply_adds_of_a_grouped_convolution(plain):
    assert tasks.multiply_adds(plain, None, Tensor(np.zeros((1, 8, 4, 4)))) == 8 * 4 * 4 * 3 * 5 * 6 // 2


def test_the_recorder_counts_calls_and_leaves_holders_out(plain):
    recorder = tasks.Recorder(plain)
    for path in ("head", "head", ""):
        recorder(path, plain, (), Tensor([1]))
    assert list(recorder.calls) == ["head", "head@2"] and recorder.counts == {"head": 2, "": 1}
    assert plain.is_leaf(plain) and not plain.is_holder(plain)


def test_an_observer_that_changes_one_bit_is_seen(plain):
    recorder = tasks.Recorder(plain)
    recorder("head", plain, (), Tensor([1, 2]))
    assert tasks.observer_equal(recorder, {"raw": np.float32([1, 2])}, plain)
    assert not tasks.observer_equal(recorder, {"raw": np.nextafter(np.float32([1, 2]), np.float32(3))}, plain)


def job(folder, *, kind="some"):
    return child.prepare("jittor", [{"kind": kind}], {"config": "c.yml"}, folder)


def test_tasks_share_the_common_entries(tmp_path):
    path, report = job(tmp_path)
    assert json.loads(path.read_text())["tasks"] == [{"config": "c.yml", "kind": "some"}] and not report.exists()
    assert child.command("pytorch", path)[1:] == ["-m", "alignment.runners.torch_runner", str(path)]


def test_an_old_report_is_removed_before_the_child_starts(tmp_path):
    _, report = job(tmp_path)
    report.write_text("{}")
    job(tmp_path)
    assert not report.exists()


def raising(error):
    def kind(run, task):
        raise error
    return kind


def test_done_tasks_are_reported(tmp_path, plain):
    path, report = job(tmp_path)
    assert tasks.main([str(path)], lambda task: plain, {"some": lambda run, task: {"answer": 42}}) == 0
    (entry,) = json.loads(report.read_text())["tasks"]
    assert (entry["kind"], entry["answer"]) == ("some", 42) and entry["seconds"] >= 0


def test_a_refusal_is_reported_with_exit_status_two(tmp_path, plain):
    path, report = job(tmp_path)
    assert tasks.main([str(path)], lambda task: plain, {"some": raising(UserError("give another file."))}) == 2
    assert json.loads(report.read_text())["error"] == "give another file."


def test_a_crash_leaves_no_report(tmp_path, plain, capsys):
    path, report = job(tmp_path)
    assert tasks.main([str(path)], lambda task: plain, {"some": raising(ValueError("a bug"))}) == 1
    assert not report.exists() and "ValueError: a bug" in capsys.readouterr().out


def test_the_code_hash_covers_what_a_side_runs(tmp_path, monkeypatch):
    for name in ("jt_nanodet/a.py", "torch_ref/b.py", "alignment/runners/c.py", "jt_nanodet/notes.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("1")
    monkeypatch.setattr(child, "ROOT", tmp_path)
    before = {side: child.code_sha256(side) for side in child.MODULES}
    (tmp_path / "jt_nanodet" / "notes.md").write_text("2")
    assert {side: child.code_sha256(side) for side in child.MODULES} == before
    (tmp_path / "torch_ref" / "b.py").write_text("2")
    assert child.code_sha256("pytorch") != before["pytorch"] and child.code_sha256("jittor") == before["jittor"]
    (tmp_path / "jt_nanodet" / "a.py").rename(tmp_path / "jt_nanodet" / "d.py")
    assert child.code_sha256("jittor") != before["jittor"]


@pytest.mark.torch
def test_harmless_changes_put_everything_back():
    torch = pytest.importorskip("torch")
    from alignment.runners import torch_changes

    def state():
        return torch.get_num_threads(), torch.backends.mkldnn.enabled, torch.backends.cudnn.enabled
    before, inside = state(), []
    for change in torch_changes.harmless_changes(0):
        with change.around():
            inside.append(state())
        with contextlib.suppress(ZeroDivisionError), change.around():
            raise ZeroDivisionError
        assert state() == before, change.name
    assert len({*inside, before}) == 3, "threads and algorithm change while the context lasts"


@pytest.mark.torch
def test_a_nudge_is_one_ulp():
    torch = pytest.importorskip("torch")
    from alignment.runners import torch_changes

    values = torch.linspace(0.5, 0.99, 1000)
    moved = torch_changes.nudge(values, np.random.RandomState(0))
    steps = (moved.numpy().view(np.int32) - values.numpy().view(np.int32))
    assert set(steps.tolist()) == {-1, 1}


@pytest.mark.torch
def test_the_batch_position_change_gives_the_same_images_back():
    torch = pytest.importorskip("torch")
    from alignment.runners import torch_changes

    (change,) = [one for one in torch_changes.harmless_changes(0) if one.name == "position in the batch"]
    images = torch.arange(24.0).reshape(2, 3, 2, 2)
    assert len(change.before(images)) == 4 and torch.equal(change.after(change.before(images)), images)


@pytest.mark.torch
def test_every_leaf_with_settings_has_them_read():
    """A layer type that `HYPER` does not know would be compared by name alone."""
    torch = pytest.importorskip("torch")
    from alignment.runners import torch_runner
    from jt_nanodet.config import load_config

    grad = torch.is_grad_enabled()
    try:
        side = torch_runner.TorchBackend({})
        config = load_config(ROOT / "configs" / "shapes.yml")
        side.model = torch_runner.detector.build_model(config.model.arch)
        silent = {side.type_name(one) for _, one in side.modules() if side.is_leaf(one) and not side.hyper(one)}
        assert silent == {"Scale"}
    finally:
        torch.set_grad_enabled(grad)


@pytest.mark.jittor
def test_taps_see_every_call_and_are_gone_afterwards(jittor):
    from alignment.runners.jittor_runner import JittorBackend
    from jt_nanodet.layers import ConvModule

    side = JittorBackend({})
    try:
        side.model = ConvModule(3, 4, 1, activation="LeakyReLU")
        images, seen = side.tensor(np.ones((1, 3, 2, 2), np.float32)), []
        plain = side.model(images).numpy()
        with side.tap(lambda path, module, inputs, output: seen.append((path, output))):
            tapped = side.model(images).numpy()
        side.model(images)
        assert [path for path, _ in seen] == ["conv", "act", ""] and np.array_equal(plain, tapped)
        assert not any("execute" in vars(module) for _, module in side.modules())
        assert [path for path, _ in side.modules()] == ["", "conv", "act"]
    finally:
        jittor.flags.no_grad = 0
