"""weights_convert.inert: whatever a pickle names, nothing of it is imported, called or altered."""

import os
import pickle
import pickletools
from collections import OrderedDict
from pathlib import Path

import pytest

from jt_nanodet.errors import UserError
from weights_convert.inert import Inert, InertDict, load_inert

HERE = Path("model.ckpt")


class Loud:
    """Creates files when made, given state, filled or called: in ``__reduce__``'s call and in ``__setstate__``."""

    def __init__(self, folder="", mark="made"):
        self.folder = str(folder)

    def __reduce__(self):
        return _touch, (self.folder, "called"), {"folder": self.folder}

    def __setstate__(self, state):
        Path(state["folder"], "state").touch()


class Stateful:
    def __init__(self, folder):
        self.folder = str(folder)

    def __setstate__(self, state):
        Path(state["folder"], "state").touch()


def _touch(folder, name):
    Path(folder, name).touch()
    return Loud(folder)


def load(data: bytes):
    return load_inert(data, HERE)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_neither_calls_nor_states_are_run(tmp_path, protocol):
    data = pickle.dumps({"a": Loud(tmp_path), "b": [Stateful(tmp_path)]}, protocol)
    top, _, found = load(data)
    assert os.listdir(tmp_path) == []
    assert isinstance(top["a"], Inert) and top["a"].qualname.endswith("test_inert._touch")
    assert {name.rsplit(".", 1)[-1] for name in found.foreign} >= {"_touch", "Stateful"}
    pickle.loads(data)  # the should-fail twin: an ordinary unpickler runs both
    assert sorted(os.listdir(tmp_path)) == ["called", "state"]


@pytest.mark.parametrize(
    "program",
    [
        b"cos\nsystem\n(S'touch executed'\ntR.",  # GLOBAL + REDUCE
        b"(S'touch executed'\nios\nsystem\n.",  # INST
        b"(cos\nsystem\nS'touch executed'\no.",  # OBJ
        b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x0etouch executed\x85R.",  # STACK_GLOBAL
        b"\x80\x02cos\nsystem\nX\x0e\x00\x00\x00touch executed\x85\x81.",  # NEWOBJ
        b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x0etouch executed\x85}\x92.",  # NEWOBJ_EX
    ],
)
def test_every_opcode_that_calls_is_harmless(tmp_path, monkeypatch, program):
    monkeypatch.chdir(tmp_path)
    top, _, found = load(program)
    assert os.listdir(tmp_path) == [] and list(found.foreign) == ["os.system"]
    assert type(top).__mro__[1] is Inert and top.args == ("touch executed",)


def test_nothing_is_imported(tmp_path, monkeypatch):
    (tmp_path / "loud_module.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    _, _, found = load(b"cloud_module\nThing\n)R.")
    assert list(found.foreign) == ["loud_module.Thing"]


@pytest.mark.parametrize("name", [b"collections\nOrderedDict\n", b"os\nsystem\n"])
@pytest.mark.parametrize("state", [b"}X\x06\x00\x00\x00qualnameK\x01s", b"N}X\x05\x00\x00\x00itemsK\x01s\x86"])
def test_build_cannot_alter_our_classes(name, state):
    before = dict(vars(Inert)), dict(vars(InertDict))
    with pytest.raises(UserError):
        load(b"\x80\x02c" + name + state + b"b.")
    assert before == (dict(vars(Inert)), dict(vars(InertDict)))


def test_containers_of_foreign_classes_swallow_their_items():
    # APPENDS, ADDITEMS and SETITEMS on something that is neither list, set nor dict.
    for fill in (b"(K\x01K\x02e", b"K\x01a", b"(K\x01K\x02\x90", b"(K\x01K\x02u", b"K\x01K\x02s"):
        top, _, _ = load(b"\x80\x04\x8c\x01m\x8c\x01C\x93)R" + fill + b".")
        assert isinstance(top, Inert)


def test_ordered_dict_attributes_are_ignored():
    state = OrderedDict(a=1)
    state._metadata = OrderedDict(version=2)
    state.values = 3  # an attribute that would hide the method
    top, _, _ = load(pickle.dumps(state))
    assert top == {"a": 1} and list(top.values()) == [1]


def test_names_are_safe_to_print():
    _, _, found = load(b"\x80\x04\x8c\x02o\x1b\x8c\x06sys\ntm\x93.")
    assert list(found.foreign)[0].isprintable()


def test_a_row_of_pickles_is_read_one_by_one():
    data = pickle.dumps(1) + pickle.dumps("two")
    first, end, _ = load(data)
    second, last, _ = load_inert(data, HERE, end)
    assert (first, second, last) == (1, "two", len(data))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x80\x02}",
        b"\x80\x02}r\xff\xff\xff\x7f.",  # memo slot 2 147 483 647
        b"\x80\x02K\x01Q.",  # a persistent id that is no storage
        b"\x80\x02\x82\x01.",  # extension registry
        b"R.",
        pickle.dumps("x" * 100)[:50],
    ],
)
def test_damage_is_one_sentence(data):
    with pytest.raises(UserError, match="cut short, damaged") as caught:
        load(data)
    assert "\n" not in str(caught.value)


def test_the_programs_above_are_real_pickles():
    """Twin of the opcode test: the simplest of them does run os.system in an ordinary unpickler."""
    assert any(op.name == "REDUCE" for op, _, _ in pickletools.genops(b"cos\nsystem\n(S'true'\ntR."))
    assert pickle.loads(b"cos\nsystem\n(S'true'\ntR.") == 0
