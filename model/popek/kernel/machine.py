"""A machine: a state, its instructions, its modes, and the settings a question may fix.

For example:

    toy = Machine("toy", "A toy", Toy, supervisor=lambda s: s.mode == 0, user=lambda s: s.mode == 1)

    @toy.instruction("GETMODE", source="the manual, p. 1")
    def getmode(cpu: Toy) -> None:
        cpu.acc = cpu.mode.zero_extend(8)
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Generic, TypeVar

import attrs

from popek.errors import PopekError

from .declaration import MISTAKES, defined_at, in_semantics
from .instruction import Instruction, Operand, OperandKind, parse_form
from .interruption import Interruption
from .left_open import LeftOpen
from .outcome import DeclarationError, Fault, Next, NotModelled, NotModelledError, Outcome, Trap
from .practice import Practice
from .scope import Architecture
from .state import State
from .technique import Technique
from .words import TRUE, Word

S = TypeVar("S", bound=State)
F = TypeVar("F", bound=Callable[..., None])


class UnknownNameError(PopekError, KeyError):
    """A name that is not known; the message offers the nearest ones."""

    def __init__(self, what: str, name: str, known: Iterable[str]) -> None:
        known = list(known)
        folded = {k.lower(): k for k in known}
        near = [folded[n] for n in difflib.get_close_matches(name.lower(), list(folded), 3, 0.5)]
        hint = (
            f"; did you mean {' or '.join(near)}?" if near else f"; known: {', '.join(known[:12]) or 'none'}"
        )
        super().__init__(f"unknown {what} {name!r}{hint}")

    def __str__(self) -> str:
        return str(self.args[0])


@attrs.frozen
class Setting:
    """A setting that a question fixes or leaves open: a control bit, a level, an arrangement.

    Attributes:
        name: as `--set NAME=VALUE` spells it.
        summary: one line.
        values: the numbers it may have.
        holds: the condition (width 1) that a state has this value.
        default: the value when the question says nothing; None leaves it open.
        leaf: the leaf that holds the value, where it is exactly one.
        concerns: components it speaks of; a run that mentions none of them does not depend on it.
        labels: words for the values, where they read better than numbers.
    """

    name: str
    summary: str
    values: tuple[int, ...]
    holds: Callable[[Any, Word], Word]
    default: int | None = None
    leaf: str | None = None
    concerns: tuple[str, ...] = ()
    labels: Mapping[int, str] = attrs.field(factory=dict)


def leaf_setting(name: str, leaf: str, width: int, summary: str, default: int | None = None) -> Setting:
    """A setting that is one leaf of the state, `width` bits wide."""
    return Setting(
        name, summary, tuple(range(1 << width)), lambda state, value: state[leaf] == value, default, leaf
    )


@attrs.define(eq=False)
class Machine(Generic[S]):
    """A machine in the sense of Popek and Goldberg: typed state and instructions.

    Attributes:
        name: as the command line spells it.
        title: for people.
        state: the class of its states.
        supervisor, user: conditions (width 1): the state is in a supervisor or in a user mode.
        source: what the model was made from.
        operands: the operand kinds that forms may name.
        settings: the settings a question may fix.
        left_open: what the architecture leaves to the processor, and what a verdict makes of it.
        invariant: which states exist (width 1).
        advance: run on the working copy before the semantics (moves the program counter).
        implicit: operand kinds every instruction has besides those its form names.
        relocate: the state moved in storage by an offset; makes location sensitivity a question.
        reaches: `reaches(state, address)` says that a cell of storage is in reach of a program in this state (width 1):
            that some reference goes there.  All of it, where nothing is said.
        fetches: the address in storage of the cell from which the next instruction comes.
        deliver: the state after the hardware has delivered a trap, for traces on the bare machine.
        interruptions: the interrupts that it takes between two instructions, where they are modelled.
        techniques: ways to virtualize it, by name; the first is the default.
        interrupt_masks: the leaves by which a kernel holds interrupts off; not those of an interrupt controller.
        mnemonic_of: the mnemonic of a form; its first word by default.
        notes: what the model leaves out, one line each.
        architecture: reads the list of the architecture's instructions, with which `scope_of` compares ours.
        practice: how it is used, for searches and counts.
    """

    name: str
    title: str
    state: type[S]
    supervisor: Callable[[S], Word]
    user: Callable[[S], Word]
    source: str = ""
    operands: Mapping[str, OperandKind] = attrs.field(factory=dict)
    settings: tuple[Setting, ...] = ()
    left_open: tuple[LeftOpen, ...] = ()
    invariant: Callable[[S], Word] = lambda state: TRUE
    advance: Callable[[S, Mapping[str, Word]], None] = lambda state, parts: None
    implicit: tuple[OperandKind, ...] = ()
    relocate: Callable[[S, Word], S] | None = None
    relocation_width: int = 0
    reaches: Callable[[S, Word], Word] | None = None
    fetches: Callable[[S], Word] | None = None
    deliver: Callable[[S, Trap[S]], S] | None = None
    interruptions: tuple[Interruption[S], ...] = ()
    techniques: dict[str, Technique[S]] = attrs.field(factory=dict)
    interrupt_masks: tuple[str, ...] = ()
    mnemonic_of: Callable[[str], str] = lambda form: form.split()[0]
    notes: tuple[str, ...] = ()
    architecture: Callable[[], Architecture] | None = None
    practice: Practice = attrs.field(factory=Practice)
    instructions: dict[str, Instruction] = attrs.field(factory=dict)

    def instruction(
        self, *forms: str, source: str = "", mnemonic: str | None = None, **settings: Any
    ) -> Callable[[F], F]:
        """Declare the decorated function as the semantics of one or more forms.

        Args:
            forms: as the manual writes them; all share the function and the settings.
            source: document and section; the machine's own source when empty.
            mnemonic: where it is not what `mnemonic_of` makes of the form.
            settings: passed to the function by keyword.

        Raises:
            DeclarationError: the form is declared already, or names other operands than the semantics takes.
        """

        def declare(semantics: F) -> F:
            for form in forms:
                if form in self.instructions:
                    raise DeclarationError(f"{self.name}: {form} is declared twice")
                made = self.instructions[form] = Instruction(
                    form,
                    mnemonic or self.mnemonic_of(form),
                    parse_form(form, self.operands),
                    source or self.source,
                    semantics,
                    settings,
                    tuple(Operand(kind.name, kind) for kind in self.implicit),
                )
                made.assert_takes_its_operands(self.operands)
            return semantics

        return declare

    def find(self, name: str) -> list[Instruction]:
        """The instructions that `name` means: every form of a mnemonic, or one form.

        A mnemonic that is also a form (PUSHF, beside PUSHFD) means every form.

        Raises:
            UnknownNameError: with near matches.
        """
        wanted = " ".join(name.lower().split())
        known = list(self.instructions.values())
        found = [i for i in known if i.mnemonic.lower() == wanted]
        found = found or [i for i in known if i.form.lower() == wanted]
        if found:
            return found
        names = {i.mnemonic for i in self.instructions.values()} | set(self.instructions)
        raise UnknownNameError("instruction", name, sorted(names))

    def step(self, instruction: Instruction, state: S, operands: Mapping[str, Word]) -> Outcome[S]:
        """Run one instruction from `state`, which stays as it is.

        Works on numbers, and on symbols inside an exploration.

        Raises:
            DeclarationError: the semantics leave open what the machine does not declare.
        """
        cpu = state.copy()
        cpu._left_open = self.left_open
        try:
            self.advance(cpu, operands)
            instruction.run(cpu, operands)
        except Fault as fault:
            after = cpu if fault.keeps else state
            return Trap(fault.vector, fault.error_code, fault.memory, after, fault.level)
        except NotModelledError as stop:
            return NotModelled(str(stop))
        except MISTAKES as error:
            raise in_semantics(error, self.name, instruction.form) from error
        return Next(cpu)

    def delivered(self, before: S, trap: Trap[S]) -> S:
        """The state after the bare machine has delivered a trap; the states that it is given stay as they are.

        Works on numbers, and on symbols inside an exploration.

        Raises:
            Fault, NotModelledError: what the delivery raises.
            DeclarationError: it gives no state, or leaves open what the machine does not declare; or there is none.
        """
        if self.deliver is None:
            raise DeclarationError(f"{self.name}: the machine does not say how a trap is delivered")
        given, old = trap.state.copy(), before.copy()
        given._left_open = old._left_open = self.left_open
        copied = Trap(trap.vector, trap.error_code, trap.memory, given, trap.level)
        deliver = self.deliver
        return self._entered(
            "deliver", f"deliver(before, {trap.vector})", deliver, lambda: deliver(old, copied)
        )

    def interrupted(self, taken: Interruption[S], state: S, given: Mapping[str, Word]) -> S:
        """The state after an interrupt was taken; the one that it is taken in stays as it is.

        Raises:
            Fault, NotModelledError: what taking it raises.
            DeclarationError: it gives no state, or leaves open what the machine does not declare.
        """
        old = state.copy()
        old._left_open = self.left_open
        what = f"enter of the interrupt {taken.name!r}"
        return self._entered("enter", what, taken.enter, lambda: taken.enter(old, given))

    def _entered(self, name: str, what: str, whose: Callable[..., S], made: Callable[[], S]) -> S:
        try:
            after: object = made()
        except MISTAKES as error:
            raise in_semantics(error, self.name, what) from error
        if not isinstance(after, self.state):
            where = defined_at(whose)
            raise DeclarationError(
                f"{where + ': ' if where else ''}{self.name}: {what} gives {after!r}: expected a state of "
                f"{self.state.__name__}; does {name} return it?"
            )
        after._left_open = None
        return after

    def technique(self, name: str | None = None) -> Technique[S]:
        """A technique by name, the first one by default.

        Raises:
            UnknownNameError: with near matches.
        """
        if name is None and self.techniques:
            return next(iter(self.techniques.values()))
        if name is None or name not in self.techniques:
            raise UnknownNameError(
                f"technique of {self.name}", "the first" if name is None else name, self.techniques
            )
        return self.techniques[name]

    def setting(self, name: str) -> Setting:
        """A setting by name, upper or lower case.

        Raises:
            UnknownNameError: with near matches.
        """
        for setting in self.settings:
            if setting.name.lower() == name.lower():
                return setting
        raise UnknownNameError(f"setting of {self.name}", name, [a.name for a in self.settings])
