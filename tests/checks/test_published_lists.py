"""Published lists of what is rewritten: complete or not, with a reason for each difference and a witness."""

from __future__ import annotations

import json

import attrs
import pytest

from commands import popek
from popek.checks.verdict import Status, Truth
from popek_proofs.rewriting import PublishedList, check_list, published_lists

LISTS = {one.id: one for one in published_lists()}
LINUX = LISTS["rewriting.linux-pv-ops-i386"]
FEW = ["SGDT m", "SLDT r32", "CPUID", "CLI", "NOP"]


@pytest.mark.parametrize("published", LISTS.values(), ids=str)
def test_every_name_stands_for_instructions_and_no_form_differs_twice(published: PublishedList) -> None:
    machine = published.subject().machine
    given = set(published.forms(machine))
    missing, needless = (published.explained(machine, kind) for kind in ("missing", "needless"))
    assert not missing & given
    assert needless <= given
    assert len(published.operations) == len({one.name for one in published.operations})


def test_the_list_of_linux_leaves_sldt_to_the_processor_and_need_not_replace_cli() -> None:
    """SLDT is among Robin and Irvine's seventeen (table 3), and no operation of paravirt_ops; CLI traps below IOPL."""
    found = check_list(LINUX, forms=FEW, jobs=1)
    assert found.judged.missing == ("SLDT r32",)
    assert found.judged.needless == ("CLI",)
    assert found.verdict is Status.REFUTED
    assert not found.unexpected
    (member,) = found.witnesses().values()
    assert member.form == "SLDT r32"


def test_a_shortened_list_is_refuted_by_a_witness_and_a_padded_one_told_what_is_needless() -> None:
    left = tuple(one for one in LINUX.operations if one.name not in ("cpuid", "store_gdt"))
    padded = attrs.evolve(LINUX.operations[0], name="nop", forms=("NOP",))
    found = check_list(attrs.evolve(LINUX, operations=(*left, padded)), forms=FEW, jobs=1)
    assert found.judged.complete is Truth.NO
    assert set(found.judged.missing) == {"SGDT m", "SLDT r32", "CPUID"}
    assert set(found.judged.needless) == {"CLI", "NOP"}
    assert found.unexplained == {"missing": ("SGDT m", "CPUID"), "needless": ("NOP",)}
    assert found.unexpected
    by_form = {one.form: one for one in found.asked.forms}
    assert all(by_form[form].kernel.witness is not None for form in found.judged.missing)


def test_a_reason_for_what_is_no_difference_is_unexpected() -> None:
    more = attrs.evolve(LINUX.differences[0], forms=("NOP",))
    found = check_list(attrs.evolve(LINUX, differences=(*LINUX.differences, more)), forms=FEW, jobs=1)
    assert found.unexplained["missing"] == ("NOP",)


def test_a_published_list_can_be_given_to_rewrite() -> None:
    done = popek("rewrite", "ia32", "SLDT", "CLI", "--given", "rewriting.vmi", "--jobs", "1", "--json")
    assert done.returncode == 1
    found = json.loads(done.stdout)["given"]
    assert found["missing"] == ["SLDT r32", "SLDT r16", "SLDT m16"]
    assert "CLI" in found["needless"]
    done = popek("rewrite", "pg74", "--given", "rewriting.vmi")
    assert done.returncode == 2
    assert "expected ia32" in done.stderr
