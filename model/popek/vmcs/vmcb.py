"""Repair and generation of VMCBs, and questions about VMRUN's checks: the same questions as of VMCSs."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final

import attrs

from popek.architectures.svm.baselines import MODES, baseline, has_mode
from popek.architectures.svm.checks import CHECKS, NotGiven, VmcbCheck, VmcbView
from popek.architectures.svm.cpuid import by_cpuid
from popek.architectures.svm.exit_codes import refused
from popek.architectures.svm.verdict import judge
from popek.architectures.svm.vmcb import FIELDS, SvmProcessor, Vmcb
from popek.kernel.words import FALSE, TRUE, SymbolicConditionError, Word, all_of, symbol
from popek.solving.solver import Answer, Effort, Model

from .edges import Edge, Finder, alternate
from .edits import BIT, Edits, Repair, changes_between
from .standing import Answers, standing

_WIDTH: Final = 64
_WIDEST: Final = 52  # bits of a physical address, on any processor
_GATE, _ELSEWHERE, _CONTROL = 4, 8, 5
_NUMBERS: Final = ("ASID",)
"""Fields that are a number, of which a processor has so many."""
_MEMORY: Final = ("CR3",)
"""Fields that point to memory that checks read."""
_REGISTERS: Final = ("efer", "cr4")
_ENCRYPTED: Final = 6
"""The bits of NP_CONTROL that put the guest's state elsewhere."""
_WIDER: Final = (
    "CR0",
    "CR4",
    "EFER",
    "CS_ATTRIBUTES",
    "NP_CONTROL",
    "VINTR_CONTROL",
    "INTERCEPTS_3",
    "S_CET",
)
_READS: Final = ("control", "save")


def _word(value: Any) -> Word:
    return value if isinstance(value, Word) else TRUE if value else FALSE


class _Asked(VmcbView):
    """A view that notes the fields that are asked for."""

    def __getattr__(self, name: str) -> Any:
        value = super().__getattr__(name)
        if name in FIELDS:
            self.__dict__["asked"][name] = None
        return value


class VmcbFormulas:
    """VMRUN's checks over symbolic fields.

    Args:
        vmcb: a field that it gives is a symbol; with `everywhere`, every field is.
        processor: what is not known of it makes a check unknown.
        everywhere: whether fields that are not given are symbols, too.
    """

    def __init__(self, vmcb: Vmcb, processor: SvmProcessor, *, everywhere: bool = False) -> None:
        """Make the symbols; see the class."""
        self.vmcb, self.processor = vmcb, processor
        encrypted = vmcb.fields.get("NP_CONTROL", 0) & _ENCRYPTED == _ENCRYPTED and processor.sev is not False
        self.locked = ("NP_CONTROL",) if encrypted else ()
        """Fields that keep their value: where the guest's state is encrypted, it is not here."""
        names = [
            name
            for name, field in FIELDS.items()
            if field.area in _READS and not (encrypted and field.area == "save")
            if everywhere or name in vmcb.fields
        ]
        self.widths = {name: FIELDS[name].width for name in names if FIELDS[name].width <= _WIDTH}
        self.symbols = {
            name: symbol(name, width) if width == _WIDTH else symbol(name, width).zero_extend(_WIDTH)
            for name, width in self.widths.items()
        }
        self._asked: dict[str, None] = {}
        self._view = _Asked(self.symbols, processor, vmcb.memory)
        self._view.__dict__["asked"] = self._asked

    def reads(self, check: VmcbCheck) -> tuple[str, ...]:
        """The fields that a check looks at, those of its gates included."""
        self._asked.clear()
        self.violation(check)
        return tuple(self._asked) or check.fields

    def subjects(self, check: VmcbCheck) -> frozenset[str]:
        """The fields that a check itself looks at, without those that only its gates do."""
        self._asked.clear()
        with contextlib.suppress(NotGiven, SymbolicConditionError):
            check.holds(self._view)
        return frozenset(self._asked)

    def violation(self, check: VmcbCheck) -> Word | None:
        """Where a check is violated; None if it lacks an input."""
        applies: Word = TRUE
        try:
            for gate in check.gates:
                applies = applies & _word(gate(self._view))
                if applies.value == 0:
                    return FALSE
            return applies & ~_word(check.holds(self._view))
        except NotGiven:
            return None
        except SymbolicConditionError:
            return self._of_memory(check, applies)

    def _of_memory(self, check: VmcbCheck, applies: Word) -> Word | None:
        """Where a check is violated that reads memory: with the pointers that are given, else unknown."""
        here = VmcbView(self.vmcb.fields, self.processor, self.vmcb.memory)
        try:
            fine = bool(check.holds(here))
        except NotGiven:
            return None
        same = all_of(self.symbols[name] == self.vmcb.fields[name] for name in _MEMORY)
        return applies & ~same if fine else applies


