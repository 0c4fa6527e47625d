"""A VMCS in every format: what happens to a text makes no check fail that did not, and loses nothing unsaid."""

from __future__ import annotations

from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paste_formats import GURU, OLD_KVM, RUST, VMCSS, XEN_VMCB, XEN_VMCS
from paste_properties import (
    ALL_PREFIXES,
    ENCODINGS,
    UNPADDED,
    Answer,
    cut_at_a_column,
    few,
    mangled,
    manglings,
    nothing_new,
    truncated,
    with_foreign_lines,
    with_lines_lost,
    without_headings,
    wrapped,
)
from pastes import VMCB, VMCS
from popek.architectures.dump import DumpError
from popek.architectures.vtx.dumps import read_dumps
from popek.architectures.vtx.dumps.diagnosis import diagnose


def read(data: bytes) -> Answer:
    dumps = read_dumps(data, "input")
    verdicts = [diagnose(dump).verdict for dump in dumps]
    return Answer(
        [dump.fields for dump in dumps],
        {item.id for verdict in verdicts for item in verdict.failed}
        | {item.id for verdict in verdicts for item in verdict.warnings},
        any(dump.unrecognised or dump.remarks for dump in dumps),
    )


@cache
def whole(name: str) -> Answer:
    return read(VMCSS[name].encode())


NAMES = st.sampled_from(list(VMCSS))


@pytest.mark.parametrize(
    ("name", "count", "failed"),
    [
        # Counted by hand; the defects are those that were put in.
        ("older KVM", 101, {"GUEST-AR-DS-01"}),
        ("Xen", 112, {"GUEST-AR-DS-01"}),
        ("HAXM", 24 + 1, {"GUEST-RFL-02"}),
        ("NoirVisor", 5 * 4 + 2 * 2 + 1, set()),
        ("VirtualBox", 3 + 3 * 4 + 2 * 4 + 2 * 2, {"GUEST-RFL-02"}),
        ("QEMU, 32-bit", 3 + 6 * 4 + 2 * 2 + 1, {"GUEST-RFL-02"}),
        ("Rust", 3 + 8 * 4 + 2 * 2, {"GUEST-RFL-02"}),
    ],
)
def test_the_texts_as_they_are(name: str, count: int, failed: set[str]) -> None:
    assert len(whole(name).fields[0]) == count
    assert whole(name).failed == failed


@few
@given(name=NAMES, prefix=st.sampled_from(ALL_PREFIXES))
def test_every_prefix_in_front_of_every_format(name: str, prefix: str) -> None:
    found = read("".join(f"{prefix}{line}\n" for line in VMCSS[name].splitlines()).encode())
    assert found.fields == whole(name).fields
    assert found.failed == whole(name).failed


@few
@given(name=NAMES, change=st.sampled_from([str.upper, str.lower, *ENCODINGS]))
def test_letters_and_bytes_may_be_others(name: str, change: object) -> None:
    text = VMCSS[name]
    found = read(text.encode(change) if isinstance(change, str) else change(text).encode())  # type: ignore[operator]
    assert found.fields == whole(name).fields


@few
@given(data=st.data(), name=NAMES)
def test_a_truncated_text(data: st.DataObject, name: str) -> None:
    nothing_new(whole(name), read, data.draw(truncated(VMCSS[name])), told=False)


@few
@given(data=st.data(), name=st.sampled_from(["KVM", "older KVM", "Xen"]))
def test_a_heading_that_is_lost_or_another(data: st.DataObject, name: str) -> None:
    found = nothing_new(whole(name), read, data.draw(without_headings(VMCSS[name])))
    assert found is not None


@few
@given(data=st.data(), name=NAMES)
def test_foreign_lines(data: st.DataObject, name: str) -> None:
    assert nothing_new(whole(name), read, data.draw(with_foreign_lines(VMCSS[name]))) is not None


@few
@given(data=st.data(), name=NAMES)
def test_lines_that_are_lost(data: st.DataObject, name: str) -> None:
    nothing_new(whole(name), read, data.draw(with_lines_lost(VMCSS[name])), told=False)


