"""The sources that an answer about one instruction depends on, as a hash.

All that could be imported from the machine's module on counts, whether it was or not, and all that every machine
shares: the kernel, the checks, the solvers' rooms and the specs.  The one exception are the bodies of other
instructions.  A function that is defined inside another, is declared to the machine by its decorators and is named
nowhere else there can be reached through the machine's table of instructions alone.  Its body counts for the forms that
run it; if it is not found below any form of the machine, for all.

A file that has changed since this process began may not be what runs.  Then there is no hash, and nothing is kept.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any, Final

import attrs

import popek

from .store import Store, key_of

ROOTS: Final = ("popek", "popek_proofs", "popek_specs")
SHARED: Final = ("kernel", "checks", "solving", "keeping")
"""Rooms of popek that count as a whole, whatever the machine."""
ARCHITECTURES: Final = "popek.architectures"
LIBRARIES: Final = ("attrs", "bitwuzla", "networkx", "z3-solver")
PLAIN: Final = frozenset(
    {"__future__", "attrs", "collections", "enum", "functools", "itertools", "math", "operator", "typing"}
)
"""What a machine in a file of its own may import besides popek, if its answers are to be kept."""
LOOSE: Final = frozenset(
    {"open", "exec", "eval", "compile", "__import__", "globals", "locals", "vars", "input"}
)
"""Names that can make a program depend on what its text does not say."""
_MARGIN: Final = 20_000_000  # nanoseconds by which the clock of files may be behind

Place = tuple[str, int]
"""A file, and the line with which a function begins."""


@attrs.frozen
class SourceFile:
    """What there is to know of a file's text; the same for the same text.

    Attributes:
        shared: the hash of all but the bodies of functions that are instructions' alone.
        own: the hashes of those bodies, by the line with which the function begins.
        imports: level, module and name of whatever it imports, at once or when a function is called.
        loose: it uses one of `LOOSE`.
    """

    shared: str
    own: Mapping[int, str]
    imports: tuple[tuple[int, str, str], ...]
    loose: bool


@attrs.frozen
class Sources:
    """The sources of one machine's answers.

    Attributes:
        shared: a hash of what counts for every form.
        own: per form a hash of what counts for it alone.
        files: all of them.
    """

    shared: str
    own: Mapping[str, str]
    files: frozenset[Path]

    def of(self, form: str) -> tuple[str, str]:
        """What the answers about a form depend on."""
        return self.shared, self.own[form]

    def still_so(self) -> bool:
        """Whether no file has changed since this process began."""
        try:
            return all(map(_older, self.files))
        except OSError:
            return False


def sources(
    instructions: Mapping[str, Any],
    modules: Iterable[str],
    file: Path | None = None,
    *,
    store: Store | None = None,
) -> Sources | None:
    """The sources of the answers about some instructions; None where they cannot be told.

    Args:
        instructions: of one machine, by form; each has `semantics`.
        modules: of popek, those that make the machine.
        file: of the user's, that makes it.
        store: where the contents of files are looked up.
    """
    try:
        reader = _Reader(store)
        total = reader.closure(modules, file)
    except (OSError, SyntaxError, ValueError):
        return None
    if total is None or not all(map(_older, reader.seen)):
        return None
    own = {(str(path), line): told for path, read in reader.parts.items() for line, told in read.own.items()}
    below = {form: _places(one.semantics) for form, one in instructions.items()}
    everything = frozenset(own)
    met = {form: everything if found is None else found & everything for form, found in below.items()}
    nobody = everything.difference(*met.values())
    hashes = {
        form: key_of(*sorted(own[place] for place in found | nobody)).hex() for form, found in met.items()
    }
    return Sources(key_of(total, _versions()).hex(), hashes, frozenset(reader.seen))


def _older(file: Path) -> bool:
    """Whether a file was last changed before this process began."""
    status = file.stat()
    return max(status.st_mtime_ns, status.st_ctime_ns) <= popek.STARTED_NS - _MARGIN


def _versions() -> list[str]:
    found = [sys.version, sys.platform]
    for library in LIBRARIES:
        try:
            found.append(f"{library} {version(library)}")
        except PackageNotFoundError:
            found.append(f"no {library}")
    return found


# -- files ----------------------------------------------------------------------------------------


class _Reader:
    """Reads files, and follows what they import.

    Attributes:
        seen: every file.
        parts: those of which bodies were taken out.
    """

    def __init__(self, store: Store | None) -> None:
        self._store = store
        self._folders = {root: _folder(root) for root in ROOTS}
        self._files: dict[Path, SourceFile] = {}
        self.seen: set[Path] = set()
        self.parts: dict[Path, SourceFile] = {}

    def closure(self, modules: Iterable[str], file: Path | None) -> list[tuple[str, str]] | None:
        """Name and hash of every file that counts; None where a user's file may depend on more."""
        home = self._folders["popek"]
        told: dict[str, str] = {}
        whole = [self._module(name) for name in modules]
        if None in whole:  # another package's machine
            return None
        for room in SHARED:
            whole += sorted((home / room).rglob("*.py"))
        whole += [home / f"{name}.py" for name in ("__init__", "errors", "machines")]
        if file is not None:
            read = self._read(file.resolve(), apart=True, top=True)
            if not self._alone(file.resolve(), read):
                return None
            told[""] = read.shared
            whole += self._imported("", False, read)
        for path in whole:
            if path is not None and path not in self._files:
                read = self._read(path, apart=home / "architectures" in path.parents)
                name = self._name(path)
                told[name] = read.shared
                whole += self._imported(name, path.name == "__init__.py", read)
        for path in sorted(self._folders["popek_specs"].rglob("*")):
            if path.is_file() and path.suffix not in (".py", ".pyc"):
                self.seen.add(path)
                told[str(path.relative_to(self._folders["popek_specs"]))] = _digest(path.read_bytes())
        return sorted(told.items())

    def _read(self, path: Path, *, apart: bool, top: bool = False) -> SourceFile:
        """A file, by its contents.

        Args:
            apart: bodies of instructions are taken out.
            top: of those at its top level, too: nobody imports it.
        """
        if path in self._files:
            return self._files[path]
        self.seen.add(path)
        text = path.read_bytes()
        key = key_of("file", _ME, sys.version, _digest(text), apart, top)
        kept = None if self._store is None else self._store.get(key)
        if kept is not None:
            shared, own, imports, loose = json.loads(kept)
            found = SourceFile(shared, {int(k): v for k, v in own.items()}, tuple(map(tuple, imports)), loose)
        else:
            found = _analysed(text, apart=apart, top=top)
            if self._store is not None:
                self._store.put(
                    key, json.dumps([found.shared, found.own, found.imports, found.loose]).encode()
                )
        self._files[path] = found
        if apart:
            self.parts[path] = found
        return found

    def _module(self, name: str) -> Path | None:
        """The file of a module; None where it is none of popek's."""
        root, *below = name.split(".")
        if root not in self._folders:
            return None
        path = self._folders[root].joinpath(*below)
        return next((p for p in (path / "__init__.py", path.with_suffix(".py")) if p.is_file()), None)

    def _name(self, path: Path) -> str:
        root = next(r for r, folder in self._folders.items() if folder in path.parents)
        parts = path.relative_to(self._folders[root]).with_suffix("").parts
        return ".".join((root, *(parts[:-1] if parts[-1] == "__init__" else parts)))

    def _imported(self, name: str, package: bool, read: SourceFile) -> Iterator[Path | None]:
        """The files of popek that a file may import, packages on the way included."""
        for level, module, wanted in read.imports:
            base = name.split(".")[: len(name.split(".")) - level + package] if level else []
            whole = [*base, *filter(None, module.split(".")), *filter(None, [wanted])]
            for end in range(1, len(whole) + 1):
                yield self._module(".".join(whole[:end]))

    def _alone(self, path: Path, read: SourceFile) -> bool:
        """Whether a user's file depends on nothing that is not counted."""
        if read.loose:
            return False
        for level, module, _ in read.imports:
            root = module.partition(".")[0]
            beside = any((path.parent / f"{root}{ending}").exists() for ending in ("", ".py"))
            if level or beside or root not in {*ROOTS, *PLAIN}:
                return False
        return True


