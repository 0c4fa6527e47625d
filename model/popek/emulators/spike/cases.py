"""Random states for one RISC-V instruction: every mode, every register with a say, addresses near what is protected."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any, Final

import attrs

from popek.architectures.riscv.access import permitted
from popek.architectures.riscv.machine import EXISTING
from popek.architectures.riscv.state import Rv64
from popek.architectures.riscv.traps import interrupt_target
from popek.kernel.instruction import Instruction
from popek.kernel.memory import Memory
from popek.kernel.words import Word

from .hart import CODE, DATA, DATA_BYTES
from .image import RAM

MODES: Final = {"M": (3, 0), "HS": (1, 0), "U": (0, 0), "VS": (1, 1), "VU": (0, 1)}
_MASK: Final = (1 << 64) - 1
_FULL: Final = (1 << 54) - 1  # a NAPOT address that covers all storage
_PLAIN: Final = (
    "mscratch", "mepc", "mcause", "mtval", "mtval2", "mtinst", "sscratch", "sepc", "scause", "stval", "stimecmp",
    "htimedelta", "htval", "htinst", "vsscratch", "vsepc", "vscause", "vstval", "vstimecmp", "mcycle", "minstret",
    "mcounteren", "scounteren", "hcounteren",
)  # fmt: skip
_EVEN: Final = ("mepc", "sepc", "vsepc")
_FEATURES: Final = 0b101_1111  # all but WFI that completes
_STOPPED: Final = 5  # mcountinhibit: cycle and instret stand still, so that they can be compared
_DRAWN: Final = tuple(name for name in EXISTING if name not in ("lines", "pmpcfg0", "mideleg"))


@attrs.frozen
class SpikeCase:
    """An instruction, and what differs from the reset state: numbers by component, registers, bytes of storage."""

    form: str
    mode: str
    operands: Mapping[str, int]
    components: Mapping[str, int]
    x: Mapping[int, int]
    f: tuple[int, int] | None
    data: Mapping[int, int]

    @property
    def cpl(self) -> int:
        """The nominal privilege: 0 U and VU, 1 HS and VS, 3 M."""
        return MODES[self.mode][0]

    def state(self, kind: type[Rv64] = Rv64) -> Rv64:
        """The model's state, of a class of its states."""
        state = kind.reset()
        prv, v = MODES[self.mode]
        for name, value in {**self.components, "prv": prv, "v": v}.items():
            state[name] = value
        state.x = Memory(5, 64, dict(self.x))
        state.f = Memory(5, 64, {} if self.f is None else dict([self.f]))
        cells: dict[int, int] = {}
        for address, value in self.data.items():
            cells[address >> 3] = cells.get(address >> 3, 0) | value << 8 * (address & 7)
        state.memory = Memory(53, 64, cells)
        return state

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "form": self.form,
            "mode": self.mode,
            "operands": {name: hex(value) for name, value in self.operands.items()},
            "components": {name: hex(value) for name, value in self.components.items()},
            "x": {str(number): hex(value) for number, value in self.x.items()},
            "f": None if self.f is None else [self.f[0], hex(self.f[1])],
            "data": {hex(address): hex(value) for address, value in self.data.items()},
        }


def case_from(instruction: Instruction, state: Rv64, operands: Mapping[str, int]) -> SpikeCase:
    """A case from a state on numbers, such as a witness, as near to it as Spike can be.

    The instruction is where Spike has storage, every mode may fetch it, and counters stand still.
    """
    reset = Rv64.reset()
    components = {name: int(word) for name, word in reset.words().items() if name not in ("prv", "v")}
    components |= {
        name: int(state[name]) for name in components if name not in ("time", "features", "lines", "pc")
    }
    components |= {"pc": CODE, "mcountinhibit": components["mcountinhibit"] | _STOPPED}
    components |= {"pmpcfg0": 0x1F000000, "pmpaddr3": _FULL}
    mode = next(name for name, (prv, v) in MODES.items() if (prv, v) == (int(state.prv), int(state.v)))
    x = {number: int(state.x.load(Word(5, number))) for number in range(1, 32)}
    f = next(
        (
            (operands[name], int(state.f.load(Word(5, operands[name]))))
            for name in _FLOATING
            if name in operands
        ),
        None,
    )
    return SpikeCase(instruction.form, mode, dict(operands), components, x, f, {})


