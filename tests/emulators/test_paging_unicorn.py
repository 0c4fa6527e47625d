"""Translation by paging against Unicorn: random tables and rights, one reference, fault or result and flags.

Unicorn tells the vector of a fault, not its error code; the SDM's text stands behind that.
"""

from __future__ import annotations

import random
from functools import cache
from typing import Any

import pytest
import unicorn
from unicorn import x86_const as uc

from popek.architectures.x86 import paging
from popek.kernel.machine import Machine
from popek.kernel.memory import Memory
from popek.kernel.outcome import Next, Trap
from popek.kernel.words import Word
from popek.machines import machine

SIZE = 1 << 17
CODE, STACK, GDT, TABLES, DATA = 0x1000, 0x2000, 0x3000, 0x4000, 0x14000
FLAT = {
    0x08: 0x00CF9B000000FFFF,
    0x10: 0x00CF93000000FFFF,
    0x18: 0x00CFFB000000FFFF,
    0x20: 0x00CFF3000000FFFF,
}
FLAT_64 = {**FLAT, 0x08: 0x00AF9B000000FFFF, 0x18: 0x00AFFB000000FFFF}
PAGES = 0x0040_0000  # linear addresses that are tried are here
AC = 1 << 18
EFER = 0xC0000080


class Tables:
    """Random tables over the tried addresses; code, stack and GDT are mapped one to one and open to all."""

    def __init__(self, chance: random.Random, levels: tuple[paging.Level, ...]) -> None:
        self.memory = bytearray(SIZE)
        self.levels, self._next = levels, TABLES
        self.root = self._table()
        self._chance = chance
        for page in (CODE, STACK, GDT):
            self._map(page, page, random_rights=False)
        for page in (PAGES, PAGES + 0x1000):
            self._map(page, DATA + 0x1000 * chance.randrange(8), random_rights=True)
        for i in range(0, 0xA000, 4):
            self.memory[DATA + i : DATA + i + 4] = chance.randbytes(4)

    def _table(self) -> int:
        self._next += 0x1000
        return self._next - 0x1000

    def _map(self, address: int, frame: int, *, random_rights: bool) -> None:
        table = self.root
        for level in self.levels:
            where = table + (address >> level.low & ((2 << (level.high - level.low)) - 1)) * level.size
            old = int.from_bytes(self.memory[where : where + level.size], "little")
            last = level is self.levels[-1]
            target = frame if last else (old & 0xFFFFF000 or self._table())
            supervisor = frame in (STACK, GDT) and last
            entry = target | (3 if supervisor else 7) if level.rights else target | 1
            if level.rights and not random_rights:
                entry |= 0x20  # Unicorn's own fetches and stack set no flag that the model does not
            if old and not last:  # shared, perhaps with what Unicorn itself needs
                entry = old
            elif random_rights and level.rights:
                entry &= ~self._chance.choice((0, 0, 0, 1, 2, 2, 4, 4, 6))
                if level.size == 8:
                    entry |= self._chance.choice((0,) * 9 + (1 << 63,))
                if last and len(self.levels) == 4:
                    entry |= self._chance.choice((0, self._chance.randrange(16) << 59))
            self.memory[where : where + level.size] = entry.to_bytes(level.size, "little")
            table = target


BYTES = {
    ("ia32-paged", "MOV r32, m32"): b"\x8b\x03",
    ("ia32-paged", "MOV m32, r32"): b"\x89\x03",
    ("ia32-paged", "ADD r32, m32"): b"\x03\x03",
    ("x86-64-paged", "MOV r64, m64"): b"\x48\x8b\x03",
    ("x86-64-paged", "MOV m64, r64"): b"\x48\x89\x03",
    ("x86-64-paged", "MOV m8, r8"): b"\x88\x03",
}


def run_on_unicorn(
    kind: str, form: str, tables: Tables, registers: dict[str, int], address: int, cpl: int
) -> tuple[int | None, bytes, int]:
    """The vector of a fault, the storage and the accumulator."""
    wide = kind == "x86-64-paged"
    engine = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_64 if wide else unicorn.UC_MODE_32)
    engine.ctl_set_cpu_model(uc.UC_CPU_X86_ICELAKE_CLIENT)  # has SMAP and protection keys
    engine.mem_map(0, SIZE)
    memory = bytearray(tables.memory)
    code = BYTES[kind, form]
    stub = b"\x48\xcf" if wide else b"\xcf"
    memory[CODE : CODE + len(stub)] = stub
    start = CODE + 16
    memory[start : start + len(code)] = code
    for selector, descriptor in (FLAT_64 if wide else FLAT).items():
        memory[GDT + selector : GDT + selector + 8] = descriptor.to_bytes(8, "little")
    frame = (
        start,
        0x18 | cpl if cpl else 0x08,
        registers["flags"] | 2,
        STACK + 0x800,
        0x20 | cpl if cpl else 0x10,
    )
    size = 8 if wide else 4
    image = b"".join(part.to_bytes(size, "little") for part in (frame if wide or cpl else frame[:3]))
    memory[STACK + 0x400 : STACK + 0x400 + len(image)] = image
    engine.mem_write(0, bytes(memory))
    engine.reg_write(uc.UC_X86_REG_GDTR, (0, GDT, 0xFFF, 0))
    engine.reg_write(uc.UC_X86_REG_CR3, tables.root)
    engine.reg_write(uc.UC_X86_REG_CR4, registers["cr4"])
    engine.msr_write(EFER, (0x500 if wide else 0) | registers["nxe"] << 11)
    engine.reg_write(uc.UC_X86_REG_CR0, registers["cr0"])
    engine.reg_write(uc.UC_X86_REG_RSP if wide else uc.UC_X86_REG_ESP, STACK + 0x400)
    engine.reg_write(uc.UC_X86_REG_RAX if wide else uc.UC_X86_REG_EAX, 0x12345678)
    engine.reg_write(uc.UC_X86_REG_RBX if wide else uc.UC_X86_REG_EBX, address)
    seen: list[int] = []

    def fault(_: Any, vector: int, __: Any) -> None:
        seen.append(vector)
        engine.emu_stop()

    engine.hook_add(unicorn.UC_HOOK_INTR, fault)
    engine.emu_start(CODE, start, count=1)
    engine.emu_start(start, start + len(code), count=1)
    accumulator = engine.reg_read(uc.UC_X86_REG_RAX if wide else uc.UC_X86_REG_EAX)
    return (seen[0] if seen else None), bytes(engine.mem_read(0, SIZE)), accumulator


