"""The reference built from a clone: a small stand-in repository here, upstream's own where NANODET_REPO names a clone of it."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from alignment import infer, layers, report, structure, upstream, upstream_part, upstream_repo, verify
from jt_nanodet.errors import UserError
from tests.alignment_train.harness import small_config

pytestmark = [pytest.mark.torch, pytest.mark.slow]
FILES = {
    "README.md": "a stand-in\n",
    "nanodet/__init__.py": "",
    "nanodet/util/__init__.py": """
from types import SimpleNamespace
from pytorch_lightning.loggers.logger import rank_zero_experiment
from pytorch_lightning.utilities import rank_zero_only
from pytorch_lightning.loggers import Logger as Base
from torch._six import string_classes


class Logger(Base):
    @rank_zero_only
    def info(self, text):
        return text


assert Logger().info("x") == "x" and string_classes == (str, bytes)


class Config(SimpleNamespace):
    def clone(self):
        return Config()

    def defrost(self):
        pass


cfg = Config()


def load_config(cfg, path):
    backbone = SimpleNamespace(name="ShuffleNetV2", pretrain=True)
    cfg.model = SimpleNamespace(path=path, arch=SimpleNamespace(backbone=backbone))
""",
    "nanodet/model/__init__.py": "",
    "nanodet/model/head/__init__.py": "",
    "nanodet/model/head/nanodet_plus_head.py": """
from torchvision.ops import nms
from torch_ref import decode


def multiclass_nms(boxes, scores, **named):
    raise NotImplementedError


def get_bboxes(head, cfg, classes, distances, meta):
    import torch
    boxes, _ = decode.decode(torch.cat((classes, distances), -1), head.distribution_project, cfg, meta["img"].shape[2:])
    for box, score in zip(boxes, classes.sigmoid()):  # of the slice itself: in a copy of another layout the last bit may differ
        multiclass_nms(box, torch.cat((score, score.new_zeros(len(score), 1)), 1), score_thr=0.05)
""",
    "nanodet/model/arch/__init__.py": """
import functools
from torch import nn
from jt_nanodet.config import load_config
from nanodet.model.head import nanodet_plus_head
from torch_ref import detector, losses, training_step
from torch_ref.assigner import DynamicSoftLabelAssigner


class Original(detector.NanoDetPlus):
    def __init__(self, arch):
        super().__init__(arch)
        self.head.num_classes = arch.head.num_classes
        self.head.get_bboxes = functools.partial(nanodet_plus_head.get_bboxes, self.head, arch.head)
        self.head.loss_qfl = nn.Identity()
        for module in self.modules():
            if isinstance(module, nn.LeakyReLU):
                module.inplace = True

    def set_epoch(self, epoch):
        self.epoch = epoch

    def forward_train(self, meta):
        raw, aux = self.forward_aux(meta["img"], self.epoch >= self.cfg.detach_epoch)
        head = self.cfg.head
        terms, _ = losses.training_losses(raw, aux, meta, DynamicSoftLabelAssigner(head.assigner_cfg), self.head.distribution_project, head, False)
        return raw, training_step.sum_terms(terms), terms


def build_model(model):
    assert model.arch.backbone.pretrain is False
    print("upstream prints here")
    return Original(load_config(model.path).model.arch)
