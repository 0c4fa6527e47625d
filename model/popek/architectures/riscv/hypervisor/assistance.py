"""The hypervisor extension declared as a kind of hardware assistance."""

from __future__ import annotations

from functools import cache
from typing import Final

from popek.kernel.assistance import Assistance, Control, Necessity
from popek.kernel.machine import Machine

from .. import machine as rv64
from ..state import MANUAL, Rv64
from .arrangement import (
    CHOSEN,
    FLOATING,
    GIVEN,
    HART,
    OWNABLE,
    SECOND_STAGE,
    TOUCHES,
    USUAL,
    HypervisorProfile,
    arrange,
    is_exit,
    profile,
)
from .interrupts import INTERRUPTS
from .levels import machine
from .processor import processor
from .settings import hypervisors, read, written

SUMMARIES: Final = {
    "hstatus.vtvm": "satp, SFENCE.VMA and SINVAL.VMA exit from VS",
    "hstatus.vtw": "WFI exits from VS",
    "hstatus.vtsr": "SRET exits from VS",
    "henvcfg.stce": "the guest has its comparator, stimecmp, to itself",
    "hstateen0.se0": "the guest reaches sstateen0",
    "hstateen0.envcfg": "the guest reaches senvcfg",
    FLOATING: "mstatus.FS is not Off while the guest runs",
    SECOND_STAGE: "hgatp is not Bare",
    "mstatus.tw": "WFI traps to M, as an illegal instruction",
}


def summary(name: str) -> str:
    """What a control does at 1."""
    register, _, field = name.partition(".")
    what = field.replace("_", " ")
    known = {
        "hedeleg": f"the guest's kernel takes {what} itself",
        "medeleg": f"M sends {what} on to HS",
        "hideleg": f"the guest's kernel takes {what} itself, and sees it",
        "hcounteren": f"HS opens {what} to guests",
        "mcounteren": f"M opens {what}",
    }
    return SUMMARIES.get(name, known.get(register, f"M opens {what}"))


def necessities(owned: HypervisorProfile) -> tuple[Necessity, ...]:
    """What a profile asks for beyond single instructions."""
    found = [
        Necessity(
            "storage", SECOND_STAGE, "the guest's own tables map its addresses, and reach all of storage"
        )
    ]
    if "waiting" in owned.owns:
        why = "a guest that waits keeps the hart until something interrupts it"
        found.append(Necessity("waiting", "hstatus.vtw", why, "waiting"))
    if "translation" in owned.owns:
        why = "the fences tell of changes to the guest's tables, which are not those that are walked"
        found.append(Necessity("fences", "hstatus.vtvm", why, "translation"))
    return tuple(found)


_PLAIN_MODULES: Final = ("integer", "multiply")


@cache
def governed() -> tuple[str, ...]:
    """The forms that the extension says something about: all but those that work on the program's registers alone."""
    return tuple(
        form
        for form, instruction in machine().instructions.items()
        if instruction.semantics.__module__.rpartition(".")[2] not in _PLAIN_MODULES
        or "offset" in form
        or form in ("ECALL", "EBREAK")
    )


def _plain() -> tuple[Rv64, Rv64]:
    return Rv64.reset(prv=1), Rv64.reset(prv=1)


def _hardware() -> Machine[Rv64]:
    return rv64.build()


H: Final = Assistance[Rv64](
    "hypervisor-extension",
    "RISC-V with H",
    machine=machine,
    hardware=_hardware,
    before=(_hardware, "ring-deprivileging-u"),
    controls=(
        *(Control[Rv64](name, summary(name), leaf=name) for name in CHOSEN),
        Control[Rv64](FLOATING, summary(FLOATING)),
        Control[Rv64](SECOND_STAGE, summary(SECOND_STAGE)),
        *(Control[Rv64](name, summary(name), leaf=name, chosen=False) for name in GIVEN),
    ),
    ownable=OWNABLE,
    everything=USUAL,
    profile=profile,
    arrange=arrange,
    touches=TOUCHES,
    options={
        "hypervisor": "the guest is a hypervisor: its own hart has H (1)",
        **{name: f"the hart has {name}" for name in HART},
    },
    is_exit=is_exit,
    governed=governed,
    plain=_plain,
    necessities=necessities,
    processor=processor,
    circumstances=GIVEN,
    leaves_open=True,
    configurations=hypervisors,
    read=read,
    written=written,
    interrupts=INTERRUPTS,
    source=f'{MANUAL}, "H" Extension for Hypervisor Support',
)

__all__ = ["H", "governed", "machine", "necessities"]
