"""The list of VMCS fields obeys the encoding scheme, and names are found as people write them."""

from __future__ import annotations

import pytest

from popek.architectures.vtx.controls import bits_of, decode, find_bit
from popek.architectures.vtx.fields import ALIASES, FIELDS, UnknownField, by_encoding, find

# SDM vol. 3, structure of VMCS component encoding: bits 14:13 width, 11:10 type.
WIDTHS = {0: 16, 1: 64, 2: 32, 3: 64}
AREAS = {0: "control", 1: "exit-information", 2: "guest-state", 3: "host-state"}


def test_width_and_area_follow_from_the_encoding() -> None:
    for field in FIELDS.values():
        assert field.width == WIDTHS[field.encoding >> 13 & 3], field.id
        assert field.natural == (field.encoding >> 13 & 3 == 3), field.id
        assert field.area == AREAS[field.encoding >> 10 & 3], field.id
        assert field.encoding & 0x9001 == 0, field.id
        assert field.access == ("read-only" if field.area == "exit-information" else "read-write"), field.id
        assert field.source


def test_each_encoding_names_one_field() -> None:
    assert len({field.encoding for field in FIELDS.values()}) == len(FIELDS) == 206


def test_well_known_encodings() -> None:
    known = {"VPID": 0, "GUEST_CR0": 0x6800, "HOST_RIP": 0x6C16, "EXIT_REASON": 0x4402, "EPTP": 0x201A}
    assert {name: FIELDS[name].encoding for name in known} == known


def test_the_high_half_of_a_64_bit_field_is_told_apart() -> None:
    assert by_encoding(0x201B) == (FIELDS["EPTP"], True)
    assert by_encoding(0x201A) == (FIELDS["EPTP"], False)
    for no_field in (0x6801, 0x4001, 0x7FFE, 0x1):
        with pytest.raises(KeyError):
            by_encoding(no_field)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("GUEST_CR0", "GUEST_CR0"),
        ("guest-cr0", "GUEST_CR0"),
        (" Guest CR0 ", "GUEST_CR0"),
        ("0x6800", "GUEST_CR0"),
        ("0x201b", "EPTP"),
        ("EPT_POINTER", "EPTP"),
        ("GUEST_CS_AR_BYTES", "GUEST_CS_ACCESS_RIGHTS"),
        ("TSC offset", "TSC_OFFSET"),
    ],
)
def test_names_people_use(name: str, expected: str) -> None:
    assert find(name).id == expected


def test_an_alias_never_hides_a_field() -> None:
    assert not set(ALIASES) & set(FIELDS)
    assert set(ALIASES.values()) <= set(FIELDS)


def test_an_unknown_name_gets_near_matches_in_one_line() -> None:
    with pytest.raises(UnknownField, match=r"^no VMCS field is called 'GUEST_CRO'; near: .*GUEST_CR0"):
        find("GUEST_CRO")
    with pytest.raises(UnknownField, match="encoding '0x6801'"):
        find("0x6801")


def test_decoding_names_what_is_set() -> None:
    def names(field: str, value: int) -> list[str]:
        return [bit.name for bit in decode(field, value) if bit.value]

    assert names("GUEST_CR4", 1 << 17 | 1 << 13) == ["VMXE", "PCIDE"]
    assert names("GUEST_RFLAGS", 0x2_3202) == ["RESERVED_1", "IF", "IOPL", "VM"]
    assert names("PRIMARY_PROC_CONTROLS", 1 << 25 | 1 << 28) == ["USE_IO_BITMAPS", "USE_MSR_BITMAPS"]
    # A bit without a name is shown, not dropped.
    assert names("GUEST_CR0", 1 << 12) == ["bit 12"]
    rights = {bit.name: bit for bit in decode("GUEST_TR_ACCESS_RIGHTS", 0x1_008B)}
    assert rights["TYPE"].value == 11
    assert "busy 32/64-bit TSS" in rights["TYPE"].meaning
    assert rights["UNUSABLE"].value == 1
    assert decode("GUEST_RIP", 0x1234) == []
    (reason,) = (bit for bit in decode("EXIT_REASON", 0x8000_0021) if bit.name == "BASIC")
    assert "ENTRY_FAIL_GUEST_STATE" in reason.meaning


def test_named_bits_do_not_overlap_and_fit_the_field() -> None:
    for field in FIELDS.values():
        seen = 0
        for bits in bits_of(field.id):
            mask = (1 << bits.high + 1) - (1 << bits.low)
            assert mask & seen == 0, (field.id, bits.name)
            assert mask & ~field.mask == 0, (field.id, bits.name)
            seen |= mask


@pytest.mark.parametrize(
    ("name", "field", "bit"),
    [
        ("USE_IO_BITMAPS", "PRIMARY_PROC_CONTROLS", 25),
        ("pri[25]", "PRIMARY_PROC_CONTROLS", 25),
        ("secondary[7]", "SECONDARY_PROC_CONTROLS", 7),
        ("GUEST_CR4.PCIDE", "GUEST_CR4", 17),
        ("unrestricted guest", "SECONDARY_PROC_CONTROLS", 7),
    ],
)
def test_bits_are_found_by_name(name: str, field: str, bit: int) -> None:
    ((found, bits),) = find_bit(name)
    assert (found, bits.low) == (field, bit)


def test_a_register_name_finds_every_field_that_holds_it() -> None:
    assert {field for field, _ in find_bit("CR4.PCIDE")} == {"GUEST_CR4", "HOST_CR4"}
    assert find_bit("NO_SUCH_BIT") == []
