"""The KS10 model against SIMH: single instructions in both modes, with paging on and off."""

from __future__ import annotations

import random
import tomllib
from collections.abc import Callable, Mapping
from importlib.resources import files

import attrs
import pytest

from popek.architectures.pdp10 import MACHINES
from popek.architectures.pdp10.encoding import encode
from popek.architectures.pdp10.ks10 import Ks10
from popek.emulators.simh import settled
from popek.emulators.simh_pdp10 import EXECUTIVE_TABLE, USER_TABLES, Ks10Result, process_maps, run_steps
from popek.kernel.instruction import Instruction
from popek.kernel.memory import Memory
from popek.kernel.outcome import Next, NotModelledError, Outcome, Trap
from popek.kernel.words import Word

pytestmark = pytest.mark.emulator

MACHINE = MACHINES["pdp10-ks10"]()
CASES_PER_FORM = 24
HANDLER, PAGE_FAIL_PC, PAGE_FAIL_NEW = 0o2000, 0o501, 0o502
UPT_NEW = (0o430, 0o434)
CONTINUED = ("XCT E", "PXCT P, E", "LUUO L, AC, E")
TARGETS = ("MOVE AC, E", "MOVEM AC, E", "ADD AC, E", "PUSH AC, E", "POP AC, E", "JSP AC, E", "JRST 2, (X)")


@attrs.frozen(eq=False)
class Case:
    instruction: Instruction
    target: Instruction | None
    operands: Mapping[str, Word]
    before: Ks10
    outcome: Outcome[Ks10]
    expected: Ks10

    def __str__(self) -> str:
        shown = {name: oct(int(word)) for name, word in self.operands.items()}
        then = f" of {self.target.form}" if self.target else ""
        return f"{self.instruction.form}{then} {shown} from {self.before}"


def number(rng: random.Random) -> int:
    """A word, at the borders of signs, halves and fields more often than not."""
    return rng.choice(
        (
            rng.choice((0, 1, 2, (1 << 36) - 1, 1 << 35, (1 << 35) - 1, 0o777777, 0o777777 << 18, 1 << 18)),
            rng.getrandbits(36),
            rng.getrandbits(18) << 18 | address(rng),
            rng.choice((0, 1, 0o777776, 0o777777)) << 18 | address(rng),
        )
    )


def address(rng: random.Random) -> int:
    return rng.choice(
        (rng.randrange(0o20), 0o20, 0o777, 0o1000, 0o17777, 0o20000, 0o777777, 0, rng.getrandbits(18))
    )


def state(rng: random.Random) -> Ks10:
    before = Ks10.reset(
        ebr=EXECUTIVE_TABLE, pc=0o1000 * rng.choice((0, 0, 0, 0, 1)) + rng.randrange(0o100, 0o400)
    )
    user, paging = rng.randrange(2), rng.random() < 0.75
    before.flags = Word(13, rng.getrandbits(13) & ~0o14)  # no trap pending
    before.flags.user, before.flags.user_io = Word(1, user), Word(1, int(rng.random() < 0.3))
    before.paging = Word(1, int(paging))
    before.process_map = process_maps()
    before.ubr = Word(11, rng.choice(tuple(USER_TABLES)))
    if paging and user:
        bound, base = USER_TABLES[int(before.ubr)]
        before.bound, before.base = Word(9, bound), Word(11, base)
        if bound == 0:
            before.pc = Word(18, int(before.pc) & 0o777)
    for i in range(16):
        before.ac[i] = Word(36, number(rng))
    for name in (
        "pi_on",
        "pi_enabled",
        "pi_active",
        "pi_requests",
        "apr_enabled",
        "apr_flags",
        "apr_channel",
    ):
        before[name] = Word(before[name].width, rng.getrandbits(before[name].width))
    if int(before.pi_on):
        before.pi_active = before.pi_active | 0o100  # the highest channel is active: nothing interrupts
    before.apr_flags = before.apr_flags.replace(6, 6, 0)
    return before


def parts_for(rng: random.Random, instruction: Instruction) -> dict[str, Word]:
    while True:
        parts = {
            name: Word(width, address(rng) if width == 18 else rng.getrandbits(width))
            for operand in instruction.inputs
            for name, width in operand.part_names()
        }
        if instruction.mnemonic in ("WRAPR", "WRPI", "WREBR") and rng.random() < 0.8:
            parts["operand E"] = Word(18, rng.getrandbits(14))
        if instruction.mnemonic == "WRAPR":
            # Interrupting the console makes the simulated console act.
            parts["operand E"] = parts["operand E"].replace(10, 10, 0)
        if int(instruction.valid(parts)):
            return parts


def code(instruction: Instruction, parts: Mapping[str, Word]) -> int:
    return encode(instruction, {name: int(word) for name, word in parts.items()})


