"""YAML text to frozen dataclasses, strictly: every refusal names the file, the full path of the key and what to write.

Knows nothing about detection; ``jt_nanodet.config`` holds the fields and ``jt_nanodet.config_checks`` the sizes.
"""

from __future__ import annotations

import dataclasses
import math
import os
import types
import typing
from collections.abc import Mapping

import yaml

from jt_nanodet.errors import UserError, nearest


class _StrictLoader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
    """Safe YAML that refuses a key written twice, of which plain YAML keeps the last in silence."""

    def construct_mapping(self, node, deep=False):
        self.flatten_mapping(node)
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            try:
                again = key in seen
            except TypeError:
                raise yaml.constructor.ConstructorError(
                    None, None, "a key that is a list or a mapping", key_node.start_mark
                ) from None
            if again:
                raise yaml.constructor.ConstructorError(None, None, f"the key {key} stands twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


def find_config(path) -> str:
    """The path itself, or where it does not exist and reads ``configs/NAME.yml``, the file of that name that is installed with the project."""
    own = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "configs", os.path.basename(path))
    packaged = os.path.normpath(path) == os.path.join("configs", os.path.basename(path)) and os.path.isfile(own)
    return own if packaged and not os.path.exists(path) else str(path)


def read_yaml(path) -> dict:
    """Nested plain data of a YAML file (see find_config); UserError names the line of a syntax error."""
    try:
        with open(find_config(path), encoding="utf-8") as f:
            tree = yaml.load(f, Loader=_StrictLoader)
    except FileNotFoundError:
        near = _nearest_file(path)
        raise UserError(
            f"{path}: there is no such configuration file; give the path of one"
            + (f", for example {near}" if near else " such as configs/nanodet-plus-m_320.yml")
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise UserError(
            f"{path}: cannot read the configuration ({reason}); give the path of a readable YAML file"
        ) from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        problem = " ".join(str(getattr(error, "problem", None) or error).split())
        raise UserError(f"{path}: {where}not valid YAML ({problem}); mend that line") from None
    if not isinstance(tree, dict):
        raise UserError(
            f"{path}: holds {_shown(tree)} where a configuration is a mapping of keys; start from a file in configs/"
        )
    return tree


def _nearest_file(path) -> str | None:
    folder, name = os.path.split(str(path))
    try:
        found = nearest(name, [n for n in os.listdir(folder or ".") if n.endswith((".yml", ".yaml"))])
    except OSError:
        return None
    return os.path.join(folder, found) if found else None


def read_dataclass(cls, value, path: str, source: str):
    """An instance of ``cls`` from a mapping; keys must be fields, and fields without a default must be there."""
    if not isinstance(value, Mapping):
        _fail(source, path, value, f"a mapping with the keys {', '.join(_keys(cls)) or 'of nothing: leave it empty'}")
    names = _keys(cls)
    for key in value:
        if key not in names:
            near = nearest(key, names)
            advice = (
                f"write {_join(path, near)} instead"
                if near
                else (f"remove it, or use one of {', '.join(names)}" if names else "remove it")
            )
            raise UserError(f"{source}: unknown key {_join(path, key)}; {advice}")
    hints = typing.get_type_hints(cls)
    given, missing = {}, []
    for f in dataclasses.fields(cls):
        if f.name not in names:
            continue
        if f.name in value:
            given[f.name] = _read(hints[f.name], value[f.name], _join(path, f.name), source)
        elif f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING:
            missing.append(_join(path, f.name))
    if missing:
        raise UserError(
            f"{source}: missing {'key' if len(missing) == 1 else 'keys'} {', '.join(missing)}; add "
            f"{'it' if len(missing) == 1 else 'them'}"
        )
    return cls(**given)


def _keys(cls) -> list[str]:
    return [f.name for f in dataclasses.fields(cls) if not f.metadata.get("derived")]


def _join(path: str, key) -> str:
    return f"{path}.{key}" if path else str(key)


def _read(kind, value, path: str, source: str):
    """``value`` as ``kind``; raises the UserError that says what belongs there."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        options = [a for a in args if a is not type(None)]
        if len(options) == 1:
            return _read(options[0], value, path, source)
        for option in options:
            try:
                return _read(option, value, path, source)
            except UserError:
                continue
        _fail(source, path, value, _wanted(kind))
    if dataclasses.is_dataclass(kind):
        return read_dataclass(kind, value, path, source)
    if origin is tuple:
        many = len(args) == 2 and args[1] is Ellipsis
        if not isinstance(value, (list, tuple)) or (not many and len(value) != len(args)):
            _fail(source, path, value, _wanted(kind))
        kinds = [args[0]] * len(value) if many else args
        return tuple(_read(k, v, f"{path}[{i}]", source) for i, (k, v) in enumerate(zip(kinds, value)))
    if origin is dict:
        if not isinstance(value, Mapping):
            _fail(source, path, value, "a mapping")
        return {str(k): _read(args[1], v, _join(path, k), source) for k, v in value.items()}
    if kind is bool and isinstance(value, bool):
        return value
    if kind is int and isinstance(value, int) and not isinstance(value, bool):
        return value
    if kind is float and isinstance(value, (int, float, str)) and not isinstance(value, bool):
        # YAML 1.1 reads 1e-3 as text; upstream evaluates such text, so a number in text counts as one.
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if math.isfinite(number):
            return number
    if kind is str and isinstance(value, str):
        return value
    _fail(source, path, value, _wanted(kind))


def _wanted(kind) -> str:
    """The words that name a kind of value in a message."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_wanted(a) for a in args if a is not type(None))
    if origin is tuple:
        if len(args) == 2 and args[1] is Ellipsis:
            return f"a list, each entry {_wanted(args[0])}"
        return f"a list of {len(args)} entries, each {_wanted(args[0])}"
    names = {int: "a whole number", float: "a finite number", str: "text", bool: "true or false"}
    return names.get(kind, "a mapping")


def _shown(value) -> str:
    text = "nothing" if value is None else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _fail(source: str, path: str, value, wanted: str):
    raise UserError(f"{source}: {path or 'the file'} is {_shown(value)}; write {wanted}")
