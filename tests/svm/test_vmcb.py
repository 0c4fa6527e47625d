"""VMCBs: every row of the ledger, one violation at a time; dumps; `popek vmcb`."""

from __future__ import annotations

import io
import json
import random
import sys
from collections.abc import Callable

import attrs
import pytest

from popek.architectures.dump import DumpError
from popek.architectures.svm.checks import CHECKS, NOT_MODELLED, NotGiven, VmcbView, ledger
from popek.architectures.svm.cpuid import processor_of
from popek.architectures.svm.dumps import read_vmcb
from popek.architectures.svm.verdict import judge
from popek.architectures.svm.vmcb import FIELDS, SvmProcessor, UnknownVmcbField, Vmcb, find, intercepts
from popek.cli.errors import UserError
from popek.cli.vmcb import app
from popek.kernel.words import Word, symbol

Run = Callable[..., tuple[int, str]]
ZEN = SvmProcessor(maxphyaddr=48, flush_by_asid=True, long_mode=True, cet=True, host_paging=True, vnmi=True)
LIMIT = 1 << 48
HIGH = 1 << 32

# A 64-bit guest with nested paging.
GOOD = Vmcb(
    "good",
    {
        **dict.fromkeys(FIELDS, 0),
        "INTERCEPTS_4": 1,
        "ASID": 1,
        "NP_CONTROL": 1,
        "N_CR3": 0x10_0000,
        "G_PAT": 0x0007_0406_0007_0406,
        "EFER": 0x1D01,
        "CR0": 0x8001_0031,
        "CR4": 0x20,
        "CR3": 0x20_0000,
        "CS_ATTRIBUTES": 0x29B,
        "DR6": 0xFFFF_0FF0,
        "DR7": 0x400,
        "EXITCODE": 0x78,
    },
)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    def run_it(*args: str, stdin: bytes | str = b"") -> tuple[int, str]:
        data = stdin if isinstance(stdin, bytes) else stdin.encode()
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
        code = app(list(args), result_action="return_value", exit_on_error=False)
        return code, capsys.readouterr().out

    return run_it


def test_every_row_has_a_predicate_or_a_reason() -> None:
    assert set(CHECKS) | set(NOT_MODELLED) == set(ledger())
    assert not set(CHECKS) & set(NOT_MODELLED)
    for check in CHECKS.values():
        assert (check.certainty == "may") == (check.id in UNCERTAIN), check.id
        assert (check.certainty == "unsure") == (ledger()[check.id]["confidence"] == "unsure"), check.id
        assert set(check.fields) <= set(FIELDS)


# Rows that the ledger marks as uncertain or untested by the sources that were compared.
UNCERTAIN = {
    *("SVM-CTL-05", "SVM-CTL-10", "SVM-CTL-11", "SVM-CTL-13", "SVM-CTL-17", "SVM-CTL-18", "SVM-CTL-19"),
    *("SVM-INJ-03", "SVM-INJ-04", "SVM-CR-16"),
}


def test_a_good_vmcb_enters() -> None:
    verdict = judge(GOOD, ZEN)
    assert verdict.outcome == "enters"
    assert verdict.failed == verdict.undecided == verdict.warnings == ()


