"""Random one-instruction cases for System/370, biased to boundaries, and the model's answer to them."""

from __future__ import annotations

import random
import struct
from collections.abc import Mapping

from popek.architectures.s360 import interruptions as program
from popek.architectures.s360.encoding import OPCODES, encode
from popek.architectures.s360.s370 import deliver
from popek.architectures.s360.s370_state import S370
from popek.architectures.s360.state import ADDRESS, BLOCK, ENTRY, NOT_OPERATIONAL, OFFSET
from popek.architectures.s360.tables import walk
from popek.emulators.hercules import (
    ASSIGNED,
    CODE,
    CPU_ID,
    KEY_BLOCKS,
    STORAGE_BYTES,
    TABLES,
    WINDOWS,
    HerculesCase,
    HerculesResult,
    initial_storage,
)
from popek.kernel.instruction import Instruction
from popek.kernel.machine import Machine
from popek.kernel.memory import Memory
from popek.kernel.outcome import Next, NotModelled, Outcome, Trap
from popek.kernel.words import Word

# (control register 0's translation format, control register 1) of the two sets of tables below
SPACES = ((0x00800000, TABLES), (0x00500000, TABLES + 0x800))
LANDINGS = (CODE + 0x100, CODE + 0x7FC)
READER, DEVICES = 0x000C, (0x0123, 0x0555, 0x0F0F)
BRANCHES = ("BALR", "BAL", "BASR", "BAS", "BCTR", "BCT", "BCR", "BC", "BXH", "BXLE")
PAIRED = ("MR", "DR", "M", "D", "SLDA", "SRDA", "SLDL", "SRDL", "CDS", "MVCL", "CLCL")
LONG = ("MVCL", "CLCL")
READS_A_CLOCK = ("STCK", "STPT")
DOUBLEWORD = ("LPSW", "STIDP", "SCK", "SCKC", "STCKC", "SPT", "STPT", "CVB", "CVD")
DECIMAL = ("AP", "SP", "ZAP", "CP")
KEY_INSTRUCTIONS = ("SSK", "ISK", "RRB", "SSKE", "ISKE", "RRBE")
VIRTUAL_KEY = ("EPAR", "ESAR", "IAC", "IVSK")  # under translation alone
CHANGES_THE_MASK = ("LPSW", "SSM", "STNSM", "STOSM")


def tables() -> bytes:
    """64K segments of 4K pages at 0; 1M segments of 2K pages at 0x800."""
    image = bytearray(0x1800)

    def segment(table: int, number: int, entry: int) -> None:
        struct.pack_into(">I", image, table + 4 * number, entry)

    for table in (0, 0x800):
        for number in range(16):
            segment(table, number, 1)
    segment(0, 0, 0xF0000000 | TABLES + 0x200)
    segment(0, 2, 0x30000000 | TABLES + 0x200)  # only pages 0-3
    segment(0, 3, 0xF4000000 | TABLES + 0x200)  # reserved bits
    segment(0, 4, 0xF0F00000)  # page table outside storage
    pages = [0, 0x10, 0x20, 0x30, 0x40, 0x30, 0x40, 0x08, 0x02, 0xFFF0, 0x1FF0, 0x00, 0x30, 0x00, 0x30, 0x00]
    struct.pack_into(">16H", image, 0x200, *pages)
    segment(0x800, 0, 0xF0000000 | TABLES + 0xC00)
    segment(0x800, 1, 0xF0000000 | TABLES + 0x1000)
    segment(0x800, 2, 0x00000000 | TABLES + 0xC00)  # only blocks 0-31
    segment(0x800, 3, 0xF0000002 | TABLES + 0xC00)  # common segment
    segment(0x800, 4, 0xF0F00000)
    blocks = [number << 3 for number in range(10)] + [8 << 3, 4, 2, 0x1FFF << 3, 7 << 3, 0]
    for number in range(512):
        entry = blocks[number] if number < len(blocks) else 4
        struct.pack_into(">H", image, 0xC00 + 2 * number, entry)
        struct.pack_into(">H", image, 0x1000 + 2 * number, 0x3FF << 3 if number == 0x1FF else 4)
    return bytes(image)