def repair_vmcb(
    vmcb: Vmcb,
    processor: SvmProcessor | None = None,
    *,
    keep: Collection[str] = (),
    effort: Effort | None = None,
) -> Repair:
    """The smallest repair of a VMCB.

    Args:
        vmcb: to be repaired.
        processor: what is not known of it decides nothing.
        keep: ids of fields that must not change.
        effort: bounds on Z3.
    """
    processor = processor or SvmProcessor()
    verdict = judge(vmcb, processor)
    processor = SvmProcessor() if verdict.against else processor.sure
    reported = refused(verdict.reported.get("EXITCODE", 0))
    if not verdict.failed:
        return Repair(verdict, Answer.SAT, after=verdict, unexplained=reported)
    # What fails where the width is not known fails for the widest there is.
    asked = processor if processor.maxphyaddr else attrs.evolve(processor, maxphyaddr=_WIDEST)
    formulas = VmcbFormulas(vmcb, asked, everywhere=True)
    warned = {item.id for item in verdict.warnings}
    rules: dict[str, Word] = {}
    for check in CHECKS.values():
        wanted = check.certainty == "must" or (check.certainty == "may" and check.id not in warned)
        violated = formulas.violation(check) if wanted else None
        if violated is not None:
            rules[check.id] = ~violated
    failing = [CHECKS[item.id] for item in verdict.failed]
    subjects = {name for check in failing for name in formulas.subjects(check)}
    gates = {name for check in failing for name in formulas.reads(check)}

    def weight(name: str, number: int, value: int) -> int:
        near = 0 if name in subjects else _GATE if name in gates else _ELSEWHERE
        # A control that an intercept or a feature needs is rather set than a feature taken away.
        removed = _CONTROL if FIELDS[name].area == "control" and value >> number & 1 else 0
        # A small number is one that every processor has: CPUID tells how many ASIDs there are.
        return BIT + near + removed + (number if name in _NUMBERS else 0)

    effort = effort or Effort(rlimit=200_000_000)
    edits = Edits(formulas.symbols, formulas.widths, vmcb.fields, rules, (*keep, *formulas.locked), weight)
    found = edits.solve(effort)
    if isinstance(found, Answer):
        reason = edits.reason(effort) if found is Answer.UNSAT else None
        return Repair(verdict, found, reason=reason)
    changed = attrs.evolve(vmcb, fields=found.changed)
    # What the exit code reports is of the values before the repair.
    mended = attrs.evolve(changed, fields={**changed.fields, "EXITCODE": 0}) if reported else changed
    after = judge(mended, processor)
    needed = {item.missing for item in after.undecided}
    assumed = {name: value for name, value in found.missing.items() if name in needed}
    if assumed:
        after = judge(mended.with_fields(**assumed), processor)
    if after.failed:
        names = ", ".join(item.id for item in after.failed)
        raise RuntimeError(f"a repair of {vmcb.name or 'a VMCB'} does not pass {names} on integers")
    changes = changes_between(vmcb.fields, found.changed, FIELDS)
    return Repair(verdict, Answer.SAT, changes, assumed, after)


def _broken(vmcb: Vmcb, processor: SvmProcessor) -> set[str]:
    """What a VMCB violates, on some processor or as far as anybody says, or depending on memory."""
    verdict = judge(vmcb, processor)
    perhaps = {item.id for item in verdict.undecided if item.unsure or item.missing.startswith("memory")}
    return {item.id for item in (*verdict.failed, *verdict.warnings)} | perhaps