def _folder(package: str) -> Path:
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ValueError(f"{package} lies in no folder")
    return Path(next(iter(spec.submodule_search_locations))).resolve()


def _digest(text: bytes) -> str:
    return hashlib.blake2b(text, digest_size=16).hexdigest()


_ME: Final = _digest(Path(__file__).read_bytes())


def _analysed(text: bytes, *, apart: bool, top: bool = False) -> SourceFile:
    tree = ast.parse(text)
    lines = text.splitlines(keepends=True)
    own: dict[int, str] = {}
    out: set[int] = set()
    for function in _alone_in(tree, top) if apart else ():
        begin, end = function.body[0].lineno, function.end_lineno or 0
        own[min(d.lineno for d in function.decorator_list)] = _digest(b"".join(lines[begin - 1 : end]))
        out.update(range(begin - 1, end))
    rest = b"".join(b"" if number in out else line for number, line in enumerate(lines))
    return SourceFile(_digest(rest), own, tuple(_imports(tree)), bool(_names(tree) & LOOSE))


def _imports(tree: ast.AST) -> Iterator[tuple[int, str, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((0, alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.level, node.module or "", alias.name) for alias in node.names)


def _names(tree: ast.AST) -> set[str]:
    """Every name that is read, or made another scope's."""
    found = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Global | ast.Nonlocal):
            found.update(node.names)
    return found


def _alone_in(tree: ast.Module, top: bool) -> Iterator[ast.FunctionDef]:
    """The functions that can be reached through the table of instructions alone."""
    for outer in tree.body:
        if isinstance(outer, ast.FunctionDef):
            named = _names(outer)
            if not named & LOOSE and not (top and _declared(outer)):
                yield from _instructions(outer, named)
    if top:
        words = {n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute)}
        words |= {n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str)}
        named = _names(tree) | words
        yield from (
            one
            for one in tree.body
            if isinstance(one, ast.FunctionDef) and _declared(one) and one.name not in named
        )