@pytest.mark.parametrize(
    ("check_id", "changes"),
    [
        ("SVM-CTL-01", {"INTERCEPTS_4": 2}),
        ("SVM-CTL-02", {"ASID": 0}),
        ("SVM-CTL-03", {"IOPM_BASE": LIMIT - 2 * 4096}),
        ("SVM-CTL-04", {"MSRPM_BASE": LIMIT - 4096}),
        ("SVM-CTL-05", {"TLB_CONTROL": 2}),
        ("SVM-CTL-07", {"N_CR3": LIMIT}),
        ("SVM-CTL-08", {"G_PAT": 0x0007_0406_0007_0402}),
        ("SVM-CTL-08", {"G_PAT": 0x0807_0406_0007_0406}),
        ("SVM-CTL-09", {"VINTR_CONTROL": 1 << 26}),
        ("SVM-CTL-10", {"VINTR_CONTROL": 1 << 31, "NP_CONTROL": 0}),
        ("SVM-CTL-11", {"VINTR_CONTROL": 1 << 31, "AVIC_BACKING_PAGE": LIMIT}),
        ("SVM-INJ-01", {"EVENTINJ": 0x8000_0130}),
        ("SVM-INJ-02", {"EVENTINJ": 0x8000_0302}),
        ("SVM-INJ-02", {"EVENTINJ": 0x8000_0320}),
        ("SVM-INJ-03", {"EVENTINJ": 0x8000_0305}),
        ("SVM-CR-01", {"EFER": 0xD01}),
        ("SVM-CR-02", {"EFER": 0x1D01 | 1 << 9}),
        ("SVM-CR-02", {"EFER": 0x1D01 | 1 << 40}),
        ("SVM-CR-04", {"CR0": 0x8001_0031 | 1 << 29}),
        ("SVM-CR-05", {"CR0": 0x8001_0031 | HIGH}),
        ("SVM-CR-06", {"CR3": 1 << 63}),
        ("SVM-CR-06", {"CR3": LIMIT}),
        ("SVM-CR-06", {"CR3": 1 << 51}),
        ("SVM-CR-06", {"CR3": LIMIT, "EFER": 0x1000}),  # PAE
        ("SVM-CR-06", {"CR3": LIMIT, "EFER": 0x1000, "CR4": 0}),
        ("SVM-CR-06", {"CR3": LIMIT, "EFER": 0x1000, "CR4": 0, "CR0": 0x11}),
        ("SVM-INJ-04", {"EVENTINJ": 0x8000_0309}),
        ("SVM-INJ-04", {"EVENTINJ": 0x8000_030F}),
        ("SVM-INJ-04", {"EVENTINJ": 0x8000_0314}),
        ("SVM-INJ-04", {"EVENTINJ": 0x8000_0316}),
        ("SVM-INJ-04", {"EVENTINJ": 0x8000_031B}),
        ("SVM-INJ-04", {"EVENTINJ": 0x8000_031F}),
        ("SVM-CR-14", {"S_CET": 0xC00}),
        ("SVM-CR-16", {"S_CET": HIGH, "EFER": 0x1000}),
        ("SVM-CTL-11", {"VINTR_CONTROL": 1 << 31, "AVIC_BACKING_PAGE": 0x800}),
        ("SVM-CTL-11", {"VINTR_CONTROL": 1 << 31, "AVIC_LOGICAL_TABLE": 1}),
        ("SVM-CTL-11", {"VINTR_CONTROL": 1 << 31, "AVIC_PHYSICAL_TABLE": 0x200}),
        ("SVM-CTL-13", {"NP_CONTROL": 0x101}),
        ("SVM-CTL-14", {"NP_CONTROL": 2}),
        ("SVM-CTL-18", {"VINTR_CONTROL": 1 << 30}),
        ("SVM-CTL-19", {"VINTR_CONTROL": 1 << 31, "AVIC_PHYSICAL_TABLE": 0xFF}),
        ("SVM-CR-07", {"CR4": 0x20 | 1 << 13}),
        ("SVM-CR-07", {"CR4": 0x20 | HIGH}),
        ("SVM-CR-08", {"CR4": 0}),
        ("SVM-CR-09", {"CR0": 0x8001_0030}),
        ("SVM-CR-10", {"CS_ATTRIBUTES": 0x69B}),
        ("SVM-CR-11", {"DR6": HIGH}),
        ("SVM-CR-12", {"DR7": HIGH}),
        ("SVM-CR-13", {"CR4": 0x20 | 1 << 23, "CR0": 0x8000_0031}),
        ("SVM-CR-14", {"S_CET": 0x40}),
    ],
)
def test_one_violation_at_a_time(check_id: str, changes: dict[str, int]) -> None:
    verdict = judge(GOOD.with_fields(**changes), ZEN)
    if check_id in UNCERTAIN:
        assert [item.id for item in verdict.warnings] == [check_id]
        assert verdict.outcome == "enters"
    else:
        assert [item.id for item in verdict.failed] == [check_id]
        assert verdict.outcome == "vmexit-invalid"


LACKING = attrs.evolve(ZEN, gmet=False, sss=False, bus_lock_threshold=False)
HAVING = attrs.evolve(ZEN, gmet=True, sss=True, bus_lock_threshold=True)
NESTED, GMET, SSS, PML = 1, 1 << 3, 1 << 4, 1 << 11