@few
@given(data=st.data(), name=NAMES)
def test_lines_that_were_broken(data: st.DataObject, name: str) -> None:
    nothing_new(whole(name), read, data.draw(wrapped(VMCSS[name])))


@few
@given(data=st.data(), name=NAMES)
def test_lines_that_were_cut(data: st.DataObject, name: str) -> None:
    cut = data.draw(cut_at_a_column(VMCSS[name], unpadded=name in UNPADDED))
    nothing_new(whole(name), read, cut)


@few
@given(data=st.data(), name=NAMES)
def test_two_things_at_once(data: st.DataObject, name: str) -> None:
    first = data.draw(st.sampled_from([with_foreign_lines, with_lines_lost, without_headings]))
    second = data.draw(st.sampled_from([truncated, wrapped, with_foreign_lines]))
    nothing_new(whole(name), read, data.draw(second(data.draw(first(VMCSS[name])))), told=False)


@few
@given(data=st.data(), name=NAMES)
def test_every_mangling_of_every_format(data: st.DataObject, name: str) -> None:
    mangling = data.draw(manglings(name))
    told = mangling not in ("the second half", "upside down", "lines cut")
    nothing_new(whole(name), read, mangled(mangling, VMCSS[name]), told=told)


# -- small inputs, one for each kind ----------------------------------------------------------------


def fields(text: str) -> dict[str, int]:
    (dump,) = read_dumps(text.encode(), "input")
    return dict(dump.fields)


def test_the_hosts_part_without_its_heading_is_nobodys() -> None:
    """The first EFER of this excerpt is the host's."""
    lines = [line for line in OLD_KVM.splitlines() if "Host State" not in line]
    text = "\n".join(line for line in lines if not line.startswith(("RSP = 0x000", "EFER =     ", "CR3 = ")))
    (dump,) = read_dumps(text.encode(), "input")
    assert not {name for name in dump.fields if name.startswith("HOST_")}
    assert not {"GUEST_IA32_EFER", "GUEST_RSP", "GUEST_RIP"} & dump.fields.keys()
    assert dump.fields["GUEST_IA32_SYSENTER_ESP"] == 0
    assert any("EFER" in item.text and "heading" in item.text for item in dump.remarks)


@pytest.mark.parametrize(
    "heading", ["Host State:", "*** host state ***", "* Host State *", "=== HOST STATE ==="]
)
def test_a_heading_in_another_spelling(heading: str) -> None:
    assert fields(OLD_KVM.replace("*** Host State ***", heading)) == fields(OLD_KVM)


@pytest.mark.parametrize(
    "line",
    [
        "CR3=0xfffffffffffff000",
        "CR3=fffffffffffff000",
        "# GUEST_CR3 = 0xfffffffffffff000",
        "exit_reason: 5",
        "reason = 5",
    ],
)
def test_a_line_of_something_else(line: str) -> None:
    without = "\n".join(row for row in OLD_KVM.splitlines() if not row.startswith(("CR3", "        reason")))
    assert fields(f"{line}\n{without}\n{line}\n") == fields(without + "\n")


@pytest.mark.parametrize("end", ["", " ", "\t"])
def test_a_number_that_the_text_ends_in_is_left_out(end: str) -> None:
    text = "haxm_warning: 4000 VMX_PIN_CONTROLS: 1f\nhaxm_warning: 400c VMX_EXIT_CONTROLS: 23"
    assert fields(text + "\n") == {"PIN_CONTROLS": 0x1F, "EXIT_CONTROLS": 0x23}
    (dump,) = read_dumps((text + end).encode(), "input")
    if not end:
        assert dump.fields == {"PIN_CONTROLS": 0x1F}
        assert "may go on" in dump.remarks[0].text


