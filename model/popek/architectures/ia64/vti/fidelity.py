"""What fidelity and safety ask of the acceleration and disable bits, instruction by instruction.

From every guest state S and everything P that the VMM may own, the hardware is in f(S, P)
(`technique.virtual_machine`).  An instruction is

* unfaithful where it completes on the hardware, and on the guest's machine traps or gives a state that
  f does not map to what the hardware has now;
* unsafe where it completes on the hardware and changes what the VMM owns, PSR.vm first of all.

A Virtualization fault, or any other interruption, gives the VMM control and is always faithful: the
VMM finishes what the guest's machine would do.  The control bits are symbols of P.  This module only
states the questions; `requirements` has them answered for every setting of the bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Final, Protocol

import attrs

from popek.kernel import terms
from popek.kernel.exploration import Path
from popek.kernel.instruction import Instruction
from popek.kernel.memory import Memory
from popek.kernel.outcome import Next, Outcome, Trap
from popek.kernel.words import FALSE, TRUE, Word, any_of

from ..access import PROMOTION, entry_of
from ..deprivileging import BANK_0, CLOCKS, FILES, OWN_PSR, orderly, promises
from ..interruptions import VIRTUALIZATION
from ..state import Ia64, invariant
from .technique import virtual_machine

PRIVATE: Final = "'"  # suffix of the symbols of P

ACCELERATIONS: Final = (
    "a_int",
    "a_from_int_cr",
    "a_to_int_cr",
    "a_from_psr",
    "a_from_cpuid",
    "a_cover",
    "a_bsw",
    "a_tf",
    "a_ic_um",
)
DISABLES: Final = ("d_vmsw", "d_extint", "d_ibr_dbr", "d_pmc", "d_to_pmd", "d_itm", "d_psr_i")
OTHER_SETTINGS: Final = ("promotion_pages", "si")
KNOBS: Final = (*ACCELERATIONS, *DISABLES, *OTHER_SETTINGS)

# What a VMM may leave to the guest (rules V5 to V8: "unless dedicated", "unless switched").
GRANTS: Final[Mapping[str, tuple[str, ...]]] = {
    "kernel-registers": ("kr",),
    "counters": ("pmc", "pmd"),
    "dcr": ("cr.dcr",),
    "debug": ("ibr", "dbr"),
    "external-interrupts": (
        "cr.ivr", "cr.tpr", "cr.irr0", "cr.irr1", "cr.irr2", "cr.irr3", "in_service",
    ),
    "timer": ("cr.itm",),
    "features": (),  # the guest is shown the processor's own CPUID[4]{63:32} (rule V12)
}  # fmt: skip


class Explored(Protocol):
    """All that one instruction can do from a symbolic state (`popek.checks.runs.Run`)."""

    @property
    def before(self) -> Ia64: ...  # noqa: D102
    @property
    def paths(self) -> tuple[Path[Outcome[Ia64]], ...]: ...  # noqa: D102
    @property
    def operands(self) -> Mapping[str, Word]: ...  # noqa: D102
    def at(self, before: Ia64) -> Explored: ...  # noqa: D102


@attrs.frozen
class Profile:
    """What the VMM grants and what it may count on.

    Attributes:
        grants: names of `GRANTS`: components that hold the guest's values and are not the VMM's.
        orderly: above CPL 0 the guest runs with translation and interruption collection on.
        small_cpuid: the guest's processor has at most five CPUID registers, as the VPD has.
        narrow: the guest is told that its processor implements one address bit less, as PSR.vm leaves it.
        assumed: settings of the open points in the sources (`Ia64.assume`), by name; 0 when missing.
    """

    grants: frozenset[str] = frozenset({"kernel-registers", "dcr"})
    orderly: bool = True
    small_cpuid: bool = True
    narrow: bool = True
    assumed: Mapping[str, int] = attrs.field(factory=dict)

    @property
    def given(self) -> tuple[str, ...]:
        """The granted components."""
        return tuple(name for grant in sorted(self.grants) for name in GRANTS[grant])


@attrs.frozen(eq=False)
class Obligation:
    """One instruction on the guest's machine and on the hardware.

    Attributes:
        guest, hardware: the two runs.
        assumed: conditions under which they are compared.
        differs: per component, the condition that it completes on the hardware and fidelity fails there;
            "trap" where the guest's machine traps.
        changed: per component, the condition that it completes and something of the VMM's changes.
        knobs: the settings the instruction depends on, each with its condition of being 1.
        private: what the VMM owns, as symbols.
        image: the hardware state from a guest state and a private one.
    """

    instruction: Instruction
    guest: Explored
    hardware: Explored
    assumed: tuple[Word, ...]
    differs: Mapping[str, Word]
    changed: Mapping[str, Word]
    knobs: Mapping[str, Word]
    private: Ia64
    image: Callable[[Ia64, Ia64], Ia64]

    @property
    def unfaithful(self) -> Word:
        """It completes on the hardware and fails fidelity (width 1)."""
        return any_of(self.differs.values())

    @property
    def unsafe(self) -> Word:
        """It completes on the hardware and changes what the VMM owns (width 1)."""
        return any_of(self.changed.values())

    @property
    def completes(self) -> Word:
        """It completes on the hardware (width 1)."""
        return any_of(path.condition for path in self.hardware.paths if isinstance(path.result, Next))

    @property
    def intercepted(self) -> Word:
        """It ends in a Virtualization fault (width 1)."""
        return any_of(
            path.condition
            for path in self.hardware.paths
            if isinstance(path.result, Trap) and path.result.vector is VIRTUALIZATION
        )

    def under(self, setting: Mapping[str, int]) -> list[Word]:
        """The conditions that say a setting of the knobs."""
        return [self.knobs[name] == value for name, value in setting.items() if name in self.knobs]


def obligation(
    instruction: Instruction, run: Explored, profile: Profile, fixed: Mapping[str, int] | None = None
) -> Obligation:
    """The two runs of one instruction, and what would make it unfaithful or unsafe.

    Args:
        fixed: control bits by name, where they are not left open.
    """
    readings = {f"assume.{name}": profile.assumed.get(name, 0) for name in _assumptions()}
    private = Ia64.symbolic(PRIVATE).with_changes({"features.vm": 1, "psr.vm": 0, **readings})
    groups = {**dict.fromkeys(ACCELERATIONS, "vac"), **dict.fromkeys(DISABLES, "vdc")}
    private = private.with_changes({f"{groups[n]}.{n}": v for n, v in (fixed or {}).items() if n in groups})
    shown = {"psr.vm": 0, "features.vm": 0, "features.narrow": int(profile.narrow)}
    start = run.before.with_changes({**shown, **readings})
    image = partial(_image, profile.given)
    mapped = image(start, private)
    guest, hardware = run.at(start), run.at(mapped)
    assumed = (
        invariant(start),
        invariant(mapped),
        instruction.valid(run.operands),
        promises(start, private),
        *_orderly(start, profile),
        *_shared(start, private, profile),
    )
    differs, changed = failures(guest, hardware, profile.given)
    knobs = _knobs(hardware, private)
    return Obligation(instruction, guest, hardware, assumed, differs, changed, knobs, private, image)


def _image(given: Sequence[str], guest: Ia64, private: Ia64) -> Ia64:
    """f(S, P), with the hardware's clocks, offset included, at the guest's: time is outside fidelity."""
    hardware = virtual_machine(guest, private, given, idle=private)
    offset = hardware.features.gitc.sign_extend(64) & hardware.ito
    for clock in CLOCKS:
        hardware[clock] = guest[clock] - offset
    return hardware


def _assumptions() -> Iterable[str]:
    return (leaf.name.removeprefix("assume.") for leaf in Ia64.leaves if leaf.name.startswith("assume."))


def _orderly(guest: Ia64, profile: Profile) -> list[Word]:
    conditions = []
    if profile.orderly:
        conditions.append(orderly(guest))
    if profile.small_cpuid:
        conditions.append(guest.cpuid.load(Word(8, 3))[7:0] <= 4)
    return conditions


def _shared(guest: Ia64, private: Ia64, profile: Profile) -> list[Word]:
    """What the VMM shows of the real processor."""
    if "features" not in profile.grants:
        return []
    four = Word(8, 4)
    return [guest.cpuid.load(four)[63:32] == private.cpuid.load(four)[63:32]]


Failures = dict[str, Word]


def failures(
    guest: Explored, hardware: Explored, given: Sequence[str], places: Mapping[str, int] | None = None
) -> tuple[Failures, Failures]:
    """Where fidelity and where safety can fail, by component.

    Args:
        given: components that hold the guest's values.
        places: where storage is compared, by its name; anywhere by default.
    """
    # The guest's view of what has no place in hardware or VPD is the VMM's copy: it must not go stale.
    kept = [name for name in ("kr", *FILES, "tc_purged", "in_service") if name not in given]
    own = [
        "psr.vm",
        *(f"psr.{name}" for name in OWN_PSR),
        *(n for n in _owned_components() if n not in given),
    ]
    differs: dict[str, Word] = {}
    changed: dict[str, Word] = {}
    for path in hardware.paths:
        if not isinstance(path.result, Next):
            continue
        here, done = path.condition, path.result.state
        _note(changed, here, _different(hardware.before, done, places, only=own))
        for other in guest.paths:
            both = here & other.condition
            if both.value == 0:
                continue
            if not isinstance(other.result, Next):
                _note(differs, both, {"trap": TRUE})
                continue
            after = other.result.state
            image = virtual_machine(after, done, given, idle=done)
            _note(differs, both, _different(done, image, places, skip=CLOCKS))
            _note(differs, both, _different(guest.before, after, places, only=kept))
    return differs, changed


def _note(found: dict[str, Word], when: Word, conditions: Mapping[str, Word]) -> None:
    for name, condition in conditions.items():
        found[name] = found.get(name, FALSE) | (when & condition)


def _owned_components() -> list[str]:
    controls = [s.name for s in Ia64.layout if s.name.startswith("cr.")]
    return [*controls, "in_service", "tc_purged", "kr", "translations", *FILES, *CLOCKS, *BANK_0]


def _different(
    a: Ia64,
    b: Ia64,
    places: Mapping[str, int] | None,
    *,
    only: Sequence[str] | None = None,
    skip: Sequence[str] = (),
) -> dict[str, Word]:
    """Per word component (or leaf, where `only` names one) and storage, the condition that they differ."""
    storage = a.memories()
    names = only if only is not None else [*a.words(), *storage]
    found: dict[str, Word] = {}
    for name in names:
        if name in skip:
            continue
        differ = (
            _cells_differ(name, storage[name], b.memories()[name], places)
            if name in storage
            else a[name] != b[name]
        )
        if differ.value != 0:
            found[name] = differ
    return found


def _cells_differ(name: str, a: Memory, b: Memory, places: Mapping[str, int] | None) -> Word:
    if a is b:
        return FALSE
    where = probe(name, a) if places is None else Word(a.address_width, places[name])
    return a.load(where) != b.load(where)


def probe(name: str, storage: Memory) -> Word:
    """The address at which two contents of a storage are compared: any."""
    return Word(storage.address_width, terms.var(f"probed address in {name}", storage.address_width))


def _knobs(hardware: Explored, private: Ia64) -> dict[str, Word]:
    """The settings that the run depends on: those its conditions and its results mention."""
    conditions = [condition for path in hardware.paths for condition in path.conditions]
    results = []
    for path in hardware.paths:
        if isinstance(path.result, Next):
            done = path.result.state
            results += [new.term for name, new in done.words().items() if name.startswith("psr")]
            changed = (n for n, content in done.memories().items() if content.stores)
            results += [
                content.load(probe(n, content)).term for n in changed for content in [done.memories()[n]]
            ]
    used = set(terms.variables_of([*conditions, *results]))
    found = {
        name: private[f"{group}.{name}"]
        for group, names in (("vac", ACCELERATIONS), ("vdc", DISABLES))
        for name in names
        if f"{group}.{name}{PRIVATE}" in used
    }
    if f"features.vmsw_enabled{PRIVATE}" in used:
        found["promotion_pages"] = entry_of(hardware.before, hardware.before.ip).ar == PROMOTION
    if f"features.gitc{PRIVATE}" in used:
        found["si"] = private.psr.si
    return found