@pytest.mark.parametrize(
    ("changes", "processor", "named"),
    [
        ({"NP_CONTROL": NESTED | GMET}, HAVING, None),
        ({"NP_CONTROL": NESTED | GMET}, ZEN, None),
        ({"NP_CONTROL": NESTED | GMET}, LACKING, "SVM-CTL-20"),
        ({"NP_CONTROL": GMET}, HAVING, "SVM-CTL-20"),
        ({"NP_CONTROL": NESTED | SSS}, HAVING, None),
        ({"NP_CONTROL": NESTED | SSS}, LACKING, "SVM-CTL-21"),
        ({"NP_CONTROL": SSS}, HAVING, "SVM-CTL-21"),
        ({"INTERCEPTS_5": 1 << 5, "BUS_LOCK_THRESHOLD": 0xFFFF}, HAVING, None),
        ({"INTERCEPTS_5": 1 << 5, "BUS_LOCK_THRESHOLD": 0}, HAVING, None),
        ({"INTERCEPTS_5": 1 << 5}, LACKING, "SVM-CTL-22"),
        ({"BUS_LOCK_THRESHOLD": 5}, LACKING, None),  # without the intercept nothing counts
        ({"NP_CONTROL": NESTED | PML, "PML_ADDRESS": 0x1000}, ZEN, None),
        ({"NP_CONTROL": NESTED | PML, "PML_ADDRESS": 0x1008}, ZEN, "SVM-CTL-23"),
        ({"NP_CONTROL": NESTED | PML, "PML_ADDRESS": LIMIT}, ZEN, "SVM-CTL-23"),
        ({"SPEC_CTRL": 0x87}, ZEN, None),
        ({"SPEC_CTRL": 0x400}, ZEN, "SVM-CR-17"),
    ],
)
def test_what_nobody_states_is_named_and_accuses_nobody(
    changes: dict[str, int], processor: SvmProcessor, named: str | None
) -> None:
    verdict = judge(GOOD.with_fields(**changes), processor)
    assert verdict.outcome == "enters"
    assert verdict.failed == verdict.warnings == ()
    assert [item.id for item in verdict.undecided] == ([] if named is None else [named])
    assert all("what VMRUN does unless" in item.missing for item in verdict.undecided)


def test_an_enable_bit_that_the_processor_may_ignore_accuses_nobody() -> None:
    changed = GOOD.with_fields(VINTR_CONTROL=1 << 26)
    assert judge(changed, attrs.evolve(ZEN, vnmi=None)).outcome == "undecided"
    assert judge(changed, attrs.evolve(ZEN, vnmi=False)).outcome == "enters"


@pytest.mark.parametrize(
    "changes",
    [
        {"IOPM_BASE": LIMIT - 3 * 4096 + 0xFFF},  # low bits are ignored
        {"MSRPM_BASE": LIMIT - 2 * 4096},
        {"TLB_CONTROL": 7},
        {"EFER": 0x1901},  # LMA is recomputed
        {"EFER": 0x1001, "CR0": 0x8001_0030, "CR4": 0},  # paged real mode
        {"CR0": 0xE001_0031},  # CD and NW
        {"G_PAT": 2, "NP_CONTROL": 0},
        {"CS_ATTRIBUTES": 0x69B, "EFER": 0x1001},
        {"RFLAGS": 0, "RIP": 1 << 63, "CS_BASE": 1 << 63},
        {"EVENTINJ": 0x0000_0130},
        {"EVENTINJ": 0x8000_0204},  # an NMI has no vector
    ],
)
def test_what_vmrun_does_not_refuse(changes: dict[str, int]) -> None:
    assert judge(GOOD.with_fields(**changes), ZEN).failed == ()


@pytest.mark.parametrize(
    "changes",
    [
        {"CR3": LIMIT - 1},
        *(
            {"EVENTINJ": 0x8000_0300 | vector}
            for vector in (0, 1, 3, 6, 8, 10, 14, 16, 17, 18, 19, 21, 28, 29, 30)
        ),
        {"S_CET": 0x3F},
        {"S_CET": 0xFFFF_F000, "EFER": 0x1000},
        {"VINTR_CONTROL": 1 << 31, "AVIC_PHYSICAL_TABLE": 0x1000 | 0xFE},
        {"VINTR_CONTROL": 3 << 30, "AVIC_PHYSICAL_TABLE": 0x1FF},
        {"NP_CONTROL": 0x89},
        {"NP_CONTROL": 3},
    ],
)
def test_the_other_side_of_each_boundary(changes: dict[str, int]) -> None:
    verdict = judge(GOOD.with_fields(**changes), ZEN)
    assert verdict.failed == verdict.warnings == ()
    assert verdict.outcome == "enters"