def _instructions(outer: ast.AST, named: set[str]) -> Iterator[ast.FunctionDef]:
    for node in ast.iter_child_nodes(outer):
        if isinstance(node, ast.FunctionDef) and _declared(node) and node.name not in named:
            yield node
        else:
            yield from _instructions(node, named)


def _declared(function: ast.FunctionDef) -> bool:
    """Whether it is an instruction, and its body begins on a line of its own."""
    plain = all(isinstance(one, ast.Call) and _to_a_machine(one) for one in function.decorator_list)
    parts = (*function.decorator_list, *ast.walk(function.args), function.returns)
    head = max([function.lineno, *(getattr(part, "end_lineno", None) or 0 for part in parts)])
    return bool(function.decorator_list) and plain and function.body[0].lineno > head


def _to_a_machine(call: ast.Call) -> bool:
    """`machine.instruction(…)`, or a declaration of an architecture's own, `declare(machine, …)`."""
    if isinstance(call.func, ast.Attribute) and call.func.attr == "instruction":
        return True
    return bool(call.args) and isinstance(call.args[0], ast.Name) and call.args[0].id == "machine"


# -- functions ------------------------------------------------------------------------------------


def _places(semantics: Callable[..., Any]) -> frozenset[Place] | None:
    """Where the functions below some semantics begin; None where it may run any instruction."""
    found: set[Place] = set()
    seen: set[int] = set()
    pending: list[Any] = [semantics]
    while pending:
        one = pending.pop()
        if id(one) in seen or isinstance(
            one, str | bytes | int | float | type | None | CodeType | ModuleType
        ):
            continue
        seen.add(id(one))
        if isinstance(getattr(one, "instructions", None), Mapping):
            return None  # a machine
        if isinstance(one, FunctionType):
            found.add((os.path.realpath(one.__code__.co_filename), one.__code__.co_firstlineno))
            pending += [*(one.__defaults__ or ()), *(one.__kwdefaults__ or {}).values()]
            pending += [cell.cell_contents for cell in one.__closure__ or () if _filled(cell)]
        elif isinstance(one, Mapping):
            pending += one.values()
        elif isinstance(one, tuple | list | set | frozenset):
            pending += one
        else:
            for name in ("func", "args", "keywords", "__func__", "__self__"):
                pending.append(getattr(one, name, None))
        pending += list(getattr(one, "__dict__", {}).values()) if not isinstance(one, Mapping) else []
        pending.append(getattr(one, "__wrapped__", None))
    return frozenset(found)


def _filled(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return False
    return True


__all__ = ["SourceFile", "Sources", "sources"]
