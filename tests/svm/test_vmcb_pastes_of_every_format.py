"""A VMCB in every format: what happens to a text makes no check fail that did not, and loses nothing unsaid."""

from __future__ import annotations

from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paste_formats import VMCBS, XEN_VMCB, XEN_VMCS
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
from popek.architectures.svm.dumps import read_vmcbs
from popek.architectures.svm.verdict import judge


def read(data: bytes) -> Answer:
    dumps = read_vmcbs(data, "input")
    verdicts = [judge(dump.vmcb) for dump in dumps]
    return Answer(
        [dump.vmcb.fields for dump in dumps],
        {item.id for verdict in verdicts for item in verdict.failed}
        | {item.id for verdict in verdicts for item in verdict.warnings},
        any(dump.unrecognised or dump.remarks for dump in dumps),
    )


TEXTS = {name if name == "names" else f"{name} VMCB": text for name, text in VMCBS.items()}
NAMES = st.sampled_from(list(TEXTS))


@cache
def whole(name: str) -> Answer:
    return read(TEXTS[name].encode())


@few
@given(name=NAMES, prefix=st.sampled_from(ALL_PREFIXES))
def test_every_prefix_in_front_of_every_format(name: str, prefix: str) -> None:
    found = read("".join(f"{prefix}{line}\n" for line in TEXTS[name].splitlines()).encode())
    assert found.fields == whole(name).fields


@few
@given(name=NAMES, change=st.sampled_from([str.upper, str.lower, *ENCODINGS]))
def test_letters_and_bytes_may_be_others(name: str, change: object) -> None:
    text = TEXTS[name]
    found = read(text.encode(change) if isinstance(change, str) else change(text).encode())  # type: ignore[operator]
    assert found.fields == whole(name).fields


@few
@given(data=st.data(), name=NAMES)
def test_a_truncated_text(data: st.DataObject, name: str) -> None:
    nothing_new(whole(name), read, data.draw(truncated(TEXTS[name])), told=False)


@few
@given(data=st.data())
def test_a_heading_that_is_lost_or_another(data: st.DataObject) -> None:
    nothing_new(whole("KVM VMCB"), read, data.draw(without_headings(VMCB)))


@few
@given(data=st.data(), name=NAMES)
def test_foreign_lines(data: st.DataObject, name: str) -> None:
    nothing_new(whole(name), read, data.draw(with_foreign_lines(TEXTS[name])))


@few
@given(data=st.data(), name=NAMES)
def test_lines_that_are_lost(data: st.DataObject, name: str) -> None:
    nothing_new(whole(name), read, data.draw(with_lines_lost(TEXTS[name])), told=False)


@few
@given(data=st.data(), name=NAMES)
def test_lines_that_were_broken_or_cut(data: st.DataObject, name: str) -> None:
    nothing_new(whole(name), read, data.draw(wrapped(TEXTS[name])))
    nothing_new(whole(name), read, data.draw(cut_at_a_column(TEXTS[name], unpadded=name in UNPADDED)))


@few
@given(data=st.data(), name=NAMES)
def test_two_things_at_once(data: st.DataObject, name: str) -> None:
    first = data.draw(st.sampled_from([with_foreign_lines, with_lines_lost, without_headings]))
    second = data.draw(st.sampled_from([truncated, wrapped, with_foreign_lines]))
    nothing_new(whole(name), read, data.draw(second(data.draw(first(TEXTS[name])))), told=False)


@few
@given(data=st.data(), name=NAMES)
def test_every_mangling_of_every_format(data: st.DataObject, name: str) -> None:
    mangling = data.draw(manglings(name))
    told = mangling not in ("the second half", "upside down", "lines cut")
    nothing_new(whole(name), read, mangled(mangling, TEXTS[name]), told=told)


# -- small inputs, one for each kind ----------------------------------------------------------------


@pytest.mark.parametrize(
    "line", ["asid = 010", "ASID = 0x1ffffffff", "{…}", "CR3=1", "EFER=0000000000000500"]
)
def test_a_line_that_is_wrong_or_anothers_takes_nothing_with_it(line: str) -> None:
    for text in (VMCB, XEN_VMCB):
        (dump,) = read_vmcbs(f"{line}\n{text}".encode(), "input")
        assert dump.vmcb.fields == read(text.encode()).fields[0]
        assert dump.unrecognised or dump.remarks


@pytest.mark.parametrize("text", [VMCB + VMCS, VMCS + VMCB, XEN_VMCB + XEN_VMCS, XEN_VMCS + XEN_VMCB])
def test_a_vmcs_beside_a_vmcb(text: str) -> None:
    vmcb = VMCB if "(XEN)" not in text else XEN_VMCB
    (dump,) = read_vmcbs(text.encode(), "input")
    assert dump.vmcb.fields == read(vmcb.encode()).fields[0]


def test_a_number_that_the_text_ends_in_is_left_out() -> None:
    assert read(b"ASID = 0x1\nCR4 = 0x20").fields == [{"ASID": 1}]
    assert read(b"ASID = 0x1\nCR4 = 0x20\n").fields == [{"ASID": 1, "CR4": 0x20}]
    assert read(b"CR4 = 0x20").fields == [{"CR4": 0x20}]  # typed by hand