PLACES = (
    0x0, 0x8, 0x1C0, 0x1F8, 0x1FC, 0x1FE, 0x1FF, 0x200, 0x208, 0x3FF8, 0x3FFC, 0x3FFE, 0x3FFF, 0x4000, 0x4008,
    0x47F8, 0x47FC, 0x47FD, 0x47FF, 0x4800, 0x4808, STORAGE_BYTES - 8, STORAGE_BYTES - 4, STORAGE_BYTES - 1,
    STORAGE_BYTES, 0xFFFFF8, 0xFFFFFF,
)  # fmt: skip
# Virtual addresses per set of tables; a store to any of them reaches a window or nothing.
VIRTUAL = (
    (
        0x5FFC, 0x5FFE, 0x6000, 0x6004, 0x7FF8, 0x7FFE, 0x8000, 0x9000, 0xAFF8, 0xAFFF, 0xB000, 0xEFFE,
        0xF000, 0x10000, 0x20008, 0x23FFE, 0x24000, 0x30000, 0x40000, 0x50000, 0x100000, 0x200000,
    ),
    (
        0x57FC, 0x57FE, 0x5800, 0x6000, 0x6800, 0x77FE, 0x7800, 0x8000, 0x1FFFF8, 0x1FFFFE, 0x200008,
        0x20FFFE, 0x210000, 0x300000, 0x400000, 0x500000, 0xF00000,
    ),
)  # fmt: skip
NUMBERS = (0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0x00FF00FF, 0x12345678)


def psw(rng: random.Random, address: int, *, problem: int | None = None, loaded: bool = False) -> int:
    """A PSW, BC or EC mode; with `loaded`, one that LPSW may refuse."""
    extended = rng.getrandbits(1)
    middle = rng.choice((0, 8, 9)) << 4 | extended << 3 | rng.getrandbits(1) << 2
    middle |= rng.getrandbits(1) if problem is None else problem
    flags = rng.getrandbits(6)
    if not extended:
        low = rng.getrandbits(18) if loaded else 0
        return rng.getrandbits(8) << 56 | middle << 48 | low << 30 | flags << 24 | address
    mask = rng.choice((0x00, 0x04, 0x04, 0x07, 0x47))
    word = mask << 56 | middle << 48 | flags << 40 | address
    if loaded and rng.random() < 0.3:
        word |= 1 << rng.choice((63, 61, 60, 59, 46, 39, 32, 31, 24))
    return word


