"""The PDP-11/45 model against SIMH: single instructions in every mode, and the traps they take."""

from __future__ import annotations

import random
from collections.abc import Mapping

import attrs
import pytest

from popek.architectures.pdp11 import MACHINES
from popek.architectures.pdp11.encoding import encode
from popek.architectures.pdp11.floating import ARITHMETIC
from popek.architectures.pdp11.state import FPS_BITS, SEGMENT_FAULT, Pdp11
from popek.emulators.simh.pdp11 import LAST_BLOCK, Pdp11Result, Pdp11Step, run_steps
from popek.emulators.simh.simulator import settled
from popek.kernel.instruction import Instruction
from popek.kernel.memory import Memory
from popek.kernel.outcome import Next, NotModelledError, Outcome, Trap
from popek.kernel.words import Word

pytestmark = pytest.mark.emulator("pdp11")

MACHINE = MACHINES["pdp11-45"]()
CASES_PER_FORM = 24
HANDLER, WHOLE_PAGE, BRANCH_TO_SELF = 0o1000, 0o77406, 0o777
VECTORS = (0o4, 0o10, 0o14, 0o20, 0o30, 0o34, 0o244, 0o250)


@attrs.frozen(eq=False)
class Case:
    instruction: Instruction
    operands: Mapping[str, Word]
    before: Pdp11
    outcome: Outcome[Pdp11]
    delivered: Pdp11 | None

    def __str__(self) -> str:
        shown = {name: oct(int(word)) for name, word in self.operands.items()}
        return f"{self.instruction.form} {shown} from {self.before}"


def address(rng: random.Random, *, low: int = 0) -> int:
    """A virtual address, near the borders of pages and blocks more often than not."""
    border = rng.randrange(8) * 0o20000 + rng.choice((0, 0, 2, 0o76, 0o100, 0o17776))
    even = rng.choice((border, rng.randrange(0o200000) & ~1, rng.randrange(0o200000) & ~1))
    return max(low, (even + (rng.random() < 0.06)) % 0o200000)


def page(rng: random.Random) -> tuple[int, int]:
    """A page address and descriptor: usually all of core, read and write."""
    par = rng.randrange(0o20, LAST_BLOCK - 0o177)
    if rng.random() < 0.1:
        par = rng.randrange(LAST_BLOCK - 0o100, 0o7400)
    if rng.random() < 0.6:
        return par, WHOLE_PAGE
    length = rng.choice((0, 1, 0o77, 0o176, 0o177, rng.randrange(0o200)))
    return par, length << 8 | rng.randrange(2) << 3 | rng.choice((0, 1, 2, 2, 3, 4, 5, 6, 6, 6, 7))


def floating(rng: random.Random) -> int:
    """A number of double precision, zeros, -0 and extreme exponents among them."""
    exponent = rng.choice((0, 0, 1, 0o200, 0o377, rng.getrandbits(8)))
    return rng.getrandbits(1) << 63 | exponent << 55 | rng.choice((0, rng.getrandbits(55)))


def state(rng: random.Random, *, requests: bool) -> Pdp11:
    mode, previous = rng.choice((0, 1, 3, 3)), rng.choice((0, 1, 3, 3))
    priority = rng.randrange(8)
    ps = mode << 14 | previous << 12 | rng.randrange(2) << 11 | priority << 5 | rng.randrange(16)
    kernel_sp = address(rng, low=HANDLER + 0o100) if mode == 0 else 0o4000 + 2 * rng.randrange(64)
    stacks = [kernel_sp, address(rng), address(rng)]
    before = Pdp11.reset(
        ps=ps,
        pc=0o20000 + 2 * rng.randrange(0o100),
        sp=stacks[2 if mode == 3 else mode],
        mme=1 if rng.random() < 0.95 else 0,
        # No request above the priority: it would interrupt before the instruction.
        pirq=rng.randrange(1 << priority) if requests and priority else 0,
        last=LAST_BLOCK,
        **dict(zip(("ksp", "ssp", "usp"), stacks, strict=True)),
    )
    for number in range(12):
        before.r[number] = Word(16, address(rng))
    before.fps = Word(16, rng.getrandbits(16) & FPS_BITS & ~(1 << 15))
    for number in range(6):
        before.fac[number] = Word(64, floating(rng))
    for number in range(4):
        for n in range(8):
            par, pdr = page(rng)
            if n == 1:  # the instruction's page
                par, pdr = 0o20 + rng.randrange(0o1000), WHOLE_PAGE
            if number == n == 0:  # kernel page 0: the vectors and their handler
                par, pdr = 0, WHOLE_PAGE
            if number == mode:
                before.par = before.par.store(Word(3, n), Word(12, par))
                before.pdr = before.pdr.store(Word(3, n), Word(16, pdr))
            before.space_par = before.space_par.store(Word(5, number << 3 | n), Word(12, par))
            before.space_pdr = before.space_pdr.store(Word(5, number << 3 | n), Word(16, pdr))
    if not int(before.mme):
        # Without relocation the highest page is the I/O page, which is left out.
        for number in range(12):
            before.r[number] = Word(16, int(before.r[number]) % 0o150000)
        for name in ("sp", "ksp", "ssp", "usp"):
            before[name] = Word(16, int(before[name]) % 0o150000 | 0o4000)
    return before


