"""Fidelity and safety of ring deprivileging and of VT-i on Itanium, by their maps."""

from __future__ import annotations

from functools import cache

import pytest

from popek.checks.promise import Promises
from popek.checks.promises import Keeper
from popek.checks.subject import Subject
from popek.checks.verdict import Status
from popek.kernel.outcome import Next

from .machine_room import ia64

FORMS = (
    "ssm imm24", "sum imm24", "mov psr.l = r", "mov r = psr", "bsw.0", "rfi", "mov cr(interruption) = r",
    "mov r = cr.ivr", "mov cr.itm = r", "mov ar.k = r", "mov r = ar.k", "mov r = ar.itc", "mov r = rr[r]",
    "mov pmd[r] = r", "mov r = pmd[r]", "mov r = cpuid[r]", "thash r = r", "ttag r = r", "tpa r = r", "tak r = r",
    "probe.r gr = gr, imm2", "itc.d r", "ptc.l r, r", "cover", "alloc r = ar.pfs, imm7, imm7", "mov ar.rsc = r",
    "mov r = ar.rsc", "mov r = ar.pfs", "epc", "br.call b = imm25", "br.ret b", "break imm21", "fc r",
    "tf r = imm8", "ld8.s r = [r]", "add r = r, r", "ld8 r = [r]", "st8 [r] = r", "mov b = r", "mov r = ip",
)  # fmt: skip


@cache
def promises(technique: str, *settings: str) -> dict[str, Promises]:
    machine = ia64()
    keeper = Keeper(Subject.of(machine, technique, settings))
    return {form: keeper.keeps(machine.instructions[form]) for form in FORMS}


def broken(technique: str, promise: str, *settings: str) -> set[str]:
    found = {form: getattr(p, promise).status for form, p in promises(technique, *settings).items()}
    assert Status.UNKNOWN not in found.values()
    return {form for form, status in found.items() if status is Status.REFUTED}


def test_vt_i_breaks_its_promises_only_where_nothing_traps() -> None:
    # Kernel registers, counters, CPUID[4] and DCR hold the VMM's values here.
    open_ = {"mov ar.k = r", "mov r = ar.k", "mov r = pmd[r]", "tf r = imm8", "ld8.s r = [r]"}
    assert broken("vt-i", "fidelity") == open_
    assert broken("vt-i", "safety") == open_ - {"ld8.s r = [r]"}


def test_a_vmm_that_switches_and_mirrors_leaves_only_tf() -> None:
    assert broken("vt-i-switched", "fidelity") == {"tf r = imm8"}


def test_what_ring_deprivileging_gets_wrong() -> None:
    assert broken("ring-deprivileging-pl1", "fidelity") == {
        "mov r = ar.k", "mov r = pmd[r]", "mov r = cpuid[r]", "thash r = r", "ttag r = r", "probe.r gr = gr, imm2",
        "cover", "alloc r = ar.pfs, imm7, imm7", "mov r = ar.rsc", "mov r = ar.pfs", "br.ret b", "tf r = imm8",
        "ld8.s r = [r]",
    }  # fmt: skip


def test_ring_compression_loses_the_kernels_pages_at_level_3() -> None:
    lost = broken("ring-deprivileging-pl3", "fidelity") - broken("ring-deprivileging-pl1", "fidelity")
    assert lost == {"ld8 r = [r]", "st8 [r] = r", "fc r", "epc"}


@pytest.mark.parametrize("form", ["thash r = r", "mov r = pmd[r]", "cover"])
def test_a_broken_promise_has_a_witness(form) -> None:
    witness = promises("ring-deprivileging-pl1")[form].fidelity.witness
    assert witness is not None
    assert witness.second is not None
    assert isinstance(witness.second.outcome, Next)
