"""VT-i beside VT-x: the same questions, and answers that are what the sources say of each."""

from __future__ import annotations

import json
from functools import cache

import attrs
import pytest

from popek.architectures.ia64.vti.assistance import VT_I
from popek.architectures.vtx.operation.assistance import VT_X
from popek.assistance.desk import desk_of
from popek.cli.assist import compare as command
from popek.cli.errors import UserError
from popek_proofs.assistance import comparison as assistance
from popek_proofs.assistance.comparison import QUERIES, Cell, Compared, Table

FORMS = ("CLI", "HLT", "MOV r32, CR0", "RDPMC", "SGDT m", "CPUID")
CHEAP = ("mode-bit", "exits", "controls", "weakest-conditions", "best", "open", "theorem-1")


@cache
def vt_i() -> Compared:
    return Compared(desk_of(VT_I))


@cache
def some_of_vt_x() -> Compared:
    """VT-x with a few forms."""
    return Compared(desk_of(VT_X), FORMS)


@cache
def table() -> Table:
    return assistance.compare([vt_i(), some_of_vt_x()], [QUERIES[name] for name in CHEAP])


def cells(name: str) -> tuple[Cell, Cell]:
    (found,) = (row for query, row in table().rows if query.name == name)
    first, second = found
    return first, second


def test_each_is_asked_the_same() -> None:
    assert [item.name for item in table().assistances] == ["vt-i", "vt-x"]
    assert [query.name for query, _ in table().rows] == list(CHEAP)
    assert all(len(row) == 2 and all(cell.text for cell in row) for _, row in table().rows)


def test_the_mode_bits_are_those_of_the_manuals() -> None:
    assert [cell.value for cell in cells("mode-bit")] == [["psr.vm"], ["non_root"]]


def test_every_form_is_counted_once() -> None:
    vti, vtx = cells("exits")
    assert sum(vti.value.values()) == len(vt_i().machine.instructions)
    assert sum(vtx.value.values()) == len(some_of_vt_x().desk.machine.instructions)
    assert vtx.value["always"] == 1  # CPUID; HLT, RDPMC, SGDT and MOV from CR0 as the controls say
    # Xen's cause codes name what can be intercepted; thash, ttag and most moves have no way around it.
    assert vti.value["always"] > 20
    assert vti.value["never"] > 60


def test_the_controls_are_those_that_the_architectures_have() -> None:
    vti, vtx = cells("controls")
    assert set(vti.value) <= {control.name for control in VT_I.controls}
    assert {"d_vmsw", "a_cover", "a_from_cpuid", "d_extint", "d_itm", "si"} <= set(vti.value)
    assert {"primary.hlt_exiting", "primary.rdpmc_exiting", "secondary.descriptor_table_exiting"} <= set(
        vtx.value
    )


def test_what_the_controls_must_be() -> None:
    vti, vtx = cells("weakest-conditions")
    assert vti.value["vmsw.0"] == "d_vmsw = 1 or promotion_pages = 0"
    assert vti.value["mov r = pmd[r]"] == "never"
    assert vtx.value == {
        "HLT": "primary.hlt_exiting = 1",
        "MOV r32, CR0": "cr0_mask = 1",
        "RDPMC": "primary.rdpmc_exiting = 1",
    }


def test_mov_from_pmd_stays_open_and_is_reported() -> None:
    vti, vtx = cells("open")
    assert vti.value == ["mov r = pmd[r]", "tf r = imm8"]
    assert vtx.value == []
    assert [cell.value for cell in cells("theorem-1")] == ["refuted", "holds"]


def test_the_best_setting_of_the_vpd_is_that_of_xen_and_kvm() -> None:
    """Both set vac bits 0 to 6, and d_vmsw alone of vdc."""
    assert cells("best")[0].value["on"] == [
        "a_int", "a_from_int_cr", "a_to_int_cr", "a_from_psr", "a_from_cpuid", "a_cover", "a_bsw", "d_vmsw",
    ]  # fmt: skip


def test_masking_interrupts_by_hand() -> None:
    (found,) = (QUERIES[name].answer(vt_i(), lambda: None) for name in ["interrupts"])
    assert found.value["change_the_flag"] == ["rsm imm24", "ssm imm24", "mov psr.l = r", "rfi"]


def test_a_condition_that_is_lost_is_noticed() -> None:
    """With d_vmsw left out of what vmsw requires, the best setting no longer has it."""
    found = [
        r if "d_vmsw" not in r.knobs else attrs.evolve(r, faithful=_all(r.knobs), safe=_all(r.knobs))
        for r in vt_i().requirements()
    ]
    assert "d_vmsw" not in vt_i().choose(found).on


def _all(knobs: tuple[str, ...]) -> frozenset[tuple[int, ...]]:
    import itertools

    return frozenset(itertools.product((0, 1), repeat=len(knobs)))


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert command("vt-i", "vt-x", only=("mode-bit",), json=True) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["schema"] == "popek/hardware-assistance/1"
    assert [item["name"] for item in answer["assistances"]] == ["vt-i", "vt-x"]
    assert answer["queries"][0]["answers"]["vt-i"]["value"] == ["psr.vm"]
    assert command("vt-i", only=("open",)) == 0
    assert "mov r = pmd[r]" in capsys.readouterr().out


def test_unknown_names_are_one_line() -> None:
    with pytest.raises(UserError, match="vt-x or vt-i"):
        command("vt-y")
    with pytest.raises(UserError, match="mode-bit"):
        command(only=("mode-bits",))