@cache
def paged(kind: str) -> Machine[Any]:
    return machine(kind)


def run_on_model(
    kind: str, form: str, tables: Tables, registers: dict[str, int], address: int, cpl: int, before: bytes
) -> tuple[int | None, bytes, int]:
    known = paged(kind)
    wide = kind == "x86-64-paged"
    state = known.state.reset()
    flags = "rflags" if wide else "eflags"
    state["cr0"], state["cr3"], state["cr4"] = registers["cr0"], tables.root, registers["cr4"]
    state[flags] = registers["flags"] | 2
    state["rax" if wide else "eax"] = 0x12345678
    if wide:
        state["efer"] = 0x500 | registers["nxe"] << 11
    else:
        state.msr = state.msr.store(Word(32, EFER), Word(64, registers["nxe"] << 11))
    for name in ("cs.selector.rpl", "ss.selector.rpl", "cs.rights.dpl", "ss.rights.dpl"):
        state[name] = cpl
    state.memory = Memory(64 if wide else 32, 8, {i: b for i, b in enumerate(before) if b})
    instruction = known.instructions[form]
    words = {}
    for operand in instruction.inputs:
        for name, width in operand.part_names():
            value = address if name.endswith("offset") else 3 if name.endswith("segment") else 0
            words[name] = Word(width, 3 if name.endswith("length") else value)
    outcome = known.step(instruction, state, words)
    if isinstance(outcome, Trap):
        return outcome.vector.number, before, 0x12345678
    assert isinstance(outcome, Next)
    after = bytearray(SIZE)
    for where, value in outcome.state.memory.cells().items():
        after[where] = value
    return None, bytes(after), int(outcome.state["rax" if wide else "eax"])


def settings(chance: random.Random, kind: str, levels: tuple[paging.Level, ...]) -> dict[str, int]:
    cr4 = (0x20 if levels is not paging.TWO_LEVELS else 0x10) | chance.choice((0, 0, 1 << 21))
    return {
        "cr0": 0x80000011 | chance.choice((0, 1 << 16)),
        "cr4": cr4,
        "flags": chance.choice((0, 0, AC)),
        "nxe": chance.choice((0, 1)),
    }


WORLDS = [
    pytest.param("ia32-paged", paging.TWO_LEVELS, id="32-bit"),
    pytest.param("ia32-paged", paging.PAE, id="PAE"),
    pytest.param("x86-64-paged", paging.FOUR_LEVELS, id="4-level"),
]


@pytest.mark.parametrize(("kind", "levels"), WORLDS)
def test_references_agree_with_unicorn(kind: str, levels: tuple[paging.Level, ...]) -> None:
    chance = random.Random(len(levels))
    outcomes: set[tuple[int | None, int]] = set()
    forms = [form for name, form in BYTES if name == kind]
    for number in range(400):
        tables, registers = Tables(chance, levels), settings(chance, kind, levels)
        form, cpl = chance.choice(forms), chance.choice((0, 3))
        address = PAGES + chance.choice((0, 8, 0x7F8, 0xFF8, 0xFFC, 0xFFE, 0xFFF, 0x1000))
        vector, storage, accumulator = run_on_unicorn(kind, form, tables, registers, address, cpl)
        if vector not in (None, 14):
            continue  # the walk that brings Unicorn there failed (SMAP keeps a supervisor from user pages)
        before = storage[:TABLES] + bytes(tables.memory[TABLES:])
        mine, after, value = run_on_model(kind, form, tables, registers, address, cpl, before)
        what = number, form, hex(address), cpl, registers
        assert mine == vector, what
        if vector is None:  # a fault may leave accessed flags behind, or not
            different = [hex(i) for i in range(TABLES, SIZE) if after[i] != storage[i]]
            assert not different, (*what, different)
            assert value == accumulator, what
        outcomes.add((vector, cpl))
    assert outcomes == {(None, 0), (None, 3), (14, 0), (14, 3)}
