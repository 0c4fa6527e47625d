"""Cases for a differential test of VM entries, from the generator and at random."""

from __future__ import annotations

import random
from collections.abc import Iterator

from popek.architectures.vtx.checks import CHECKS
from popek.architectures.vtx.evaluation import reads
from popek.architectures.vtx.fields import FIELDS
from popek.architectures.vtx.vmcs import Launch, Vmcs
from popek.emulators.vmx_compare import HANDS_OFF, Case, base_fields, modes, places, preset, random_case
from popek.emulators.vmx_entry import CURRENT_VMCS, DEFAULT_MODEL, Mode

from .vmcs_generate import Generator

_SAMPLES, _MUTANTS = 5, 4
_PER_PAIR = _SAMPLES * (_MUTANTS + 2)


def cases(count: int, seed: int, model: str = DEFAULT_MODEL) -> list[Case]:
    """Cases in all guest modes that the model has; the same seed gives the same cases.

    A quarter comes from the generator: VMCSs that violate one check only, neighbours one bit away that
    violate none, and mutants of both. The others are baselines with one or two fields changed.
    """
    rnd = random.Random(f"vm entry {seed}")
    found = list(_generated(count // 4, rnd, model))
    known = modes(model)
    while len(found) < count:
        found.append(random_case(rnd, rnd.choice(known), model))
    return found[:count]


def _generated(count: int, rnd: random.Random, model: str) -> Iterator[Case]:
    generators = {mode: _generator(mode, model) for mode in modes(model)}
    pairs = [(check_id, mode) for check_id in CHECKS for mode in generators]
    rnd.shuffle(pairs)
    left = count
    for check_id, mode in pairs:
        if left <= 0:
            return
        for case in _around(generators[mode], check_id, mode, rnd):
            left -= 1
            yield case


def _generator(mode: Mode, model: str) -> Generator:
    base = Vmcs(
        fields=base_fields(model, mode),
        memory=places(mode, model),
        launch=Launch(current_vmcs=CURRENT_VMCS, x2apic=False),
    )
    return Generator(base, preset(model), hands_off=HANDS_OFF, everywhere=False)


def _around(generator: Generator, check_id: str, mode: Mode, rnd: random.Random) -> Iterator[Case]:
    """Cases around one check: samples, neighbours and mutants."""
    base = generator.base.fields
    for _ in range(_SAMPLES):
        vmcs = generator.violation_of(check_id, rnd)
        if vmcs is None:
            return
        yield _case(vmcs, base, mode, check_id)
        beside = generator.boundary_of(vmcs, check_id, rnd)
        if beside is not None:
            yield _case(beside[0], base, mode, f"beside {check_id}")
        names = [name for name in reads(CHECKS[check_id]) if name in base and name not in HANDS_OFF]
        for _ in range(_MUTANTS):
            changed = vmcs
            for name in rnd.choices(names, k=rnd.choice((1, 2))):
                bit = 1 << rnd.randrange(FIELDS[name].width)
                changed = changed.with_fields(**{name: changed.fields[name] ^ bit})
            yield _case(changed, base, mode, f"mutant of {check_id}")


def _case(vmcs: Vmcs, base: object, mode: Mode, origin: str) -> Case:
    assert isinstance(base, dict)
    return Case(mode, {name: v for name, v in vmcs.fields.items() if v != base[name]}, origin)