def test_the_state_of_an_sev_es_guest_is_not_in_the_vmcb() -> None:
    """The save area is not read then: what stands there proves nothing."""
    guest = GOOD.with_fields(NP_CONTROL=7, EFER=0, CR0=0x2000_0000, CR4=1 << 13, DR6=HIGH)
    verdict = judge(guest, ZEN)
    assert verdict.failed == ()
    assert verdict.outcome == "undecided"
    assert all("VMSA" in item.missing for item in verdict.undecided)
    assert {item.id for item in verdict.undecided} >= {"SVM-CR-01", "SVM-CR-04", "SVM-CR-07", "SVM-CR-11"}
    assert [item.id for item in judge(guest.with_fields(VMSA=0x1800), ZEN).failed] == ["SVM-CTL-16"]
    assert [item.id for item in judge(guest.with_fields(VMSA=LIMIT), ZEN).failed] == ["SVM-CTL-16"]
    assert [item.id for item in judge(GOOD.with_fields(NP_CONTROL=5), ZEN).failed] == ["SVM-CTL-15"]
    features = guest.with_fields(ALLOWED_SEV_FEATURES=1 << 63 | 1, GUEST_SEV_FEATURES=3)
    assert [item.id for item in judge(features, ZEN).warnings] == ["SVM-CTL-17"]
    assert judge(features.with_fields(ALLOWED_SEV_FEATURES=1), ZEN).warnings == ()
    without = attrs.evolve(ZEN, sev=False)
    assert "SVM-CR-01" in [item.id for item in judge(guest, without).failed]


def test_a_processor_without_the_other_half_of_cet_has_two_bits() -> None:
    half = attrs.evolve(ZEN, ibt=False)
    assert [item.id for item in judge(GOOD.with_fields(S_CET=4), half).failed] == ["SVM-CR-14"]
    assert judge(GOOD.with_fields(S_CET=3), half).failed == ()


def test_the_host_and_the_processor_count() -> None:
    (failure,) = judge(GOOD, attrs.evolve(ZEN, host_paging=False)).failed
    assert failure.id == "SVM-CTL-06"
    assert "SVM-CR-03" in {item.id for item in judge(GOOD, attrs.evolve(ZEN, long_mode=False)).failed}
    flushes = GOOD.with_fields(TLB_CONTROL=3)
    assert judge(flushes, attrs.evolve(ZEN, flush_by_asid=False)).warnings[0].id == "SVM-CTL-05"


def test_the_processor_may_lack_bits() -> None:
    """What CPUID does not announce is reserved."""
    small = attrs.evolve(ZEN, efer=0x1D01, cr4=0x20)
    assert judge(GOOD, small).outcome == "enters"
    assert [item.id for item in judge(GOOD.with_fields(EFER=0x9D01), small).failed] == ["SVM-CR-02"]
    assert [item.id for item in judge(GOOD.with_fields(CR4=0x21), small).failed] == ["SVM-CR-07"]
    assert judge(GOOD.with_fields(EFER=0x5D01, CR4=0x21), ZEN).outcome == "enters"


@pytest.mark.parametrize(
    ("register", "bit"),
    [("CR4", bit) for bit in (12, 17, 22, 23)] + [("EFER", bit) for bit in (15, 17, 18, 20, 21)],
)
def test_bits_that_cpuid_tells_of_wait_for_it(register: str, bit: int) -> None:
    """LA57, PCIDE, PKE, CET; TCE, MCOMMIT, INTWB, UAIE, AIBRS: reserved where CPUID does not announce them."""
    changed = GOOD.with_fields(**{register: GOOD.fields[register] | 1 << bit})
    silent = attrs.evolve(ZEN, cet=None)
    verdict = judge(changed, silent)
    assert verdict.outcome == "undecided"
    assert f"CPUID for the bits of {register}" in [item.missing for item in verdict.undecided]
    has = attrs.evolve(ZEN, **{register.lower(): (1 << 64) - 1})
    assert judge(changed, has).outcome == "enters"


