"""What VT-x must be set to, derived and shown: weakest conditions per instruction, and a witness for each need."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache, lru_cache
from typing import Any

import attrs

from popek.architectures.ia32.state import Ia32
from popek.architectures.requirements import FAILURES, Ask, Requirement, cover, prime_cubes
from popek.architectures.vtx.operation.exits import REASONS, VM_EXIT
from popek.architectures.vtx.operation.fidelity import (
    PRIVATE,
    Obligation,
    compared,
    obligation,
    owned_changes,
    probe,
    requirement,
)
from popek.architectures.vtx.operation.machine import build
from popek.architectures.vtx.operation.non_root import ENABLED
from popek.architectures.vtx.operation.ownership import EVERYTHING, Profile, profile
from popek.architectures.vtx.operation.state import VmxIa32
from popek.architectures.x86.access import MemoryOperand
from popek.architectures.x86.interception import Interception
from popek.checks.counterexample import Executed, ReplayError, assert_replay, differences, execute
from popek.checks.runs import Run, explore_instruction
from popek.checks.verdict import Question
from popek.checks.witness import find_minimal
from popek.kernel.configuration import Configuration
from popek.kernel.machine import Machine
from popek.kernel.outcome import Fault, Next, NotModelledError, Trap
from popek.kernel.state import substitution
from popek.kernel.words import Word
from popek.solving.asking import assume
from popek.solving.solver import Answer, Solver

MODES: Mapping[str, Configuration] = {
    name: Configuration({"MODE": number}) for number, name in enumerate(("protected", "virtual-8086", "real"))
}
PROTECTED_MODE = MODES["protected"]
UNRESTRICTED = "secondary.unrestricted_guest"


@attrs.frozen
class Witness:
    """A case in which an instruction fails, replayed on numbers: the guest's own machine beside the hardware.

    Attributes:
        failure: `unfaithful` or `unsafe`.
        setting: the controls that the instruction depends on.
        guest, vmm: what differs from a plain state, by leaf.
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


@attrs.frozen
class Need:
    """A control that an instruction needs at a value: with the other one and all else as required, it fails."""

    knob: str
    value: int
    witness: Witness


@attrs.frozen
class Row:
    """One instruction form: what it asks of the controls, and why."""

    requirement: Requirement
    needs: tuple[Need, ...] = ()

    @property
    def always(self) -> bool:
        """It is faithful and safe under every setting."""
        return self.requirement.condition(self.requirement.sound) == "always"


def asking(due: Obligation) -> Ask:
    """Ask under what an obligation assumes."""
    return assume(due.assumed, _translated(due.instruction.form))


@lru_cache(maxsize=1)
def _translated(form: str) -> Solver:
    """What all questions about a form share, while they are about this form."""
    return Solver()


@cache
def machine() -> Machine[VmxIa32]:
    """The machine of the obligations: no exception exits."""
    return build(exceptions=False)


def explored(form: str, mode: str = "protected") -> Run[VmxIa32]:
    """Every path of a form in a mode of `MODES`."""
    return _explored(form, mode)


@cache
def _explored(form: str, mode: str) -> Run[VmxIa32]:
    run = explore_instruction(machine(), machine().instructions[form], configuration=MODES[mode])
    return run.without_assignments()


def duty(
    form: str,
    owned: Profile,
    fixed: Mapping[str, int] | None = None,
    masks: Mapping[str, int] | None = None,
    mode: str = "protected",
) -> Obligation:
    """The obligation of a form in a mode of `MODES`, as `obligation` says.

    In real-address mode the control "unrestricted guest" is 1: without it there is no such hardware state.

    Raises:
        ValueError: the guest may not leave protected mode on the hardware, and this is real-address mode.
    """
    if mode == "real":
        if not owned.unrestricted:
            raise ValueError("only an unrestricted guest is in real-address mode on the hardware")
        fixed = {**(fixed or {}), UNRESTRICTED: 1}
    return obligation(machine(), machine().instructions[form], explored(form, mode), owned, fixed, masks)


def required(form: str, owned: Profile, mode: str = "protected") -> Requirement:
    """The requirement of a form in a mode of `MODES`."""
    return _required(form, owned, mode)


@cache
def _required(form: str, owned: Profile, mode: str) -> Requirement:
    return requirement(duty(form, owned, mode=mode), lambda base: assume(base, _translated(form)))