def case_of(
    rng: random.Random, instruction: Instruction, *, easy: bool = False
) -> tuple[HerculesCase, dict[str, int]]:
    """A case for one form: a state and the operand parts; an easy one has no reason to trap."""
    mnemonic = instruction.mnemonic
    privileged = mnemonic in ("DIAGNOSE",)
    space = rng.randrange(len(SPACES))
    layout, segment_table = SPACES[space]
    old = psw(rng, CODE, problem=1 if privileged else 0 if easy else None)
    if easy:
        old &= ~(0xF << 52 | (old >> 51 & 1) << 58)  # key 0, no translation
    if mnemonic in VIRTUAL_KEY and (easy or rng.random() < 0.8):
        old = old & ~(0xFF << 56 | 1 << 46) & ~(0x3FFFF << 30) & ~(0xFFFF << 24) | 0x0408 << 48
    gr = [rng.choice((*NUMBERS, *PLACES, rng.getrandbits(32))) for _ in range(16)]
    cr = [0] * 16
    cr[0] = (
        layout
        | (rng.random() < 0.3) << 28
        | (rng.random() < (0.6 if mnemonic == "SSM" else 0.3)) << 30
        | rng.getrandbits(1) << 27
    )
    cr[1] = segment_table
    if easy:
        cr[0] &= ~(1 << 30)
    cr[3] = rng.getrandbits(32)
    cr[8] = rng.getrandbits(16)
    keys = tuple(rng.choice((0, 8, 9)) << 3 | rng.choice((0, 4)) for _ in KEY_BLOCKS)
    if mnemonic in KEY_INSTRUCTIONS:
        keys = tuple(key | rng.getrandbits(2) for key in keys)
    windows = [
        bytes(rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.getrandbits(8))) for _ in range(n)) for _, n in WINDOWS
    ]
    parts = {name: rng.getrandbits(width) for o in instruction.inputs for name, width in o.part_names()}
    if mnemonic == "MC" and rng.random() < 0.8:
        parts["operand I2"] &= 0x0F
    translated = old >> 51 & old >> 58 & 1
    if mnemonic == "LCTL":
        # Not 1 (other tables), 9 (program-event recording) or 14 (machine checks); 0 only as it is.
        name = next(name for name in parts if "R1,R3" in name)
        parts[name] = rng.choice(
            (2, 3, 4, 5, 6, 7, 10, 11, 12) if instruction.settings["count"] == 2 else (0, 2, 3, 8, 15)
        )
    if mnemonic in PAIRED and (easy or rng.random() < 0.9):
        for name in parts:
            if name in ("operand R1", "operand R2", "operand R3") and (
                name != "operand R2" or mnemonic in LONG
            ):
                parts[name] &= 14
    _aim(rng, instruction, parts, gr, VIRTUAL[space] if translated else (), (0x4008,) if easy else PLACES)
    if mnemonic in ("D", "DR") and (easy or rng.random() < 0.5):
        gr[parts["operand R1"]] = rng.choice((0, 0xFFFFFFFF, 1))  # a small dividend
    if mnemonic in ("LPSW", "LCTL", "SPX"):
        windows = [_words(rng, mnemonic, cr, parts, n) for _, n in WINDOWS]
    if mnemonic == "CVB":
        windows = [b"".join(_packed(rng) for _ in range(n // 8)) for _, n in WINDOWS]
    if mnemonic in DECIMAL:
        windows = [b"".join(_three_digits(rng) for _ in range(n // 2)) for _, n in WINDOWS]
    if mnemonic in LONG:
        _long(rng, parts, gr, easy)
    if mnemonic == "EX":
        windows = [b"".join(_target(rng) for _ in range(n // 8)) for _, n in WINDOWS]
    code = encode(instruction, parts)
    return HerculesCase(code, old, tuple(gr), tuple(cr), keys, tuple(windows), rng.getrandbits(64)), parts


def _packed(rng: random.Random) -> bytes:
    """A doubleword in packed decimal form, or nearly."""
    number = rng.choice(
        (0, 1 << 31, (1 << 31) - 1, (1 << 31) + 1, rng.randrange(1 << 32), rng.randrange(10**15))
    )
    text = f"{number:015}{rng.choice('ABCDEF') if rng.random() < 0.9 else '5'}"
    if rng.random() < 0.1:
        text = text[:9] + rng.choice("ABCDEF") + text[10:]
    return bytes.fromhex(text)


def _three_digits(rng: random.Random) -> bytes:
    """Three digits and a sign, or nearly."""
    sign = rng.choice("ABCDEF") if rng.random() < 0.95 else "7"
    digits = f"{rng.choice((0, 1, 500, 999, rng.randrange(1000))):03}"
    return bytes.fromhex((digits if rng.random() < 0.95 else "A12") + sign)


def _long(rng: random.Random, parts: Mapping[str, int], gr: list[int], easy: bool) -> None:
    """Two short pieces of storage for MVCL or CLCL, near each other more often than not."""
    for name in ("operand R1", "operand R2"):
        place = (
            0x4008 if easy else rng.choice((0x3FF8, 0x3FFC, 0x4008, 0x47F8, 0x47FE, 0x1C0, STORAGE_BYTES - 4))
        )
        gr[parts[name]] = place + rng.randrange(8) | rng.getrandbits(8) << 24
        gr[(parts[name] + 1) % 16] = rng.choice((0, 1, 3, 8)) | rng.getrandbits(8) << 24


# Nothing that stores: the modifier can add an index.
TARGETS = (0x1A, 0x12, 0x0A, 0x41, 0x58, 0x91, 0x95, 0x80, 0x44)


def _target(rng: random.Random) -> bytes:
    """Eight bytes that EXECUTE finds an instruction in wherever it looks."""
    place = rng.choice((0x1AC0, 0x12C8, 0x12FC))  # base register 10 or 2; as an instruction, AR or LTR
    return struct.pack(">BBHHH", rng.choice(TARGETS), rng.choice((0, 0x10, 0x20)), place, 0x1A34, 0x1256)


def _words(rng: random.Random, mnemonic: str, cr: list[int], parts: Mapping[str, int], size: int) -> bytes:
    """Storage that LPSW, LCTL or SPX can do with."""
    if mnemonic == "LPSW":
        return b"".join(
            struct.pack(">Q", psw(rng, rng.choice(LANDINGS), loaded=True)) for _ in range(size // 8)
        )
    if mnemonic == "SPX":  # the prefix stays 0: the driver lives there
        choices = (0, 0xFFF, 0xFF000FFF, 0x00200000, 0x00FFF000)
        return b"".join(struct.pack(">I", rng.choice(choices)) for _ in range(size // 4))
    if _first_control_register(parts) == 0:
        return struct.pack(">I", cr[0]) * (size // 4)
    return rng.randbytes(size)


def _first_control_register(parts: Mapping[str, int]) -> int:
    return next(number for name, number in parts.items() if "R1,R3" in name)


def _aim(
    rng: random.Random,
    instruction: Instruction,
    parts: dict[str, int],
    gr: list[int],
    virtual: tuple[int, ...],
    places: tuple[int, ...],
) -> None:
    """Set base registers so that storage operands and branches go where something happens."""
    mnemonic, free = instruction.mnemonic, list(range(1, 16))
    rng.shuffle(free)
    for operand in instruction.operands:
        if "b" not in operand.kind.parts:
            continue
        name = f"operand {operand.name}"
        goal = _goal(rng, mnemonic, virtual, places)
        displacement = rng.choice((0, 1, 0xFFF, rng.getrandbits(12)))
        base = free.pop()
        rest = goal - displacement
        if f"{name}.x" in parts:
            index = rng.choice((0, 0, free.pop()))
            parts[f"{name}.x"] = index
            if index:
                gr[index] = rng.choice((4, 0xFFFFFFFC, 0x80001000))
                rest -= gr[index]
        gr[base] = rest & 0xFFFFFF | rng.choice((0, 0xFF, 0x5A)) << 24
        if goal < 0x1000 and rng.random() < 0.3 and not parts.get(f"{name}.x"):
            base, displacement = 0, goal
        parts[f"{name}.b"], parts[f"{name}.d"] = base, displacement
    if mnemonic in ("BALR", "BCTR", "BCR") and parts["operand R2"]:
        gr[parts["operand R2"]] = rng.choice(LANDINGS) | rng.getrandbits(8) << 24
        if mnemonic == "BCTR" and rng.random() < 0.5 and parts["operand R1"] != parts["operand R2"]:
            gr[parts["operand R1"]] = rng.choice((0, 1, 2))
    if mnemonic == "IVSK":
        gr[parts["operand R2"]] = rng.choice(virtual or places) | rng.getrandbits(8) << 24
    if mnemonic in ("SSK", "ISK", "SSKE", "ISKE", "RRBE"):
        blocks = (
            KEY_BLOCKS if mnemonic in ("SSK", "ISK") else KEY_BLOCKS[1:3]
        )  # of the others, both halves of a page
        block = rng.choice((*blocks, STORAGE_BYTES)) + rng.choice((0, 0x10, 0x7F0, 1, 8))
        if places is not PLACES:
            block = KEY_BLOCKS[1]
        high = rng.getrandbits(8) if mnemonic in ("SSK", "ISK") else rng.choice((0, 0, 0x80, 1))
        gr[parts["operand R2"]] = block & 0xFFFFFF | (high & 0x80 if places is not PLACES else high) << 24
    if mnemonic == "BASR" and parts["operand R2"]:
        gr[parts["operand R2"]] = rng.choice(LANDINGS) | rng.getrandbits(8) << 24
    if mnemonic == "SIGP":
        gr[parts["operand R3"]] = rng.choice((1, 7, 0x12340001))


def _goal(rng: random.Random, mnemonic: str, virtual: tuple[int, ...], places: tuple[int, ...]) -> int:
    if mnemonic in BRANCHES:
        return rng.choice(LANDINGS)
    if mnemonic == "RRB":
        return rng.choice((*KEY_BLOCKS, STORAGE_BYTES, 0xFFF800)) + rng.randrange(0x800)
    if mnemonic in ("SIO", "SIOF", "STIDC"):
        return rng.choice(DEVICES)
    if mnemonic in ("CLRIO", "HIO", "HDV"):
        return rng.choice(DEVICES)
    if mnemonic in ("TIO", "TCH"):
        return rng.choice((*DEVICES, READER))
    if virtual and rng.random() < 0.5:
        return rng.choice(virtual)
    place = rng.choice(places)
    if mnemonic in ("TR", "TRT"):
        place = min(place, 0x200) if place < 0x400 else place  # a table ends before the driver's own data
    return place & ~7 if rng.random() < (0.6 if mnemonic in DOUBLEWORD else 0.2) else place


def state_of(case: HerculesCase) -> S370:
    """The model's state before the instruction."""
    image = initial_storage(case, tables())
    cpu = S370.reset()
    for number in range(16):
        cpu.gr[number], cpu.cr[number] = Word(32, case.gr[number]), Word(32, case.cr[number])
    cpu.load_psw(Word(64, case.psw))
    cpu.keys = Memory(BLOCK, 7, {b >> OFFSET: k for b, k in zip(KEY_BLOCKS, case.keys, strict=True)})
    cpu.memory = Memory(ADDRESS, 8, dict(image))

    def halfword(address: int) -> int | None:
        if address >= STORAGE_BYTES:
            return None
        return image.get(address, 0) << 8 | image.get(address + 1, 0)

    def entry(block: Word) -> Word:
        found = walk(halfword, case.cr[0], case.cr[1], int(block) << OFFSET)
        return Word(ENTRY, found.status << ADDRESS | found.address)

    cpu.translation = Memory(BLOCK, ENTRY, entry)
    cpu.dual_address_space = Word(1, 1)
    cpu.last_block = Word(BLOCK, (STORAGE_BYTES >> OFFSET) - 1)
    cpu.cpu_id, cpu.clock_comparator = Word(64, CPU_ID), Word(64, case.clock_comparator)
    cpu.devices = Memory(
        16, 18, lambda number: Word(18, 0 if int(number) in (0, READER) else NOT_OPERATIONAL << 16)
    )
    return cpu


def answer(
    machine: Machine[S370],
    case: HerculesCase,
    instruction: Instruction,
    parts: Mapping[str, int],
    seen: HerculesResult,
) -> HerculesResult:
    """What the model says, in the harness's terms; clocks read what Hercules read."""
    before = state_of(case)
    words = {n: Word(w, parts[n]) for o in instruction.inputs for n, w in o.part_names()}
    if instruction.mnemonic in READS_A_CLOCK:
        _set_clocks(before, instruction, words, seen)
    outcome = machine.step(instruction, before, words)
    while (
        instruction.mnemonic in LONG and isinstance(outcome, Next) and int(outcome.state.psw.address) == CODE
    ):
        outcome = machine.step(instruction, outcome.state, words)
    if isinstance(outcome, Next) and int(outcome.state.executing):
        outcome = _executed(machine, outcome.state)
    if isinstance(outcome, Next):
        following = machine.find("SVC I")[0]
        outcome = machine.step(following, outcome.state, {"operand I": Word(8, 0)})
    if isinstance(outcome, NotModelled):
        raise AssertionError(f"{instruction.form}: the case is not modelled: {outcome.reason}")
    assert isinstance(outcome, Trap)
    after = deliver(before, outcome)
    supervisor_call = outcome.vector is program.SUPERVISOR_CALL

    def stored(address: int, size: int) -> bytes:
        return bytes(int(after.memory.load(Word(ADDRESS, address + i))) for i in range(size))

    ended = outcome.state
    return HerculesResult(
        "svc" if supervisor_call else "program",
        int.from_bytes(stored(32 if supervisor_call else 40, 8), "big"),
        stored(*ASSIGNED),
        tuple(int(ended.gr[i]) for i in range(16)),
        tuple(int(ended.cr[i]) for i in range(16)),
        tuple(int(ended.keys.load(Word(BLOCK, block >> OFFSET))) for block in KEY_BLOCKS),
        tuple(stored(start, size) for start, size in WINDOWS),
    )


def _executed(machine: Machine[S370], state: S370) -> Outcome[S370]:
    """The step of EXECUTE's target."""
    code = int(state.target)
    return machine.step(*decoded(machine, code, state))


def decoded(machine: Machine[S370], code: int, state: S370) -> tuple[Instruction, S370, dict[str, Word]]:
    """The instruction that EXECUTE fetched, one of `TARGETS`, as `Machine.step` takes it."""
    numbers = {
        "R1": code >> 36 & 15, "R2": code >> 32 & 15, "I": code >> 32 & 255, "I2": code >> 32 & 255,
        "x": code >> 32 & 15, "b": code >> 28 & 15, "d": code >> 16 & 0xFFF,
    }  # fmt: skip
    mnemonic = next(n for n, (_, number) in OPCODES.items() if number == code >> 40)
    (found,) = machine.find(mnemonic)
    return (
        found,
        state,
        {
            name: Word(
                width, numbers[name.rsplit(".", 1)[1] if "." in name else name.removeprefix("operand ")]
            )
            for operand in found.inputs
            for name, width in operand.part_names()
        },
    )


def _set_clocks(
    before: S370, instruction: Instruction, words: Mapping[str, Word], seen: HerculesResult
) -> None:
    """A clock cannot be foreseen: take from the stored bytes what it showed, if they were stored."""
    (operand,) = instruction.operands
    address = before.effective(operand.kind.make(operand.own(dict(words))))
    try:
        places = before.copy().locate(address, 8, store=True)
    except Exception:  # the instruction will say why
        return
    value = 0
    for place in places:
        where = int(place.address)
        byte = next(
            (w[where - s] for (s, n), w in zip(WINDOWS, seen.windows, strict=True) if 0 <= where - s < n), 0
        )
        value = value << 8 | byte
    before.tod.value = before.cpu_timer = Word(64, value)
