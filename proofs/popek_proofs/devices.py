"""What a guest's own device can do to the monitor: the induction of `checks/devices.py`, and traces where it fails.

Safe is said only where every question holds, those of the processor's forms among them; unsafe only with a trace that
was replayed on numbers.
"""

from __future__ import annotations

import csv
import time
from collections.abc import Iterator, Sequence
from importlib.resources import files
from typing import Any

import attrs

from popek.checks.device_rules import decided
from popek.checks.device_traces import DeviceTrace, trace
from popek.checks.devices import (
    CHANGES,
    FIDELITY,
    INTERRUPTS,
    INVARIANT,
    LEARNS,
    Attached,
    droppable,
)
from popek.checks.induction import InductionRow
from popek.checks.promises import Keeper
from popek.checks.subject import Subject
from popek.checks.verdict import Status
from popek.kernel.agents import Devices
from popek.kernel.machine import UnknownNameError
from popek.machines import devices as known_devices
from popek.machines import with_devices

BREACHES = (CHANGES, INTERRUPTS, LEARNS)
"""What a trace may show of safety, in the order in which it is looked for."""


@attrs.frozen(eq=False)
class DeviceSafety:
    """What became of one attachment.

    Attributes:
        devices: the machine with its device.
        attachment: by name.
        dropped: rules, duties and premises that are not in place, as they were asked for.
        invariant: its conjuncts, by name and in words.
        rows: the questions about the device, and about the processor's forms.
        forms: the processor's forms that were asked, and how many there are.
        traces: for the promises that are broken.
        decides: where a rule of the unit is dropped and nothing is broken: what it alone refuses; None for nothing.
        seconds: time spent.
    """

    devices: Devices[Any]
    attachment: str
    dropped: tuple[str, ...]
    invariant: tuple[tuple[str, str], ...]
    rows: tuple[InductionRow, ...]
    forms: tuple[str, ...]
    all_forms: int
    traces: tuple[DeviceTrace, ...]
    seconds: float
    decides: DeviceTrace | None = None

    @property
    def needless(self) -> bool:
        """A rule of the unit was dropped, and every promise that was asked holds without it."""
        rules = self.devices.attachments[self.attachment].rules
        holds = all(self.status(name) is Status.HOLDS for name in ("safety", FIDELITY))
        return holds and any(name in rules for name in self.dropped)

    def status(self, promise: str) -> Status:
        """`safety` or `fidelity`: holds by induction, refuted by a trace, unknown otherwise."""
        safety = promise != FIDELITY
        if any((one.promise != FIDELITY) == safety for one in self.traces):
            return Status.REFUTED
        wanted = (*BREACHES, INVARIANT, "safety") if safety else (FIDELITY, INVARIANT)
        mine = [row.status for row in self.rows if row.promise in wanted]
        return Status.HOLDS if mine and all(one is Status.HOLDS for one in mine) else Status.UNKNOWN

    def to_json(self) -> dict[str, Any]:
        """`popek/devices/1`."""
        return {
            "schema": "popek/devices/1",
            "machine": self.devices.name,
            "attachment": self.attachment,
            "dropped": list(self.dropped),
            "safety": self.status("safety").value,
            "fidelity": self.status(FIDELITY).value,
            "invariant": [{"name": name, "text": text} for name, text in self.invariant],
            "forms": {"asked": list(self.forms), "of": self.all_forms},
            "rows": [row.to_json() for row in self.rows],
            "traces": [one.to_json() for one in self.traces],
            "decides": None if self.decides is None else self.decides.to_json(),
            "left_out": list(self.devices.notes),
        }


def device_safety(
    devices: Devices[Any],
    attachment: str | None = None,
    dropped: Sequence[str] = (),
    forms: Sequence[str] | None = None,
    *,
    traces: bool = True,
) -> DeviceSafety:
    """Whether a guest that owns the device can reach what is not its own, and whether its driver sees its own device.

    Args:
        attachment: by name; the last of the machine's by default.
        forms: of the processor, by form or mnemonic; those the machine names by default; none where it is empty.
        traces: look for a trace where a promise does not hold, and for what a rule decides that is not needed.

    Raises:
        UnknownNameError: no such attachment, form, rule, duty or premise.
        VacuousError: a question ranges over nothing.
    """
    started = time.monotonic()
    attached = Attached.of(devices, attachment, dropped)
    found: list[DeviceTrace] = []
    rows: list[InductionRow] = []
    if attached.rules and traces:
        found = list(_without_rules(devices, attached, dropped))
    asked: tuple[str, ...] = ()
    if not found:
        if attached.rules:  # what no trace decides is asked of tables that serve the guest
            attached = Attached.of(devices, attachment, dropped, serving=True)
        rows = list(attached.rows())
        processor, asked = _processor(devices, attached, forms)
        rows += processor
        if traces and not attached.rules:
            found = list(_traces(attached, rows))
    result = DeviceSafety(
        devices,
        attached.attachment.name,
        tuple(dropped),
        tuple(attached.invariant()),
        tuple(rows),
        asked,
        len(attached.machine.instructions),
        tuple(found),
        time.monotonic() - started,
    )
    if traces and result.needless:
        return attrs.evolve(result, decides=decided(attached), seconds=time.monotonic() - started)
    return result