def physical_cell(before: Pdp11, virtual: int) -> int:
    """The cell of a virtual address of the current mode, in a page that has full access."""
    if not int(before.mme):
        return virtual >> 1
    block = int(before.par.load(Word(3, virtual >> 13))) + (virtual >> 6 & 0o177)
    return (block << 6 | virtual & 0o77) >> 1


def made(rng: random.Random, instruction: Instruction, *, requests: bool) -> Case:
    """A case whose memory holds every cell the run needs."""
    while True:
        parts = {
            name: Word(width, rng.randrange(1 << width))
            for operand in instruction.inputs
            for name, width in operand.part_names()
        }
        if int(instruction.valid(parts)):
            break
    before = state(rng, requests=requests)
    fixed = {HANDLER >> 1: BRANCH_TO_SELF}
    for vector in VECTORS:
        fixed[vector >> 1] = HANDLER
        fixed[(vector >> 1) + 1] = rng.randrange(2) << 11 | rng.randrange(8) << 5 | rng.randrange(16)
    words = encode(instruction, {name: int(word) for name, word in parts.items()})
    for i, code in enumerate(words):
        fixed[physical_cell(before, int(before.pc) + 2 * i)] = code

    outcome: Outcome[Pdp11] | None = None
    delivered: Pdp11 | None = None

    def run(contents: dict[int, int]) -> Mapping[int, int]:
        nonlocal outcome, delivered
        contents.update(fixed)
        before.memory = Memory(17, 16, contents)
        outcome, delivered = MACHINE.step(instruction, before, parts), None
        if not isinstance(outcome, Next | Trap):
            return {}
        after = outcome.state.memory.cells()
        intact = all(after.get(cell, value) == value for cell, value in fixed.items() if cell <= HANDLER >> 1)
        if isinstance(outcome, Trap) and intact and MACHINE.deliver is not None:
            try:
                delivered = MACHINE.deliver(before, outcome)
            except NotModelledError:
                return after
            return delivered.memory.cells()
        return after

    def fill(cell: int) -> int:
        # What RTI pops has bits that matter at the top, and no undefined mode; a deferred mode finds an address.
        found = address(rng) if int(before.mme) else address(rng) % 0o150000
        return rng.choice(
            (found, rng.choice((0, 1, 3)) << 14 | rng.choice((0, 1, 3)) << 12 | rng.randrange(0o10000))
        )

    cells = settled(run, fill)
    run(cells)
    before.memory = Memory(17, 16, cells)
    assert outcome is not None
    return Case(instruction, parts, before, outcome, delivered)


def all_cases(*, requests: bool) -> list[Case]:
    rng = random.Random(11_45)
    found = []
    for instruction in MACHINE.instructions.values():
        for _ in range(CASES_PER_FORM):
            case = made(rng, instruction, requests=requests)
            if isinstance(case.outcome, Next | Trap):
                found.append(case)
    return found