def test_no_vmcb_enters_whose_exit_code_is_vmexit_invalid(run: Run) -> None:
    """VMEXIT_INVALID says that VMRUN entered no guest (APM vol. 2, 15.5.1)."""
    refused = GOOD.with_fields(EXITCODE=(1 << 64) - 1)
    assert judge(refused, ZEN).outcome == "undecided"
    given = {
        "fields": {name: hex(value) for name, value in refused.fields.items()},
        "capabilities": {"maxphyaddr": 48, "flush_by_asid": True, "cet": True, "vnmi": True},
    }
    code, out = run("check", "-", stdin=json.dumps(given))
    assert code == 3
    assert "every check passes, and yet the exit code says that VMRUN failed" in out


def test_without_virtual_nmi_its_enable_bit_is_ignored() -> None:
    small = attrs.evolve(ZEN, vnmi=False)
    assert judge(GOOD.with_fields(VINTR_CONTROL=1 << 26), small).outcome == "enters"


PAE = GOOD.with_fields(EFER=0x1000, NP_CONTROL=0, CR3=0x2000_0FFF)


@pytest.mark.parametrize(
    ("entry", "outcome"),
    [
        (0x1, "enters"),
        (0x3, "vmexit-invalid"),  # bit 1
        (0x101, "vmexit-invalid"),  # bit 8
        (1 << 48 | 1, "vmexit-invalid"),  # beyond the physical-address width
        (1 << 47 | 0xE19, "enters"),  # PWT, PCD, bits for software
        (0x1E6, "enters"),  # not present
    ],
)
def test_page_directory_pointers_in_memory(entry: int, outcome: str, run: Run) -> None:
    assert judge(PAE, ZEN).undecided[0].missing == "memory at 0x20000fe0"
    memory = {0x2000_0FE0 + 8 * number: 0 for number in range(4)} | {0x2000_0FF0: entry}
    assert judge(attrs.evolve(PAE, memory=memory), ZEN).outcome == outcome
    nested = PAE.with_fields(NP_CONTROL=1)
    assert judge(attrs.evolve(nested, memory=memory), ZEN).outcome == "enters"
    given = {
        "fields": {name: hex(value) for name, value in PAE.fields.items()},
        "memory": [[hex(address), 8, hex(value)] for address, value in memory.items()],
        "capabilities": {"maxphyaddr": 48, "cet": False, "efer": "0x1d01"},
    }
    assert json.loads(run("check", "-", "--json", stdin=json.dumps(given))[1])["outcome"]["kind"] == outcome


def test_a_processor_by_its_cpuid() -> None:
    """A Zen without CET and with virtual NMI: what the APM's tables make of its leaves."""
    leaves = {
        (1, 0): (0, 0, 1 << 17, 1 << 6 | 1 << 13),
        (7, 0): (0, 1 << 7, 1 << 2, 0),
        (0x8000_0001, 0): (0, 0, 1 << 2, 1 << 11 | 1 << 20 | 1 << 29),
        (0x8000_0008, 0): (0x3030, 1 << 20, 0, 0),
        (0x8000_000A, 0): (1, 0x8000, 0, 1 << 6 | 1 << 25),
    }
    assert processor_of(leaves) == SvmProcessor(
        maxphyaddr=48,
        flush_by_asid=True,
        long_mode=True,
        cet=False,
        vnmi=True,
        sev=False,
        ibt=False,
        gmet=False,
        sss=False,
        bus_lock_threshold=False,
        efer=0x1D01,
        cr4=1 << 5 | 1 << 7 | 1 << 8 | 1 << 11 | 1 << 17 | 1 << 20,
    )
    assert processor_of({}).maxphyaddr is None


def test_what_is_unknown_is_asked_for() -> None:
    verdict = judge(Vmcb(fields={"ASID": 1, "EFER": 0x1000}), SvmProcessor())
    missing = {item.id: item.missing for item in verdict.undecided}
    assert missing["SVM-CTL-01"] == "INTERCEPTS_4"
    assert verdict.outcome == "undecided"
    assert judge(GOOD, SvmProcessor()).undecided[0].missing == "maxphyaddr"


