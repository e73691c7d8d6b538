"""Which entries of a checkpoint are the weights, and by which rule each of the others is left out.

Ordered, exact rules, each with its reason. Nothing is guessed from shapes and no name is altered except by the
prefix a rule names. Facts about upstream (RangiLyu/nanodet, Apache-2.0): ``nanodet/trainer/task.py`` is a Lightning
module with the attributes ``model`` and, with EMA on, ``avg_model``, so a ``.ckpt`` holds both sets under those
prefixes; it also saves ``{"state_dict": ...}`` with plain names. ``nanodet/util/check_point.py`` prefers
``avg_model`` and strips DataParallel's ``module.``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from jt_nanodet.checkpoint import is_name
from jt_nanodet.errors import UserError

#: What ``--weights`` may be. "only" is what a file with one unnamed set of weights holds.
CHOICES = ("auto", "raw", "ema")
SETS = {"raw": "raw weights", "ema": "EMA weights", "only": "the only weights of the file"}


@dataclass(frozen=True)
class Rule:
    """Names that start with ``prefix`` belong to ``weights`` ("raw", "ema") once the prefix is removed."""

    prefix: str
    weights: str
    reason: str


#: First match wins. "avg_model." does not start with "model.", so the order is only for reading.
SET_RULES = (
    Rule("avg_model.", "ema", "Lightning prefix 'avg_model.' removed: the EMA copy of the model"),
    Rule("model.", "raw", "Lightning prefix 'model.' removed: the model as trained"),
)
WRAPPER = Rule("module.", "", "DataParallel prefix 'module.' removed")
#: torchvision's ShuffleNetV2, which upstream's backbone starts from: its stages have upstream's names, its end has no place in a detector.
BACKBONE_PARTS = ("conv1.", "stage2.", "stage3.", "stage4.")
BACKBONE_ENDS = {"conv5.": "the classifier's last convolution, which a detector has not", "fc.": "the classifier's last layer, which a detector has not"}
BACKBONE_REASON = "torchvision's ShuffleNetV2: prefix 'backbone.' added"

#: Entries beside "state_dict" that upstream or Lightning write, with the reason for leaving each out.
TRAINING_RECORDS = {
    "epoch": "progress of the training",
    "iter": "progress of the training",
    "global_step": "progress of the training",
    "loops": "progress of the training (Lightning's loops)",
    "pytorch-lightning_version": "version mark of the writer",
    "optimizer": "optimiser state, not weights",
    "optimizer_states": "optimiser state, not weights",
    "lr_schedulers": "learning-rate schedule, not weights",
    "callbacks": "state of Lightning's callbacks",
    "hparams_name": "hyper-parameters; the configuration file has them",
    "hyper_parameters": "hyper-parameters; the configuration file has them",
    "hparams_type": "hyper-parameters; the configuration file has them",
    "datamodule_hparams_name": "hyper-parameters; the configuration file has them",
    "datamodule_hyper_parameters": "hyper-parameters; the configuration file has them",
    "native_amp_scaling_state": "loss scale of mixed precision",
    "amp_scaling_state": "loss scale of mixed precision",
    "MixedPrecision": "loss scale of mixed precision",
    "MixedPrecisionPlugin": "loss scale of mixed precision",
}
UNKNOWN_RECORD = "not part of 'state_dict' and without tensors of its own"


@dataclass(frozen=True)
class Selection:
    """``taken``: source name -> (bare name, reason); ``left``: source name -> reason; ``which``: see SETS."""

    taken: dict[str, tuple[str, str]]
    left: dict[str, str]
    which: str
    layout: str


def find_state(top: object, is_tensor: Callable[[object], bool], path: object) -> tuple[Mapping, dict[str, str]]:
    """Return (the mapping of name -> tensor, {other entry: reason it is left out}) of a checkpoint's top object.

    Raises UserError when there is no state dict, or when another entry also holds tensors that may be meant.
    """
    advice = "save the weights alone with: torch.save({'state_dict': model.state_dict()}, PATH)"
    if not isinstance(top, dict):
        kind = getattr(top, "qualname", type(top).__name__)
        raise UserError(f"'{path}' holds one pickled '{kind}' and no state dict; {advice}")
    if not top:
        raise UserError(f"'{path}' is an empty dict; {advice}")
    odd = [key for key in top if not is_name(key)]
    if odd:  # before any name is shown: they come from the file, and terminals obey control characters
        raise UserError(f"'{path}' has the entry {str(odd[0])[:40]!r}, whose name is not printable text; {advice}")
    if all(is_tensor(value) for value in top.values()):
        return top, {}
    state = top.get("state_dict")
    if not isinstance(state, dict):
        raise UserError(f"'{path}' has no 'state_dict' among its entries ({_some(top)}); {advice}")
    if not state:
        raise UserError(f"'{path}' has an empty 'state_dict'; {advice}")
    for name, value in state.items():
        if not is_name(name) or not is_tensor(value):
            kind = getattr(value, "qualname", type(value).__name__)
            raise UserError(f"'{path}' has a '{kind}' and no tensor as {str(name)[:80]!r} in its state_dict; {advice}")
    left = {}
    for key, value in top.items():
        if key == "state_dict":
            continue
        if key not in TRAINING_RECORDS and _has_tensors(value, is_tensor):
            raise UserError(f"'{path}' holds tensors in '{key}' as well, and no rule says what they are; {advice}")
        left[key] = TRAINING_RECORDS.get(key, UNKNOWN_RECORD)
    return state, left


def select(names: Iterable[str], which: str, path: object) -> Selection:
    """Apply the prefix rules to ``names`` and take the set ``which`` ("auto", "raw", "ema").

    "auto" takes EMA weights where there are any, as upstream's loader does. Raises UserError when the set is not
    there, when names match no rule, or when EMA and raw weights do not have the same names.
    """
    if which not in CHOICES:
        raise UserError(f"there are no '{which}' weights; use one of {', '.join(CHOICES)}")
    names = list(names)
    if names and all(name.startswith((*BACKBONE_PARTS, *BACKBONE_ENDS)) for name in names) and any(name.startswith("fc.") for name in names):
        return _backbone(names, which, path)
    bare = {name: name for name in names}
    reasons: list[str] = []
    layout = []
    if all(name.startswith(WRAPPER.prefix) for name in names):
        bare = {name: name.removeprefix(WRAPPER.prefix) for name in names}
        reasons.append(WRAPPER.reason)
        layout.append("DataParallel")

    groups: dict[str, dict[str, tuple[str, str]]] = {}
    for name in names:
        rule = next((r for r in SET_RULES if bare[name].startswith(r.prefix)), Rule("", "only", ""))
        reason = "; ".join([*reasons, *filter(None, [rule.reason])]) or "same name on both sides"
        groups.setdefault(rule.weights, {})[name] = (bare[name].removeprefix(rule.prefix), reason)

    if "only" in groups and len(groups) > 1:
        odd = list(groups["only"])
        raise UserError(
            f"'{path}' has Lightning weights and {len(odd)} names that no rule knows ({_some(odd)}); "
            "remove them from its state_dict and save it again"
        )
    layout.append("plain" if "only" in groups else "Lightning")
    chosen = _choose(groups, which, path)
    taken = groups.pop(chosen)
    left = {}
    for other, members in groups.items():
        if {n for n, _ in members.values()} != {n for n, _ in taken.values()} and which == "auto":
            raise UserError(
                f"'{path}' has {len(members)} {SETS[other]} and {len(taken)} {SETS[chosen]} under different names, so "
                "it is not clear which are whole; choose with --weights raw or --weights ema"
            )
        left |= {name: f"{SETS[other]}; {SETS[chosen]} were taken (--weights {other} takes these)" for name in members}
    if not all(is_name(name) for name, _ in taken.values()):
        raise UserError(f"'{path}' has weights whose name is empty or not printable; rename them and save it again")
    return Selection(taken, left, chosen, " ".join(layout))


def _backbone(names: list[str], which: str, path: object) -> Selection:
    """A classifier of torchvision's: its backbone is taken."""
    _choose({"only": None}, which, path)
    taken = {name: (f"backbone.{name}", BACKBONE_REASON) for name in names if name.startswith(BACKBONE_PARTS)}
    left = {name: next(why for start, why in BACKBONE_ENDS.items() if name.startswith(start)) for name in names if name not in taken}
    return Selection(taken, left, "only", "torchvision")


def _choose(groups: Mapping[str, object], which: str, path: object) -> str:
    if which == "auto":
        return next(name for name in ("ema", "raw", "only") if name in groups)
    if which in groups:
        return which
    if "only" in groups:
        raise UserError(
            f"'{path}' holds one set of weights and does not say whether they are raw or averaged; use --weights auto"
        )
    raise UserError(f"'{path}' holds no {SETS[which]}, only {SETS[next(iter(groups))]}; use --weights auto")


def _has_tensors(value: object, is_tensor: Callable[[object], bool]) -> bool:
    return is_tensor(value) or (isinstance(value, dict) and any(is_tensor(v) for v in value.values()))


def _some(names: Iterable[str], limit: int = 3) -> str:
    names = list(names)
    return ", ".join(names[:limit]) + (", …" if len(names) > limit else "")