def visible(state: Pdp11) -> dict[str, int]:
    """All that can be compared, with the current mode's registers in their own places."""
    mode = int(state.ps.current)
    shown = {name: int(state[name]) for name in ("ps", "pc", "pirq", "mme", "running", "waiting")}
    shown |= {f"r{number}": int(state.r[number]) for number in range(12)}
    shown |= {f"fac{number}": int(state.fac[number]) for number in range(6)}
    shown |= {name: int(state[name]) for name in ("fps", "fec", "fea")}
    for number, name in ((0, "ksp"), (1, "ssp"), (3, "usp")):
        shown[name] = int(state.sp if number == mode else state[name])
        for n in range(8):
            space, here = Word(5, number << 3 | n), Word(3, n)
            shown[f"par {name} {n}"] = int(
                state.par.load(here) if number == mode else state.space_par.load(space)
            )
            shown[f"pdr {name} {n}"] = int(
                state.pdr.load(here) if number == mode else state.space_pdr.load(space)
            )
    return shown | {f"cell {cell:o}": value for cell, value in state.memory.cells().items()}


def unlike(expected: Pdp11, found: Pdp11) -> dict[str, tuple[int, int | None]]:
    model, simh = visible(expected), visible(found)
    return {name: (value, simh.get(name)) for name, value in model.items() if simh.get(name) != value}


def left_open(case: Case) -> set[str]:
    """What the model leaves to an unknown function: all of floating point arithmetic but a division by zero."""
    name = case.instruction.mnemonic
    if name == "MODF":
        target = int(case.operands["operand AC"])
        return {"fps", "fec", "fea", "trap", f"fac{target}", f"fac{target | 1}"}
    if name not in ARITHMETIC:
        return set()
    if name == "DIVF" and int(case.before.fac[int(case.operands["operand FS"])]) >> 55 & 0xFF == 0:
        return {"fps"}
    return {"fps", "fec", "fea", "trap", f"fac{int(case.operands['operand AC'])}"}


@pytest.fixture(scope="module")
def runs() -> list[tuple[Case, Pdp11Result]]:
    cases = all_cases(requests=True)
    return list(zip(cases, run_steps([Pdp11Step(case.before) for case in cases]), strict=True))


def test_every_instruction_does_what_simh_does(runs: list[tuple[Case, Pdp11Result]]) -> None:
    wrong = []
    for case, result in runs:
        assert isinstance(case.outcome, Next | Trap)
        trap = case.outcome.vector if isinstance(case.outcome, Trap) else None
        open_here = left_open(case)
        difference: dict[str, tuple[int | None, int | None]] = {
            n: pair for n, pair in unlike(case.outcome.state, result.state).items() if n not in open_here
        }
        if trap is SEGMENT_FAULT:
            assert isinstance(case.outcome, Trap)
            begun = case.outcome.error_code
            if begun is None or int(begun) != int(result.state.mmr2):
                difference["mmr2"] = None if begun is None else int(begun), int(result.state.mmr2)
        if difference or (trap != result.trap and "trap" not in open_here):
            wrong.append(f"{case}: {trap} against {result.trap}; {difference}")
    assert len(runs) > 1000
    assert not wrong, f"{len(wrong)} of {len(runs)}\n" + "\n".join(wrong[:10])


def test_traps_are_delivered_as_simh_delivers_them() -> None:
    # A new priority would let program interrupt requests through.
    cases = [case for case in all_cases(requests=False) if case.delivered is not None]
    wrong = []
    for case, result in zip(
        cases, run_steps([Pdp11Step(c.before, deliver=True) for c in cases]), strict=True
    ):
        assert case.delivered is not None
        if left_open(case):
            continue
        difference = unlike(case.delivered, result.state)
        if isinstance(case.outcome, Trap) and case.outcome.vector is SEGMENT_FAULT:
            assert case.delivered.mmr2 == result.state.mmr2, "an abort's delivery leaves MMR2 frozen"
        if difference:
            wrong.append(f"{case}: {difference}")
    assert len(cases) > 200
    assert not wrong, f"{len(wrong)} of {len(cases)}\n" + "\n".join(wrong[:10])


def test_the_cases_reach_every_mode_and_every_way_to_end(runs: list[tuple[Case, Pdp11Result]]) -> None:
    reached = {(int(case.before.ps.current), type(case.outcome).__name__) for case, _ in runs}
    assert reached >= {(mode, kind) for mode in (0, 1, 3) for kind in ("Next", "Trap")}
    assert {result.trap.name for _, result in runs if result.trap} >= {
        "bus error", "memory management", "illegal HALT", "reserved instruction", "trace", "BPT", "IOT",
        "EMT", "TRAP", "floating point",
    }  # fmt: skip
