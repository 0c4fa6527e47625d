"""Forms that are not declared because another form does all that they do: CSR instructions with a number."""

from __future__ import annotations

import random

import pytest
from test_rules import MODES

from popek.architectures.riscv.instructions.zicsr import access, all_csrs
from popek.architectures.riscv.state import Rv64
from popek.emulators.spike.cases import _components
from popek.kernel.memory import Memory
from popek.kernel.outcome import Fault
from popek.kernel.words import Word


def after(start: Rv64, source: Word, csr: object, operation: str, immediate: bool) -> object:
    cpu = start.copy()
    try:
        access(cpu, Word(5, 7), source, csr, operation, immediate)  # type: ignore[arg-type]
    except Fault as fault:
        return fault.vector
    return tuple(int(cpu[leaf.name]) for leaf in cpu.leaves), int(cpu.x.load(Word(5, 7)))


@pytest.mark.parametrize("operation", ["CSRRW", "CSRRS", "CSRRC"])
def test_a_number_is_a_register_that_holds_it(operation: str) -> None:
    """A number is 0 where the register is x0, so that both write or neither does: no class or promise can differ."""
    rng = random.Random(operation)
    for csr in all_csrs():
        for number in (0, rng.randrange(1, 32)):
            start = Rv64.reset()
            for name, value in _components(rng).items():
                start[name] = value
            start.prv, start.v = MODES[rng.choice(list(MODES))]
            start.x = Memory(5, 64, {5: number})
            register = Word(5, 5 if number else 0)
            with_register = after(start, register, csr, operation, immediate=False)
            assert after(start, Word(5, number), csr, operation, immediate=True) == with_register
