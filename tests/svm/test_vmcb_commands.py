"""`popek vmcb`: repair, generate, rules, processors, JSON; as for VMCSs, and held against the checks on integers."""

from __future__ import annotations

import itertools
import json
import random
from pathlib import Path
from typing import Any

import attrs
import jsonschema
import pytest

from commands import popek
from pastes import VMCB
from popek.architectures.dump import DumpError
from popek.architectures.svm.baselines import MODES, baseline
from popek.architectures.svm.capabilities import (
    completed,
    from_mapping,
    from_text,
    load_capabilities,
    presets,
    to_mapping,
)
from popek.architectures.svm.checks import CHECKS
from popek.architectures.svm.dumps_json import from_json
from popek.architectures.svm.verdict import VmrunVerdict, judge
from popek.architectures.svm.vmcb import FIELDS, SvmProcessor, Vmcb
from popek.schemas import schemas
from popek.solving.solver import Answer
from popek.vmcs.edits import Change
from popek.vmcs.vmcb import ask_vmcb, generate_vmcbs, repair_vmcb

ZEN4 = completed(load_capabilities("zen4"))
OURS = ("vmcb", "vmcb-verdict", "vmcb-fields", "vmcb-rules")


def assert_valid(name: str, value: Any) -> None:
    jsonschema.Draft202012Validator(schemas()[f"popek/{name}/1"]).validate(value)


@pytest.fixture
def dump(tmp_path: Path) -> str:
    path = tmp_path / "vmcb.txt"
    path.write_text(VMCB)
    return str(path)


# -- repair --------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_baselines_enter(mode: str) -> None:
    verdict = judge(baseline(mode), ZEN4)
    assert verdict.outcome == "enters"
    assert verdict.failed == verdict.warnings == ()
    assert verdict.undecided == ()


def test_one_wrong_bit_is_mended_by_one_bit() -> None:
    """Whatever bit of a good VMCB is turned over: if a check fails, one bit mends it, and the checks say so."""
    rnd = random.Random("vmcb-repair")
    names = sorted({name for check in CHECKS.values() for name in check.fields})
    mended = 0
    for _ in range(120):
        good = baseline(rnd.choice(list(MODES)))
        name = rnd.choice(names)
        bad = good.with_fields(**{name: good.fields[name] ^ 1 << rnd.randrange(FIELDS[name].width)})
        found = repair_vmcb(bad, ZEN4)
        assert bool(found.changes) == bool(judge(bad, ZEN4).failed)
        assert sum(len(change.bits) for change in found.changes) == bool(found.changes)
        changed = bad.with_fields(**{change.field: change.after for change in found.changes})
        # One reads memory, and of others nobody says what becomes of them.
        left = [item for item in judge(changed, ZEN4).undecided if not item.unsure]
        assert {item.id for item in left} <= {"SVM-CR-15"}
        assert not judge(changed, ZEN4).failed
        mended += bool(found.changes)
    assert mended > 20


def test_brute_force_finds_nothing_smaller() -> None:
    """With two wrong bits: no single bit of any field mends what takes two."""
    good = baseline("64-bit")
    bad = good.with_fields(ASID=0, DR6=good.fields["DR6"] | 1 << 40)
    found = repair_vmcb(bad, ZEN4)
    assert sum(len(change.bits) for change in found.changes) == 2
    for name, field in FIELDS.items():
        for bit in range(field.width):
            assert judge(bad.with_fields(**{name: bad.fields[name] ^ 1 << bit}), ZEN4).failed


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"EFER": 0xD01}, Change("EFER", 0xD01, 0x1D01)),  # SVME
        ({"INTERCEPTS_4": 0}, Change("INTERCEPTS_4", 0, 1)),  # VMRUN
        ({"CR4": 0}, Change("CR4", 0, 0x20)),  # PAE, rather than leave long mode
        ({"CS_ATTRIBUTES": 0x69B}, Change("CS_ATTRIBUTES", 0x69B, 0x29B)),
        (
            {"VINTR_CONTROL": 1 << 26},
            Change("INTERCEPTS_3", 0, 2),
        ),  # the NMI intercept, rather than no virtual NMI
    ],
)
def test_what_a_hypervisor_would_have_meant(changes: dict[str, int], expected: Change) -> None:
    assert repair_vmcb(baseline("64-bit").with_fields(**changes), ZEN4).changes == (expected,)