def derive(
    forms: Iterable[str],
    owned: Profile,
    *,
    mode: str = "protected",
    witnesses: bool = False,
    progress: Callable[[], None] = lambda: None,
) -> Iterator[Row]:
    """The requirement of each form in a mode of `MODES`, with a witness for each control that it needs."""
    for form in forms:
        found = required(form, owned, mode)
        needs = tuple(_needs(duty(form, owned, mode=mode), found)) if witnesses else ()
        yield Row(found, needs)
        progress()


def _needs(due: Obligation, found: Requirement) -> Iterator[Need]:
    """Each literal of the weakest condition, dropped alone."""
    shown = set()
    for cube in prime_cubes(len(found.knobs), found.sound):
        inside = cover(cube)
        for place, value in enumerate(cube):
            if value is None or (found.knobs[place], value) in shown:
                continue
            for setting in sorted(inside):
                other = (*setting[:place], 1 - value, *setting[place + 1 :])
                if other in found.sound or other in found.undecided:
                    continue
                shown.add((found.knobs[place], value))
                yield Need(
                    found.knobs[place], value, witness(due, dict(zip(found.knobs, other, strict=True)))
                )
                break


def witness(
    due: Obligation, setting: Mapping[str, int], failures: Sequence[str] = tuple(reversed(FAILURES))
) -> Witness:
    """A minimal case in which a setting of the controls fails, run again on numbers.

    Raises:
        ReplayError: there is none, or it does not fail on numbers: a defect of popek.
    """
    instruction = due.instruction
    for failure in failures:
        question = Question(failure, [*due.assumed, *due.under(setting), getattr(due, failure)])
        answer, model, solver = question.ask()
        if answer is Answer.SAT:
            break
    else:
        raise ReplayError(f"{instruction.form}: no failure under {dict(setting)}")
    if model is None or solver is None:
        raise ReplayError(f"{instruction.form}: {failure} was satisfiable and is no more")
    probes = {name: probe(name, content).term for name, content in due.guest.before.memories().items()}
    plain = plain_states()
    found = find_minimal(
        machine(), instruction, question, solver, model, [due.guest.before, due.private], probes, plain
    )
    guest, private = found.states
    before = due.image(guest, private, setting)
    native = execute(machine(), instruction, "guest's own machine", guest, found.operands)
    hardware = execute(machine(), instruction, "hardware", before, found.operands)
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
    due: Obligation,
    failure: str,
    native: Executed[VmxIa32],
    hardware: Executed[VmxIa32],
    addresses: Mapping[str, tuple[int, ...]],
) -> bool:
    """Whether two runs on numbers show the failure."""
    if isinstance(hardware.outcome, Trap) and hardware.outcome.vector is VM_EXIT:
        return False
    places = {f"probed address in {name}": where[0] for name, where in addresses.items()}
    if failure == "unsafe":
        if not isinstance(hardware.outcome, Next):
            return False
        conditions: Mapping[str, Word] = owned_changes(
            hardware.before, hardware.outcome.state, due.owned, places
        )
    else:
        conditions = compared(native.before, native.outcome, hardware.outcome, due.owned, places)
    return any(condition.value == 1 for condition in conditions.values())


def plain_states() -> list[VmxIa32]:
    """What a guest and a VMM look like when nothing is said of them."""
    cr0, cr4 = 0x80000031, 0x2000
    return [
        VmxIa32.reset(cr0=cr0),
        VmxIa32.reset(cr0=cr0, cr4=cr4, non_root=1, primary__activate_secondary_controls=1, tsc=0),
    ]


class _Recorder(Interception[Ia32]):
    """Notes whether a hook was called that a VMX control, or non-root operation itself, decides about."""

    called = False

    def __getattribute__(self, name: str) -> Any:
        if not name.startswith("_") and name not in _QUIET:
            self.called = True
        return super().__getattribute__(name)

    def recognized(self, cpu: Ia32, name: str) -> None:
        self.called = self.called or name in ENABLED

    def instruction(
        self, cpu: Ia32, name: str, memory: MemoryOperand | None = None, *registers: Word, size: int = 32
    ) -> None:
        self.called = self.called or name in REASONS

    def read_control_register(self, cpu: Ia32, number: int, register: Word | None = None) -> Word:
        self.called = self.called or number != 2
        return super().read_control_register(cpu, number, register)

    def write_control_register(self, cpu: Ia32, number: int, register: Word) -> Word:
        self.called = self.called or number != 2
        return super().write_control_register(cpu, number, register)


