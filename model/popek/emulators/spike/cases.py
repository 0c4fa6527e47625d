"""Random states for one RISC-V instruction: every mode, every register with a say, addresses near what is protected."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any, Final

import attrs

from popek.architectures.riscv.access import permitted
from popek.architectures.riscv.machine import CHOICES, EXISTING
from popek.architectures.riscv.state import ALWAYS_THERE, CHANGEABLE, USUAL, Rv64, letters
from popek.architectures.riscv.traps import interrupt_target
from popek.kernel.instruction import Instruction
from popek.kernel.memory import Memory
from popek.kernel.words import Word

from .hart import CODE, DATA, DATA_BYTES, LATEST
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
_FEATURES: Final = USUAL | 1 << 5  # with translation; WFI does not complete
_SWITCHED: Final = "acdfm"
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

    The instruction is where Spike has storage, every mode may fetch it, and counters stand still.  A reference
    to storage keeps its place within the page, where Spike has storage, and what it refers to.
    """
    reset = Rv64.reset()
    components = {name: int(word) for name, word in reset.words().items() if name not in ("prv", "v")}
    components |= {name: int(state[name]) for name in components if name not in ("features", "lines", "pc")}
    components |= {"time": min(components["time"], LATEST)}
    components |= {"pc": CODE, "mcountinhibit": components["mcountinhibit"] | _STOPPED}
    components |= {"pmpcfg0": 0x1F000000, "pmpaddr3": _FULL}
    for name in ("mstatus", "vsstatus", "hstatus"):  # 64 bits in every mode, and no vectors
        fixed = EXISTING[name][1] & CHOICES[name]
        components[name] = components[name] & ~CHOICES[name] | fixed
    components |= {"misa": components["misa"] & ~letters("v") | letters("h"), "changeable": CHANGEABLE}
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
    data: dict[int, int] = {}
    base = next((operands[name] for name in _BASES if operands.get(name)), 0)
    if base and not instruction.form.startswith("JALR"):
        offset = operands.get("operand offset(rs1).offset", 0)
        offset -= (offset >> 11) << 12
        address = x[base] + offset & _MASK
        place = DATA + 0x1000 | address & 0xFFF
        cell = int(state.memory.load(Word(53, address >> 3 & (1 << 53) - 1)))
        data = {(place & ~7) + i: cell >> 8 * i & 0xFF for i in range(8)}
        x[base] = place - offset & _MASK
        components["reserved"] = 0  # Spike keeps no reservation over the way into the mode
    return SpikeCase(instruction.form, mode, dict(operands), components, x, f, data)


def draw(instruction: Instruction, rng: random.Random) -> SpikeCase:
    """A case of a form."""
    mode = rng.choice(list(MODES))
    operands = {
        name: _number(rng, width) if width > 5 else rng.randrange(1 << width)
        for name, width in instruction.widths.items()
    }
    csr = instruction.settings.get("csr")
    if csr is not None and rng.random() < (0.8 if csr.read_only else 0.1):
        operands |= {name: 0 for name in _SOURCES if name in operands}  # so that CSRRS and CSRRC only read
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
    operands = dict(case.operands)
    for name in _BASES:
        if operands.get(name) == 0:
            operands[name] = 1
    base = next(operands[name] for name in _BASES if name in operands)
    offset = operands.get("operand offset(rs1).offset", 0)
    offset -= (offset >> 11) << 12
    size = instruction.settings.get("size", 8)
    target = DATA + 0x1000 * rng.randrange(DATA_BYTES >> 12)
    within = rng.randrange(0x1000) & (~(size - 1) if rng.random() < 0.9 else ~0)
    user = MODES[case.mode][0] == 0
    shift = rng.choice((0, _GUEST - RAM))  # where the second stage, if there is one, moves storage from
    entries: dict[int, int] = {}
    pages = _first_stage(rng, entries, _HOST, target, 0, user)
    guests = _first_stage(rng, entries, _ROOT, target, shift, user)
    components = {**case.components, "satp": 8 << 60 | _HOST >> 12, "hgatp": 0, "pmpcfg0": 0x1F000000}
    within_guest = MODES[case.mode][1] == 1
    fetched = (
        within_guest and rng.random() < 0.85
    )  # the instruction comes through the guest's own tables, too
    components["vsatp"] = 8 << 60 | _ROOT + shift >> 12
    if shift:
        _second_stage(rng, entries, target, whole=fetched)
        components["hgatp"] = 8 << 60 | _SECOND >> 12
        if not within_guest and rng.random() < 0.03:  # a root where no guest has anything
            components["vsatp"] |= 1 << rng.randrange(29, 44)
    if not fetched and (shift or not within_guest) and (within_guest or rng.random() < 0.15):
        components["vsatp"] = 0
    guest = _of_a_guest(instruction, case.mode, components)
    plain = guest is None or (guest and components["vsatp"] == 0 and not shift)
    if plain:
        address = target
    elif guest:
        address = guests if components["vsatp"] else target + shift
    else:
        address = pages
    address |= within
    if not plain and rng.random() < 0.05:
        address ^= 1 << rng.randrange(38, 64)
    physical = target + within & ~7
    data = {physical + i: rng.randrange(256) for i in range(8)}
    for place, entry in entries.items():
        data |= {place + i: entry >> 8 * i & 0xFF for i in range(8)}
    x = {**case.x, base: address - offset & _MASK}
    return attrs.evolve(case, operands=operands, components=components, x=x, data=data)


