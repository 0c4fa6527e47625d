"""What VT-i's control bits must be, derived; and a choice of them judged, with a witness for each failure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any

import attrs

from popek.architectures.ia64 import MACHINES
from popek.architectures.ia64.state import Ia64
from popek.architectures.ia64.vti.configuration import Configuration
from popek.architectures.ia64.vti.fidelity import (
    ACCELERATIONS,
    DISABLES,
    Obligation,
    Profile,
    failures,
    obligation,
    probe,
)
from popek.architectures.ia64.vti.requirements import Requirement, requirement
from popek.checks.counterexample import Executed, ReplayError, assert_replay, differences, execute
from popek.checks.runs import Run, explore_instruction
from popek.checks.verdict import Question
from popek.checks.witness import find_minimal
from popek.kernel.exploration import Path
from popek.kernel.instruction import Instruction
from popek.kernel.machine import Machine
from popek.solving.asking import assume

Progress = Callable[[int, int], None]


@cache
def machine() -> Machine[Ia64]:
    """Itanium, made once."""
    return MACHINES["ia64"]()


@attrs.frozen
class Witness:
    """A case in which an instruction fails, replayed on numbers: the guest's own machine beside the hardware.

    Attributes:
        assembly: the instruction.
        guest, vmm: what differs from a plain state, by leaf.
        native, virtualized: what happens.
    """

    assembly: str
    guest: Mapping[str, str]
    vmm: Mapping[str, str]
    native: str
    virtualized: str


@attrs.frozen
class Failure:
    """An instruction that a choice of the bits does not make faithful and safe.

    Attributes:
        verdict: `unsafe`, `unfaithful`, or `unknown` where that could not be decided.
        governed: some control bit decides it; otherwise the bits are not to blame.
    """

    form: str
    mnemonic: str
    verdict: str
    governed: bool
    witness: Witness | None

    def to_json(self) -> dict[str, Any]:
        """A row of `popek/vti-verdict/1`."""
        return attrs.asdict(self)


def derive(profile: Profile, *, progress: Progress | None = None) -> list[Requirement]:
    """What each instruction asks of the bits.

    Args:
        progress: called with the number of instructions that are done and of all.
    """
    return [
        requirement(obligation(instruction, run, profile), assume) for instruction, run in _explored(progress)
    ]


def failures_under(
    configuration: Configuration, profile: Profile, *, progress: Progress | None = None
) -> Iterator[Failure]:
    """Every instruction that the bits of a configuration do not make faithful and safe, with a witness.

    Raises:
        ReplayError: a defect of popek.
    """
    setting = _setting(configuration)
    for instruction, run in _explored(progress):
        fixed = obligation(instruction, run, profile, setting)
        ask, given = assume(fixed.assumed), fixed.under(setting)
        for question in ("unsafe", "unfaithful"):
            condition = getattr(fixed, question)
            possible = False if condition.value == 0 else ask([*given, condition])
            if possible is not False:
                due = obligation(instruction, run, profile)
                shown = witness(due, setting, question, profile) if possible else None
                verdict = question if possible else "unknown"
                yield Failure(instruction.form, instruction.mnemonic, verdict, bool(due.knobs), shown)
                break


def _setting(configuration: Configuration) -> dict[str, int]:
    """What a configuration says of everything on which an instruction may depend."""
    bits = {name: configuration.bit(name) for name in (*ACCELERATIONS, *DISABLES)}
    setting = {name: int(value) for name, value in bits.items() if value is not None}
    if configuration.promotion_pages is False:
        setting["promotion_pages"] = 0
    setting["si"] = 1 if configuration.machine_psr is None else configuration.machine_psr >> 23 & 1
    return {**dict.fromkeys(("a_tf", "a_ic_um", "d_psr_i"), 0), **setting}


def _explored(progress: Progress | None) -> Iterator[tuple[Instruction, Run[Ia64]]]:
    instructions = machine().instructions.values()
    for done, instruction in enumerate(instructions, 1):
        yield instruction, explore_instruction(machine(), instruction)
        if progress is not None:
            progress(done, len(instructions))


def witness(due: Obligation, setting: Mapping[str, int], failure: str, profile: Profile) -> Witness:
    """A minimal case in which a setting of the bits fails, run again on numbers.

    Args:
        failure: `unsafe` or `unfaithful`.

    Raises:
        ReplayError: there is none, or it does not fail on numbers: a defect of popek.
    """
    instruction = due.instruction
    question = Question(failure, [*due.assumed, *due.under(setting), getattr(due, failure)])
    _, model, solver = question.ask()
    if model is None or solver is None:
        raise ReplayError(f"{instruction.form}: {failure} was satisfiable and is no more")
    probes = {name: probe(name, content).term for name, content in due.guest.before.memories().items()}
    states = [due.guest.before, due.private]
    plain = Ia64.reset(psr__ic=1, psr__dt=1, psr__it=1, psr__rt=1, psr__i=1, psr__si=1)
    found = find_minimal(machine(), instruction, question, solver, model, states, probes, [plain, plain])
    guest, private = found.states
    native = execute(machine(), instruction, "guest's own machine", guest, found.operands)
    hardware = execute(machine(), instruction, "hardware", due.image(guest, private), found.operands)
    assert_replay(
        _fails(failure, native, hardware, profile, found.addresses),
        instruction,
        failure,
        [native.describe(), hardware.describe()],
    )
    return Witness(
        instruction.assembly(found.operands),
        {d.name: hex(d.after) for d in differences(plain, guest)},
        {d.name: hex(d.after) for d in differences(plain, private)},
        native.describe(),
        hardware.describe(),
    )


def _fails(
    failure: str,
    native: Executed[Ia64],
    hardware: Executed[Ia64],
    profile: Profile,
    addresses: Mapping[str, tuple[int, ...]],
) -> bool:
    """Whether two runs on numbers show the failure."""
    own, virtualized = (Run(one.before, (Path((), one.outcome),), {}) for one in (native, hardware))
    places = {name: where[0] for name, where in addresses.items()}
    differs, changed = failures(own, virtualized, profile.given, places)
    return any(condition.value == 1 for condition in (changed if failure == "unsafe" else differs).values())