class _Generator:
    """Finds VMCBs at the edge of a check, near one that enters."""

    def __init__(self, base: Vmcb, processor: SvmProcessor) -> None:
        self.base, self.processor = base, processor
        self.formulas = VmcbFormulas(base, processor)
        violated = {check.id: self.formulas.violation(check) for check in CHECKS.values()}
        # Bits that CPUID alone tells of, where nobody said what it tells, are left alone.
        plain: dict[str, Any] = {
            name: (1 << 64) - 1 & ~by_cpuid(name, processor)
            for name in _REGISTERS
            if getattr(processor, name) is None
        }
        sure = VmcbFormulas(base, attrs.evolve(processor, **plain))
        fails = {check.id: sure.violation(check) for check in CHECKS.values()}
        holds = {name: None if word is None else ~word for name, word in fails.items()}
        self.finder = Finder(
            self.formulas.symbols,
            self.formulas.widths,
            base.fields,
            violated,
            holds,
            _WIDER,
            Effort(rlimit=5_000_000),
        )

    def _broken(self, vmcb: Vmcb) -> set[str]:
        undecided = judge(vmcb, self.processor).undecided
        waiting = {item.id for item in undecided if item.missing.startswith("CPUID")}
        return waiting | _broken(vmcb, self.processor)

    def violation(self, check_id: str, rnd: random.Random) -> Vmcb | None:
        def read(model: Model) -> Vmcb | None:
            found = _read(self.base, self.formulas, model)
            return found if self._broken(found) == {check_id} else None

        return self.finder.violation(check_id, self.formulas.reads(CHECKS[check_id]), rnd, read)

    def beside(self, vmcb: Vmcb, check_id: str, rnd: random.Random) -> tuple[Vmcb, str, int] | None:
        def passes(name: str, value: int) -> Vmcb | None:
            other = vmcb.with_fields(**{name: value})
            return other if not self._broken(other) else None

        return self.finder.beside(vmcb.fields, self.formulas.reads(CHECKS[check_id]), rnd, passes)


def _read(base: Vmcb, formulas: VmcbFormulas, model: Model) -> Vmcb:
    return base.with_fields(**{name: model(word.term) for name, word in formulas.symbols.items()})


def generate_vmcbs(check_id: str, count: int, seed: int, processor: SvmProcessor) -> Iterator[Edge]:
    """VMCBs that violate one check only and, in turn, VMCBs one bit away from it.

    Args:
        check_id: of the check.
        count: how many; where no single bit mends a violation, all of them violate the check.
        seed: the same seed gives the same VMCBs.
        processor: of which everything is known that the check asks.

    Raises:
        Impossible: no VMCB violates the check alone on this processor.
    """
    rnd = random.Random(f"{check_id} {seed}")
    made: dict[str, _Generator] = {}

    def generator(mode: str) -> _Generator:
        if mode not in made:
            made[mode] = _Generator(baseline(mode), processor)
        return made[mode]

    return alternate(
        check_id,
        count,
        rnd,
        [mode for mode in MODES if has_mode(mode, processor)],
        lambda mode: generator(mode).violation(check_id, rnd),
        lambda mode, found: generator(mode).beside(found, check_id, rnd),
        lambda: (
            f"no VMCB was found that violates {check_id} alone on this processor; see `popek vmcb rules`, "
            "and --capabilities"
        ),
    )


def ask_vmcb(processor: SvmProcessor, name: str, effort: Effort | None = None) -> Answers:
    """Ask Z3 about VMRUN's checks, with every field free; those that nobody is sure of are left out."""
    asked = [check for check in CHECKS.values() if check.certainty != "unsure"]
    unsure = [check.id for check in CHECKS.values() if check.certainty == "unsure"]
    formulas = VmcbFormulas(Vmcb(), processor, everywhere=True)
    violated: dict[str, Word] = {}
    for check in asked:
        if (where := formulas.violation(check)) is not None:
            violated[check.id] = where
    base = Vmcb(fields=dict.fromkeys(FIELDS, 0))

    def broken(model: Model) -> set[str]:
        return _broken(_read(base, formulas, model), processor) - set(unsure)

    found = standing(
        [check.id for check in asked],
        violated,
        {check_id: ~word for check_id, word in violated.items()},
        broken,
        effort or Effort(rlimit=10_000_000),
    )
    enters: Mapping[str, bool] = {
        mode: not judge(baseline(mode), processor).failed for mode in MODES if has_mode(mode, processor)
    }
    return Answers(
        name, enters, found.alone, found.never, found.shadowed, found.unknown, tuple(unsure), structure="VMCB"
    )


__all__ = ["VmcbFormulas", "ask_vmcb", "generate_vmcbs", "repair_vmcb"]
