"""Instructions: operand forms, source, semantics.

A form is written as the manual writes it: `MOV r32, CR0`, `CALL m16:32`.  Its operands are the words
after the mnemonic that the machine's operand kinds name; everything else is fixed text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from inspect import CO_VARARGS, CO_VARKEYWORDS
from typing import Any, TypeVar

import attrs

from .outcome import DeclarationError
from .words import TRUE, Word, symbol

V = TypeVar("V")


@attrs.frozen
class OperandKind:
    """What an operand may be: a register number, an immediate, a memory reference.

    Attributes:
        name: as forms spell it (`r32`, `m`, `imm8`).
        parts: width in bits of each part; a plain operand has the one part "".
        valid: which values exist (a condition on the parts); all by default.
        spell: the operand in assembly, from the numbers of its parts.
        first: the value of a part when a question does not depend on it; 0 by default.
        make: what the semantics receive, from the words of the parts; by default the one word itself.
    """

    name: str
    parts: Mapping[str, int]
    valid: Callable[[Mapping[str, Word]], Word] = lambda parts: TRUE
    spell: Callable[[Mapping[str, int]], str] = lambda parts: ", ".join(f"{v:#x}" for v in parts.values())
    make: Callable[[Mapping[str, Word]], Any] = lambda parts: next(iter(parts.values()))
    first: Mapping[str, int] = attrs.field(factory=dict)


@attrs.frozen
class Operand:
    """One operand of a form: its own name and its kind."""

    name: str
    kind: OperandKind

    @property
    def token(self) -> str:
        """As the form spells it."""
        return self.name.partition(" ")[0]

    def part_names(self) -> Iterable[tuple[str, int]]:
        """The names of its parts as symbols of a query, with their widths."""
        for part, width in self.kind.parts.items():
            yield (f"operand {self.name}.{part}" if part else f"operand {self.name}"), width

    def own(self, parts: Mapping[str, V]) -> dict[str, V]:
        """Its own parts, by their short names, out of those of the whole instruction."""
        return {part: parts[name] for part, (name, _) in zip(self.kind.parts, self.part_names(), strict=True)}


@attrs.frozen(eq=False)
class Instruction:
    """One operand form of an instruction.

    Attributes:
        form: as the manual writes it; the key of the instruction in its machine.
        mnemonic: the manual's, upper case, with the distinguishing word where one is needed.
        operands: in the order the semantics take them.
        source: document and section.
        semantics: takes the working copy of the state, the operands, and `settings` by keyword.
        settings: what tells this form from others with the same semantics (an operand size).
        implicit: inputs every instruction of the machine has, which `Machine.advance` takes and the
            semantics do not (the instruction's length).
    """

    form: str
    mnemonic: str
    operands: tuple[Operand, ...]
    source: str
    semantics: Callable[..., None]
    settings: Mapping[str, Any] = attrs.field(factory=dict)
    implicit: tuple[Operand, ...] = ()

    @property
    def inputs(self) -> tuple[Operand, ...]:
        """The operands and the implicit inputs."""
        return self.operands + self.implicit

    @property
    def summary(self) -> str:
        """The first line of the semantics' docstring."""
        return (self.semantics.__doc__ or "").strip().split("\n")[0]

    @property
    def widths(self) -> dict[str, int]:
        """The width of every part of every operand, by its name as a symbol."""
        return {name: width for operand in self.inputs for name, width in operand.part_names()}

    @property
    def smallest(self) -> dict[str, int]:
        """The first valid value of every part of every operand."""
        return {
            name: operand.kind.first.get(part, 0) & (1 << width) - 1
            for operand in self.inputs
            for part, (name, width) in zip(operand.kind.parts, operand.part_names(), strict=True)
        }

    def symbols(self) -> dict[str, Word]:
        """A symbol for every part of every operand."""
        return {name: symbol(name, width) for name, width in self.widths.items()}

    def words(self, numbers: Mapping[str, int]) -> dict[str, Word]:
        """Numbers, one for every part of every operand, as the semantics take them."""
        return {name: Word(width, numbers[name]) for name, width in self.widths.items()}

    def fixed(self, numbers: Mapping[str, int]) -> Instruction:
        """The same form where the named parts have these numbers alone, as in one piece of machine code."""

        def narrowed(operand: Operand) -> Operand:
            kind = operand.kind
            own = {
                part: numbers[name]
                for part, (name, _) in zip(kind.parts, operand.part_names(), strict=True)
                if name in numbers
            }

            def valid(parts: Mapping[str, Word]) -> Word:
                result = kind.valid(parts)
                for part, number in own.items():
                    result = result & (parts[part] == number)
                return result

            return attrs.evolve(operand, kind=attrs.evolve(kind, valid=valid, first={**kind.first, **own}))

        return attrs.evolve(
            self,
            operands=tuple(narrowed(one) for one in self.operands),
            implicit=tuple(narrowed(one) for one in self.implicit),
        )

    def valid(self, parts: Mapping[str, Word]) -> Word:
        """Whether these operands exist (width 1)."""
        result = TRUE
        for operand in self.inputs:
            result = result & operand.kind.valid(operand.own(parts))
        return result

    def run(self, cpu: Any, parts: Mapping[str, Word]) -> None:
        """Run the semantics on the working copy `cpu`."""
        made = [operand.kind.make(operand.own(parts)) for operand in self.operands]
        given: object = self.semantics(cpu, *made, **self.settings)  # type: ignore[func-returns-value]
        if given is not None:
            raise DeclarationError(f"the semantics returns {given!r}: it is to assign, such as cpu.acc = …")

    def assert_takes_its_operands(self, kinds: Iterable[str]) -> None:
        """The semantics takes the state, the operands that the form names, and the settings.

        Raises:
            DeclarationError: it takes more, or fewer.
        """
        code = getattr(self.semantics, "__code__", None)
        if code is None or code.co_flags & (CO_VARARGS | CO_VARKEYWORDS):
            return
        names = code.co_varnames[: code.co_argcount]
        optional = names[code.co_argcount - len(getattr(self.semantics, "__defaults__", None) or ()) :]
        wanted = [name for name in names[1:] if name not in self.settings]
        needed = [name for name in wanted if name not in optional]
        if not names or not len(needed) <= len(self.operands) <= len(wanted):
            named = ", ".join(operand.name for operand in self.operands) or "none"
            raise DeclarationError(
                f"{self.form}: the semantics takes {', '.join(names) or 'nothing'}; operands that the form names: "
                f"{named}; operand kinds of the machine: {', '.join(kinds) or 'none'}"
            )

    def assembly(self, parts: Mapping[str, int]) -> str:
        """The instruction as assembly text, operands filled in."""
        text, at = "", 0
        for operand in self.operands:
            # A whole word of the form, though it may have commas and parentheses itself; never the mnemonic.
            found = re.compile(rf"(?<=[\s,]){re.escape(operand.token)}(?![^\s,])").search(self.form, at)
            if found is not None:
                text += self.form[at : found.start()] + operand.kind.spell(operand.own(parts))
                at = found.end()
        return text + self.form[at:]


def parse_form(form: str, kinds: Mapping[str, OperandKind]) -> tuple[Operand, ...]:
    """The operands of a form: every word of it that names a kind, numbered when a kind repeats.

    >>> kind = OperandKind("r32", {"": 3})
    >>> [operand.name for operand in parse_form("XCHG r32, r32", {"r32": kind})]
    ['r32', 'r32 2']
    """
    found: list[Operand] = []
    seen: dict[str, int] = {}
    for token in form.replace(",", " ").split()[1:]:
        kind = kinds.get(token)
        if kind is not None:
            seen[token] = seen.get(token, 0) + 1
            found.append(Operand(token if seen[token] == 1 else f"{token} {seen[token]}", kind))
    return tuple(found)
