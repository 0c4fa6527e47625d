"""`popek vmcs explain`: numbers as people write them, what usually causes each, what is not checked, processors."""

from __future__ import annotations

import pytest

from popek.architectures.vtx import processor_names
from popek.architectures.vtx.capability_files import CapabilityError, load_capabilities
from popek.architectures.vtx.controls import INSTRUCTION_ERRORS, bits_of, exit_reasons
from popek.architectures.vtx.dumps.explanation import explain
from popek.architectures.vtx.entry_checks import NOT_CHECKED
from popek.architectures.vtx.fields import FIELDS


def told(subject: str) -> dict[str, dict[str, str]]:
    return {item.name: dict(item.rows) for item in explain(subject)}


@pytest.mark.parametrize("subject", ["80000022", "0x80000022", "ffffffff80000022", "2147483682"])
def test_a_failed_entry_by_every_number_that_is_printed(subject: str) -> None:
    """SDM vol. 3, appendix C: basic exit reason 34 with bit 31."""
    (rows,) = told(subject).values()
    assert rows["number"] == "34 (0x22)"
    assert "the VM entry failed" in rows["bit 31"]
    assert "WRMSR refuses" in rows["usual causes"]


def test_seven_means_both() -> None:
    found = told("7")
    assert list(found) == ["INTERRUPT_WINDOW", "VM-instruction error 7"]
    assert all("usual causes" in rows for rows in found.values())


@pytest.mark.parametrize("number", exit_reasons())
def test_every_exit_reason_says_what_usually_causes_it(number: int) -> None:
    rows = told(str(number))[exit_reasons()[number]]
    assert rows["when"]
    assert rows["usual causes"]


@pytest.mark.parametrize("number", INSTRUCTION_ERRORS)
def test_every_instruction_error_says_what_usually_causes_it(number: int) -> None:
    rows = told(str(number))[f"VM-instruction error {number}"]
    assert (rows["means"], bool(rows["usual causes"])) == (INSTRUCTION_ERRORS[number], True)


@pytest.mark.parametrize("field", FIELDS)
def test_a_field_is_checked_or_said_not_to_be(field: str) -> None:
    rows = told(field)[field]
    assert {"checks", "no check", "not modelled"} & set(rows)


@pytest.mark.parametrize(
    "field",
    ["PIN_CONTROLS", "PRIMARY_PROC_CONTROLS", "SECONDARY_PROC_CONTROLS", "TERTIARY_PROC_CONTROLS", "EXIT_CONTROLS",
     "SECONDARY_EXIT_CONTROLS", "ENTRY_CONTROLS"],
)  # fmt: skip
def test_a_control_is_checked_or_said_not_to_be(field: str) -> None:
    for bits in bits_of(field):
        if not bits.name.startswith("RESERVED"):
            rows = next(
                dict(item.rows) for item in explain(bits.name) if item.kind == f"bit {bits.low} of {field}"
            )
            assert "checks" in rows or "no check" in rows, (field, bits.name)


def test_rows_without_a_check_say_what_they_are_about() -> None:
    for row in NOT_CHECKED:
        (rows,) = told(row).values()
        assert rows["because"]
        assert rows["about"]


def test_supervisor_shadow_stacks_are_explained() -> None:
    assert told("SSS")["SSS"]["checks"] == "CTL-EPT-04"


@pytest.mark.parametrize(
    ("name", "preset"),
    [
        ("8700K", "intel-skylake"), ("i7 8700", "intel-skylake"), ("Core i5-7500", "intel-skylake"),
        ("Intel(R) Core(TM) i7-8700 CPU @ 3.20GHz", "intel-skylake"), ("Xeon E5-2670 v3", "intel-haswell"),
        ("Intel(R) Xeon(R) Gold 6248R CPU @ 3.00GHz", "partial/cascadelake-server"),
        ("Platinum 8380", "partial/icelake-server"), ("Platinum 8480+", "partial/sapphire-rapids"),
    ],
)  # fmt: skip
def test_processors_by_the_number_on_the_box(name: str, preset: str) -> None:
    found = processor_names.find(name)
    assert found is not None
    assert found.preset == preset
    assert load_capabilities(name).source


@pytest.mark.parametrize(
    "name", ["n100", "N97", "i3-N305", "13900K", "Core i9-14900KS", "i5-12400", "Ultra 7 155H"]
)
def test_a_processor_of_which_nothing_is_known_says_what_to_compare(name: str) -> None:
    """The other side: no values are made up for what nobody published."""
    with pytest.raises(CapabilityError, match=r"no public values .* name intel-"):
        load_capabilities(name)
    (rows,) = told(name).values()
    assert rows["nearest"].startswith("intel-")


@pytest.mark.parametrize("name", ["7763", "5950X", "7840HS"])
def test_numbers_of_amd_are_not_taken_for_intels(name: str) -> None:
    assert processor_names.find(name) is None
    assert processor_names.compared(name) is None
