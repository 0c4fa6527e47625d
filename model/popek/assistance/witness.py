"""A case in which an instruction fails under a setting of the controls: minimal, and replayed on numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import attrs

from popek.checks.counterexample import Executed, ReplayError, assert_replay, differences, execute
from popek.checks.runs import Run, probe
from popek.checks.verdict import Question
from popek.checks.witness import find_minimal
from popek.kernel.exploration import Path
from popek.kernel.state import State
from popek.solving.solver import Answer

from .desk import PROBE, Duty
from .requirements import FAILURES

S = TypeVar("S", bound=State)


@attrs.frozen
class Witness:
    """A case in which an instruction fails, replayed on numbers: the guest's own machine beside the hardware.

    Attributes:
        failure: `unfaithful` or `unsafe`.
        setting: the controls that the instruction depends on.
        guest, vmm: what differs from a plain state, by leaf; the VMM's with the controls as they are.
        native, virtualized: what happens.
    """

    failure: str
    setting: Mapping[str, int]
    assembly: str
    guest: Mapping[str, str]
    vmm: Mapping[str, str]
    native: str
    virtualized: str

    def to_json(self) -> dict[str, Any]:
        """By attribute."""
        return attrs.asdict(self)


def witness(
    due: Duty[Any], setting: Mapping[str, int], failures: Sequence[str] = tuple(reversed(FAILURES))
) -> Witness:
    """A minimal case in which a setting of the controls fails, run again on numbers.

    Raises:
        ReplayError: there is none, or it does not fail on numbers: a defect of popek.
    """
    instruction, machine, obligation = due.instruction, due.desk.machine, due.obligation
    for failure in failures:
        question = Question(failure, [*due.assumed, *due.under(setting), getattr(due, failure)])
        answer, model, solver = question.ask()
        if answer is Answer.SAT:
            break
    else:
        raise ReplayError(f"{instruction.form}: no failure under {dict(setting)}")
    if model is None or solver is None:
        raise ReplayError(f"{instruction.form}: {failure} was satisfiable and is no more")
    probes = {n: probe(c, f"{PROBE} {n}").term for n, c in obligation.guest.memories().items()}
    plain = due.desk.plain
    found = find_minimal(
        machine, instruction, question, solver, model, [obligation.guest, obligation.private], probes, plain
    )
    guest, private = found.states
    before = due.image(guest, private, setting)
    native = execute(machine, instruction, "guest's own machine", guest, found.operands)
    hardware = execute(machine, instruction, "hardware", before, found.operands)
    assert_replay(
        _fails(due, failure, native, hardware, found.addresses),
        instruction,
        failure,
        [native.describe(), hardware.describe()],
    )
    return Witness(
        failure,
        setting,
        instruction.assembly(found.operands),
        {d.name: hex(d.after) for d in differences(plain[0], guest)},
        {d.name: hex(d.after) for d in differences(plain[1], before)},
        native.describe(),
        hardware.describe(),
    )


def _fails(
    due: Duty[Any],
    failure: str,
    native: Executed[Any],
    hardware: Executed[Any],
    addresses: Mapping[str, tuple[int, ...]],
) -> bool:
    """Whether two runs on numbers show the failure."""
    own, virtualized = (Run(one.before, (Path((), one.outcome),), {}) for one in (native, hardware))
    if due.instruction.mnemonic in due.arrangement.lacks:
        own = due.obligation.native.at(native.before)
    places = {name: where[0] for name, where in addresses.items()}
    replayed = attrs.evolve(due.obligation, native=own, hardware=virtualized, places=places)
    ends = replayed.kept(virtualized)
    breaches = replayed.changes(ends) if failure == "unsafe" else (*replayed.unlike(ends), *replayed.faults())
    return any(breach.when.value == 1 for breach in breaches)