""",
}


def git(folder, *words):
    return subprocess.run(["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@b", *words], check=True, capture_output=True, text=True).stdout.strip()


def make(folder: Path) -> str:
    """The stand-in repository, committed; returns its commit."""
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    git(folder, "init", "-q")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "stand-in")
    return git(folder, "rev-parse", "HEAD")


@pytest.fixture
def clone(tmp_path, monkeypatch):
    folder = tmp_path / "clone"
    folder.mkdir()
    monkeypatch.setattr(upstream_repo, "COMMIT", make(folder))
    return folder


def change(clone, name, old, new):
    text = (clone / name).read_text(encoding="utf-8")
    assert old in text
    (clone / name).write_text(text.replace(old, new), encoding="utf-8")


def run(clone, tmp_path, command=upstream, *more):
    """(exit code, result.json)."""
    code = command.main(["--torch-repo", str(clone), "--config", str(small_config(tmp_path)), "--output", str(tmp_path / "out"), "-q", *more])
    return code, json.loads((tmp_path / "out" / "result.json").read_text(encoding="utf-8"))


def test_every_tensor_is_equal_in_every_bit(clone, tmp_path):
    code, result = run(clone, tmp_path)
    assert (code, result["verdict"], result["failed"], result["skipped"]) == (0, "pass", 0, 0)
    stages = {row["stage"] for row in result["tensors"]}
    assert stages == set(upstream.GROUPS) - {"detections"} and result["compared"] > 4000
    names = {row["name_ref"] for row in result["tensors"]}
    assert {"state/backbone.conv1.0.weight", "eval/head", "eval/decode/boxes", "attached/loss/total", "detached/gradient/backbone.conv1.0.weight",
            "attached/after/backbone.conv1.1.running_var", "structure/backbone.conv1.0", "backward/grad/head.gfl_cls.0", "backward/param/head.gfl_cls.0.weight"} <= names
    assert all(row["tolerance"] == 0 for row in result["tensors"] if row["gate"] == "exact" and row["shape"])
    about = result["upstream"]
    assert about["pinned"] and about["state"] == "clean" and "pytorch_lightning" in about["stand_ins"] and about["commit"] == result["versions"]["nanodet"]
    assert [one["name"] for one in result["not_run"]] == ["head.loss_qfl", "detections"]
    assert all(one["compared"] == one["equal"] > 0 for one in result["groups"])
    assert git(clone, "status", "--porcelain") == "" and sorted(path.name for path in (tmp_path / "out").iterdir()) == ["result.json"]


def test_an_original_that_computes_something_else(clone, tmp_path):
    """Another slope and half a loss: found in the module tree, in the forward pass at its own place, and in the losses; the weights stay equal."""
    change(clone, "nanodet/model/arch/__init__.py", "module.inplace = True", "module.inplace = True\n                module.negative_slope = 0.01")
    change(clone, "nanodet/model/arch/__init__.py", "return raw, training_step", "return raw, 0.5 * training_step")
    code, result = run(clone, tmp_path, upstream, "--any-commit")
    assert (code, result["first_failure"]) == (1, "structure/backbone.conv1.2")
    failed = {row["name_ref"] for row in result["tensors"] if row["verdict"] == "fail"}
    assert next(row["name_ref"] for row in result["tensors"] if row["stage"] == "eval" and row["verdict"] == "fail") == "eval/backbone.conv1.2"
    assert {"attached/loss/total", "detached/gradient/head.gfl_cls.0.weight"} <= failed and not any(name.startswith("state/") for name in failed)
    assert not result["upstream"]["pinned"] or result["upstream"]["state"] == "changed"


def test_structure_takes_the_original_as_its_reference(clone, tmp_path, jittor):
    code, result = run(clone, tmp_path, structure)
    rows = {row["name_ref"]: row for row in result["tensors"]}
    assert code == 0 and {f"torch_ref/{group}" for group in upstream.GROUPS if group != "detections"} <= set(rows)
    assert "tensors equal upstream's in every bit" in rows["torch_ref/eval"]["hint"]
    tree = json.loads((tmp_path / "out" / "pytorch.structure.json").read_text(encoding="utf-8"))
    assert "head.loss_qfl" not in {row["path"] for row in tree["modules"]}


@pytest.mark.parametrize("command", [upstream, structure, layers, infer, report], ids=lambda command: command.__name__)
@pytest.mark.parametrize("spoil, text", [
    (lambda clone: clone / "absent", "there is no folder"),
    (lambda clone: clone.parent, "is no git repository"),
    (lambda clone: (git(clone, "commit", "--allow-empty", "-qm", "later"), clone)[1], "is at commit"),
    (lambda clone: (change(clone, "README.md", "stand-in", "changed"), clone)[1], "differs from its commit in 1 file (first README.md)"),
    (lambda clone: ((clone / "nanodet" / "more.py").write_text(""), clone)[1], "differs from its commit in 1 file (first nanodet/more.py)"),
    (lambda clone: (git(clone, "rm", "-rq", "nanodet"), git(clone, "commit", "-qm", "gone"), clone)[2], "holds no nanodet/model/arch"),
], ids=["no folder", "no repository", "another commit", "changed", "one file more", "something else"])
def test_another_clone_is_refused_in_one_sentence(clone, tmp_path, command, spoil, text):
    with pytest.raises(UserError) as error:
        run(spoil(clone), tmp_path, command)
    assert text in str(error.value) and "\n" not in str(error.value) and not (tmp_path / "out").exists()


def test_any_commit_takes_it_all_the_same(clone):
    git(clone, "commit", "--allow-empty", "-qm", "later")
    (clone / "more.py").write_text("")
    assert upstream_repo.check(clone, any_commit=True)["state"] == "changed"


@pytest.mark.parametrize("command", [structure, layers, infer, report], ids=lambda command: command.__name__)
def test_any_commit_alone_says_nothing(tmp_path, command):
    with pytest.raises(UserError, match="give the clone with --torch-repo"):
        command.main(["--any-commit", "--config", "configs/shapes.yml", "--output", str(tmp_path / "out")])


def test_code_that_cannot_be_imported_is_refused(clone, tmp_path):
    change(clone, "nanodet/util/__init__.py", "from types", "import no_such_package\nfrom types")
    with pytest.raises(UserError, match="cannot be imported .*no_such_package"):
        run(clone, tmp_path, upstream, "--any-commit")


def pictures(folder: Path) -> Path:
    """Two drawn pictures of other sizes than the network's input."""
    import cv2

    folder.mkdir()
    for number, size in enumerate(((90, 120, 3), (130, 100, 3))):
        cv2.imwrite(str(folder / f"{number}.png"), np.random.RandomState(number).randint(0, 256, size).astype(np.uint8))
    return folder