def draw(instruction: Instruction, rng: random.Random) -> SpikeCase:
    """A case of a form."""
    mode = rng.choice(list(MODES))
    operands: dict[str, int] = {}
    for operand in instruction.inputs:
        for name, width in operand.part_names():
            operands[name] = _number(rng, width) if width > 5 else rng.randrange(1 << width)
    components = _components(rng)
    if mode != "M" or rng.random() < 0.5:
        components["mstatus"] &= ~(1 << 17)  # MPRV, which only M can have on
    x = {number: _number(rng, 64) for number in range(1, 32)}
    f = None
    for name in _FLOATING:
        if name in operands:
            f = operands[name], _number(rng, 64)
    data: dict[int, int] = {}
    address = _refers(instruction, operands, x, rng)
    if address is not None:
        start = address & ~7
        data = {start + i: rng.randrange(256) for i in range(-8, 16) if _inside(start + i)}
    if rng.random() < 0.3 and address is not None and _inside(address):
        components |= _protection(rng, address)
    return SpikeCase(instruction.form, mode, operands, components, x, f, data)


def draw_paged(instruction: Instruction, rng: random.Random) -> SpikeCase:
    """A case of a form whose references go through page tables, which are in storage; the code is in a superpage."""
    case = draw(instruction, rng)
    prv, v = MODES[case.mode]
    # What the instruction is fetched through, in the mode that it runs in; M fetches without.
    code = (CODE >> 30 << 18 + 10) | 0xCF | (prv == 0) << 4
    operands = dict(case.operands)
    for name in _BASES:
        if operands.get(name) == 0:
            operands[name] = 1
    base = next(operands[name] for name in _BASES if name in operands)
    offset = operands.get("operand offset(rs1).offset", 0)
    offset -= (offset >> 11) << 12
    size = instruction.settings.get("size", 8)
    target = DATA + 0x1000 * rng.randrange(DATA_BYTES >> 12)
    large = rng.random() < 0.1  # a superpage, aligned or not, in which the target has its place
    page, within = target - RAM >> 12 if large else rng.randrange(512), rng.randrange(0x1000)
    within &= ~(size - 1) if rng.random() < 0.9 else ~0
    address = 1 << 30 | page << 12 | within
    if rng.random() < 0.05:
        address ^= 1 << rng.randrange(38, 64)
    entries = {
        _ROOT + 8: _entry(rng, _ROOT + 0x1000, leaf=False),
        _ROOT + 16: code,
        _ROOT + 0x1000: _entry(rng, _ROOT + 0x2000, leaf=False),
        _ROOT + 0x2000 + 8 * page: _entry(rng, target, leaf=True),
    }
    if large:
        entries[_ROOT + 0x1000] = _entry(rng, RAM + 0x1000 * rng.choice((0, 0, 1)), leaf=True)
    physical = target + within & ~7
    data = {physical + i: rng.randrange(256) for i in range(8)}
    for place, entry in entries.items():
        data |= {place + i: entry >> 8 * i & 0xFF for i in range(8)}
    components = dict(case.components)
    pages = 8 << 60 | _ROOT >> 12
    components |= {"satp": pages, "vsatp": pages, "hgatp": 0, "pmpcfg0": 0x1F000000}
    if v == 0 and rng.random() < 0.1:
        components["vsatp"] = 0
    if not _translated(instruction, case.mode, components):  # there is nothing at virtual addresses
        address = target + within
    x = {**case.x, base: address - offset & _MASK}
    return attrs.evolve(case, operands=operands, components=components, x=x, data=data)


def _translated(instruction: Instruction, mode: str, components: Mapping[str, int]) -> bool:
    """Whether the reference of an instruction goes through page tables."""
    status = components["mstatus"]
    guest = MODES[mode][1] == 1
    if instruction.form.startswith(("HLV", "HSV")):
        guest = True
    elif mode == "M":
        if not status >> 17 & 1 or status >> 11 & 3 == 3:
            return False
        guest = bool(status >> 39 & 1)
    return components["vsatp" if guest else "satp"] >> 60 != 0


def _entry(rng: random.Random, place: int, *, leaf: bool) -> int:
    """An entry of a page table; mostly what it should be, but for one bit or the rights."""
    flags = 1
    if leaf:
        flags |= rng.choice((2, 6, 8, 10, 14)) | 0xC0 | rng.choice((0, 1 << 4))
    if rng.random() < 0.2:
        flags ^= 1 << rng.randrange(8)
    if rng.random() < 0.03:
        flags |= 1 << rng.randrange(54, 64)
    return place >> 12 << 10 | flags


