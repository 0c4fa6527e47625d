"""Random states for single x86-64 instructions, biased to where the manual draws a line.

A case starts from a plain state of the step harness and builds what its instruction needs to complete; a few things
are then made wrong.  Everything is kept as a change of the plain state that can be taken back one by one.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Mapping, Sequence
from typing import Final

import attrs

from popek.architectures.x86_64.state import GPR_NAMES
from popek.emulators.x64_step import (
    CODE_SELECTORS,
    COMPATIBLE_SELECTORS,
    CR3,
    DATA_SELECTORS,
    FREE_SELECTOR,
    GDT_BASE,
    IDT_BASE,
    KERNEL_DATA,
    KERNEL_LANDING,
    LDT_BASE,
    READ_ONLY_BASE,
    RESERVED_SELECTOR,
    STACK_TOPS,
    TSS_BASE,
    TSS_LIMIT,
    TSS_SELECTOR,
    USER_BASE,
    USER_DATA,
    USER_LANDING,
    gate_descriptor,
    plain_state,
    segment_descriptor,
    system_descriptor,
)
from popek.kernel.instruction import Instruction

PORTS: Final = (0x680, 0x687, 0x688, 0x689, 0x68F, 0x6FF, 0xE0, 0xE7, 0xFFFE)
"""Ports without a device: they read as ones and take anything."""
IMMEDIATE_PORTS: Final = (0xE0, 0xE1, 0xE3, 0xE6, 0xE7)

UNTESTED: Final[Mapping[str, str]] = {
    "TF = 1, breakpoints that match": "debug traps are outside the model",
    "EFLAGS.VIF and VIP with CR4.PVI at CPL 3": "a pending virtual interrupt comes before the instruction",
    "CR4.SMAP, protection keys that forbid": "the model's pages do not know them",
    "compatibility mode with a 16-bit code segment": "the model's forms are those of CS.D = 1",
    "memory outside the arena": "only the arena is mapped; addresses that are not canonical are tested",
    "IA32_APIC_BASE and IA32_MISC_ENABLE": "Bochs relocates its APIC, and has other bits",
    "values of CPUID, RDTSC and RDPMC": "they are the processor's",
    "REX.W = 0 forms of INS and OUTS with REP": "no REP forms in the model",
}
"""What no case starts from, each with the reason."""

LEFT_OUT: Final[Mapping[str, str]] = {
    "LDS r32, m16:32": "in 64-bit mode the opcode is the VEX prefix",
    "LES r32, m16:32": "in 64-bit mode the opcode is the VEX prefix",
    "BOUND r32, m64": "in 64-bit mode the opcode is the EVEX prefix",
    "XSAVES m": "extended state is outside the model",
    "XRSTORS m": "extended state is outside the model",
    "MONITOR": "Bochs checks the hint and the address differently for each model",
}
"""Forms that are not compared in 64-bit mode, each with the reason."""

EDGES: Final = (0x7FFF_FFFFFFFF, 0x8000_00000000, 0xFFFF7FFF_FFFFFFFF, 0xFFFF8000_00000000)
"""The ends of the canonical addresses, and their neighbours."""
_NUMBERS = (
    *(
        0,
        1,
        2,
        0x7F,
        0x80,
        0xFF,
        0x7FFF,
        0x8000,
        0xFFFF,
        0x10000,
        0x7FFFFFFF,
        0x80000000,
        0xFFFFFFFF,
        0x100000000,
    ),
    *(1 << 63, (1 << 63) - 1, (1 << 64) - 1, *EDGES),
)
_FLAGS = 0x3D7ED5 & ~0x3100
_CR0 = (1 << 1, 1 << 2, 1 << 3, 1 << 5, 1 << 16, 1 << 18, 1 << 30)
# VME PVI TSD DE PSE MCE PGE PCE OSFXSR OSXMMEXCPT UMIP FSGSBASE PCIDE OSXSAVE SMEP PKE
_CR4 = tuple(1 << bit for bit in (0, 1, 2, 3, 4, 6, 7, 8, 9, 10, 11, 16, 17, 18, 20, 22))
_USES_MEMORY = frozenset(("m", "m8", "m16", "m32", "m64", "m128", "m16&64", "m16:16", "m16:32", "m16:64"))
MASK: Final = 0xFFFFFFFF_FFFFFFFF


@attrs.frozen
class Case:
    """An instruction and the state it starts from, as changes of the harness's plain state.

    Attributes:
        form: the instruction's form.
        operands: the number of each part by its name as a symbol, without the length.
        cpl: the current privilege level.
        long: 64-bit mode, not compatibility mode.
        registers: components that differ from `plain_state(cpl, long=long)`.
        memory: (linear address, bytes).
    """

    form: str
    operands: Mapping[str, int]
    cpl: int = 0
    long: bool = True
    registers: Mapping[str, int] = attrs.field(factory=dict)
    memory: tuple[tuple[int, bytes], ...] = ()

    def state(self) -> dict[str, int]:
        """Every component that the harness sets."""
        return plain_state(self.cpl, long=self.long) | dict(self.registers)


def quads(*values: int) -> bytes:
    """64-bit little-endian words."""
    return struct.pack(f"<{len(values)}Q", *(value & MASK for value in values))


def random_case(instruction: Instruction, cpl: int, long: bool, rng: random.Random) -> Case:
    """Draw a case for one form at one privilege level."""
    builder = _Builder(instruction, cpl, long, rng)
    builder.surroundings()
    builder.instruction_state()
    return Case(instruction.form, builder.operands, cpl, long, builder.registers, tuple(builder.memory))


class _Builder:
    """Draws one case."""

    def __init__(self, instruction: Instruction, cpl: int, long: bool, rng: random.Random) -> None:
        self.instruction, self.cpl, self.long, self.rng = instruction, cpl, long, rng
        self.plain = plain_state(cpl, long=long)
        self.registers: dict[str, int] = {}
        self.memory: list[tuple[int, bytes]] = []
        self.operands: dict[str, int] = {}
        self.next_gdt = FREE_SELECTOR
        self.next_ldt = 4
        self.has_ldt = False
        self.edge_free = False

    # -- small helpers ------------------------------------------------------------------------

    def chance(self, probability: float) -> bool:
        return self.rng.random() < probability

    def level(self) -> int:
        return self.rng.choice((0, 1, 2, 3, self.cpl))

    def number(self, width: int = 64) -> int:
        value = self.rng.choice(_NUMBERS) if self.chance(0.4) else self.rng.getrandbits(64)
        if self.chance(0.2):
            value += self.rng.choice((-1, 1, -8, 8))
        return value & (1 << width) - 1

    def canonical(self) -> int:
        value = self.rng.choice((0x1000, 0x38000, self.rng.getrandbits(47), EDGES[0], EDGES[3], MASK))
        return value if self.chance(0.7) else (value & 0x7FFF_FFFFFFFF | 0xFFFF8000_00000000)

    def subset(self, bits: Sequence[int], probability: float) -> int:
        return sum(bit for bit in bits if self.chance(probability))

    def get(self, name: str) -> int:
        return self.registers.get(name, self.plain[name])

    def put(self, address: int, data: bytes) -> None:
        self.memory.append((address, data))

    @property
    def rsp(self) -> int:
        return self.get("rsp")

    def on_stack(self, data: bytes) -> None:
        """Bytes at the top of the stack, where it is in the arena."""
        if self.rsp + len(data) < 0x40000:
            self.put(self.rsp, data)

    # -- descriptors --------------------------------------------------------------------------

    def place(self, descriptor: bytes) -> int:
        """Put a descriptor in the GDT or the LDT; its selector, RPL 0."""
        size = len(descriptor)
        if self.has_ldt and self.next_ldt + size <= 0x78 and self.chance(0.25):
            selector, base = self.next_ldt, LDT_BASE
            self.next_ldt += size
        elif self.edge_free and self.chance(0.15):
            selector, base = 0x1000, GDT_BASE
            self.edge_free = False
        else:
            selector, base = self.next_gdt, GDT_BASE
            self.next_gdt += size
        self.put(base + (selector & ~7), descriptor)
        return selector

    def code(self, dpl: int, *, conforming: bool = False, present: bool = True, kind: str = "") -> bytes:
        """A code segment: of 64 bits, of 32 bits, or of both at once."""
        kind = kind or self.rng.choice(("long",) * 6 + ("compatible",) * 2 + ("both",))
        access = {"long": 0xA01800, "compatible": 0xC01800, "both": 0xE01800}[kind]
        access |= (0x400 if conforming else 0) | self.rng.choice((0, 0x100, 0x200, 0x300))
        limit = 0xFFFFF
        if kind == "compatible" and self.chance(0.3):
            limit, access = (
                self.rng.choice((KERNEL_LANDING - 1, USER_LANDING - 1, 0x3FFFF)),
                access & ~0x800000,
            )
        return segment_descriptor(0, limit, access | dpl << 13 | (0x8000 if present else 0))

    def data(self, dpl: int, *, present: bool = True, writable: bool = True) -> bytes:
        access = 0xC01000 | (0x200 if writable else 0) | self.rng.choice((0, 0x100))
        base = self.rng.choice((0, 0, KERNEL_DATA, 0x20000, 0xFFFF0000))
        return segment_descriptor(base, 0xFFFFF, access | dpl << 13 | (0x8000 if present else 0))

    def wild(self) -> bytes:
        """Any descriptor."""
        kind = self.rng.getrandbits(5)
        dpl, present = self.level(), not self.chance(0.15)
        if kind in (4, 5, 12) and self.chance(0.9):
            return self.gate(kind, dpl, present=present)
        access = kind << 8 | dpl << 13 | (0x8000 if present else 0)
        high = self.rng.choice((0xC0, 0x40, 0x80, 0x00, 0xA0, 0xD0, 0xF0, 0xE0)) << 16
        limit = self.rng.choice((0xFFFFF, 0, 1, 0x2FFF, 0xFFFF))
        if kind in (2, 9, 11):
            return self.system(kind, dpl, present=present)
        return segment_descriptor(self.rng.choice((0, KERNEL_DATA)), limit, access | high)

    def system(self, kind: int, dpl: int, *, present: bool = True) -> bytes:
        """An LDT or a TSS."""
        access = kind << 8 | dpl << 13 | (0x8000 if present else 0)
        upper = self.rng.choice((0, 0, 0, 0, 0x100, 0x1F00, 0xE0FF)) if self.chance(0.4) else 0
        base = TSS_BASE if kind != 2 else LDT_BASE
        if self.chance(0.2):
            base = self.rng.choice((*EDGES, self.canonical(), 1 << 63))
        limit = self.rng.choice((TSS_LIMIT, 0x67, 0x66, 0xFFFF))
        return system_descriptor(base, limit, access, upper)

    def gate(self, kind: int, dpl: int, *, present: bool = True, ist: int = 0) -> bytes:
        """A gate that leads to a code segment, mostly one that accepts it."""
        target = self.rng.choice((0, 1, 1, 2, 3, self.cpl, self.cpl))
        if target > self.cpl and self.chance(0.8):
            target = self.rng.randrange(self.cpl + 1)
        conforming = self.chance(0.3)
        if self.chance(0.5) and not conforming:
            selector = CODE_SELECTORS[target]
        elif self.chance(0.85):
            kind_of = "long" if self.chance(0.8) else ""
            code = self.code(target, conforming=conforming, present=not self.chance(0.1), kind=kind_of)
            selector = self.place(code)
        else:
            selector = self.selector() if self.chance(0.9) else 0
        selector = selector & ~3 | self.rng.getrandbits(2)
        # Conforming code and code of CPL's own level go on at CPL.
        runs_at = self.cpl if conforming or target >= self.cpl else target
        offset = USER_LANDING if runs_at == 3 else KERNEL_LANDING
        if self.chance(0.1):
            offset = self.rng.choice((*EDGES, offset | 1 << 47, offset | 1 << 63))
        access = kind << 8 | dpl << 13 | (0x8000 if present else 0)
        upper = self.rng.choice((0x100, 0x1F00, 0xE0FF)) if self.chance(0.1) and kind == 12 else 0
        return gate_descriptor(selector, offset, access, ist=ist, upper=upper)

    # -- selectors ----------------------------------------------------------------------------

    def selector(self) -> int:
        """Any selector: null, of the default segments, of a new descriptor, at or beyond a limit."""
        rpl = self.rng.choice((0, 1, 2, 3, self.cpl))
        limit = self.get("gdtr.limit")
        roll = self.rng.random()
        if roll < 0.12:
            return rpl
        if roll < 0.15:
            return 4 | rpl
        if roll < 0.4:
            ring = self.level()
            return (self.rng.choice((CODE_SELECTORS, DATA_SELECTORS, COMPATIBLE_SELECTORS))[ring] & ~3) | rpl
        if roll < 0.45:
            return TSS_SELECTOR | rpl
        if roll < 0.52:
            edge = (limit + 1 & ~7) + self.rng.choice((-8, 0, 0, 8))
            return (edge & 0xFFF8 if edge & ~7 != RESERVED_SELECTOR else 0x1000) | rpl
        if roll < 0.56:
            return self.rng.choice((0x74, 0x7C, 0xFFF4, self.rng.getrandbits(16) | 4)) & ~3 | rpl
        return self.place(self.wild()) | rpl

    def data_selector(self) -> int:
        """A selector for DS, ES, FS or GS that mostly loads."""
        if self.chance(0.45):
            return self.selector()
        dpl = self.rng.randrange(self.cpl, 4)
        rpl = self.rng.randrange(dpl + 1)
        if self.chance(0.2):
            dpl = self.level()
        if self.chance(0.3):
            descriptor = self.code(dpl, conforming=self.chance(0.5), present=not self.chance(0.15))
        else:
            descriptor = self.data(dpl, present=not self.chance(0.15), writable=self.chance(0.7))
        return self.place(descriptor) | rpl

    def stack_selector(self, level: int) -> int:
        """A selector for SS at a level, mostly one that loads."""
        if self.chance(0.15):
            return self.selector()
        if self.chance(0.25):
            return level if self.chance(0.8) else self.level()
        dpl = self.level() if self.chance(0.1) else level
        rpl = self.level() if self.chance(0.1) else level
        if self.chance(0.5) and dpl == level:
            return DATA_SELECTORS[level] & ~3 | rpl
        access = 0xC01200 | self.rng.choice((0, 0x100)) | dpl << 13 | (0 if self.chance(0.15) else 0x8000)
        if self.chance(0.1):
            access &= ~0x200
        return self.place(segment_descriptor(0, 0xFFFFF, access)) | rpl

    # -- what every case has ------------------------------------------------------------------

    def surroundings(self) -> None:
        """Registers, flags, control bits, tables, segment registers."""
        rng, state = self.rng, self.registers
        if self.chance(0.6):
            for name in GPR_NAMES:
                if name != "rsp":
                    state[name] = self.number(64 if self.long else 32)
        flags = self.subset([1 << bit for bit in range(22) if _FLAGS >> bit & 1], rng.choice((0.1, 0.5)))
        if self.chance(0.6):
            flags &= ~0x4000
        state["rflags"] = flags | rng.choice((0, self.cpl, rng.randrange(4))) << 12 | 2
        if self.chance(0.5):
            state["cr0"] = 0x80000031 | self.subset(_CR0, 0.3)
            if state["cr0"] >> 30 & 1 and self.chance(0.5):
                state["cr0"] |= 1 << 29
        if self.chance(0.7):
            state["cr4"] = 0x20 | self.subset(_CR4, rng.choice((0.2, 0.6)))
        if self.cpl == 3 and self.get("cr4") & 2 and state["rflags"] >> 19 & 3 == 3:
            state["rflags"] &= ~(1 << 20)
        if self.chance(0.6):
            state["efer"] = 0x500 | self.subset((1, 1 << 11), 0.6)
        if self.chance(0.3):
            state["cr8"], state["cr2"] = rng.randrange(16), self.number()
        if self.chance(0.3):
            state["cr3"] = CR3 | rng.choice((0, 0, 0x18))
        if self.chance(0.3):
            state["xcr0"], state["pkru"] = rng.choice((1, 3, 7, 0x207)), rng.getrandbits(32) & ~3
        if self.chance(0.3):
            for name in ("msr.star", "msr.fmask", "msr.tsc_aux", "msr.sysenter_cs"):
                state[name] = self.number(64 if name == "msr.star" else 32)
            for name in (
                "msr.lstar",
                "msr.cstar",
                "msr.kernel_gs_base",
                "msr.sysenter_esp",
                "msr.sysenter_eip",
            ):
                state[name] = self.canonical()
        if self.chance(0.3):
            state["gdtr.limit"] = rng.choice((0xFFF, 0x1000, 0x1006, 0x1007, 0x100E, 0x100F))
            self.edge_free = state["gdtr.limit"] >= 0x1007
        if self.chance(0.5):
            self.has_ldt = True
            state |= {"ldtr.selector": 0x50, "ldtr.base": LDT_BASE, "ldtr.rights": 0x82}
            state["ldtr.limit"] = rng.choice((0x7F, 0x7F, 0x77, 0x7E, 0x2F))
        self.segments()
        if "DR" in self.instruction.form or self.chance(0.1):
            self.debug_registers()
        if self.chance(0.3):
            self.stack()

    def segments(self) -> None:
        state = self.registers
        if self.chance(0.5):
            for name in ("fs", "gs"):
                state[f"{name}.base"] = (
                    self.canonical() if self.long else self.rng.choice((0, 0x1000, 0x20000))
                )
        for name in ("es", "ds", "fs", "gs"):
            if self.chance(0.1):
                state[f"{name}.selector"] = self.rng.randrange(4)
                state |= {f"{name}.limit": 0, f"{name}.rights": 0x10000}
            elif self.chance(0.1) and not self.long:
                state[f"{name}.limit"] = self.rng.choice((0xFFF, USER_BASE - 1, 0x30003))
        if self.cpl != 3 and self.long and self.chance(0.2):
            state |= {"ss.selector": self.cpl, "ss.limit": 0, "ss.rights": 0x10000 | self.cpl << 5}

    def debug_registers(self) -> None:
        """Break points that nothing hits."""
        for number in range(4):
            self.registers[f"dr{number}"] = self.rng.getrandbits(45) | 1 << 46
        self.registers["dr6"] = 0xFFFF0FF0 | self.subset((1, 2, 4, 8, 1 << 14, 1 << 15), 0.3)
        gd = 1 << 13 if self.chance(0.15) else 0
        self.registers["dr7"] = 0x400 | self.rng.getrandbits(10) | gd

    def stack(self) -> None:
        """RSP elsewhere: misaligned, at the edge of a page, or not canonical."""
        top = STACK_TOPS[self.cpl]
        choices = [top - 0x10 + self.rng.randrange(16), top - 8, USER_BASE + self.rng.choice((0, 2, 4, 6, 8))]
        if self.cpl == 3:
            choices += [READ_ONLY_BASE + 8, READ_ONLY_BASE + 0x1004, USER_BASE - 8, 0x8000]
        if self.long:
            choices += [edge + self.rng.choice((-8, -4, 0, 1, 4, 8)) & MASK for edge in EDGES]
        self.registers["rsp"] = self.rng.choice(choices)

    # -- what the instruction needs ------------------------------------------------------------

    def target(self, size: int) -> int:
        """An address to refer to, mostly one that is allowed."""
        rng = self.rng
        good = USER_DATA if self.cpl == 3 or self.chance(0.2) else KERNEL_DATA
        roll = rng.random()
        if roll < 0.55:
            return good + 16 * rng.randrange(16)
        if roll < 0.7:
            return good + rng.randrange(64)
        if roll < 0.8:
            return USER_BASE + 0x1000 * rng.choice((0, 1)) - rng.randrange(1, 2 * size + 1)
        if roll < 0.85:
            return KERNEL_DATA
        if roll < 0.9:
            return READ_ONLY_BASE + rng.choice((0, 8, -size + 1, 0xFFC, 0x1000 - size))
        edge = rng.choice(EDGES)
        return edge + rng.randrange(-size - 1, size + 1) & MASK if self.long else good

    def memory_operand(self, name: str, size: int, data: bytes) -> None:
        """A reference through DS, or through FS or GS with a base that brings it there."""
        where = self.target(size)
        signed = where - (1 << 64 if where >> 63 else 0)
        segment = 3
        offset = where
        if not -(1 << 31) <= signed < 1 << 31 or (self.chance(0.2) and self.long):
            segment = self.rng.choice((4, 5))
            shift = self.rng.choice((0, 8, 0x1000, -16))
            base = where - shift & MASK
            if base >> 47 not in (0, (1 << 17) - 1):
                base = self.rng.choice((EDGES[0] - 15, EDGES[3]))
            self.registers["fs.base" if segment == 4 else "gs.base"] = base
            offset = where - base & MASK
            if not (offset < 1 << 31 or offset >= MASK - (1 << 31)):
                offset = self.rng.randrange(32)
        elif not self.long and self.chance(0.3):
            segment = self.rng.choice((0, 2, 3, 4, 5))
            base = self.get(("es", "cs", "ss", "ds", "fs", "gs")[segment] + ".base")
            offset = where - base & 0xFFFFFFFF
        self.operands[f"operand {name}.segment"] = segment
        self.operands[f"operand {name}.offset"] = offset
        if where + len(data) < 0x40000:
            self.put(where, data)

    def register_operand(self, name: str, value: int | None = None, *, avoid: Sequence[int] = (4,)) -> int:
        top = 16 if self.long else 8
        if name == "operand r8" or name.startswith("operand r8 "):
            top = 16 if self.long else 4
        number = self.rng.choice([n for n in range(top) if n not in avoid])
        self.operands[name] = number
        if value is not None:
            self.registers[GPR_NAMES[number]] = value & MASK
        return number

    def instruction_state(self) -> None:
        """Operands and whatever the instruction looks at."""
        form, mnemonic = self.instruction.form, self.instruction.mnemonic
        for operand in self.instruction.operands:
            kind, name = operand.kind.name, f"operand {operand.name}"
            if kind in ("r8", "r16", "r32", "r64"):
                self.register_operand(name, None, avoid=() if mnemonic in ("MOV", "PUSH", "POP") else (4,))
            elif kind in ("imm8", "imm16", "imm32", "imm64", "rel8", "rel32"):
                self.operands[name] = self.number(int(kind[3:]))
            elif kind == "Sreg":
                self.operands[name] = self.rng.choice((0, 1, 2, 3, 4, 5, 0, 2, 3, 4, 5, 6, 7))
            elif kind == "seg":
                self.operands[name] = self.rng.choice((3, 4, 5) if self.long else range(6))
            elif kind == "ptr16:32":
                pass
            elif kind in _USES_MEMORY and not form.startswith(("CALL m", "JMP m")):
                size = {"m8": 1, "m16": 2, "m32": 4, "m64": 8, "m128": 16}.get(kind, 10)
                self.memory_operand(operand.name, size, self.rng.randbytes(24))
        special = {
            "LLDT": self.system_selector,
            "LTR": self.system_selector,
            "LAR": self.asked_selector,
            "LSL": self.asked_selector,
            "VERR": self.asked_selector,
            "VERW": self.asked_selector,
            "MOV to CR": self.to_control_register,
            "MOV to DR": self.to_debug_register,
            "MOV sreg": self.segment_load,
            "POP sreg": self.segment_load,
            "LFS": self.segment_load,
            "LGS": self.segment_load,
            "LSS": self.segment_load,
            "CALL far": self.far_transfer,
            "JMP far": self.far_transfer,
            "RET far": self.far_return,
            "IRET": self.far_return,
            "INT n": self.software_interrupt,
            "INT3": self.software_interrupt,
            "INT1": self.software_interrupt,
            "INTO": self.software_interrupt,
            "POPF": self.pop_flags,
            "RDMSR": self.model_specific,
            "WRMSR": self.model_specific,
            "LGDT": self.table,
            "LIDT": self.table,
            "RDPMC": self.counter,
            "XSETBV": self.extended,
            "XGETBV": self.extended,
            "RDPKRU": self.extended,
            "WRPKRU": self.extended,
            "MWAIT": self.extended,
            "INVPCID": self.invpcid,
            "CMPXCHG16B": self.compare_16,
            "JMP near": self.near,
            "CALL near": self.near,
            "RET near": self.near,
            "Jcc": self.near,
            "SYSCALL": self.system_call,
            "SYSRET": self.system_call,
            "SYSENTER": self.system_call,
            "SYSEXIT": self.system_call,
            "LEAVE": self.leave,
            "STOS": self.strings,
            "MOVS": self.strings,
        }.get(mnemonic)
        if special is not None:
            special()
        elif mnemonic in ("IN", "OUT", "INS", "OUTS"):
            self.port()
        elif form.startswith(("WRFSBASE", "WRGSBASE")):
            first = f"operand {self.instruction.operands[0].name}"
            self.register_operand(first, self.canonical() if self.chance(0.5) else self.number())

    def give_selector(self, selector: int) -> None:
        """Put a selector where the instruction takes it from: its last 16-bit register or its memory operand."""
        for name in list(self.operands):
            if name.startswith("operand m") and name.endswith(".offset"):
                base = {4: "fs.base", 5: "gs.base"}.get(self.operands[name.replace(".offset", ".segment")])
                where = self.operands[name] + (self.get(base) if base and self.long else 0) & MASK
                if where < 0x3FFF0:
                    self.put(where, struct.pack("<H", selector))
                return
        taken = [n for n in self.operands if n.startswith("operand r16")]
        if taken:
            value = selector | self.rng.getrandbits(48 if self.long else 16) << 16
            self.registers[GPR_NAMES[self.operands[taken[-1]]]] = value

    def system_selector(self) -> None:
        """LLDT and LTR: an LDT or a TSS, or something else."""
        if self.chance(0.35):
            self.give_selector(self.selector())
            return
        kind = (
            (2 if self.instruction.mnemonic == "LLDT" else 9)
            if self.chance(0.8)
            else self.rng.choice((2, 9, 11, 3))
        )
        selector = self.place(self.system(kind, self.level(), present=not self.chance(0.15)))
        self.give_selector(selector | self.rng.getrandbits(2))

    def asked_selector(self) -> None:
        """LAR and its like: anything."""
        self.give_selector(self.selector() if self.chance(0.7) else self.data_selector())

    def to_control_register(self) -> None:
        form, rng = self.instruction.form, self.rng
        if form == "MOV CR0, r64":
            value = 0x80000031 | self.subset((*_CR0, 1 << 29, 1 << 4, 1 << 12, 1 << 20), 0.3)
            if self.chance(0.4):
                value ^= rng.choice((1, 1 << 31, 1 << 29, 1 << 32, 1 << 63, 0x80000001))
        elif form == "MOV CR3, r64":
            value = CR3 | rng.choice((0, 0x18, 0x8))
            if self.get("cr4") >> 17 & 1:
                value |= rng.randrange(0x1000)
            if self.chance(0.5):
                value |= rng.choice((1 << 63, 1 << 40, 1 << 62, 1 << 52, 1 << 63))
        elif form == "MOV CR4, r64":
            value = 0x20 | self.subset((*_CR4, 1 << 21), 0.4)
            if self.chance(0.4):
                value ^= rng.choice((0x20, 1 << 15, 1 << 19, 1 << 27, 1 << 32, 1 << 63, 1 << 14))
        elif form == "MOV CR8, r64":
            value = rng.randrange(16) if self.chance(0.6) else self.number()
        else:
            value = self.number()
        self.register_operand("operand r64", value if self.long else value & 0xFFFFFFFF)

    def to_debug_register(self) -> None:
        value = self.rng.getrandbits(32) & ~0x2000 if self.chance(0.7) else self.number()
        if self.instruction.form[4:7] in ("DR0", "DR1", "DR2", "DR3"):
            value = self.number() | 1 << 46
            self.registers["dr7"] = 0x400 | (0x2000 if self.chance(0.1) else 0)
        if self.instruction.form[4:7] in ("DR7", "DR5"):
            for number in range(4):
                self.registers[f"dr{number}"] = self.rng.getrandbits(40) | 1 << 46
        self.register_operand("operand r64", value if self.long else value & 0xFFFFFFFF)

    def segment_load(self) -> None:
        form = self.instruction.form
        to_stack = self.operands.get("operand Sreg") == 2 or form.startswith(("LSS", "POP SS"))
        selector = self.stack_selector(self.cpl) if to_stack else self.data_selector()
        if "POP" in form:
            self.on_stack(struct.pack("<H", selector) + self.rng.randbytes(6))
        elif form.startswith("L"):
            size = int(form.split(":")[1]) // 8
            for name in list(self.operands):
                if name.endswith(".offset"):
                    base = {4: "fs.base", 5: "gs.base"}.get(
                        self.operands[name.replace(".offset", ".segment")]
                    )
                    where = self.operands[name] + (self.get(base) if base and self.long else 0) & MASK
                    if where < 0x3FFE0:
                        self.put(where + size, struct.pack("<H", selector))
        elif form.startswith("MOV Sreg"):
            self.give_selector(selector)

    def transfer_target(self) -> tuple[int, int]:
        """Selector and offset for a far CALL or JMP."""
        if self.chance(0.4):
            kind = 12 if self.chance(0.85) else self.rng.choice((4, 5, 14))
            dpl = self.rng.randrange(self.cpl, 4) if self.chance(0.8) else self.level()
            selector = self.place(self.gate(kind, dpl, present=not self.chance(0.1)))
            rpl = self.rng.randrange(dpl + 1) if self.chance(0.8) else self.level()
            return selector | rpl, self.number(32)
        if self.chance(0.2):
            return self.selector(), KERNEL_LANDING
        conforming = self.chance(0.4)
        dpl = self.rng.randrange(self.cpl + 1) if conforming else self.cpl
        dpl = dpl if self.chance(0.85) else self.level()
        selector = self.place(self.code(dpl, conforming=conforming, present=not self.chance(0.1)))
        rpl = self.rng.randrange(self.cpl + 1) if self.chance(0.85) else self.level()
        offset = USER_LANDING if self.cpl == 3 else KERNEL_LANDING
        return selector | rpl, offset if self.chance(0.85) else self.number()

    def far_transfer(self) -> None:
        form = self.instruction.form
        selector, offset = self.transfer_target()
        if "ptr16:32" in form:
            self.operands |= {
                "operand ptr16:32.selector": selector,
                "operand ptr16:32.offset": offset & 0xFFFFFFFF,
            }
            return
        size = int(form.split(":")[1])
        data = (offset & (1 << size) - 1).to_bytes(size // 8, "little") + struct.pack("<H", selector)
        self.memory_operand(f"m16:{size}", size // 8 + 2, data)

    def far_return(self) -> None:
        """RET far and IRET: a frame that mostly works, to the same level or outward."""
        form, rng = self.instruction.form, self.rng
        size = {"IRET": 2, "IRETD": 4, "IRETQ": 8, "o16 RETF": 2, "o64 RETF": 8}.get(form, 4)
        level = self.cpl if self.chance(0.5) else rng.randrange(self.cpl, 4)
        conforming = self.chance(0.15)
        dpl = rng.randrange(level + 1) if conforming else level
        if self.chance(0.4) and not conforming:
            selector = rng.choice((CODE_SELECTORS, COMPATIBLE_SELECTORS))[level] & ~3
        elif self.chance(0.8):
            dpl = dpl if self.chance(0.9) else self.level()
            selector = self.place(self.code(dpl, conforming=conforming, present=not self.chance(0.1)))
        else:
            selector = self.selector() & ~3
        selector |= level if self.chance(0.9) else self.level()
        offset = USER_LANDING if level == 3 else KERNEL_LANDING
        if self.chance(0.1):
            offset = self.number()
        frame = [offset, selector]
        if "IRET" in form:
            image = rng.getrandbits(32) & ~0x100
            if level == 3 and image >> 19 & 3 == 3:
                image &= ~(1 << 20)
            frame.append(image)
            if self.chance(0.8):
                self.registers["rflags"] = self.get("rflags") & ~0x4000
        stack = self.stack_selector(level)
        pointer = STACK_TOPS[level] if self.chance(0.8) else self.number()
        mask = (1 << 8 * size) - 1
        released = 0
        if self.instruction.operands:
            released = self.operands["operand imm16"] = rng.choice((0, 8, 16, 4, 3))
        data = b"".join((value & mask).to_bytes(size, "little") for value in frame) + rng.randbytes(released)
        self.on_stack(data + b"".join((value & mask).to_bytes(size, "little") for value in (pointer, stack)))

    def software_interrupt(self) -> None:
        form, rng = self.instruction.form, self.rng
        vector = {"INT3": 3, "INTO": 4, "INT1": 1}.get(form, rng.choice((0x20, 0x80, 0x81, 0xFF)))
        if form == "INT imm8":
            self.operands["operand imm8"] = vector
            if self.chance(0.15):
                self.registers["idtr.limit"] = 16 * vector + rng.choice((-1, 7, 14, 15))
        if form == "INTO" and self.chance(0.7):
            self.registers["rflags"] = self.get("rflags") | 0x800
        kind = rng.choice((14, 14, 15)) if self.chance(0.85) else rng.randrange(16)
        dpl = rng.randrange(self.cpl, 4) if self.chance(0.75) else self.level()
        ist = rng.choice((2, 3, 4, 5, 6, 7)) if self.chance(0.3) else 0
        gate = self.gate(kind, dpl, present=not self.chance(0.1), ist=ist)
        self.put(IDT_BASE + 16 * vector, gate)
        if self.chance(0.1):
            self.put(TSS_BASE + rng.choice((4, 12, 20, 0x2C, 0x34)), quads(rng.choice(EDGES)))

    def pop_flags(self) -> None:
        image = self.rng.getrandbits(32) & ~0x100
        if self.cpl == 3:
            image &= ~0x180000
        self.on_stack(quads(image | self.rng.getrandbits(32) << 32))

    def model_specific(self) -> None:
        rng = self.rng
        known = (0x174, 0x175, 0x176, 0x277, *range(0xC0000080, 0xC0000085), *range(0xC0000100, 0xC0000104))
        number = rng.choice((*known, *known, 0x12345678, 0xFFFFFFFF, 0xC0001000, 0x4000))
        high = 0 if not self.long else rng.choice((0, rng.getrandbits(32) << 32))
        self.registers["rcx"] = number | high
        value = self.canonical() if self.chance(0.6) else self.number()
        if number == 0x277:
            kinds = [rng.choice((0, 1, 4, 5, 6, 7)) for _ in range(8)]
            if self.chance(0.4):
                kinds[rng.randrange(8)] = rng.choice((2, 3, 8, 0x10, 0xFF))
            (value,) = struct.unpack("<Q", bytes(kinds))
        elif number == 0xC0000080:
            value = 0x500 | self.subset((1, 1 << 11), 0.5)
            if self.chance(0.4):
                value ^= rng.choice((0x100, 0x400, 0x2, 0x200, 1 << 16, 1 << 32))
        elif number in (0xC0000084, 0xC0000103, 0x174):
            value &= 0xFFFFFFFF if self.chance(0.8) else MASK
        self.registers["rax"] = value & 0xFFFFFFFF | high
        self.registers["rdx"] = value >> 32 | high

    def table(self) -> None:
        name = "m16&64"
        base = {4: "fs.base", 5: "gs.base"}.get(self.operands[f"operand {name}.segment"])
        where = self.operands[f"operand {name}.offset"] + (self.get(base) if base and self.long else 0) & MASK
        value = self.canonical() if self.chance(0.7) else self.number()
        if where < 0x3FFE0:
            self.put(where, struct.pack("<HQ", self.rng.getrandbits(16), value))

    def counter(self) -> None:
        self.registers["rcx"] = self.rng.choice((0, 1, 7, 0x40000003, 0x80000000 + 0x40, 0x1000, 0xFFFFFFFF))

    def extended(self) -> None:
        rng = self.rng
        self.registers["rcx"] = rng.choice((0, 0, 0, 0, 1 << 32 if self.long else 0, 2, 0x80000000))
        value = rng.choice((1, 3, 7, 0x207, 0x201, 2, 4, 5, 0, 8, 1 << 63, 0x103, self.number()))
        if self.instruction.form == "WRPKRU":
            value = rng.getrandbits(32) & ~3 | (0 if self.chance(0.8) else 1 << 32)
        self.registers["rax"], self.registers["rdx"] = value & 0xFFFFFFFF, value >> 32

    def invpcid(self) -> None:
        rng = self.rng
        self.register_operand("operand r64", rng.choice((0, 1, 2, 3, 4, 1 << 32 if self.long else 5, 0xFF)))
        for name in list(self.operands):
            if name.endswith(".offset"):
                base = {4: "fs.base", 5: "gs.base"}.get(self.operands[name.replace(".offset", ".segment")])
                where = self.operands[name] + (self.get(base) if base and self.long else 0) & MASK
                pcid = rng.choice((0, 0, 1, 0xFFF, 0x1000, 1 << 63))
                if where < 0x3FFE0:
                    self.put(where, quads(pcid, self.canonical() if self.chance(0.7) else self.number()))

    def compare_16(self) -> None:
        a, b = self.number(), self.number()
        name = "operand m128"
        base = {4: "fs.base", 5: "gs.base"}.get(self.operands[f"{name}.segment"])
        where = self.operands[f"{name}.offset"] + (self.get(base) if base else 0) & MASK
        if where < 0x3FFE0:
            self.put(where, quads(a, b))
        if self.chance(0.6):
            self.registers["rax"], self.registers["rdx"] = a, b

    def near(self) -> None:
        """Near transfers: to a landing place, or to what is not canonical."""
        target = USER_LANDING if self.cpl == 3 else KERNEL_LANDING
        wild = self.long and self.chance(0.2)
        if wild:
            target = self.rng.choice((EDGES[1], EDGES[2], 1 << 63, target | 1 << 47))
        start = self.get("rip")
        for operand in self.instruction.operands:
            if operand.kind.name == "rel8":
                self.operands["operand rel8"] = self.rng.choice((0, 0x10, 0x20, 0x7F, 0x80, 0xE0, 0xF0))
            elif operand.kind.name == "rel32":
                self.operands["operand rel32"] = (target - start - 5) & 0xFFFFFFFF if not wild else 0x1000
            elif operand.kind.name == "r64":
                self.register_operand("operand r64", target)
            else:
                self.operands["operand imm16"] = self.rng.choice((0, 2, 8, 0x10, 0xFFFF))
        self.on_stack(quads(target))

    def system_call(self) -> None:
        rng, state = self.rng, self.registers
        if self.chance(0.7):
            state["efer"] = 0x501 | self.subset((1 << 11,), 0.3)
        state["msr.star"] = rng.choice((0x0010_0008_00000000, 0x0013_000B_00000000, self.number()))
        state["msr.lstar"] = KERNEL_LANDING
        state["msr.fmask"] = rng.getrandbits(32) | 0x100
        state["msr.sysenter_cs"] = rng.choice((8, 0x0B, 0, 3, 0x10, 0xFFF8, 0x10008, self.number(32)))
        state["msr.sysenter_eip"], state["msr.sysenter_esp"] = KERNEL_LANDING, self.canonical()
        landing = USER_LANDING if self.chance(0.8) else self.number()
        state["rcx"] = landing if self.instruction.mnemonic == "SYSRET" else self.number()
        state["rdx"] = landing if self.instruction.mnemonic == "SYSEXIT" else self.number()
        state["r11"] = self.number() & ~0x100
        if state["r11"] >> 19 & 3 == 3:
            state["r11"] &= ~(1 << 20)
        if not self.long:
            for name in ("rcx", "rdx", "r11"):
                state[name] &= 0xFFFFFFFF

    def leave(self) -> None:
        self.registers["rbp"] = self.rng.choice(
            (self.rsp - 0x20, self.rsp + self.rng.randrange(8), *EDGES[:2])
        ) & (MASK if self.long else 0xFFFFFFFF)

    def strings(self) -> None:
        for name in ("rsi", "rdi"):
            self.registers[name] = self.target(8)

    def port(self) -> None:
        if "imm8" in self.instruction.form:
            self.operands["operand imm8"] = self.rng.choice(IMMEDIATE_PORTS)
        self.registers["rdx"] = self.rng.choice(PORTS) | self.rng.getrandbits(16) << 16
        if self.chance(0.5):
            number = self.operands.get("operand imm8", self.registers["rdx"] & 0xFFFF)
            self.put(TSS_BASE + 0x68 + number // 8, self.rng.choice((bytes(2), self.rng.randbytes(2))))
        if self.chance(0.3):
            base = self.rng.choice((0x68, 0x67, 0x100, 0x2000, 0xDFFF, 0xFFFF))
            self.put(TSS_BASE + 0x66, struct.pack("<H", base))
        if self.chance(0.3):
            self.registers["tr.limit"] = self.rng.choice(
                (0x66, 0x67, 0x68, 0x84, 0x85, 0x138, 0x139, TSS_LIMIT - 1)
            )
        if self.instruction.mnemonic in ("INS", "OUTS"):
            self.registers["rdi" if self.instruction.mnemonic == "INS" else "rsi"] = self.target(4)
