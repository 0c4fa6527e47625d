"""PAL's procedures and services, and the delivery of virtual interrupts by induction."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from popek.architectures.ia64.state import Ia64
from popek.architectures.ia64.vti import interrupts, pal, services
from popek.architectures.ia64.vti.pal import PalStatus, Platform, Vpd
from popek.architectures.ia64.vti.services import Services, UndefinedUseError
from popek.checks.runs import explore_instruction
from popek.kernel.words import Word
from popek.solving.solver import Answer, holds
from popek_specs.ia64 import table

from .machine_room import completed, gr, ia64, put

OPTIONS = 1 << 8 | 1 << 9
BUFFER = 0x10000
GOOD = Vpd(0x8000, vac=0x7F, vdc=1, virt_env_vaddr=BUFFER)


def ready(**changes: Any) -> Platform:
    status, platform = pal.vp_init_env(Platform(**changes), OPTIONS, 0x1000, BUFFER)
    assert status is PalStatus.OK
    return platform


def test_the_life_of_a_virtual_processor() -> None:
    status, created = pal.vp_create(ready(), GOOD, host_ivt=0x20000)
    assert status is PalStatus.OK
    status, running = pal.vp_restore(created, GOOD.base)
    assert (status, running.iva, running.current) == (PalStatus.OK, 0x20000, GOOD.base)
    assert pal.intercept_vector(running) == 0x26100
    status, registered = pal.vp_register(running, GOOD, 0x30000, handler=0x44000)
    assert (status, pal.intercept_vector(registered)) == (PalStatus.OK, 0x44000)
    status, saved = pal.vp_save(registered, GOOD.base)
    assert (status, saved.current) == (PalStatus.OK, None)
    assert pal.vp_exit_env(saved)[0] is PalStatus.INVALID_ARGUMENT
    status, over = pal.vp_terminate(saved, GOOD.base, iva=0x50000)
    assert (status, over.iva, dict(over.processors)) == (PalStatus.OK, 0x50000, {})
    assert pal.vp_exit_env(over) == (PalStatus.OK, attrs.evolve(over, environment=None))


def test_every_procedure_but_info_returns_minus_1_with_vm_features_off() -> None:
    off = Platform(vm_features=False)
    results = [
        pal.vp_init_env(off, OPTIONS, 0x1000, BUFFER), pal.vp_exit_env(off), pal.vp_create(off, GOOD, 0),
        pal.vp_register(off, GOOD, 0), pal.vp_restore(off, 0), pal.vp_save(off, 0), pal.vp_terminate(off, 0),
        pal.vp_env_info(off),
    ]  # fmt: skip
    assert [status for status, _ in results] == [PalStatus.UNIMPLEMENTED] * 8
    assert {row["name"] for row in table("vti.toml")["procedures"]} == set(pal.INDEX)


def test_info_is_for_virtual_processors() -> None:
    assert pal.vp_info(Platform())[0] is PalStatus.UNIMPLEMENTED
    assert pal.vp_info(Platform(), feature_set=1)[0] is PalStatus.UNSUPPORTED_FEATURE_SET


@pytest.mark.parametrize(
    ("options", "physical", "virtual"),
    [(1 << 9, 0x1000, BUFFER), (OPTIONS | 1 << 20, 0x1000, BUFFER), (OPTIONS | 1 << 10, 0x1000, BUFFER),
     (OPTIONS, 0x1001, BUFFER), (OPTIONS, 0x1000, BUFFER + 8)],
)  # fmt: skip
def test_init_env_refuses(options, physical, virtual) -> None:
    platform = Platform()
    assert pal.vp_init_env(platform, options, physical, virtual) == (PalStatus.INVALID_ARGUMENT, platform)


def test_gitc_needs_to_be_advertised() -> None:
    assert pal.vp_init_env(Platform(gitc=True), OPTIONS | 1 << 10, 0x1000, BUFFER)[0] is PalStatus.OK
    assert "gitc" in pal.vp_env_info(Platform(gitc=True))[1]
    assert "gitc" not in pal.vp_env_info(Platform())[1]


@pytest.mark.parametrize(
    "change",
    [{"vac": 1, "vdc": 3}, {"vac": 1 << 40}, {"vdc": 1 << 40}, {"base": 0x1000}, {"virt_env_vaddr": 0}],
)
def test_create_and_register_refuse(change) -> None:
    platform = ready()
    bad = attrs.evolve(GOOD, **change)
    assert pal.vp_create(platform, bad, 0) == (PalStatus.INVALID_ARGUMENT, platform)
    _, created = pal.vp_create(platform, GOOD, 0)
    assert pal.vp_register(created, bad, 0) == (PalStatus.INVALID_ARGUMENT, created)


def test_create_needs_an_environment_and_happens_once() -> None:
    assert pal.vp_create(Platform(), GOOD, 0)[0] is PalStatus.INVALID_ARGUMENT
    _, created = pal.vp_create(ready(), GOOD, 0)
    assert pal.vp_create(created, GOOD, 0)[0] is PalStatus.INVALID_ARGUMENT
    assert pal.vp_register(ready(), GOOD, 0)[0] is PalStatus.INVALID_ARGUMENT
    assert pal.vp_save(created, GOOD.base)[0] is PalStatus.INVALID_ARGUMENT


# -- services ---------------------------------------------------------------------------------------


def entry(**changes: int) -> Services:
    state = Ia64.reset(psr__bn=0, psr__dt=1, psr__rt=1, psr__it=1, **changes)
    return Services(state, services.copy_of(state))


def test_the_services_are_those_of_the_facts() -> None:
    assert services.OFFSET["SET_PENDING_INTERRUPT"] == 0x1000
    assert len(services.OFFSET) == 9


def test_resume_enters_the_guest() -> None:
    world = entry(vpsr__ic=1, cr__iip=0x4560, cr__ipsr=3 << 32 | 1 << 44)
    world = attrs.evolve(world, cpu=put(world.cpu, 24, 0x777))
    guest = services.resume(world, handler=False).cpu
    assert (int(guest.psr.vm), int(guest.psr.cpl), int(guest.ip)) == (1, 3, 0x4560)
    assert int(guest.br.load(Word(3, 0))) == 0x777


@pytest.mark.parametrize(
    ("changes", "handler", "rule"),
    [
        ({"psr__i": 1, "vpsr__ic": 1}, False, "V19"), ({"psr__vm": 1, "vpsr__ic": 1}, False, "V19"),
        ({"vac__a_cover": 1}, False, "V18"), ({"vdc__d_vmsw": 1}, False, "V18"),
    ],
)  # fmt: skip
def test_resume_outside_its_conditions_is_undefined(changes, handler, rule) -> None:
    with pytest.raises(UndefinedUseError, match=rule):
        services.resume(entry(**changes), handler=handler)


def test_resume_handler_is_for_vpsr_ic_0_and_normal_needs_no_controls() -> None:
    assert int(services.resume(entry(vac__a_cover=1), handler=True).cpu.psr.vm) == 1
    assert int(services.resume(entry(), handler=False).cpu.psr.vm) == 1
    with pytest.raises(UndefinedUseError, match=r"PSR\.bn"):
        services.resume(Services(entry().cpu.with_changes({"psr.bn": 1}), entry().memory), handler=True)


def test_without_sync_read_the_vmm_reads_stale_state() -> None:
    world = entry(vac__a_cover=1)
    guest = world.cpu.with_changes({"psr.vm": 1, "cfm.sof": 5})
    after = completed("cover", guest).with_changes({"psr.vm": 0})
    stale = attrs.evolve(world, cpu=after)
    assert int(stale.memory.vcr.load(Word(7, 23))) == 0
    synced = services.sync_read(stale)
    assert int(synced.memory.vcr.load(Word(7, 23))) == 1 << 63 | 5
    assert services.save(stale, skip_sync=True).memory is stale.memory
    assert int(services.save(stale).memory.vcr.load(Word(7, 23))) == 1 << 63 | 5


def test_sync_write_and_restore_bring_the_vmms_changes_in() -> None:
    world = entry()
    memory = attrs.evolve(world.memory, vpsr=Word(47, 1 << 14), vhpi=Word(8, 0x40))
    changed = attrs.evolve(world, memory=memory)
    assert int(services.sync_write(changed).cpu.vpsr.i) == 1
    assert int(services.sync_write(changed).cpu.vhpi) == 0
    assert int(services.set_pending_interrupt(changed).cpu.vhpi) == 0x40
    assert int(services.restore(changed).cpu.vhpi) == 0x40


def test_the_hash_services_give_what_the_instructions_give() -> None:
    for pta in (0x8000 | 15 << 2, 0x8000 | 15 << 2 | 1 << 8):
        state = put(Ia64.reset(cr__pta=pta), 2, 0x3000)
        region = Word(64, 12 << 2 | 5 << 8)
        state.rr = state.rr.store(Word(3, 0), region)
        expected = gr(completed("thash r = r", state, 1, 2), 1)
        assert int(services.thash(Word(64, 0x3000), region, Word(64, pta))) == expected
    expected = gr(completed("ttag r = r", state, 1, 2), 1)
    assert int(services.ttag(Word(64, 0x3000), region)) == expected


# -- interrupts -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(interrupts.vmm_obligations()))
def test_the_vmms_steps_keep_the_invariant(name) -> None:
    assumption, conclusion = interrupts.vmm_obligations()[name]
    assert holds(conclusion, [assumption]) is Answer.UNSAT


def test_every_instruction_of_the_guest_keeps_the_invariant() -> None:
    concerned = set()
    for form, instruction in ia64().instructions.items():
        for assumption, conclusion in interrupts.guest_obligations(explore_instruction(ia64(), instruction)):
            concerned.add(form)
            assert holds(conclusion, [assumption]) is Answer.UNSAT, form
    assert {"ssm imm24", "rsm imm24", "mov cr.tpr = r"} <= concerned


def test_without_set_pending_interrupt_the_induction_breaks() -> None:
    assumption, conclusion = interrupts.vmm_obligations(told=False)["arrival"]
    assert holds(conclusion, [assumption]) is Answer.SAT


def test_the_induction_hypothesis_can_hold_with_an_interrupt_pending() -> None:
    world = interrupts.anywhere()
    pending = interrupts.settled(world) & (world.vhpi >= 16)
    assert holds(~pending) is Answer.SAT
