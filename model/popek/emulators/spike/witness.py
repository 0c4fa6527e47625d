"""RV64 witnesses outside the model: each run on Spike, and as source for the GNU assembler.

A run is set up as near to the witness as the simulator can be (`case_from`), and confirmed only where the model does
from there what it does in the witness, and Spike the same.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from typing import Any, Final

from popek.architectures.riscv.encoding import encode
from popek.architectures.riscv.instructions.zicsr import all_csrs
from popek.architectures.riscv.state import Rv64
from popek.emulators.witnesses import Harness, Recorded, RunVerdict, WitnessRun, WitnessVerdict
from popek.kernel.machine import Machine
from popek.kernel.outcome import Next, NotModelled, Outcome, Trap
from popek.kernel.words import Word

from .cases import MODES, case_from
from .compare import compare
from .hart import BEFORE

_MOVED: Final = ("pc", "mcountinhibit")
"""What the harness has elsewhere, whatever the witness says."""


def confirm(
    machine: Machine[Any], witnesses: Sequence[Sequence[WitnessRun]], against: str
) -> list[list[RunVerdict]]:
    """Run the runs of each witness on Spike and compare everything that can be seen.

    Raises:
        SpikeError: Spike or what it needs is missing.
    """
    return [[_confirmed(machine, run) for run in runs] for runs in witnesses]


def _confirmed(machine: Machine[Any], run: WitnessRun) -> RunVerdict:
    def impossible(why: str) -> RunVerdict:
        return RunVerdict(run.label, WitnessVerdict.IMPOSSIBLE, (why,))

    if len(run.lines) != 1:
        return impossible("Spike runs one instruction at a time here")
    (line,) = run.lines
    wanted = effect(run.before, machine.step(line.instruction, run.before, line.words))
    case = case_from(line.instruction, run.before, line.operands)
    start = case.state(machine.state)
    if effect(start, machine.step(line.instruction, start, line.words)) != wanted:
        return impossible("from the state that Spike can be in, the model does something else")
    found = compare(machine, case)
    if isinstance(found, NotModelled):
        return impossible(f"not modelled: {found.reason}")
    difference = found.difference
    if difference is None:
        return RunVerdict(run.label, WitnessVerdict.CONFIRMED)
    if difference.deviation is None:
        return RunVerdict(run.label, WitnessVerdict.DIFFERS, difference.details)
    known = f"a known deviation: {difference.deviation}"
    return RunVerdict(run.label, WitnessVerdict.DEVIATES, (*difference.details, known))


def effect(before: Rv64, outcome: Outcome[Rv64]) -> object:
    """What a run does, whatever it starts from: its trap, or the new values of registers and CSRs."""
    if isinstance(outcome, Trap):
        return str(outcome.vector)
    if not isinstance(outcome, Next):
        return outcome
    after = outcome.state
    found: dict[str, int] = {}
    for leaf in before.leaves:
        if leaf.component not in _MOVED and int(before[leaf.name]) != int(after[leaf.name]):
            found[leaf.name] = int(after[leaf.name])
    for name, file in (("x", "x"), ("f", "f")):
        old, new = before.memories()[file], after.memories()[file]
        for number in range(32):
            was, now = (int(content.load(Word(5, number))) for content in (old, new))
            if was != now:
                found[f"{name}{number}"] = now
    found["stores"] = len(after.memory.stores) - len(before.memory.stores)
    return found


# -- assembly -------------------------------------------------------------------------------------

_LATE: Final = ("mstatus", "mepc", "mie")
_STORED: Final = {
    *BEFORE, "menvcfg", "henvcfg", "senvcfg", "mstateen0", "hstateen0", "stimecmp", "vstimecmp", "mip",
}  # fmt: skip
_SKIPPED: Final = (*_LATE, "mcycle", "minstret", "mhpmcounter3")


def assembly(machine: Machine[Any], subject: str, witnesses: Sequence[Recorded]) -> str:
    """One source for all witnesses: each run is a routine that M enters, and that MRET leaves for the run's mode."""
    lines = [
        f"# {machine.title}: {subject}",
        "# GNU assembler, -march=rv64gch_zicsr_svinval_sstc_smstateen.  Every run starts in M; what its instruction",
        "# does is seen where it leads: at the next instruction, or at the handler that mtvec, stvec or vstvec names.",
        "# Physical memory protection must let the mode of the run fetch.  MRET leaves MPP, MPV and MPIE as it does.",
        "        .text",
    ]
    for number, listing in enumerate(witnesses, 1):
        lines += ["", f"# ---- Witness {number}: {listing.title}"]
        lines += [f"# {line}" for text in listing.story for line in textwrap.wrap(text, 100)]
        for place, run in enumerate(listing.runs):
            lines += ["", f"# {run.label}"]
            lines += _routine(f"witness_{number}_{'ab'[place]}", run)
    return "\n".join(lines) + "\n"


def _routine(label: str, run: WitnessRun) -> Iterator[str]:
    state, reset = run.before, Rv64.reset()
    prv, v = int(state.prv), int(state.v)
    yield f"        .globl {label}"
    yield f"{label}:"
    for csr in all_csrs():
        name = csr.name
        if name in _SKIPPED or name not in {
            *BEFORE,
            "menvcfg",
            "henvcfg",
            "senvcfg",
            "mstateen0",
            "hstateen0",
        }:
            continue
        value, plain = int(csr.read(state)), int(csr.read(reset))
        if value != plain:
            yield from _csr(name, value)
    for number in range(32):
        value = int(state.f.load(Word(5, number)))
        if value:
            yield from _csr("mstatus", 3 << 13)
            yield f"        li      t0, {value:#x}"
            yield f"        fmv.d.x f{number}, t0"
    status = int(state.mstatus.value) & ~(3 << 11 | 1 << 39 | 1 << 3 | 1 << 7)
    status |= prv << 11 | v << 39 | int(state.mstatus.mie) << 7
    yield from _csr("mie", int(state.mie.value))
    yield from _csr("mstatus", status)
    yield f"        la      t0, {label}_at"
    yield "        csrw    mepc, t0"
    mode = next(name for name, (privilege, guest) in MODES.items() if (privilege, guest) == (prv, v))
    values = {number: int(state.x.load(Word(5, number))) for number in range(1, 32)}
    for number, value in values.items():
        if value:
            yield f"        li      x{number}, {value:#x}"
    if 5 not in {number for number, value in values.items() if value}:
        yield "        li      x5, 0"
    yield f"        mret                    # to {mode}"
    yield f"{label}_at:"
    for line in run.lines:
        word = encode(line.instruction, line.operands)
        yield f"        {spelled(line.instruction.assembly(line.operands)):<32}# {word:08x}"


def _csr(name: str, value: int) -> Iterator[str]:
    yield f"        li      t0, {value:#x}"
    yield f"        csrw    {name}, t0"


def spelled(text: str) -> str:
    """An instruction as assemblers take it: lower case, addresses bare in brackets."""
    mnemonic, _, operands = text.partition(" ")
    return f"{mnemonic.lower()} {operands}".strip()


HARNESS: Final = Harness(("spike",), confirm, assembly)