def made(rng: random.Random, instruction: Instruction) -> Case | None:
    """A case whose memory holds every cell the run needs; None where the model does not say what happens."""
    before, parts = state(rng), parts_for(rng, instruction)
    fixed = {cell(before, int(before.pc)): code(instruction, parts)}
    table = int(before.ubr) << 9
    for place in (*UPT_NEW, PAGE_FAIL_NEW):
        flags = (
            rng.getrandbits(13) & ~0o14 & ~(1 << 7) if place == PAGE_FAIL_NEW else rng.getrandbits(13) & ~0o14
        )
        fixed[table + place] = flags << 23 | HANDLER
    fixed[table + PAGE_FAIL_PC] = 0
    target = MACHINE.instructions[rng.choice(TARGETS)] if instruction.form in CONTINUED else None
    then = parts_for(rng, target) if target else {}
    if target:
        where = 0o41 if instruction.mnemonic == "LUUO" else int(parts["operand E"])
        if where < 0o20:
            before.ac[where] = Word(36, code(target, then))
        else:
            fixed.setdefault(cell(before, where), code(target, then))
            if fixed[cell(before, where)] != code(target, then):
                return None
    outcome: Outcome[Ks10] | None = None

    def run(contents: dict[int, int]) -> Mapping[int, int]:
        nonlocal outcome
        contents.update(fixed)
        before.memory = Memory(20, 36, contents)
        outcome = MACHINE.step(instruction, before, parts)
        if target and isinstance(outcome, Next):
            if int(outcome.state.ir) != code(target, then):
                outcome = None  # the instruction changed its own target
                return {}
            outcome = MACHINE.step(target, outcome.state, then)
        if not isinstance(outcome, Next | Trap):
            return {}
        return outcome.state.memory.cells()

    extra = {table + place: 0 for place in (0o424, 0o425, 0o426)}
    cells = {**extra, **settled(run, lambda place: number(rng))}
    run(cells)
    before.memory = Memory(20, 36, cells)
    if not isinstance(outcome, Next | Trap):
        return None
    tables = {EXECUTIVE_TABLE, *USER_TABLES}
    if any(place >> 9 in tables and place not in fixed and place not in extra for place in cells):
        return None  # it would change the page tables under the cases to come
    return Case(instruction, target, parts, before, outcome, expected(before, outcome))


def cell(before: Ks10, virtual: int) -> int:
    base = int(before.base) if int(before.paging) else 0
    return (base << 9) + virtual


def expected(before: Ks10, outcome: Outcome[Ks10]) -> Ks10:
    """The state SIMH should end in: a page failure stores flags and PC and loads new ones."""
    if isinstance(outcome, Next):
        return outcome.state
    assert isinstance(outcome, Trap)
    assert MACHINE.deliver is not None
    if not outcome.memory:
        return MACHINE.deliver(before, outcome)
    with pytest.raises(NotModelledError):
        MACHINE.deliver(before, outcome)
    after, table = outcome.state.copy(), int(before.ubr) << 9
    after.memory = after.memory.store(Word(20, table + PAGE_FAIL_PC), before.pc_word)
    after.pc = Word(18, HANDLER)
    after.flags = after.memory.load(Word(20, table + PAGE_FAIL_NEW))[35:23]
    return after


def visible(state: Ks10) -> dict[str, int]:
    names = ("flags", "pc", "running", "pi_on", "pi_enabled", "pi_active", "pi_requests", "apr_enabled", "apr_flags",
             "apr_channel", "ebr", "ubr", "paging", "halt_status")  # fmt: skip
    shown = {name: int(state[name]) for name in names}
    shown |= {f"ac{i:o}": int(state.ac[i]) for i in range(16)}
    # The page fail word itself is not modelled.
    failed = (int(state.ubr) << 9) + 0o500
    return shown | {
        f"cell {place:o}": value for place, value in state.memory.cells().items() if place != failed
    }


def unlike(model: Ks10, simh: Ks10) -> dict[str, tuple[str, str | None]]:
    theirs = visible(simh)
    return {
        name: (oct(value), oct(theirs[name]) if name in theirs else None)
        for name, value in visible(model).items()
        if theirs.get(name) != value
    }


def deviates(case: Case) -> str | None:
    """The listed deviation of SIMH that a case runs into, if any."""
    for deviation in DEVIATIONS:
        if CONDITIONS[deviation["id"]](case):
            return str(deviation["id"])
    return None


DEVIATIONS = tomllib.loads(files("popek_specs").joinpath("pdp/simh-deviations.toml").read_text("utf-8"))[
    "deviations"
]
CONDITIONS: dict[str, Callable[[Case], bool]] = {}


@pytest.fixture(scope="module")
def runs() -> list[tuple[Case, Ks10Result]]:
    rng = random.Random(1978)
    cases = [
        case
        for instruction in MACHINE.instructions.values()
        for _ in range(CASES_PER_FORM)
        if (case := made(rng, instruction)) is not None
    ]
    return list(zip(cases, run_steps([case.before for case in cases]), strict=True))


def test_every_instruction_does_what_simh_does(runs: list[tuple[Case, Ks10Result]]) -> None:
    wrong = []
    for case, result in runs:
        difference = unlike(case.expected, result.state)
        if difference and deviates(case) is None:
            wrong.append(f"{case}: {difference}")
    assert len(runs) > 1000
    assert not wrong, f"{len(wrong)} of {len(runs)}\n" + "\n".join(wrong[:12])