def test_no_repair_says_why() -> None:
    bad = baseline("64-bit").with_fields(CR0=baseline("64-bit").fields["CR0"] | 1 << 29)
    found = repair_vmcb(bad, ZEN4, keep=["CR0"])
    assert found.answer is Answer.UNSAT
    assert found.reason is not None
    assert (found.reason.checks, found.reason.kept) == (("SVM-CR-04",), ("CR0",))


def test_a_reported_failure_that_nothing_explains_is_not_called_fine() -> None:
    found = repair_vmcb(baseline("64-bit").with_fields(EXITCODE=(1 << 64) - 1), ZEN4)
    assert found.unexplained
    assert not found.changes


def test_an_encrypted_guest_keeps_what_the_processor_does_not_read() -> None:
    sev_es = {"NP_CONTROL": 7, "CR0": 0x2000_0010, "VMSA": 0x1008}
    found = repair_vmcb(baseline("64-bit").with_fields(**sev_es), attrs.evolve(ZEN4, sev=True))
    assert [change.field for change in found.changes] == ["VMSA"]


def test_repair_prints_and_says_json(dump: str, tmp_path: Path) -> None:
    shown = popek("vmcb", "repair", dump)
    assert shown.returncode == 3  # the width of physical addresses is not known
    assert "Smallest repair: 1 bit in 1 field" in shown.stdout
    assert "CR0  0xa0050033" in shown.stdout
    assert_valid("vmcb-verdict", json.loads(popek("vmcb", "repair", dump, "--json").stdout))
    assert (
        popek("vmcb", "repair", dump, "--capabilities", "zen3", "--svg", str(tmp_path / "r.svg")).returncode
        == 0
    )
    assert "<svg" in (tmp_path / "r.svg").read_text()
    assert popek("vmcb", "repair", dump, "--keep", "CR00").stderr.startswith("popek: --keep: no VMCB field")
    assert popek("vmcb", "repair", dump, "--keep", "CR0").returncode == 1


# -- generation and rules ------------------------------------------------------------------

_NEVER = {
    *(
        "SVM-CTL-06",
        "SVM-CR-03",
        "SVM-CR-15",
        "SVM-CR-16",
    ),  # the host, no long mode, memory, shadowed by SVM-CR-14
    *("SVM-CTL-14", "SVM-CTL-15", "SVM-CTL-16", "SVM-CTL-17"),  # SEV
}


def broken(verdict: VmrunVerdict) -> list[str]:
    """What fails, fails on some processors, or is left open."""
    certain = [item.id for item in (*verdict.failed, *verdict.warnings)]
    return certain + [item.id for item in verdict.undecided]


@pytest.mark.parametrize("check_id", sorted(set(CHECKS) - _NEVER))
def test_what_is_generated_violates_that_check_alone(check_id: str) -> None:
    edges = list(generate_vmcbs(check_id, 4, 3, ZEN4))
    assert len(edges) == 4
    for edge in edges:
        verdict = judge(edge.found, ZEN4)
        assert broken(verdict) == ([check_id] if edge.violates else [])
        if edge.flip is not None:
            name, bit = edge.flip
            flipped = judge(edge.found.with_fields(**{name: edge.found.fields[name] ^ 1 << bit}), ZEN4)
            assert check_id in broken(flipped)


