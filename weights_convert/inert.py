"""Unpickle a checkpoint without importing or running anything it names.

Every global of the pickle, be it ``torch._utils._rebuild_tensor_v2``, ``os.system`` or a class of somebody's
training code, becomes a class of its own that only remembers its name, its arguments and its state. What the
pickle calls is therefore never called; whoever reads the result decides what an ``Inert`` means.
"""

from __future__ import annotations

import io
import pickle
import re
from dataclasses import dataclass, replace
from pathlib import Path

from jt_nanodet.checkpoint import scan_pickle
from jt_nanodet.errors import UserError


# What an ordinary tensor's pickle names; anything else is reported as foreign.
_TENSOR_PARTS = re.compile(
    r"torch\.(_utils\._rebuild_\w+|_tensor\._rebuild_from_type_v2|nn\.parameter\.\w+|(cuda\.|storage\.)?\w*Storage"
    r"|Size|device|serialization\._get_layout|bool|b?float\w+|u?int\w+)"
)


class Inert:
    """Stands for one foreign class or function (as class) and for what calling it would have made (as instance).

    ``qualname`` is "module.name"; ``args`` what it was called with. It has the methods that pickle opcodes use on
    containers, all of them empty; ``__setstate__`` also keeps BUILD from altering these classes.
    """

    qualname = "?"
    args: tuple = ()

    def __new__(cls, *args: object, **kwargs: object) -> Inert:
        made = object.__new__(cls)
        made.args = args
        return made

    def __init__(self, *args: object, **kwargs: object):
        pass

    def __setstate__(self, state: object) -> None:
        pass

    def __setitem__(self, key: object, value: object) -> None:
        pass

    def append(self, item: object) -> None:
        pass

    extend = add = append


class InertDict(dict):
    """Stands for collections.OrderedDict; attributes such as a state dict's ``_metadata`` are ignored."""

    def __setstate__(self, state: object) -> None:
        pass


@dataclass(frozen=True)
class StorageRef:
    """A pickle's pointer to the raw bytes of a storage: ``type_name`` such as "FloatStorage", sizes in elements.

    ``view`` is (key of the view, offset, length) where an old file stores part of a storage, else None.
    """

    type_name: str
    key: str
    length: int
    view: tuple | None = None


class InertUnpickler(pickle.Unpickler):
    """Unpickler whose names are all inert; ``foreign`` collects those which are not PyTorch's tensor machinery."""

    def __init__(self, stream: io.BytesIO):
        super().__init__(stream, encoding="utf-8")
        self.foreign: dict[str, None] = {}
        self.storages: dict[str, StorageRef] = {}
        self._classes: dict[str, type] = {}

    def find_class(self, module: str, name: str) -> type:
        qualname = f"{module}.{name}"
        if not qualname.isprintable():  # it is shown on terminals
            qualname = ascii(qualname)
        if qualname == "collections.OrderedDict":
            return InertDict
        if not _TENSOR_PARTS.fullmatch(qualname):
            self.foreign[qualname] = None
        if qualname not in self._classes:
            self._classes[qualname] = type("Inert", (Inert,), {"qualname": qualname})
        return self._classes[qualname]

    def persistent_load(self, pid: object) -> object:
        """Storages become a StorageRef; of the oldest files' ("module", class, file, source) only the class is kept."""
        if isinstance(pid, tuple) and len(pid) == 4 and pid[0] == "module":
            return pid[1]
        if not isinstance(pid, tuple) or len(pid) not in (5, 6) or pid[0] != "storage":
            raise ValueError("a persistent id that is no storage")
        _, kind, key, _, length = pid[:5]
        view = pid[5] if len(pid) == 6 else None  # (key of the view, offset, length)
        if not (isinstance(kind, type) and issubclass(kind, Inert) and type(length) is int and length >= 0):
            raise ValueError("a storage without type or length")
        root = StorageRef(kind.qualname.rsplit(".", 1)[-1], str(key), length)
        root = self.storages.setdefault(root.key, root)
        return root if view is None else replace(root, view=tuple(view))


def load_inert(data: bytes, path: Path, start: int = 0) -> tuple[object, int, InertUnpickler]:
    """Read the pickle at ``data[start:]``: its inert object, where it ends, and the unpickler with its findings.

    Raises UserError when the pickle is damaged or would exhaust memory (see ``scan_pickle``).
    """
    end = scan_pickle(data, path, start)
    unpickler = InertUnpickler(io.BytesIO(data[start:end]))
    try:
        return unpickler.load(), end, unpickler
    except Exception as error:  # a damaged pickle may raise nearly anything (pickle's documentation)
        raise damaged(path, error) from None


def damaged(path: Path, error: object) -> UserError:
    """The UserError for a torch file whose parts do not fit together."""
    reason = "".join(c if c.isprintable() else "?" for c in str(error))[:160] or type(error).__name__
    return UserError(
        f"'{path}' is cut short, damaged or no PyTorch checkpoint ({reason}); copy it again, "
        "or save it again with: torch.save({'state_dict': model.state_dict()}, PATH)"
    )
