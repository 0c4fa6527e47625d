"""Variants of the VM-entry rule set: a patch in TOML, or a Python file.

A patch removes checks and replaces predicates and gates by their id::

    remove = ["GUEST-CR-04"]

    [replace.CTL-IOBM-01]
    gates = ["pin[25]"]
    holds = "IO_BITMAP_A & 0xFFF == 0 and placed(IO_BITMAP_A)"

Expressions are over field ids, the effective controls ``pin pri sec ter exit exit2 entry``, and answers of the
capabilities (``cap.cr0_must``); ``word[5]`` is a bit. They know numbers, ``& | ^ ~ << >> + -``, comparisons,
``and or not``, and the functions ``placed`` (a page's address fits) and ``canonical``.

A Python file defines ``rules(checks)``, which gets the checks by id and returns those of the variant.
"""

from __future__ import annotations

import ast
import runpy
import tomllib
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import attrs

from popek.architectures.vtx.entry_checks import CHECKS, Check
from popek.architectures.vtx.entry_checks.registry import Condition
from popek.architectures.vtx.fields import FIELDS
from popek.architectures.vtx.view import _DERIVED, View, canonical, placed
from popek.errors import PopekError
from popek.kernel.words import Word

_ALL_ONES: Final = (1 << 64) - 1


class RuleFileError(PopekError):
    """A file that describes no rule set; one line that says where and why."""


def load_rules(path: str) -> Mapping[str, Check]:
    """The rule set that a file describes, by check id.

    Raises:
        RuleFileError: the file does not follow the rules of this module.
        OSError: it cannot be read.
    """
    if path.endswith(".py"):
        return _from_python(path)
    if not path.endswith(".toml"):
        raise RuleFileError(f"{path}: expected a .toml patch or a .py file")
    try:
        patch = tomllib.loads(Path(path).read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RuleFileError(f"{path}: not TOML: {error}") from None
    return _patched(patch, path)


def _from_python(path: str) -> Mapping[str, Check]:
    Path(path).read_bytes()  # a file that cannot be read is an OSError
    try:
        rules = runpy.run_path(path).get("rules")
    except SyntaxError as error:
        raise RuleFileError(f"{path}:{error.lineno}: {error.msg}") from None
    except Exception as error:  # whatever the user's code raises
        raise RuleFileError(f"{_place(path, error)}: {type(error).__name__}: {error}") from None
    if not callable(rules):
        raise RuleFileError(f"{path}: expected a function rules(checks)")
    try:
        found = rules(dict(CHECKS))
    except Exception as error:
        raise RuleFileError(
            f"{_place(path, error)}: rules(checks): {type(error).__name__}: {error}"
        ) from None
    if not isinstance(found, Mapping) or not all(isinstance(check, Check) for check in found.values()):
        raise RuleFileError(f"{path}: rules(checks) must return checks by id")
    return found


def _place(path: str, error: Exception) -> str:
    """The file and the line of it that an error comes from."""
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == path]
    return f"{path}:{lines[-1]}" if lines else path


def _patched(patch: Mapping[str, Any], path: str) -> Mapping[str, Check]:
    unknown = set(patch) - {"remove", "replace"}
    if unknown:
        raise RuleFileError(f"{path}: unknown key {min(unknown)!r}: expected 'remove' or 'replace'")
    removed, replaced = patch.get("remove", []), patch.get("replace", {})
    if not isinstance(removed, list) or not isinstance(replaced, dict):
        raise RuleFileError(f"{path}: 'remove' is a list of ids, 'replace' a table of tables by id")
    for check_id in (*removed, *replaced):
        if check_id not in CHECKS:
            raise RuleFileError(f"{path}: no check has the id {check_id!r}")
    return {
        check_id: _replaced(check, replaced[check_id], f"{path}: {check_id}")
        if check_id in replaced
        else check
        for check_id, check in CHECKS.items()
        if check_id not in removed
    }


def _replaced(check: Check, change: Any, where: str) -> Check:
    if not isinstance(change, dict) or not change or set(change) - {"gates", "holds"}:
        raise RuleFileError(f"{where}: expected 'gates', 'holds' or both")
    changed = check
    if "gates" in change:
        gates = change["gates"]
        if not isinstance(gates, list) or not all(isinstance(gate, str) for gate in gates):
            raise RuleFileError(f"{where}: 'gates' is a list of expressions")
        conditions = tuple(Condition(gate, predicate(gate, f"{where}: gate")) for gate in gates)
        changed = attrs.evolve(changed, gates=conditions)
    if "holds" in change:
        if not isinstance(change["holds"], str):
            raise RuleFileError(f"{where}: 'holds' is an expression")
        changed = attrs.evolve(changed, holds=predicate(change["holds"], f"{where}: holds"), doubt=None)
    return changed


