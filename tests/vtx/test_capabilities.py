"""Capabilities: presets that obey the appendix's laws, files that people have, and one-line errors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from popek.architectures.vtx.capabilities import (
    UNKNOWN,
    Capabilities,
    CapabilityView,
    normalise_register,
)
from popek.architectures.vtx.capability_files import (
    CapabilityError,
    from_mapping,
    from_text,
    load_capabilities,
    presets,
)
from popek.architectures.vtx.capability_limits import capability_defects, extremes
from popek.architectures.vtx.vmcs import MissingField

PRESETS = presets()


def test_there_are_presets_for_real_generations_and_for_bochs() -> None:
    assert sum(name.startswith("bochs-") for name in PRESETS) >= 3
    assert sum(not name.startswith("bochs-") for name in PRESETS) >= 3


@pytest.mark.parametrize("name", PRESETS)
def test_presets_say_where_they_come_from_and_obey_the_laws(name: str) -> None:
    capabilities = load_capabilities(name)
    assert capabilities.name == name
    assert capabilities.source
    assert capability_defects(capabilities) == []


def test_the_laws_catch_a_typing_error() -> None:
    good = load_capabilities("bochs-tigerlake")
    # A bit that must be 1 and may not be 1; a default1 bit that is missing; TRUE stricter than plain.
    for number, value, word in (
        (0x481, 0x16_0000_0017, "481H"),
        (0x481, 0x7F_0000_0014, "481H"),
        (0x48D, 0x7F_0000_0036, "48DH"),
        (0x486, 0x1_8000_0021, "486H"),
    ):
        bad = Capabilities(msrs={**good.msrs, number: value})
        assert any(word in defect for defect in capability_defects(bad)), hex(number)


def test_the_extremes_obey_the_laws_too_and_lie_around_every_preset() -> None:
    permissive, restrictive = extremes(UNKNOWN)
    assert capability_defects(permissive) == capability_defects(restrictive) == []
    low, high = CapabilityView(restrictive), CapabilityView(permissive)
    for name in PRESETS:
        view = CapabilityView(load_capabilities(name))
        for answer in ("pin_may", "pri_may", "exit_may", "entry_may", "cr0_may", "cr4_may"):
            try:
                value = getattr(view, answer)
            except MissingField:
                continue
            assert getattr(low, answer) & ~value == 0, (name, answer)
            assert value & ~getattr(high, answer) == 0, (name, answer)
            must = answer.replace("may", "must")
            assert getattr(view, must) & ~getattr(low, must) == 0, (name, must)
            assert getattr(high, must) & ~getattr(view, must) == 0, (name, must)


def test_what_is_known_stays_in_the_extremes() -> None:
    known = Capabilities(msrs={0x485: 0x1234}, cpuid={"0x80000008.0.eax": 0x3027})
    for extreme in extremes(known):
        assert extreme.msrs[0x485] == 0x1234
        assert CapabilityView(extreme).maxphyaddr == 39
        assert CapabilityView(extreme).linear_address_width == 48


def test_true_msrs_are_used_when_basic_says_so() -> None:
    msrs = {0x480: 1 << 55, 0x482: 0xFFF9FFFE_0401E172, 0x48E: 0xFFF9FFFE_04006172}
    assert CapabilityView(Capabilities(msrs=msrs)).pri_must == 0x0400_6172
    assert CapabilityView(Capabilities(msrs={**msrs, 0x480: 0})).pri_must == 0x0401_E172


def test_addresses_fit_32_bits_when_basic_says_so() -> None:
    wide = Capabilities(msrs={0x480: 0}, maxphyaddr=39)
    assert CapabilityView(wide).beyond == (1 << 64) - (1 << 39)
    narrow = Capabilities(msrs={0x480: 1 << 48}, maxphyaddr=39)
    assert CapabilityView(narrow).beyond == (1 << 64) - (1 << 32)


def test_nothing_is_assumed_of_an_unknown_processor() -> None:
    view = CapabilityView(UNKNOWN)
    for name in ("pin_must", "beyond", "linear_shift", "sgx", "cr0_may", "ept", "revision"):
        with pytest.raises(MissingField):
            getattr(view, name)


def test_controls_that_cannot_be_activated_need_no_msr() -> None:
    no_secondary = Capabilities(msrs={0x480: 0, 0x482: 0x77F9_FFFE_0401_E172})
    assert CapabilityView(no_secondary).sec_may == 0
    assert CapabilityView(no_secondary).ter_may == 0


RDMSR = """\
# rdmsr -p 0 ...
0x480: 00da040000000004
rdmsr 0x481 = 0x7f00000016
482 fff9fffe0401e172
IA32_VMX_EXIT_CTLS (0x483) 0x7fffff00036dff
MSR_IA32_VMX_MISC = 0x300481e5
maxphyaddr = 39
linear_address_width: 48
cpuid.7.0.ebx = 0x29c6fbf
"""


def test_an_rdmsr_listing() -> None:
    found = from_text(RDMSR, name="listing")
    assert found.msrs == {
        0x480: 0x00DA_0400_0000_0004,
        0x481: 0x7F_0000_0016,
        0x482: 0xFFF9_FFFE_0401_E172,
        0x483: 0x7F_FFFF_0003_6DFF,
        0x485: 0x3004_81E5,
    }
    assert (found.maxphyaddr, found.linear_address_width) == (39, 48)
    assert found.has("SGX") is True
    assert found.has("RTM") is True
    assert found.has("FRED") is None


def test_a_virtualbox_log() -> None:
    log = (
        "00:00:04.288709 HM: MSR_IA32_FEATURE_CONTROL          = 0x5\n"
        "00:00:04.288710 HM: MSR_IA32_VMX_BASIC                = 0xda040000000004\n"
        "00:00:04.288710 HM:   VMCS id                           = 0x4\n"
        "00:00:04.288714 HM: MSR_IA32_VMX_PINBASED_CTLS        = 0x7f00000016\n"
    )
    assert from_text(log).msrs == {0x3A: 5, 0x480: 0xDA_0400_0000_0004, 0x481: 0x7F_0000_0016}


def test_json_by_number_and_by_name(tmp_path: Path) -> None:
    path = tmp_path / "caps.json"
    content = {
        "0x480": "0xda040000000004",
        "IA32_VMX_MISC": "0x300481e5",
        "maxphyaddr": 46,
        "linear_address_width": 57,
        "cpuid.0x7.0.ebx": "0x4",
        "features": {"FRED": True},
    }
    path.write_text(json.dumps(content))
    found = load_capabilities(str(path))
    assert found.msrs == {0x480: 0xDA_0400_0000_0004, 0x485: 0x3004_81E5}
    assert found.has("SGX") is True
    assert found.has("FRED") is True
    assert CapabilityView(found).linear_shift == 56


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no VMX capability MSR found"),
        ("hello world\n", "no VMX capability MSR found"),
        ('{"0x480": }', ":1: not valid JSON"),
        ("[1, 2]", "expected a JSON object"),
        ('{"0x480": "xyz"}', "0x480: expected a number such as '0x16', not \"xyz\""),
        ('{"0x480": "' + "x" * 2000 + '"}', f"0x480: expected a number such as '0x16', not \"{'x' * 36}..."),
        ('{"0x480": true}', "expected a number"),
        ('{"0x480": "0x10000000000000000"}', "does not fit 64 bits"),
        ('{"0x480": -1}', "does not fit 64 bits"),
        ('{"maxphyadr": 39}', "maxphyadr: unknown capability; near: maxphyaddr"),
        ('{"maxphyaddr": 99}', "99 is not from 32 to 52"),
        ('{"linear_address_width": 64}', "64 is not 32, 48 or 57"),
        ('{"features": {"FLYING": true}}', "features.FLYING: expected true or false for one of SGX"),
        ('{"cpuid": {"seven": 1}}', "cpuid.seven: expected LEAF.SUBLEAF.REGISTER"),
        ("0x480: 1ffffffffffffffff\n", "caps:1: the value of MSR 0x480 is wider than 64 bits"),
        ("{" * 5000, "not valid JSON"),
    ],
)
def test_errors_are_one_line_with_the_place(text: str, message: str) -> None:
    with pytest.raises(CapabilityError) as caught:
        from_text(text, name="caps")
    line = str(caught.value)
    assert message in line
    assert "\n" not in line
    assert line.startswith("caps")


def test_an_unknown_preset_gets_near_matches(tmp_path: Path) -> None:
    with pytest.raises(
        CapabilityError, match="neither a capability preset nor a file; near: bochs-tigerlake"
    ):
        load_capabilities("bochs-tigerlak")
    with pytest.raises(CapabilityError, match="neither a capability preset nor a file"):
        load_capabilities(str(tmp_path))


def test_binary_files_are_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "caps.bin"
    path.write_bytes(bytes(range(256)) * 64)
    with pytest.raises(CapabilityError, match="no VMX capability MSR found"):
        load_capabilities(str(path))


def test_unknown_keys_of_a_mapping_are_refused() -> None:
    with pytest.raises(CapabilityError, match="unknown capability"):
        from_mapping({"0x480": 4, "unexpected": {}})


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("cpuid.0x7.0.ebx", "0x7.0.ebx"),
        ("CPUID.07H:EBX", "0x7.0.ebx"),
        ("cpuid.80000008.0.eax", "0x80000008.0.eax"),
        ("cpuid.14h.1.eax", "0x14.1.eax"),
        ("ebx", None),
        ("0x480", None),
    ],
)
def test_register_names(name: str, expected: str | None) -> None:
    assert normalise_register(name) == expected
