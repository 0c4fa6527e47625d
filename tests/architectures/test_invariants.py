"""What no instruction can change is fixed by the invariant, on every machine.

A bit of a system register that instructions write, and that every write leaves as reset has it, is a reserved bit:
it never has the other value.  An invariant that does not say so lets questions begin in states that do not exist.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from popek.checks.runs import explore_instruction
from popek.kernel.machine import Machine
from popek.kernel.state import Role
from popek.kernel.words import Word, any_of
from popek.machines import makers
from popek.solving.solver import Answer, QuestionKind, Solver

Bit = tuple[str, int]

LEFT_OPEN: dict[str, dict[str, str]] = {
    "pdp11-45": {
        "pirq": "a register in the device page, which programs write by address",
        "mme": "the memory management registers lie there, too",
    },
    "pdp10-ka10": {
        "apr": "the processor sets its conditions; instructions clear them",
        "device_conditions": "what stands for a device shows a word, and takes half of one",
        "pi_active": "interrupts make channels active",
    },
    "pdp10-ks10": {
        "apr_flags": "the processor sets its conditions; instructions clear them",
        "pi_active": "interrupts make channels active",
    },
    "s370": {
        "cr0": "LCTL that chooses another translation format is not modelled",
        "cr1": "LCTL that designates another segment table is not modelled",
        "tlb_stale": "changed tables make translations stale; instructions only forget them",
    },
    "s360-67": {f"cr{n}": "no instruction that is modelled loads it" for n in (0, 1, 3, 5, *range(7, 16))},
    "rv64": {"misa": "V is there or not (MISA_V), and no software clears it"},
    "ia64": {
        **{f"cr.irr{n}": "interrupts set the bits that are pending" for n in range(4)},
    },
    "ia32": {
        "cache_dirty": "stores make caches dirty, which is outside the model",
        "tlb_stale": "so do changed tables to translations",
    },
    "ia32-vt-x": {"cache_dirty": "stores make caches dirty, which is outside the model"},
    "x86-64-vt-x": {"cache_dirty": "as on ia32-vt-x"},
    "x86-64": {
        "cache_dirty": "stores make caches dirty, which is outside the model",
        "tlb_stale": "so do changed tables to translations",
    },
}
"""Components with bits that something else than an instruction of the model sets, or of which little is known."""


def _system(machine: Machine[Any]) -> frozenset[str]:
    """Registers that are no part of a segment register, whose parts hang together."""
    named = (s for s in machine.state.layout if s.role is Role.RESOURCE and not s.address)
    return frozenset(slot.name for slot in named if not slot.name.endswith(SEGMENT_PARTS))


SEGMENT_PARTS = (".selector", ".rights", ".limit")


def _writes(machine: Machine[Any], names: frozenset[str]) -> Iterator[tuple[Solver, str, Word, Word]]:
    """A solver that assumes a way through a form, a component written there, before and after."""
    for instruction in machine.instructions.values():
        run = explore_instruction(machine, instruction, traps=False)
        old = run.before.words()
        for conditions, state in run.completions():
            changed = {n: w for n, w in state.words().items() if n in names and w.term is not old[n].term}
            if changed:
                solver = Solver(kind=QuestionKind.QUICK, beside=run.translated)
                for condition in (machine.invariant(run.before).term, *conditions):
                    solver.add(condition)
                for name, new in changed.items():
                    yield solver, name, old[name], new


def unchanging(machine: Machine[Any]) -> set[Bit]:
    """The bits of system registers that some form writes, and that every write leaves as reset has them."""
    reset = machine.state.reset()
    written: set[Bit] = set()
    changed: set[Bit] = set()
    for solver, name, old, new in _writes(machine, _system(machine)):
        plain = int(reset[name])
        bits = [number for number in range(new.width) if new[number].term is not old[number].term]
        written |= {(name, number) for number in bits}
        left = [number for number in bits if (name, number) not in changed]
        # A bit that is kept is what reset made it.
        while left and solver.check([_other(new, plain, left), ~_other(old, plain, left)]) is Answer.SAT:
            found = solver.model()(new.term) ^ plain
            changed |= {(name, number) for number in left if found >> number & 1}
            left = [number for number in left if not found >> number & 1]
    return written - changed


def _other(word: Word, plain: int, bits: Sequence[int]) -> Word:
    """One of the bits is not as in a number (width 1)."""
    return any_of(word[number] != (plain >> number & 1) for number in bits)


def left_open(machine: Machine[Any], bits: set[Bit]) -> set[Bit]:
    """Those that the invariant lets be otherwise than reset has them."""
    state, reset = machine.state.symbolic(), machine.state.reset()
    solver = Solver(kind=QuestionKind.QUICK)
    solver.add(machine.invariant(state))
    return {
        (name, number)
        for name, number in sorted(bits)
        if solver.check([_other(state.words()[name], int(reset[name]), [number])]) is not Answer.UNSAT
    }


@pytest.mark.parametrize("name", makers())
def test_a_bit_that_every_write_fixes_is_fixed_by_the_invariant(name: str) -> None:
    machine = makers()[name]()
    found = left_open(machine, unchanging(machine))
    reasons = LEFT_OPEN.get(name, {})
    assert {component for component, _ in found} == set(reasons)