def _without_rules(
    devices: Devices[Any], attached: Attached, dropped: Sequence[str]
) -> Iterator[DeviceTrace]:
    """A trace against safety where rules of the unit are dropped; else one against fidelity, if there is one."""
    for promise in BREACHES:
        found = trace(attached, promise)
        if found is not None:
            yield found
            return
    serving = Attached.of(devices, attached.attachment.name, dropped, serving=True)
    found = trace(serving, FIDELITY)
    if found is not None:
        yield found


def _traces(attached: Attached, rows: Sequence[InductionRow]) -> Iterator[DeviceTrace]:
    """For each promise that does not hold of the device; where the invariant breaks, for any."""
    broken = {row.promise for row in rows if row.status is Status.REFUTED}
    for promise in (*BREACHES, FIDELITY):
        if promise in broken or (INVARIANT in broken and promise != FIDELITY):
            found = trace(attached, promise)
            if found is not None:
                yield found


def _processor(
    devices: Devices[Any], attached: Attached, forms: Sequence[str] | None
) -> tuple[list[InductionRow], tuple[str, ...]]:
    """Each form of the guest's: it keeps safety and fidelity, and leaves alone what the duties speak of."""
    machine = attached.machine
    names = list(devices.forms) if forms is None else list(forms)
    chosen = [one for name in names for one in machine.find(name)]
    if forms is None and not devices.forms:
        chosen = list(machine.instructions.values())
    keeper = Keeper(Subject.of(machine, attached.technique))
    rows = []
    for instruction in dict.fromkeys(chosen):
        run = keeper.subject.explore(instruction)
        kept = keeper.keeps(instruction, run)
        rows += [
            InductionRow("safety", instruction.form, kept.safety.status, kept.safety.evidence),
            InductionRow(FIDELITY, instruction.form, kept.fidelity.status, kept.fidelity.evidence),
        ]
        touched = [
            name
            for _, after in run.completions()
            for name in attached.rests_on
            if name in run.before.words() and after.words()[name].term is not run.before.words()[name].term
        ]
        if touched:
            rows.append(
                InductionRow(
                    INVARIANT, instruction.form, Status.UNKNOWN, None, f"changes {', '.join(touched)}"
                )
            )
    return rows, tuple(dict.fromkeys(one.form for one in chosen))


@attrs.frozen
class DeviceClaim:
    """What somebody says of a machine with devices: a row of `specs/popek_specs/claims/devices.csv`."""

    id: str
    machine: str
    attachment: str
    dropped: str
    promise: str
    expected: str
    says: str
    source: str


@attrs.frozen(eq=False)
class DeviceClaimVerdict:
    """What became of a claim."""

    claim: DeviceClaim
    verdict: Status
    found: DeviceSafety

    @property
    def unexpected(self) -> bool:
        """It turned out otherwise."""
        return self.verdict.value != self.claim.expected

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {
            **attrs.asdict(self.claim),
            "verdict": self.verdict.value,
            "traces": [t.to_json() for t in self.found.traces],
        }


def device_claims() -> tuple[DeviceClaim, ...]:
    """Those that come with popek."""
    text = files("popek_specs").joinpath("claims", "devices.csv").read_text(encoding="utf-8")
    return tuple(DeviceClaim(**row) for row in csv.DictReader(text.splitlines()))


def check_device_claim(claim: DeviceClaim) -> DeviceClaimVerdict:
    """Ask what a claim says; of the processor's forms nothing is asked."""
    found = device_safety(with_devices(claim.machine), claim.attachment, claim.dropped.split(), forms=())
    return DeviceClaimVerdict(claim, found.status(claim.promise), found)


@attrs.frozen
class WithDevices:
    """A machine whose processor alone is asked elsewhere, with its device.

    Attributes:
        machine: by name, as the atlas has it.
        device: for people.
        alone: the way without remapping, and safety there.
        confined: the way that confines the device, and safety there.
        fidelity: there.
    """

    machine: str
    device: str
    alone: tuple[str, Status]
    confined: tuple[str, Status]
    fidelity: Status

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "machine": self.machine,
            "device": self.device,
            "alone": {"attachment": self.alone[0], "safety": self.alone[1].value},
            "confined": {"attachment": self.confined[0], "safety": self.confined[1].value},
            "fidelity": self.fidelity.value,
        }


def with_and_without(machine: str) -> WithDevices | None:
    """A machine with its device, as it is and confined; None where no device is known of the machine."""
    for make in known_devices().values():
        devices = make()
        if machine in (devices.machine().name, *devices.stands_for):
            first, *_, last = devices.attachments
            alone, confined = (
                device_safety(devices, way, forms=(), traces=way == first) for way in (first, last)
            )
            return WithDevices(
                machine,
                devices.agent.title,
                (first, alone.status("safety")),
                (last, confined.status("safety")),
                _refuted_by_rows(confined),
            )
    return None


def _refuted_by_rows(found: DeviceSafety) -> Status:
    """Fidelity, where no trace was looked for: a row that is refuted refutes it."""
    rows = [row.status for row in found.rows if row.promise == FIDELITY]
    return Status.REFUTED if Status.REFUTED in rows else found.status(FIDELITY)


def claim_named(name: str) -> DeviceClaim:
    """A claim by its id.

    Raises:
        UnknownNameError: there is none.
    """
    known = {claim.id: claim for claim in device_claims()}
    if name not in known:
        raise UnknownNameError("claim about devices", name, known)
    return known[name]


__all__ = [
    "DeviceClaim",
    "DeviceClaimVerdict",
    "DeviceSafety",
    "WithDevices",
    "check_device_claim",
    "claim_named",
    "device_claims",
    "device_safety",
    "droppable",
    "with_and_without",
]