def test_a_number_that_a_terminal_broke_is_put_together() -> None:
    lines = [
        *(
            "haxm_warning: 4000 VMX_PIN_CONTROLS: 1f",
            "haxm_warning: 4002 VMX_PRIMARY_PROCESSOR_CONTROLS: 969861fe",
        ),
        *(
            "haxm_warning: 400c VMX_EXIT_CONTROLS: 236fff",
            "haxm_warning: 6000 VMX_CR0_MASK: ffffffffe0000020",
        ),
    ]
    broken = "\n".join(line[at : at + 40] for line in lines for at in range(0, len(line), 40))
    assert fields(broken + "\n") == {
        "PIN_CONTROLS": 0x1F,
        "PRIMARY_PROC_CONTROLS": 0x969861FE,
        "EXIT_CONTROLS": 0x236FFF,
        "CR0_GUEST_HOST_MASK": 0xFFFFFFFFE0000020,
    }


def test_one_line_of_quoted_printable_changes_no_other() -> None:
    assert fields(f"reason =3D deadbeef\n{OLD_KVM}reason =3D deadbeef\n") == fields(OLD_KVM)


@pytest.mark.parametrize("first", ["{…}", '{"level": "info"}', "[info] {", "asid = 010", "{"])
def test_a_first_line_that_is_no_dumps(first: str) -> None:
    assert fields(f"{first}\n{OLD_KVM}") == fields(OLD_KVM)


def test_json_that_is_wrong_is_still_json() -> None:
    with pytest.raises(DumpError, match="not JSON"):
        read_dumps(b'{"fields": {"GUEST_CR0": "0x1"', "input")
    with pytest.raises(DumpError, match="no key"):
        read_dumps(b'{"field": {"GUEST_CR0": "0x1"}}', "input")


@pytest.mark.parametrize("heading", ["Hypervisor CPUM state:", "!! {cpumhost, verbose}", "Host CPUM state:"])
def test_the_hosts_registers_in_virtualboxs_log_are_not_the_guests(heading: str) -> None:
    host = "gdtr=fffffe0000001000:007f  idtr=fffffe0000000000:0fff  eflags=00000246\n"
    text = f"Guest CPUM (VCPU 0) state:\n{GURU}{heading}\n{host}"
    assert fields(text) == fields(GURU)
    assert fields(f"{heading}\n{host}Guest CPUM (VCPU 0) state:\n{GURU}") == fields(GURU)
    (dump,) = read_dumps((GURU + host).encode(), "input")  # nothing tells whose: of the two, neither
    assert "GUEST_GDTR_BASE" not in dump.fields
    assert any("neither is taken" in item.text for item in dump.remarks)
    with pytest.raises(DumpError):
        read_dumps(b"HostCS = {0010 base=0000000000000000 limit=ffffffff flags=a09b}\n", "input")


@pytest.mark.parametrize("text", [VMCB + VMCS, VMCS + VMCB, XEN_VMCB + XEN_VMCS, XEN_VMCS + XEN_VMCB])
def test_a_vmcb_beside_a_vmcs(text: str) -> None:
    vmcs = VMCS if "(XEN)" not in text else XEN_VMCS
    (dump,) = read_dumps(text.encode(), "input")
    assert dump.fields == fields(vmcs)
    assert dump.unrecognised


def test_rust_prints_in_three_bases() -> None:
    def hexadecimal(text: str, prefix: str) -> str:
        words = (word if not word.rstrip(",").isdigit() else hexed(word, prefix) for word in text.split(" "))
        return " ".join(words)

    def hexed(word: str, prefix: str) -> str:
        return prefix + format(int(word.rstrip(",")), "x") + "," * word.endswith(",")

    assert fields(hexadecimal(RUST, "")) == fields(RUST)
    assert fields(hexadecimal(RUST, "0x")) == fields(RUST)
    assert fields(RUST.replace("{ ", "{\n    ").replace(", ", ",\n    ").replace(" }", "\n}")) == fields(RUST)
    assert fields(VMCS + RUST) == fields(VMCS)


def test_numbers_of_which_nothing_tells_the_base() -> None:
    (dump,) = read_dumps(b"kvm_regs { rsp: 1000, rip: 7, rflags: 2, }\n", "input")
    assert dump.fields == {"GUEST_RIP": 7, "GUEST_RFLAGS": 2}
    assert any("decimal or hexadecimal" in item.text for item in dump.remarks)