def test_integers_and_symbols_agree() -> None:
    """The same predicates on symbols of 64 bits, with the numbers put in afterwards."""
    rnd = random.Random("vmcb")
    known = attrs.evolve(ZEN, efer=(1 << 64) - 1, cr4=(1 << 64) - 1)
    symbols = {name: symbol(name, field.width).zero_extend(64) for name, field in FIELDS.items()}
    formulas = VmcbView(symbols, known)
    for _ in range(40):
        vmcb = GOOD
        for name in rnd.choices(
            ["EFER", "CR0", "CR4", "CR3", "EVENTINJ", "VINTR_CONTROL", "G_PAT", "ASID"], k=3
        ):
            vmcb = vmcb.with_fields(**{name: vmcb.fields[name] ^ 1 << rnd.randrange(FIELDS[name].width)})
        numbers = VmcbView({name: Word(64, value) for name, value in vmcb.fields.items()}, known)
        integers = VmcbView(vmcb.fields, known)
        for check in CHECKS.values():
            if check.id in ("SVM-CTL-05", "SVM-CR-15"):
                continue  # the processor decides what the field may be; entries in memory are numbers
            assert bool(check.holds(numbers)) == bool(check.holds(integers)), check.id
    symbolic = [
        check.id
        for check in CHECKS.values()
        if check.id != "SVM-CR-15" and isinstance(check.holds(formulas), Word)
    ]
    # One is about memory, one about the host, one about what the processor has: no symbol is in them.
    assert set(CHECKS) - set(symbolic) == {"SVM-CR-15", "SVM-CTL-06", "SVM-CTL-22"}


# -- dumps ---------------------------------------------------------------------------------

# SYNTHETIC, in the layout that Linux KVM prints (defects: ASID 0, bit 29 of CR0 without bit 30).
KVM = """\
[  100.000001] kvm_amd: VMCB 00000000f00ba4, last attempted VMRUN on CPU 3
[  100.000002] VMCB Control Area:
[  100.000003] cr_read:            0001
[  100.000004] cr_write:           0011
[  100.000005] exceptions:         00060042
[  100.000006] intercepts:         bd4c8027 0000204f
[  100.000007] pause filter count: 3000
[  100.000008] iopm_base_pa:       000000010a1c0000
[  100.000009] asid:               0
[  100.000010] nested_ctl:         1
[  100.000011] nested_cr3:         0000000109f1c000
[  100.000012] exit_code:          ffffffff
[  100.000013] VMCB State Save Area:
[  100.000014] cs:   s: f000 a: 009b l: 0000ffff b: 00000000ffff0000
[  100.000015] cpl:            0               efer:         0000000000001000
[  100.000016] cr0:            0000000020000010 cr2:          0000000000000000
[  100.000017] rip:            000000000000fff0 rflags:       0000000000000002
[  100.000018] gpat:           0007040600070406 dbgctl:       0000000000000000
"""


def test_a_dump_of_kvm() -> None:
    vmcb, _ = read_vmcb(KVM.encode(), "dmesg")
    expected = {
        "CR_INTERCEPTS": 0x11_0001,
        "INTERCEPTS_3": 0xBD4C_8027,
        "INTERCEPTS_4": 0x204F,
        "PAUSE_FILTER_COUNT": 3000,
        "ASID": 0,
        "NP_CONTROL": 1,
        "N_CR3": 0x1_09F1_C000,
        "EXITCODE": 0xFFFF_FFFF,
        "CS_SELECTOR": 0xF000,
        "CS_ATTRIBUTES": 0x9B,
        "CS_BASE": 0xFFFF_0000,
        "CPL": 0,
        "EFER": 0x1000,
        "CR0": 0x2000_0010,
        "RFLAGS": 2,
        "G_PAT": 0x0007_0406_0007_0406,
    }
    assert {name: vmcb.fields[name] for name in expected} == expected
    verdict = judge(vmcb)
    assert [item.id for item in verdict.failed] == ["SVM-CTL-02", "SVM-CR-04"]
    assert verdict.explains_report == "yes"