# -- expressions -------------------------------------------------------------------------


def predicate(text: str, where: str = "expression") -> Callable[[View], Any]:
    """The predicate that an expression describes; see the module.

    Raises:
        RuleFileError: it is no such expression.

    >>> from popek.architectures.vtx.view import view_of
    >>> from popek.architectures.vtx.capabilities import UNKNOWN
    >>> from popek.architectures.vtx.vmcs import Vmcs
    >>> predicate("GUEST_RFLAGS[1]")(view_of(Vmcs(fields={"GUEST_RFLAGS": 2}), UNKNOWN))
    True
    """
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError):
        raise RuleFileError(f"{where}: {text!r} is not an expression") from None
    value = _compile(tree, where)
    return lambda view: _truth(value(view))


_Value = Callable[[View], Any]

_BINARY: Final[Mapping[type, Callable[[Any, Any], Any]]] = {
    ast.BitAnd: lambda a, b: a & b,
    ast.BitOr: lambda a, b: a | b,
    ast.BitXor: lambda a, b: a ^ b,
    ast.LShift: lambda a, b: a << b & _ALL_ONES,
    ast.RShift: lambda a, b: a >> b,
    ast.Add: lambda a, b: a + b & _ALL_ONES,
    ast.Sub: lambda a, b: a - b & _ALL_ONES,
}
_COMPARISONS: Final[Mapping[type, Callable[[Any, Any], Any]]] = {
    ast.Eq: lambda a, b: a == b,
    ast.NotEq: lambda a, b: a != b,
    ast.Lt: lambda a, b: a < b,
    ast.LtE: lambda a, b: a <= b,
    ast.Gt: lambda a, b: a > b,
    ast.GtE: lambda a, b: a >= b,
}
_FUNCTIONS: Final[Mapping[str, Callable[[View, Any], Any]]] = {"placed": placed, "canonical": canonical}


def _truth(value: Any) -> Any:
    """A truth value; a number counts as whether it is not 0."""
    if isinstance(value, bool):
        return value
    if isinstance(value, Word):
        return value if value.width == 1 else value != 0
    return value != 0


def _compile(node: ast.expr, where: str) -> _Value:
    match node:
        case ast.Constant(value=int() as number):
            return lambda view: number
        case ast.Name(id=name) if name in FIELDS or name in _DERIVED:
            return lambda view: getattr(view, name)
        case ast.Attribute(value=ast.Name(id="cap"), attr=name):
            from popek.architectures.vtx.capabilities import _ANSWERS

            if name in _ANSWERS:
                return lambda view: getattr(view.cap, name)
        case ast.Subscript(value=inner, slice=ast.Constant(value=int() as number)) if 0 <= number < 64:
            word = _compile(inner, where)
            return lambda view: word(view) & 1 << number != 0
        case ast.BinOp(left=left, op=operator, right=right) if type(operator) in _BINARY:
            a, b, apply = _compile(left, where), _compile(right, where), _BINARY[type(operator)]
            return lambda view: apply(a(view), b(view))
        case ast.Compare(left=left, ops=[operator], comparators=[right]) if type(operator) in _COMPARISONS:
            a, b, compare = _compile(left, where), _compile(right, where), _COMPARISONS[type(operator)]
            return lambda view: compare(a(view), b(view))
        case ast.UnaryOp(op=ast.Invert(), operand=operand):
            a = _compile(operand, where)
            return lambda view: a(view) ^ _ALL_ONES
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            a = _compile(operand, where)
            return lambda view: _truth(a(view)) == False  # noqa: E712 -- a Word of one bit compares with False
        case ast.BoolOp(op=operator, values=values):
            parts = [_compile(value, where) for value in values]
            both = isinstance(operator, ast.And)
            return lambda view: _joined([_truth(part(view)) for part in parts], both)
        case ast.Call(func=ast.Name(id=name), args=[argument], keywords=[]) if name in _FUNCTIONS:
            a, function = _compile(argument, where), _FUNCTIONS[name]
            return lambda view: function(view, a(view))
    shown = ast.unparse(node)
    raise RuleFileError(f"{where}: {shown!r} is not understood: expected fields, controls, cap.…, numbers")


def _joined(truths: list[Any], both: bool) -> Any:
    result = truths[0]
    for truth in truths[1:]:
        result = result & truth if both else result | truth
    return result