def test_detections_are_compared_picture_by_picture(clone, tmp_path):
    """Boxes moved by a pixel in the original: its detections differ, and nothing of the network does."""
    given = ("--test-images", str(pictures(tmp_path / "pictures")))
    code, result = run(clone, tmp_path, upstream, *given)
    rows = {row["name_ref"]: row for row in result["tensors"] if row["stage"] == "detections"}
    assert code == 0 and set(rows) == {"detections/0.png", "detections/1.png"} and all(row["shape"][1] == 6 and row["shape"][0] > 1 for row in rows.values())
    change(clone, "nanodet/model/head/nanodet_plus_head.py", "multiclass_nms(box,", "multiclass_nms(box + 1,")
    code, result = run(clone, tmp_path, upstream, "--any-commit", *given)
    failed = {row["name_ref"] for row in result["tensors"] if row["verdict"] == "fail"}
    assert code == 1 and failed == {"eval/decode/boxes", "detections/0.png", "detections/1.png"}


def test_annotations_without_pictures_are_refused(clone, tmp_path):
    with pytest.raises(UserError, match="add --test-images DIR"):
        run(clone, tmp_path, upstream, "--annotations", "a.json")


def test_two_files_of_results_leave_nothing_to_build(clone, tmp_path):
    with pytest.raises(UserError, match="leave one of them out"):
        infer.main(["--torch-repo", str(clone), "--pytorch-results", "a.json", "--jittor-results", "b.json", "--output", str(tmp_path / "out")])


def test_detections_and_a_report_take_the_original_as_their_reference(clone, tmp_path, jittor):
    """A report has the comparison of `torch_ref` with the original as a part of its own, which verification computes again; an edited hash is found."""
    given = ("--test-images", str(pictures(tmp_path / "pictures")), "--rounds", "0")
    code, result = run(clone, tmp_path, infer, *given)
    rows = {row["name_ref"]: row for row in result["tensors"]}
    assert code == 0 and "2 tensors equal upstream's in every bit" in rows["torch_ref/detections"]["hint"] and result["versions"]["nanodet"] == result["upstream"]["commit"]
    out, found = tmp_path / "report", tmp_path / "verified"
    config = str(small_config(tmp_path))
    assert report.main(["--torch-repo", str(clone), "--config", config, *given, "--output", str(out), "-q"]) == 0
    part = json.loads((out / "upstream" / "result.json").read_text(encoding="utf-8"))
    assert part["verdict"] == "pass" and {one["group"] for one in part["groups"]} == set(upstream.GROUPS) and part["command_line"][2] == "alignment.upstream"
    assert json.loads((out / "layers" / "result.json").read_text(encoding="utf-8"))["versions"]["nanodet"] == upstream_repo.COMMIT
    assert verify.main([str(out), "--output", str(found), "-q"]) == 0
    raw = out / "upstream" / upstream_part.FILE
    document = json.loads(raw.read_text(encoding="utf-8"))
    document["torch_ref"]["eval/head"]["sha256"] = "0" * 64
    raw.write_text(json.dumps(document), encoding="utf-8")
    assert verify.main([str(out), "--output", str(found), "-q"]) == 1
    wrong = {row["name_ref"]: row["reason"] for row in json.loads((found / "result.json").read_text(encoding="utf-8"))["tensors"] if row["verdict"] == "fail"}
    assert wrong["upstream/result.json"] == "not_reproduced" and "report.json" in wrong


def test_upstream_itself(tmp_path):
    folder = os.environ.get("NANODET_REPO")
    if not folder:
        pytest.skip("not run: no NANODET_REPO (a clone of RangiLyu/nanodet at the pinned commit)")
    code, result = run(Path(folder), tmp_path)
    assert (code, result["failed"]) == (0, 0) and result["compared"] > 2000