def outside(case: SpikeCase, state: Rv64) -> str | None:
    """Why the harness cannot follow a case, if it cannot."""
    if not permitted(state, Word(56, CODE), 4, state.prv, "x").value:
        return "the instruction cannot be fetched"
    if any(taken.value for taken in interrupt_target(state)):
        return "an interrupt comes first"
    return None


def _components(rng: random.Random) -> dict[str, int]:
    found = {name: _number(rng, 64 if name not in _COUNTERS else 32) for name in _PLAIN}
    for name in _EVEN:
        found[name] &= ~1
    for name in _DRAWN:
        writable, fixed = EXISTING[name]
        found[name] = _number(rng, 64) & writable | fixed
    if (found["mstatus"] >> 11 & 3) == 2:
        found["mstatus"] ^= 2 << 11
    found["mideleg"] = 0x1444 | _number(rng, 12) & 0x222
    found["mcountinhibit"] |= _STOPPED
    for name in ("menvcfg", "henvcfg", "senvcfg"):
        found[name] &= 1 << 63
    for name in ("satp", "vsatp"):
        found[name] = _number(rng, 60)
    found["hgatp"] = _number(rng, 58) & ~3
    if rng.random() < 0.7:
        found["mie"] &= 0x1888  # no interrupt that may be pending
    if (found["menvcfg"] & found["henvcfg"]) >> 63:  # see the deviation timers-when-written
        found["stimecmp"] |= 1
        found["vstimecmp"] = rng.choice((0, _MASK))
        found["htimedelta"] &= _MASK >> 1
    found |= {
        "pmpaddr3": _FULL,
        "pmpcfg0": 0x1F000000,
        "pc": CODE + 2 * rng.randrange(4),
        "fcsr": 0,
        "features": _FEATURES,
    }
    return found


_FLOATING: Final = ("operand fd", "operand fs1", "operand fs2")
_ROOT: Final = DATA + DATA_BYTES
"""Where page tables are, three pages."""
_BASES: Final = ("operand offset(rs1).base", "operand (rs1)")
_COUNTERS: Final = ("mcounteren", "scounteren", "hcounteren")


def _protection(rng: random.Random, address: int) -> dict[str, int]:
    """Entries around an address, and a last one that leaves the page of the instruction open."""
    found: dict[str, int] = {}
    cfg = 0
    for entry in range(3):
        kind, rights = rng.randrange(4), rng.choice((0, 1, 3, 4, 5, 7))
        place = (address >> 2) + rng.randrange(-3, 4)
        if kind == 3:
            order = rng.randrange(6)
            place = place >> order + 1 << order + 1 | (1 << order) - 1
        found[f"pmpaddr{entry}"] = place
        cfg |= (rights | kind << 3) << 8 * entry
    found["pmpcfg0"] = cfg | (0x1C | rng.choice((0, 1, 3))) << 24
    return found


def _refers(
    instruction: Instruction, operands: dict[str, int], x: dict[int, int], rng: random.Random
) -> int | None:
    """Make a reference to storage lead to the data, mostly; where it leads."""
    offset = 0
    if "operand offset(rs1).base" in operands and not instruction.form.startswith("JALR"):
        base = operands["operand offset(rs1).base"]
        offset = operands["operand offset(rs1).offset"]
        offset -= (offset >> 11) << 12
    elif "operand (rs1)" in operands:
        base = operands["operand (rs1)"]
    else:
        return None
    if base == 0:  # there is nothing at address 0
        base = rng.randrange(1, 32)
        operands |= {name: base for name in _BASES if name in operands}
    size = instruction.settings.get("size", 8)
    address = DATA + rng.randrange(0x1000, DATA_BYTES - 0x1000)
    if rng.random() < 0.85:
        address &= ~(size - 1)
    if rng.random() < 0.03:
        address |= rng.randrange(1, 256) << 56
    x[base] = address - offset & _MASK
    return address


def _inside(address: int) -> bool:
    return DATA <= address < DATA + DATA_BYTES


def _number(rng: random.Random, width: int) -> int:
    """A number of so many bits, often at a boundary."""
    top = (1 << width) - 1
    match rng.randrange(6):
        case 0:
            return 0
        case 1:
            return top
        case 2:
            return 1 << rng.randrange(width)
        case 3:
            return top ^ 1 << rng.randrange(width)
    return rng.randrange(top + 1)