def test_what_is_generated_is_input(tmp_path: Path) -> None:
    lines = popek("vmcb", "generate", "--violate", "svm-cr-08", "--count", "3").stdout
    file = tmp_path / "lines.jsonl"
    file.write_text(lines + '{"fields": {"NOBODY": "0x1"}}\n[]\n')
    for line in lines.splitlines():
        assert_valid("vmcb", json.loads(line))
    result = popek("vmcb", "check", "--jsonl", str(file))
    answers = [json.loads(line) for line in result.stdout.splitlines()]
    for answer in answers:
        assert_valid("vmcb-verdict", answer)
    assert [answer.get("outcome", {}).get("kind") for answer in answers] == [
        "vmexit-invalid", "enters", "vmexit-invalid", None, None,
    ]  # fmt: skip
    assert result.returncode == 2
    assert popek("vmcb", "generate", "--violate", "svm-cr-08", "--count", "3").stdout == lines


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--violate", "SVM-CR-99"], 2, "no check has this id"),
        (["--violate", "SVM-PRE-01"], 2, "not modelled"),
        (["--violate", "SVM-CR-01", "--count", "0"], 2, "above 0"),
        (["--violate", "SVM-CTL-14"], 1, "no VMCB was found"),
        (["--violate", "SVM-CR-01", "--capabilities", "zen33"], 2, "did you mean 'zen3'"),
    ],
)
def test_bad_questions_are_one_line(arguments: list[str], code: int, words: str) -> None:
    result = popek("vmcb", "generate", *arguments)
    assert result.returncode == code
    assert words in result.stderr
    assert result.stderr.count("\n") == 1


def test_rules_that_can_fail_alone_and_those_that_others_shadow() -> None:
    answers = ask_vmcb(ZEN4, "zen4")
    assert all(answers.modes.values())
    assert answers.shadowed == {"SVM-CR-16": ("SVM-CR-14",)}  # without IBT, S_CET has two bits
    assert set(answers.never) == {
        "SVM-CTL-06",
        "SVM-CR-03",
        "SVM-CTL-14",
        "SVM-CTL-15",
        "SVM-CTL-16",
        "SVM-CTL-17",
    }
    assert answers.unknown == ("SVM-CR-15",)  # it reads memory
    everything = (*answers.alone, *answers.never, *answers.shadowed, *answers.unknown, *answers.outside)
    assert sorted(everything) == sorted(CHECKS)
    with_ibt = ask_vmcb(attrs.evolve(ZEN4, ibt=True), "x")
    assert "SVM-CR-16" in with_ibt.alone
    assert_valid("vmcb-rules", answers.to_json())
    assert_valid("vmcb-rules", json.loads(popek("vmcb", "rules", "--json").stdout))
    assert "NO VMCB" not in popek("vmcb", "rules", "--capabilities", "zen3").stdout


# -- processors ----------------------------------------------------------------------------

CPUID = """\
CPU:
   0x00000001 0x00: eax=0x00a20f10 ebx=0x00200800 ecx=0x7ef8320b edx=0x178bfbff
   0x00000007 0x00: eax=0x00000000 ebx=0x219c97a9 ecx=0x0040068c edx=0x00000000
   0x80000001 0x00: eax=0x00a20f10 ebx=0x20000000 ecx=0x75c237ff edx=0x2fd3fbff
   0x80000008 0x00: eax=0x00003030 ebx=0x111ef657 ecx=0x0000501f edx=0x00010000
   0x8000000a 0x00: eax=0x00000001 ebx=0x00008000 ecx=0x00000000 edx=0x101bbcff
"""
CPUINFO = "flags\t\t: fpu lm svm flushbyasid vnmi\nbugs\t\t: none\naddress sizes\t: 43 bits physical, 48 bits virtual\n"