# Hooks that say themselves whether they count, and those of which the exception bitmap alone decides.
_QUIET = (
    "called", "software_exception", "software_interrupt", "recognized", "instruction", "read_control_register",
    "write_control_register",
)  # fmt: skip


@cache
def governed_forms() -> tuple[str, ...]:
    """The forms that call a hook from a plain state at CPL 0: VM exits and changed behaviour are about them.

    Far transfers exit for task switches alone, which no control decides about; INT1, INT3 and INTO by the
    exception bitmap, which can only give the VMM control more often.
    """
    found = []
    for form, instruction in machine().instructions.items():
        recorder = _Recorder()
        spied: type[VmxIa32] = type("VmxIa32", (VmxIa32,), {"interception": recorder})
        cpu = spied.reset(cr0=0x80000031, cr4=0x00746000, eflags=0x802, ecx=1)
        cpu.started_at = cpu.eip
        parts = {
            name: Word(width, operand.kind.first.get(part, 0))
            for operand in instruction.inputs
            for part, (name, width) in zip(operand.kind.parts, operand.part_names(), strict=True)
        }
        with contextlib.suppress(Fault, NotModelledError):
            instruction.run(cpu, parts)
        if recorder.called:
            found.append(form)
    return tuple(found)


def representatives(forms: Iterable[str]) -> tuple[str, ...]:
    """One form of each mnemonic, but of every control register."""
    seen: dict[tuple[str, str], str] = {}
    for form in forms:
        mnemonic = machine().instructions[form].mnemonic
        seen.setdefault((mnemonic, form if " CR" in mnemonic else ""), form)
    return tuple(seen.values())


def excess(due: Obligation, found: Requirement) -> frozenset[tuple[int, ...]]:
    """The sound settings that exit in some case in which another sound setting does not.

    Bits of masks and bitmaps that nothing asks for are 0.
    """
    zero: dict[str, Callable[[Word], Word]] = dict.fromkeys(
        (f"io_bitmap{PRIVATE}", f"msr_bitmap{PRIVATE}"), lambda place: Word(1, 0)
    )
    plain = {f"{name}{PRIVATE}": Word(32, 0) for name in ("cr0_mask", "cr4_mask")}
    sound = sorted(found.sound)
    exits = {}
    for setting in sound:
        fixed = {
            str(due.knobs[knob].term.data): Word(1, value)
            for knob, value in zip(found.knobs, setting, strict=True)
        }
        exits[setting] = Word(1, substitution({**plain, **fixed}, zero)(due.exits.term))
    ask = asking(due)
    return frozenset(
        a
        for a in sound
        if any(exits[a].value != 0 and ask([exits[a], ~exits[b]]) is not False for b in sound if a != b)
    )


@attrs.frozen
class Governed:
    """What decides whether an instruction exits.

    Attributes:
        reason: the basic exit reason; None where it never exits.
        controls: the knobs on which exiting depends, where it passes the checks before the exit.
    """

    form: str
    mnemonic: str
    reason: int | None
    controls: tuple[str, ...]


def governs(form: str) -> Governed:
    """The exit reason of a form, and the controls that decide: derived from its paths, for a VMM that owns everything.

    A control decides where some case exits with one value of it and not with the other.
    """
    due = duty(form, profile(EVERYTHING | {"cr3", "cr0", "cr4"}))
    ask = asking(due)
    reasons = {
        int(path.result.error_code)
        for path in due.hardware.paths
        if isinstance(path.result, Trap)
        and path.result.vector is VM_EXIT
        and path.result.error_code is not None
    }
    if len(reasons) > 1:
        # A far transfer's own exit is for a task switch.
        raise ValueError(f"{form} has several exit reasons: {sorted(reasons)}")
    found = []
    for name, knob in due.knobs.items():
        symbol = str(knob.term.data)
        sides = [Word(1, substitution({symbol: Word(1, value)}, {})(due.exits.term)) for value in (0, 1)]
        differ = sides[0] ^ sides[1]
        if differ.value != 0 and ask([differ]) is not False:
            found.append(name)
    mnemonic = due.instruction.mnemonic
    return Governed(form, mnemonic, next(iter(reasons), None), tuple(found))


__all__ = [
    "Governed",
    "Need",
    "Row",
    "Witness",
    "derive",
    "duty",
    "excess",
    "governed_forms",
    "governs",
    "representatives",
    "required",
    "witness",
]
