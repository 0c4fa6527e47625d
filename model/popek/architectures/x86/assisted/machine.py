"""An x86 machine under the eyes of an assistance: its instructions, and exceptions that may leave the guest."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import attrs

from popek.kernel.instruction import Instruction
from popek.kernel.machine import Machine
from popek.kernel.outcome import Fault
from popek.kernel.words import Word

from ..state import X86

S = TypeVar("S", bound=X86)


def monitored(
    semantics: Callable[..., None], exit_of_exception: Callable[[Any, Fault], object]
) -> Callable[..., None]:
    """The semantics with exceptions that leave the guest where the controls say so."""

    @functools.wraps(semantics)
    def run(cpu: X86, *operands: Any, **settings: Any) -> None:
        try:
            semantics(cpu, *operands, **settings)
        except Fault as fault:
            exit_of_exception(cpu, fault)
            raise

    return run


@attrs.frozen(eq=False)
class Eyes:
    """How an assistance watches a machine.

    Attributes:
        mode: the component that is 1 while a guest runs.
        begin: what the state notes before each instruction, given its length.
        exit_of_exception: leaves the guest, where an exception does.
        watched: the instructions whose exceptions are asked about, where not all are.
        invariant: what holds besides the machine's own invariant.
        lacked: a note of the machine without the assistance that is no longer true contains this.
        notes: what is not modelled of the assistance.
    """

    mode: str
    begin: Callable[[Any, Word], None]
    exit_of_exception: Callable[[Any, Fault], object]
    lacked: str
    notes: tuple[str, ...]
    watched: Callable[[Instruction], bool] = lambda instruction: False
    invariant: Callable[[Any], Word] | None = None

    def machine(
        self,
        plain: Machine[S],
        state: type[S],
        name: str,
        title: str,
        *,
        own: Mapping[str, Instruction],
        exceptions: bool,
    ) -> Machine[S]:
        """The machine with the assistance.

        Args:
            plain: the machine without it.
            own: instructions that are others with it, by form.
            exceptions: whether every exception may leave the guest.
        """
        instructions = {**plain.instructions, **own}
        for form, instruction in instructions.items():
            if exceptions or self.watched(instruction):
                semantics = monitored(instruction.semantics, self.exit_of_exception)
                instructions[form] = attrs.evolve(instruction, semantics=semantics)
        more = self.invariant

        def advance(cpu: S, operands: Mapping[str, Word]) -> None:
            self.begin(cpu, operands["operand length"])
            plain.advance(cpu, operands)

        return attrs.evolve(
            plain,
            name=name,
            title=title,
            state=state,
            supervisor=lambda state: (state[self.mode] == 0) & (state.cpl == 0),
            user=lambda state: (state[self.mode] == 1) & (state.cpl == 3),
            invariant=plain.invariant if more is None else lambda state: plain.invariant(state) & more(state),
            advance=advance,
            techniques={},
            notes=(*(note for note in plain.notes if self.lacked not in note), *self.notes),
            instructions=instructions,
        )
