"""The VT-x controls that own what a VMM wants to own, enter, and exit least: MaxSAT over the control words.

Hard are the requirement of every instruction that a control decides about, what must reach the VMM whatever
instruction runs, and every VM-entry check on the processor; each wish is that an instruction exits in no case in
which some other faithful and safe setting lets it run.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import attrs

from popek.architectures.requirements import Requirement
from popek.architectures.vtx.baselines import baseline
from popek.architectures.vtx.capabilities import Capabilities, CapabilityView
from popek.architectures.vtx.entry_checks import CHECKS
from popek.architectures.vtx.operation.fidelity import CONTROLS, COVERS
from popek.architectures.vtx.operation.ownership import FEATURES, Profile
from popek.architectures.vtx.operation.settings import FIELDS, bit_numbers
from popek.architectures.vtx.verdict import Verdict, judge
from popek.architectures.vtx.vmcs import Vmcs
from popek.kernel.words import Word, all_of, any_of, symbol
from popek.solving.optimize import Choices, cheapest
from popek.solving.solver import Answer, Effort
from popek.vmcs.formulas import Formulas

from .vtx_requirements import derive, duty, excess, governed_forms

_MAY: Final = {"pin": "pin_may", "primary": "pri_may", "secondary": "sec_may"}
_MSRS: Final = {
    "pin": "IA32_VMX_PINBASED_CTLS",
    "primary": "IA32_VMX_PROCBASED_CTLS",
    "secondary": "IA32_VMX_PROCBASED_CTLS2",
}
ACTIVATE: Final = 31
_EXIT: Final = 1_000  # outweighs the preference for few bits


class WeightsError(ValueError):
    """A file of weights cannot be used; the message is one line."""


@attrs.frozen
class Necessity:
    """Something that must reach the VMM, or be kept from the guest, whatever instruction runs.

    Attributes:
        control: what must be 1.
        why: one clause.
    """

    name: str
    control: str
    why: str


def necessities(owned: Profile) -> tuple[Necessity, ...]:
    """What the ownership profile asks for beyond single instructions."""
    found = []
    if "cr3" not in owned.owns:
        why = "the guest's own page tables map guest-physical addresses; without EPT they reach all of memory"
        found.append(Necessity("memory", "secondary.enable_ept", why))
    if "interrupts" in owned.owns:
        why = "an external interrupt would go through the guest's IDT"
        found.append(Necessity("external interrupts", "pin.external_interrupt_exiting", why))
    if "nmis" in owned.owns:
        found.append(Necessity("NMIs", "pin.nmi_exiting", "an NMI would go through the guest's IDT"))
    return tuple(found)


@attrs.frozen
class Missing:
    """A control that something needs and the processor does not have."""

    control: str
    needed_by: tuple[str, ...]
    msr: str
    bit: int


@attrs.frozen
class Synthesis:
    """The answer.

    Attributes:
        answer: SAT: the rest is filled in; UNSAT: see `core` and `missing`; UNKNOWN: out of effort.
        owned: the profile, with the features that the processor lacks hidden from the guest.
        controls: every control of the model by name, and its value.
        covers: masks and bitmaps that must be 1 wherever the VMM owns something.
        fields: the VMCS fields that were chosen.
        exits: forms that may exit; `native`: forms that a control decides about and that never do.
        core: what cannot all hold; none of it can be spared.
        missing: capabilities that something in the core needs.
        verdict: of the VM-entry checks on the chosen fields.
    """

    answer: Answer
    owned: Profile
    controls: Mapping[str, int] = attrs.field(factory=dict)
    covers: Mapping[str, int] = attrs.field(factory=dict)
    fields: Mapping[str, int] = attrs.field(factory=dict)
    exits: tuple[str, ...] = ()
    native: tuple[str, ...] = ()
    cost: float = 0.0
    core: tuple[str, ...] = ()
    missing: tuple[Missing, ...] = ()
    verdict: Verdict | None = None

    def to_json(self) -> dict[str, Any]:
        """`popek/vtx-synthesis/1`."""
        found: dict[str, Any] = {
            "schema": "popek/vtx-synthesis/1",
            "feasible": {Answer.SAT: "yes", Answer.UNSAT: "no"}.get(self.answer, "unknown"),
            "owns": sorted(self.owned.owns),
            "hidden": sorted(self.owned.unknown_mnemonics),
        }
        if self.answer is Answer.SAT:
            found["fields"] = {name: hex(value) for name, value in self.fields.items()}
            found["controls"] = {name: value for name, value in self.controls.items() if value}
            found["covers"] = dict(self.covers)
            found["exits"], found["native"] = list(self.exits), list(self.native)
            found["entry"] = None if self.verdict is None else self.verdict.outcome.kind
        else:
            found["core"] = list(self.core)
            found["missing"] = [attrs.asdict(item) for item in self.missing]
        return found


def load_weights(path: str) -> Mapping[str, float]:
    """How often each mnemonic runs, from a TOML file of `MNEMONIC = number`.

    Raises:
        WeightsError: the file cannot be read, or is something else.
    """
    try:
        found = tomllib.loads(Path(path).read_text("utf-8"))
    except OSError as error:
        raise WeightsError(f"{path}: {error.strerror or error}") from None
    except ValueError as error:
        raise WeightsError(f"{path}: not TOML: {error}") from None
    for name, value in found.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
            raise WeightsError(f"{path}: {name}: expected a number, 0 or more, not {value!r}")
    return {name: float(value) for name, value in found.items()}


def hidden_features(capabilities: Capabilities) -> frozenset[str]:
    """The features of `FEATURES` that the processor cannot give to a guest."""
    cap = CapabilityView(capabilities)
    numbers = bit_numbers()
    return frozenset(name for name in FEATURES if not _may(cap, name, numbers))


def _may(cap: CapabilityView, control: str, numbers: Mapping[str, int]) -> bool:
    if control.startswith("secondary.") and not cap.pri_may >> ACTIVATE & 1:
        return False
    return bool(getattr(cap, _MAY[control.partition(".")[0]]) >> numbers[control] & 1)


def synthesize(
    capabilities: Capabilities,
    owned: Profile,
    *,
    weights: Mapping[str, float] | None = None,
    progress: Callable[[int, int], None] | None = None,
    effort: Effort | None = None,
) -> Synthesis:
    """The controls with the fewest exits among those that are faithful and safe and enter.

    Args:
        weights: how often an instruction runs, by mnemonic; 1 when missing.
    """
    owned = attrs.evolve(owned, hidden=owned.hidden | hidden_features(capabilities))
    forms = governed_forms()
    done = 0

    def step() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, len(forms))

    requirements = [row.requirement for row in derive(forms, owned, progress=step)]
    return _Problem(capabilities, owned, requirements, weights or {}).solve(
        effort or Effort(rlimit=200_000_000)
    )


class _Problem:
    """The words to be chosen, and what must hold of them."""

    def __init__(
        self,
        capabilities: Capabilities,
        owned: Profile,
        requirements: Sequence[Requirement],
        weights: Mapping[str, float],
    ) -> None:
        self.capabilities, self.owned, self.requirements, self.weights = (
            capabilities,
            owned,
            requirements,
            weights,
        )
        self.numbers = bit_numbers()
        self.start = baseline("32-bit", capabilities)
        known = {name: value for name, value in self.start.fields.items() if name not in FIELDS.values()}
        known["EXCEPTION_BITMAP"] = 0
        self.formulas = Formulas(attrs.evolve(self.start, fields=known), capabilities, FIELDS.values())
        self.cover = {name: symbol(f"{name} covers", 1) for name in COVERS}

    def knob(self, name: str) -> Word:
        """A knob as a condition (width 1) on the control words; secondary controls as they take effect."""
        if name in COVERS:
            return self.cover[name]
        group = name.partition(".")[0]
        bit = self.formulas.symbols[FIELDS[group]][self.numbers[name]]
        return bit & self.formulas.symbols[FIELDS["primary"]][ACTIVATE] if group == "secondary" else bit

    def at(self, requirement: Requirement, settings: frozenset[tuple[int, ...]]) -> Word:
        """The knobs have one of these settings (width 1)."""
        knobs = [self.knob(name) for name in requirement.knobs]
        return any_of(all_of(k == v for k, v in zip(knobs, values, strict=True)) for values in settings)

    def hard(self) -> dict[str, Word]:
        """Everything that must hold, by name."""
        found = {f"instruction {r.form}": self.at(r, r.sound) for r in self.requirements}
        found |= {n.name: self.knob(n.control) == 1 for n in necessities(self.owned)}
        for check in CHECKS.values():
            violated = self.formulas.worst(check) if check.certainty == "must" else None
            if violated is not None and violated.value != 0:
                found[f"check {check.id}"] = ~violated
        return found

    def wishes(self) -> list[tuple[Word, int]]:
        """No exit that another setting spares; then few bits."""
        found, seen = [], set()
        for requirement in self.requirements:
            if requirement.mnemonic in seen or len(requirement.sound) < 2:
                continue
            seen.add(requirement.mnemonic)
            spared = excess(duty(requirement.form, self.owned), requirement)
            weight = round(_EXIT * self.weights.get(requirement.mnemonic, 1.0))
            if spared and weight:
                found.append((~self.at(requirement, spared), weight))
        for field in FIELDS.values():
            word = self.formulas.symbols[field]
            found += [(word[number] == 0, 1) for number in range(32)]
        return found + [(bit == 0, 1) for bit in self.cover.values()]

    def solve(self, effort: Effort) -> Synthesis:
        """The cheapest choice, or why there is none."""
        hard = self.hard()
        if any(condition.value == 0 for condition in hard.values()):
            return self.reason({n: c for n, c in hard.items() if c.value == 0}, effort)
        found = cheapest(hard.values(), self.wishes(), effort)
        if found.model is None:
            return (
                self.reason(hard, effort)
                if found.answer is Answer.UNSAT
                else Synthesis(found.answer, self.owned)
            )
        model = found.model
        chosen = {field: model(self.formulas.symbols[field].term) & 0xFFFFFFFF for field in FIELDS.values()}
        covers = {name: model(bit.term) for name, bit in self.cover.items()}
        values = {name: chosen[FIELDS[name.partition(".")[0]]] >> self.numbers[name] & 1 for name in CONTROLS}
        if not chosen["PRIMARY_PROC_CONTROLS"] >> ACTIVATE & 1:
            values |= {name: 0 for name in CONTROLS if name.startswith("secondary.")}
        fields = dict(chosen)
        fields["CR0_GUEST_HOST_MASK"] = self.owned.cr0 * covers["cr0_mask"]
        fields["CR4_GUEST_HOST_MASK"] = self.owned.cr4 * covers["cr4_mask"]
        verdict = judge(self.entering(fields), self.capabilities)
        if verdict.failed:
            names = ", ".join(item.id for item in verdict.failed)
            raise RuntimeError(f"the synthesized controls do not pass {names} on integers")
        setting = {**values, **covers}
        exits = [r.form for r in self.requirements if self._at(r, setting) in r.intercepts]
        native = [r.form for r in self.requirements if r.knobs and r.form not in exits]
        return Synthesis(
            Answer.SAT, self.owned, values, covers, fields, tuple(exits), tuple(native), verdict=verdict
        )

    @staticmethod
    def _at(requirement: Requirement, setting: Mapping[str, int]) -> tuple[int, ...]:
        return tuple(setting[name] for name in requirement.knobs)

    def entering(self, fields: Mapping[str, int]) -> Vmcs:
        """The VMCS that was judged: the plain one of a 32-bit guest, with these fields."""
        return self.start.with_fields(EXCEPTION_BITMAP=0, **fields)

    def reason(self, hard: Mapping[str, Word], effort: Effort) -> Synthesis:
        """What cannot all hold, and which capability that wants for."""
        core = Choices(hard, effort).core(tuple(hard)) or tuple(hard)
        cap = CapabilityView(self.capabilities)
        needs: dict[str, list[str]] = {}
        for requirement in self.requirements:
            if f"instruction {requirement.form}" in core:
                for place, name in enumerate(requirement.knobs):
                    if name in CONTROLS and all(setting[place] for setting in requirement.sound):
                        needs.setdefault(name, []).append(requirement.form)
        for necessity in necessities(self.owned):
            if necessity.name in core:
                needs.setdefault(necessity.control, []).append(necessity.name)
        missing = tuple(
            Missing(name, tuple(by), _MSRS[name.partition(".")[0]], 32 + self.numbers[name])
            for name, by in needs.items()
            if not _may(cap, name, self.numbers)
        )
        return Synthesis(Answer.UNSAT, self.owned, core=core, missing=missing)


__all__ = [
    "Missing", "Necessity", "Synthesis", "WeightsError", "hidden_features", "load_weights",
    "necessities", "synthesize",
]  # fmt: skip
