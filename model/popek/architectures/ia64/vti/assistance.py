"""VT-i declared as a kind of hardware assistance."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Any, Final

from popek.kernel import assistance as declared
from popek.kernel.assistance import Assistance, AssistanceError, Control, Processor, Settings
from popek.kernel.machine import Machine
from popek.kernel.words import Word

from ..access import PROMOTION, entry_of
from ..interruptions import VIRTUALIZATION
from ..machine import ASSUMPTIONS, build
from ..state import Ia64
from .arrangement import ACCELERATIONS, BITS, DISABLES, OWNABLE, TOUCHES, USUAL, VtiProfile, arrange
from .configuration import (
    UNNUMBERED,
    VAC_BITS,
    VDC_BITS,
    ConfigurationError,
    VtiConfiguration,
    from_mapping,
    parsed,
)
from .rules import BIT_RULES, RULES

LATER: Final = "later"
"""The processor that has every bit of the later manuals."""

_FLAGS: Final = {
    "ORDERLY": "above CPL 0 the guest runs with translation and interruption collection on (1)",
    "SMALL_CPUID": "the guest's processor has at most five CPUID registers, as the VPD has (1)",
    "NARROW": "the guest is told that its processor implements one address bit less (1)",
}


@cache
def machine() -> Machine[Ia64]:
    """Itanium, made once for all questions about the bits."""
    return build()


def _profile(owns: frozenset[str], assume: Mapping[str, int], lacks: Iterable[str]) -> VtiProfile:
    flags = {name.lower(): bool(assume[name]) for name in _FLAGS if name in assume}
    readings = {name.lower(): value for name, value in assume.items() if name in ASSUMPTIONS}
    return VtiProfile(frozenset(OWNABLE) - owns, assumed=readings, **flags)


def _processor(name: str | None) -> Processor:
    if name not in (None, "montecito", LATER):
        raise AssistanceError(f"{name}: expected montecito, or {LATER} for one with {', '.join(UNNUMBERED)}")
    bits = {control: Control[Ia64](control, leaf=leaf).symbol for control, leaf in BITS.items()}
    absent = () if name == LATER else UNNUMBERED

    def fields(profile: Any, setting: Mapping[str, int], number: Callable[[Word], int]) -> Mapping[str, int]:
        return {
            word: sum(setting[bit] << place for bit, place in places.items())
            for word, places in (("vac", VAC_BITS), ("vdc", VDC_BITS))
        }

    return Processor(
        name or "montecito",
        bits,
        {
            "V1: PAL refuses a_int with d_extint": ~(bits["a_int"] & bits["d_extint"]),
            **{f"there is no {control}": ~bits[control] for control in absent},
        },
        tuple(bits.values()),
        missing=lambda control: "a bit of later processors" if control in absent else "",
        fields=fields,
        layout=lambda field, value: (
            64,
            [(n, n, name, "") for name, n in (VAC_BITS if field == "vac" else VDC_BITS).items()],
        ),
    )


def _settings(configuration: VtiConfiguration, only: Iterable[str] | None = None) -> Settings:
    """What a configuration says of everything on which an instruction may depend."""
    bits = {name: configuration.bit(name) for name in (*ACCELERATIONS, *DISABLES)}
    setting = {name: int(value) for name, value in bits.items() if value is not None}
    if configuration.promotion_pages is False:
        setting["promotion_pages"] = 0
    setting["si"] = 1 if configuration.machine_psr is None else configuration.machine_psr >> 23 & 1
    chosen = [rule for rule in RULES if only is None or rule.id in set(only)]
    judged = tuple(
        declared.Rule(
            rule.id,
            rule.text,
            rule.consequence.value,
            rule.why,
            rule.confidence,
            rule.source,
            rule.kept(configuration),
        )
        for rule in chosen
    )
    features = () if any(rule.id == "V12" and rule.kept is False for rule in judged) else ("features",)
    return Settings(
        configuration.name,
        "file" if only is None else "command line",
        {**dict.fromkeys(UNNUMBERED, 0), **setting},
        grants=(*configuration.dedicated, *features),
        rules=judged,
    )


def read(name: str, data: bytes) -> list[Settings]:
    """The configuration in a TOML or (by its suffix `.json`) JSON file.

    Raises:
        AssistanceError: it does not describe a configuration.
    """
    try:
        return [_settings(parsed(name, data))]
    except ConfigurationError as error:
        raise AssistanceError(str(error)) from None


def written(fields: Mapping[str, str]) -> Settings:
    """A configuration from fields, such as vac=0x7f and vdc=1: rules that look at others are not asked.

    Raises:
        AssistanceError: no such field, or not of its kind.
    """
    if not {"vac", "vdc"} <= set(fields):
        raise AssistanceError("expected both vac and vdc, such as --set vac=0x7f --set vdc=0x1")
    try:
        return _settings(from_mapping(fields, name="command line"), BIT_RULES)
    except ConfigurationError as error:
        raise AssistanceError(str(error)) from None


VT_I: Final = Assistance[Ia64](
    "vt-i",
    "Itanium with VT-i",
    machine=machine,
    hardware=machine,
    before=(machine, "ring-deprivileging-pl1"),
    controls=(
        *(Control[Ia64](name, leaf=leaf) for name, leaf in BITS.items()),
        Control[Ia64](
            "promotion_pages",
            "the guest executes a page with access right 7",
            chosen=False,
            mentioned="features.vmsw_enabled",
            holds=lambda hardware, private: entry_of(hardware, hardware.ip).ar == PROMOTION,
        ),
        Control[Ia64](
            "si",
            "PSR.si is 1 while the guest runs",
            chosen=False,
            mentioned="features.gitc",
            holds=lambda hardware, private: private.psr.si,
        ),
    ),
    ownable=OWNABLE,
    everything=USUAL,
    profile=_profile,
    arrange=arrange,
    touches=TOUCHES,
    options={**ASSUMPTIONS, **_FLAGS},
    is_exit=lambda trap: trap.vector is VIRTUALIZATION,
    plain=lambda: (_plain(), _plain()),
    processor=_processor,
    circumstances={"promotion_pages": 1, "si": 1},
    leaves_open=True,
    read=read,
    written=written,
    source="Intel Itanium SDM rev. 2.3, vol. 2, chapter 11",
)


def _plain() -> Ia64:
    return Ia64.reset(psr__ic=1, psr__dt=1, psr__it=1, psr__rt=1, psr__i=1, psr__si=1)