def test_processors_by_what_machines_print(tmp_path: Path, dump: str) -> None:
    read = from_text(CPUID)
    assert (read.maxphyaddr, read.flush_by_asid, read.cet, read.vnmi, read.gmet) == (
        48,
        True,
        True,
        False,
        True,
    )
    assert from_text(CPUINFO) == SvmProcessor(maxphyaddr=43, flush_by_asid=True, vnmi=True)
    assert from_text('{"maxphyaddr": 40, "cr4": "0x20"}') == SvmProcessor(maxphyaddr=40, cr4=0x20)
    file = tmp_path / "cpuid.txt"
    file.write_text(CPUID)
    shown = popek("vmcb", "check", dump, "--capabilities", str(file)).stdout
    assert "SVM-CR-04" in shown
    assert "maxphyaddr" not in shown
    for name in presets():
        known = load_capabilities(name)
        assert from_mapping(to_mapping(known)) == attrs.evolve(known, named="", unsure=())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"maxphyadr": 48}', "did you mean 'maxphyaddr'"),
        ('{"maxphyaddr": 99}', "from 32 to 52"),
        ('{"cet": 1}', "cet: expected true or false"),
        ("flags : fpu vmx\n", "no svm"),
        ("   0x00000001 0x00: eax=0x00a20f10 ebx=0x00200800 ecx=0x7ef8320b edx=0x178bfbff", "8000000AH"),
        ("hello", "nothing of a processor"),
        ("{", "not JSON"),
    ],
)
def test_what_is_no_processor(text: str, words: str, tmp_path: Path, dump: str) -> None:
    with pytest.raises(DumpError, match=words):
        from_text(text)
    file = tmp_path / "processor"
    file.write_text(text)
    result = popek("vmcb", "check", dump, "--capabilities", str(file))
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    assert str(file) in result.stderr


# -- JSON ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"GUEST_CR33": 1}', '"GUEST_CR33" is unknown'),
        ('{"ASIDS": 1}', '"ASIDS" is unknown: near: ASID'),
        ('{"asid": 1}', '"asid" is a field'),
        ('{"feilds": {}}', "did you mean 'fields'"),
        ('{"fields": 3}', "'fields' is 3"),
        ('{"fields": {"ASID": 1}, "fields": {"ASID": 2}}', "'fields' is given twice"),
        ('{"fields": {"ASID": 1, "asid": 2}}', "ASID is given twice"),
        ('{"fields": {"ASID": "1"}}', "expected a hexadecimal string of 32 bits"),
        ("[]", "array is empty"),
        ("[3]", "expected a JSON object"),
        ('{"fields": {"ASID": NaN}}', "NaN is not JSON"),
    ],
)
def test_wrong_json_names_what_is_wrong(text: str, words: str) -> None:
    with pytest.raises(DumpError) as caught:
        from_json(text, "x")
    assert words in caught.value.message


def test_several_documents() -> None:
    two = from_json('[{"fields": {"ASID": 1}}, {"fields": {"ASID": 2}, "name": "b"}]', "x")
    assert [(item.vmcb.name, item.vmcb.fields["ASID"]) for item in two] == [("x#1", 1), ("b", 2)]
    lines = from_json('{"fields": {"ASID": 1}}\n\n{"fields": {"ASID": 2}}\n', "x")
    assert [item.vmcb.name for item in lines] == ["x:1", "x:3"]
    with pytest.raises(DumpError) as caught:
        from_json('{"fields": {"ASID": 1}}\n{"fields": {"ASIX": 2}}\n', "x")
    assert caught.value.line == 2


def test_every_document_is_as_its_schema_says(dump: str) -> None:
    for name in OURS:
        jsonschema.Draft202012Validator.check_schema(schemas()[f"popek/{name}/1"])
    assert_valid("vmcb-verdict", json.loads(popek("vmcb", "check", dump, "--json").stdout))
    assert_valid("vmcb-fields", json.loads(popek("vmcb", "decode", dump, "--json").stdout))


def test_every_field_is_read_from_bytes_and_json() -> None:
    rnd = random.Random("vmcb-bytes")
    data = bytes(rnd.randrange(256) for _ in range(4096))
    for field in FIELDS.values():
        value = int.from_bytes(data[field.offset : field.offset + field.width // 8], "little")
        (one,) = from_json(json.dumps({"fields": {field.id: hex(value)}}), "x")
        assert one.vmcb == Vmcb("x", {field.id: value})
    assert {"SPEC_CTRL", "ALLOWED_SEV_FEATURES", "GUEST_SEV_FEATURES", "VMSA", "BUS_LOCK_THRESHOLD"} <= set(
        FIELDS
    )
    ends = sorted((field.offset, field.offset + field.width // 8) for field in FIELDS.values())
    assert all(end <= start for (_, end), (start, _) in itertools.pairwise(ends))
