"""PAL's virtual-processor procedures as state transformers (vol. 2, chapter 11; indices in `vti.toml`).

A procedure takes the platform and its arguments, checks its pre-conditions in order, and returns a status
with the platform it leaves.  With a status other than OK nothing changes.  Which error code a violated
pre-condition gives is known where the manual's page was read: -1 with VM features off, -2 for a pair
of vac and vdc that is not supported; the other codes are taken to be -2 as well (confidence L).
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from typing import Final

import attrs

from .configuration import FACTS, OPTIONS, VAC_BITS, VDC_BITS, VtiConfiguration
from .rules import PREDICATES


class PalStatus(enum.IntEnum):
    """What a procedure returns."""

    OK = 0
    UNIMPLEMENTED = -1
    INVALID_ARGUMENT = -2
    ERROR = -3
    UNSUPPORTED_FEATURE_SET = -8


INDEX: Final[Mapping[str, int]] = {row["name"]: row["index"] for row in FACTS["procedures"]}
BUFFER_ALIGNMENT: Final = 4096
VPD_ALIGNMENT: Final[int] = FACTS["vpd"]["alignment"]
IMPLEMENTATION_SPECIFIC: Final = 1 << FACTS["config_options"]["implementation_specific"]
KNOWN_OPTIONS: Final = sum(1 << bit for bit in OPTIONS.values()) | IMPLEMENTATION_SPECIFIC


@attrs.frozen
class Vpd:
    """The fields of a virtual processor descriptor that PAL looks at."""

    base: int
    vac: int = 0
    vdc: int = 0
    virt_env_vaddr: int = 0


@attrs.frozen
class VirtualProcessor:
    """A virtual processor that PAL knows.

    Attributes:
        host_ivt: the IVT of the VMM for interruptions of this guest.
        handler: where intercepts go, instead of the virtualization vector.
    """

    vpd: Vpd
    host_ivt: int
    handler: int | None = None


@attrs.frozen
class PalEnvironment:
    """What PAL_VP_INIT_ENV set up on a logical processor."""

    options: int
    physical: int
    virtual: int

    def option(self, name: str) -> bool:
        """A bit of config_options by name."""
        return bool(self.options >> OPTIONS[name] & 1)


@attrs.frozen
class Platform:
    """One logical processor as PAL sees it.

    Attributes:
        vm_features: feature bit 40 is available and on.
        gitc: PAL advertises the offset of AR.ITC.
        environment: after PAL_VP_INIT_ENV.
        processors: by base of the VPD.
        current: base of the VPD whose state is in the processor, between RESTORE and SAVE.
        iva: where interruptions go.
    """

    vm_features: bool = True
    gitc: bool = False
    environment: PalEnvironment | None = None
    processors: Mapping[int, VirtualProcessor] = attrs.field(factory=dict)
    current: int | None = None
    iva: int = 0


Result = tuple[PalStatus, Platform]


def intercept_vector(platform: Platform) -> int:
    """Where a Virtualization intercept of the current virtual processor goes."""
    if platform.current is None:
        raise ValueError("no virtual processor is in the processor")
    processor = platform.processors[platform.current]
    if processor.handler is not None:
        return processor.handler
    return processor.host_ivt + int(FACTS["vectors"]["virtualization"])


def vp_info(platform: Platform, feature_set: int = 0) -> Result:
    """PAL_VP_INFO: for virtual processors; a real one never implements it."""
    return (PalStatus.UNSUPPORTED_FEATURE_SET if feature_set else PalStatus.UNIMPLEMENTED), platform


def vp_env_info(platform: Platform) -> tuple[PalStatus, frozenset[str]]:
    """PAL_VP_ENV_INFO: which options exist."""
    if not platform.vm_features:
        return PalStatus.UNIMPLEMENTED, frozenset()
    return PalStatus.OK, frozenset({"opcode", "cause", "fr_pmc", *(["gitc"] if platform.gitc else [])})


def vp_init_env(platform: Platform, options: int, physical: int, virtual: int) -> Result:
    """PAL_VP_INIT_ENV: set the environment up, before any other procedure."""
    environment = PalEnvironment(options, physical, virtual)
    return _first_failure(
        platform,
        (platform.vm_features, PalStatus.UNIMPLEMENTED),
        (not options & ~KNOWN_OPTIONS, PalStatus.INVALID_ARGUMENT),
        (not environment.option("gitc") or platform.gitc, PalStatus.INVALID_ARGUMENT),
        (environment.option("opcode"), PalStatus.INVALID_ARGUMENT),
        (not physical % BUFFER_ALIGNMENT and not virtual % BUFFER_ALIGNMENT, PalStatus.INVALID_ARGUMENT),
        then=lambda: attrs.evolve(platform, environment=environment),
    )


def vp_exit_env(platform: Platform, iva: int | None = None) -> Result:
    """PAL_VP_EXIT_ENV: give the environment up; no virtual processor may be left."""
    return _first_failure(
        platform,
        (platform.vm_features, PalStatus.UNIMPLEMENTED),
        (platform.environment is not None and not platform.processors, PalStatus.INVALID_ARGUMENT),
        then=lambda: _with_iva(attrs.evolve(platform, environment=None), iva),
    )


def _acceptable(platform: Platform, vpd: Vpd) -> tuple[tuple[bool, PalStatus], ...]:
    """What PAL_VP_CREATE and PAL_VP_REGISTER ask of the VPD."""
    bits = VtiConfiguration(vac=vpd.vac, vdc=vpd.vdc)
    known = (sum(1 << b for b in VAC_BITS.values()), sum(1 << b for b in VDC_BITS.values()))
    environment = platform.environment
    return (
        (platform.vm_features, PalStatus.UNIMPLEMENTED),
        (environment is not None, PalStatus.INVALID_ARGUMENT),
        (not vpd.base % VPD_ALIGNMENT, PalStatus.INVALID_ARGUMENT),
        (environment is not None and vpd.virt_env_vaddr == environment.virtual, PalStatus.INVALID_ARGUMENT),
        (not vpd.vac & ~known[0] and not vpd.vdc & ~known[1], PalStatus.INVALID_ARGUMENT),
        (PREDICATES["V1"](bits) is not False, PalStatus.INVALID_ARGUMENT),
    )


def vp_create(platform: Platform, vpd: Vpd, host_ivt: int, handler: int | None = None) -> Result:
    """PAL_VP_CREATE: a new virtual processor; vac, vdc and virt_env_vaddr are set before."""
    new = VirtualProcessor(vpd, host_ivt, handler)
    return _first_failure(
        platform,
        *_acceptable(platform, vpd),
        (vpd.base not in platform.processors, PalStatus.INVALID_ARGUMENT),
        then=lambda: attrs.evolve(platform, processors={**platform.processors, vpd.base: new}),
    )


def vp_register(platform: Platform, vpd: Vpd, host_ivt: int, handler: int | None = None) -> Result:
    """PAL_VP_REGISTER: another IVT or handler; vac and vdc are checked again."""
    new = VirtualProcessor(vpd, host_ivt, handler)
    return _first_failure(
        platform,
        *_acceptable(platform, vpd),
        (vpd.base in platform.processors, PalStatus.INVALID_ARGUMENT),
        then=lambda: attrs.evolve(platform, processors={**platform.processors, vpd.base: new}),
    )


def vp_restore(platform: Platform, base: int) -> Result:
    """PAL_VP_RESTORE: the virtual processor's state into the processor, its host IVT into IVA."""
    return _first_failure(
        platform,
        (platform.vm_features, PalStatus.UNIMPLEMENTED),
        (base in platform.processors, PalStatus.INVALID_ARGUMENT),
        then=lambda: attrs.evolve(platform, current=base, iva=platform.processors[base].host_ivt),
    )