def test_json_listing_and_bytes_say_the_same(run: Run) -> None:
    vmcb = GOOD.with_fields(ASID=0, CR3=0x1234_5000)
    text = json.dumps({"fields": {name: hex(value) for name, value in vmcb.fields.items()}})
    listing = "".join(f"{name} = {value:#x}\n" for name, value in vmcb.fields.items())
    image = bytearray(4096)
    for name, value in vmcb.fields.items():
        field = FIELDS[name]
        image[field.offset : field.offset + field.width // 8] = value.to_bytes(field.width // 8, "little")
    for data in (text.encode(), listing.encode(), bytes(image)):
        assert dict(read_vmcb(data, "x")[0].fields) == dict(vmcb.fields)
        code, out = run("check", "-", "--maxphyaddr", "48", "--json", stdin=data)
        answer = json.loads(out)
        assert code == 1
        assert [item["id"] for item in answer["failed"]] == ["SVM-CTL-02"]
        assert answer["failed"][0]["fields"] == {"ASID": "0x0"}


def test_fields_do_not_overlap_and_lie_inside() -> None:
    taken: dict[int, str] = {}
    for field in FIELDS.values():
        for byte in range(field.offset, field.offset + field.width // 8):
            assert taken.setdefault(byte, field.id) == field.id
    assert max(taken) < 4096
    assert find("0x58").id == "ASID"
    assert find("n-cr3").id == "N_CR3"
    with pytest.raises(UnknownVmcbField, match="ASID"):
        find("ASIDS")
    assert intercepts()["INTERCEPTS_4", 0] == "VMRUN"


def test_the_command(run: Run) -> None:
    code, out = run("check", "-", stdin=KVM)
    assert code == 1
    assert "SVM-CTL-02  ASID /= 0, but ASID = 0x0" in out
    assert "VMEXIT_INVALID" in out
    assert "The failed checks explain this." in out
    code, out = run("decode", "-", stdin=KVM)
    assert code == 0
    assert "VMRUN" in out
    assert "058H  ASID" in out


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"", "no VMCB field"),
        (b"\xff\xfe\x00", "no VMCB field"),
        (b"{", "not JSON"),
        (b'{"fields": 3}', "fields"),
        (b'{"fields": {"ASIDS": "0x1"}}', "near: ASID"),
        (b'{"fields": {"ASID": "0x100000000"}}', "32 bits"),
        (b'{"fields": {"ASID": true}}', "ASID"),
        (b'{"fields": {"ASID": "0x1"}, "capabilities": {"width": 4}}', "capabilities"),
        (b'{"fields": {"ASID": "0x1"}, "memory": [["0x0", 4, "0x0"]]}', "4 bytes: expected 8"),
        (b'{"fields": {"ASID": "0x1"}, "memory": {"0x0": 1}}', "address, bytes and value"),
        (b'{"fields": {"ASID": "0x1"}, "capabilities": {"efer": true}}', "efer: true"),
        (b"ASID = 0x1\nASID = 0x2\n", "ASID is 0x2 here"),
        (b"TLB_CONTROL = 0x100\n", "8 bits"),
    ],
)
def test_bad_input_is_one_line(data: bytes, complaint: str, run: Run) -> None:
    with pytest.raises(UserError, match=complaint) as caught:
        run("check", "-", stdin=data)
    assert "\n" not in str(caught.value)


def test_mangled_dumps_never_end_in_a_traceback() -> None:
    rnd = random.Random("mangled")
    for _ in range(300):
        data = bytearray(KVM.encode())
        for _ in range(rnd.randrange(1, 8)):
            data[rnd.randrange(len(data))] = rnd.randrange(256)
        data = data[: rnd.randrange(len(data) + 1)]
        complaint = ""
        try:
            verdict = judge(*read_vmcb(bytes(data), "x"))
        except DumpError as error:
            complaint = str(error)
        else:
            assert {item.id for item in verdict.failed} <= set(CHECKS)
        assert "\n" not in complaint


def test_views_refuse_other_names() -> None:
    view = VmcbView({}, ZEN)
    with pytest.raises(AttributeError):
        _ = view.EFERS
    with pytest.raises(NotGiven, match="EFER"):
        _ = view.EFER


def test_bits_that_no_processor_has_need_no_physical_width() -> None:
    """APM vol. 2, "Canonicalization and Consistency Checks": MBZ bits of CR3 are set; no width is above 52."""
    for bit in (52, 60, 63):
        verdict = judge(GOOD.with_fields(CR3=1 << bit | 0x1000), SvmProcessor())
        assert "SVM-CR-06" in {item.id for item in verdict.failed}, bit
    verdict = judge(GOOD.with_fields(CR3=1 << 51 | 0x1000), SvmProcessor())
    assert "SVM-CR-06" in {item.id for item in verdict.undecided}