def _first_stage(
    rng: random.Random, entries: dict[int, int], root: int, target: int, shift: int, user: bool
) -> int:
    """Three tables from `root`, which believe that all is `shift` further on; the address of the target's page."""
    # What the instruction is fetched through, in the mode that it runs in.
    code = (CODE >> 30 << 18 + 10) | 0xCF | user << 4
    large = rng.random() < 0.1  # a superpage, aligned or not, in which the target has its place
    page = target - RAM >> 12 if large else rng.randrange(512)
    found = {
        root + 8: _entry(rng, root + shift + 0x1000, leaf=False),
        root + 16: code,
        root + 0x1000: _entry(rng, root + shift + 0x2000, leaf=False),
        root + 0x2000 + 8 * page: _entry(rng, target + shift, leaf=True, beyond=shift > 0),
    }
    if large:
        found[root + 0x1000] = _entry(rng, RAM + shift + 0x1000 * rng.choice((0, 0, 1)), leaf=True)
    entries |= found
    return 1 << 30 | page << 12


def _second_stage(rng: random.Random, entries: dict[int, int], target: int, *, whole: bool) -> None:
    """A guest's addresses from `_GUEST` are those of storage, from `RAM` on; the code's are what they are.

    With `whole`, what leads to the root of the guest's own tables is as it should be.
    """
    some = 0.0 if whole else 0.07
    entries[_SECOND + 8 * (CODE >> 30)] = (CODE >> 30 << 18 + 10) | 0xDF
    entries[_SECOND + 8 * (_GUEST >> 30)] = _entry(rng, _SECOND + 0x4000, leaf=False, spoiled=some)
    entries[_SECOND + 0x4000] = _entry(rng, _SECOND + 0x5000, leaf=False, spoiled=some)
    if rng.random() < 0.2:
        moved = 0 if whole else 0x1000 * rng.choice((0, 0, 0, 1))
        entries[_SECOND + 0x4000] = _entry(rng, RAM + moved, leaf=True, user=True, spoiled=some)
        if whole:
            entries[_SECOND + 0x4000] |= 0x2
    spoiled = {_ROOT: some, _ROOT + 0x1000: 0.07, _ROOT + 0x2000: 0.07, target: 0.2}
    for page, chance in spoiled.items():
        entry = _entry(rng, page, leaf=True, user=True, spoiled=chance)
        entries[_SECOND + 0x5000 + 8 * (page - RAM >> 12)] = entry | (0x2 if page == _ROOT and whole else 0)


def _of_a_guest(instruction: Instruction, mode: str, components: Mapping[str, int]) -> bool | None:
    """Whether the reference of an instruction is a guest's; None where it is M's own, which is not translated."""
    status = components["mstatus"]
    if instruction.form.startswith(("HLV", "HSV")):
        return True
    if mode == "M":
        if not status >> 17 & 1 or status >> 11 & 3 == 3:
            return None
        return bool(status >> 39 & 1)
    return MODES[mode][1] == 1


def _entry(
    rng: random.Random,
    place: int,
    *,
    leaf: bool,
    user: bool | None = None,
    spoiled: float = 0.2,
    beyond: bool = False,
) -> int:
    """An entry of a page table; mostly what it should be, but for one bit or the rights.

    With `beyond`, its page may be where no guest has anything.
    """
    flags = 1
    if leaf:
        flags |= rng.choice((2, 6, 8, 10, 14)) | 0xC0 | (rng.choice((0, 1)) if user is None else user) << 4
        if user and rng.random() < 0.7:
            flags |= 0xE
    if rng.random() < spoiled:
        flags ^= 1 << rng.randrange(8)
    if rng.random() < 0.15 * spoiled:
        flags |= 1 << rng.randrange(54, 64)
    if beyond and rng.random() < 0.04:
        place |= 1 << rng.randrange(41, 56)
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
    found["misa"] = ALWAYS_THERE | CHANGEABLE
    if rng.random() < 0.25:
        found["misa"] &= ~letters(rng.sample(_SWITCHED, rng.choice((1, 1, 2, 5))))
    if not found["misa"] & letters("c"):
        found["medeleg"] |= rng.choice((0, 1))
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
    found["time"] = min(_number(rng, 64), LATEST)
    if (found["menvcfg"] & found["henvcfg"]) >> 63:  # see the deviation timers-when-written
        found["time"] = 0
        found["stimecmp"] |= 1
        found["vstimecmp"] = rng.choice((0, _MASK))
        found["htimedelta"] &= _MASK >> 1
    found |= {
        "pmpaddr3": _FULL,
        "pmpcfg0": 0x1F000000,
        "pc": CODE + (2 * rng.randrange(4) if found["misa"] & letters("c") else 4 * rng.randrange(2)),
        "changeable": CHANGEABLE,
        "fcsr": 0,
        "features": _FEATURES,
    }
    return found


_FLOATING: Final = ("operand fd", "operand fs1", "operand fs2")
_HOST: Final = DATA + DATA_BYTES
"""Where satp's page tables are, three pages."""
_ROOT: Final = _HOST + 0x3000
"""Where vsatp's are."""
_SECOND: Final = _HOST + 0x8000
"""Where hgatp's are: a root of four pages, and two more."""
_GUEST: Final = 3 << 30
"""From where on a guest with a second stage has its storage."""
_SOURCES: Final = ("operand rs1", "operand uimm")
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