def vp_save(platform: Platform, base: int) -> Result:
    """PAL_VP_SAVE: the state back into the VPD (SYNC_READ is implied)."""
    return _first_failure(
        platform,
        (platform.vm_features, PalStatus.UNIMPLEMENTED),
        (platform.current == base, PalStatus.INVALID_ARGUMENT),
        then=lambda: attrs.evolve(platform, current=None),
    )


def vp_terminate(platform: Platform, base: int, iva: int | None = None) -> Result:
    """PAL_VP_TERMINATE: forget the virtual processor."""
    rest = {key: value for key, value in platform.processors.items() if key != base}
    current = None if platform.current == base else platform.current
    return _first_failure(
        platform,
        (platform.vm_features, PalStatus.UNIMPLEMENTED),
        (base in platform.processors, PalStatus.INVALID_ARGUMENT),
        then=lambda: _with_iva(attrs.evolve(platform, processors=rest, current=current), iva),
    )


def _with_iva(platform: Platform, iva: int | None) -> Platform:
    return platform if iva is None else attrs.evolve(platform, iva=iva)


def _first_failure(
    platform: Platform, *conditions: tuple[bool, PalStatus], then: Callable[[], Platform]
) -> Result:
    for kept, status in conditions:
        if not kept:
            return status, platform
    return PalStatus.OK, then()
