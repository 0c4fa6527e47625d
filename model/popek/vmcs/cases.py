"""VMCSs around the checks, for a differential test of VM entries against somebody else's implementation."""

from __future__ import annotations

import random
from collections.abc import Collection, Iterator, Mapping
from typing import Final

import attrs

from popek.architectures.vtx.baselines import Mode
from popek.architectures.vtx.capabilities import Capabilities
from popek.architectures.vtx.entry_checks import CHECKS
from popek.architectures.vtx.evaluation import reads
from popek.architectures.vtx.fields import FIELDS
from popek.architectures.vtx.vmcs import Vmcs

from .generate import Generator

_SAMPLES: Final = 5
_MUTANTS: Final = 4


@attrs.frozen
class Around:
    """A VMCS at or near the edge of a check: the fields that differ from the VMCS of its mode."""

    mode: Mode
    changes: Mapping[str, int]
    origin: str


def around_checks(
    bases: Mapping[Mode, Vmcs],
    capabilities: Capabilities,
    rnd: random.Random,
    hands_off: Collection[str] = (),
) -> Iterator[Around]:
    """VMCSs around all checks, in random order: violations, neighbours that enter, and mutants of both.

    Args:
        bases: VMCSs that enter, by guest mode, with all fields and the memory that may be pointed to.
        capabilities: of the processor.
        rnd: decides everything that is left open.
        hands_off: ids of fields that keep their value.
    """
    generators = {
        mode: Generator(base, capabilities, hands_off=hands_off, everywhere=False)
        for mode, base in bases.items()
    }
    pairs = [(check_id, mode) for check_id in CHECKS for mode in generators]
    rnd.shuffle(pairs)
    for check_id, mode in pairs:
        generator = generators[mode]
        base = generator.base.fields
        for vmcs, origin in _around(generator, check_id, hands_off, rnd):
            changes = {name: value for name, value in vmcs.fields.items() if value != base[name]}
            yield Around(mode, changes, origin)


def _around(
    generator: Generator, check_id: str, hands_off: Collection[str], rnd: random.Random
) -> Iterator[tuple[Vmcs, str]]:
    names = [
        name for name in reads(CHECKS[check_id]) if name in generator.base.fields and name not in hands_off
    ]
    for _ in range(_SAMPLES):
        vmcs = generator.violation_of(check_id, rnd)
        if vmcs is None:
            return
        yield vmcs, check_id
        beside = generator.boundary_of(vmcs, check_id, rnd)
        if beside is not None:
            yield beside[0], f"beside {check_id}"
        for _ in range(_MUTANTS):
            changed = vmcs
            for name in rnd.choices(names, k=rnd.choice((1, 2))):
                bit = 1 << rnd.randrange(FIELDS[name].width)
                changed = changed.with_fields(**{name: changed.fields[name] ^ bit})
            yield changed, f"mutant of {check_id}"
