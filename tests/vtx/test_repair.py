"""`popek vmcs repair`: smallest repairs, and why there is none."""

from __future__ import annotations

import io
import itertools
import json
import random
import sys
from collections.abc import Callable
from pathlib import Path

import attrs
import pytest

from popek.architectures.vtx.baselines import MODES, Mode, baseline
from popek.architectures.vtx.capabilities import UNKNOWN
from popek.architectures.vtx.capability_files import load_capabilities
from popek.architectures.vtx.evaluation import Evaluator
from popek.architectures.vtx.fields import FIELDS
from popek.architectures.vtx.verdict import judge
from popek.architectures.vtx.vmcs import Vmcs
from popek.cli.errors import UserError
from popek.cli.vmcs_questions import app
from popek.solving.solver import Answer
from popek.vmcs.repair import repair

TIGERLAKE = load_capabilities("bochs-tigerlake")
FOLDER = Path(__file__).parent / "dumps"
Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    def run_it(*args: str, stdin: str = "") -> tuple[int, str]:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
        monkeypatch.setenv("COLUMNS", "120")
        code = app(list(args), result_action="return_value", exit_on_error=False)
        return code, capsys.readouterr().out

    return run_it


def broken(mode: Mode = "64-bit", **changes: int) -> Vmcs:
    return baseline(mode, TIGERLAKE).with_fields(**changes)


PRIMARY = baseline("64-bit", TIGERLAKE).fields["PRIMARY_PROC_CONTROLS"]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        # What a failed check is about changes, rather than the control that makes it apply.
        (
            {"IO_BITMAP_A": 0x3_1001, "PRIMARY_PROC_CONTROLS": PRIMARY | 1 << 25},
            {"IO_BITMAP_A": (0x3_1001, 0x3_1000)},
        ),
        ({"GUEST_CR0": 0x8000_0030}, {"GUEST_CR0": (0x8000_0030, 0x8000_0031)}),
        # Hypervisors have no linked VMCS.
        ({"VMCS_LINK_POINTER": 0x1001}, {"VMCS_LINK_POINTER": (0x1001, (1 << 64) - 1)}),
        ({"GUEST_RFLAGS": 0}, {"GUEST_RFLAGS": (0, 2)}),
        ({"GUEST_CR3": 1 << 63 | 0x1000}, {"GUEST_CR3": (1 << 63 | 0x1000, 0x1000)}),
        ({"GUEST_ACTIVITY_STATE": 4}, {"GUEST_ACTIVITY_STATE": (4, 0)}),
        ({"HOST_TR_SELECTOR": 0x23}, {"HOST_TR_SELECTOR": (0x23, 0x20)}),
    ],
)  # fmt: skip
def test_known_mistakes_and_their_repairs(
    changes: dict[str, int], expected: dict[str, tuple[int, int]]
) -> None:
    found = repair(broken(**changes), TIGERLAKE)
    assert {change.field: (change.before, change.after) for change in found.changes} == expected
    assert found.after is not None
    assert found.after.outcome.kind == "enters"


def test_a_good_vmcs_needs_nothing() -> None:
    for mode in ("64-bit", "real"):
        found = repair(broken(mode), TIGERLAKE)
        assert found.changes == ()
        assert found.answer is Answer.SAT


def spoiled(rnd: random.Random) -> Vmcs:
    """A baseline with three bits flipped, which does not enter."""
    while True:
        vmcs = broken(rnd.choice(MODES))
        names = [name for name in vmcs.fields if FIELDS[name].area in ("guest-state", "control")]
        for name in rnd.choices(names, k=3):
            vmcs = vmcs.with_fields(**{name: vmcs.fields[name] ^ 1 << rnd.randrange(FIELDS[name].width)})
        if judge(vmcs, TIGERLAKE).failed:
            return vmcs


@pytest.mark.parametrize("seed", range(6))
def test_no_smaller_repair_exists(seed: int) -> None:
    """Checked without the solver: no VMCS with fewer bits changed enters."""
    vmcs = spoiled(random.Random(f"smallest {seed}"))
    found = repair(vmcs, TIGERLAKE)
    bits = sum(len(change.bits) for change in found.changes)
    assert 1 <= bits <= 3
    changed = vmcs.with_fields(**{change.field: change.after for change in found.changes})
    assert judge(changed, TIGERLAKE).outcome.kind == "enters"
    evaluator = Evaluator(TIGERLAKE)
    singles = [(name, 1 << bit) for name in vmcs.fields for bit in range(FIELDS[name].width)]
    # Every single bit; of the pairs, those within the fields that the failed checks show.
    subjects = {name for failure in judge(vmcs, TIGERLAKE).failed for name in failure.fields}
    near = [single for single in singles if single[0] in subjects]
    fewer = [[single] for single in singles] if bits > 1 else []
    if bits > 2:
        fewer += [list(pair) for pair in itertools.islice(itertools.combinations(near, 2), 4000)]
    for flips in fewer:
        other = vmcs
        for name, bit in flips:
            other = other.with_fields(**{name: other.fields[name] ^ bit})
        findings = evaluator.run(other)
        assert any(check.certainty == "must" for check in findings.violated), flips


def test_what_is_kept_stays() -> None:
    vmcs = broken(IO_BITMAP_A=0x3_1001, PRIMARY_PROC_CONTROLS=PRIMARY | 1 << 25)
    found = repair(vmcs, TIGERLAKE, keep=["IO_BITMAP_A"])
    assert [(change.field, change.bits) for change in found.changes] == [("PRIMARY_PROC_CONTROLS", (25,))]


def test_the_reason_names_checks_and_kept_fields_and_no_others() -> None:
    vmcs = broken(GUEST_CR0=0x8000_0030, HOST_TR_SELECTOR=0x23)
    found = repair(vmcs, TIGERLAKE, keep=["GUEST_CR0", "GUEST_CR3", "HOST_CR4"])
    assert found.answer is Answer.UNSAT
    assert found.reason is not None
    assert found.reason.kept == ("GUEST_CR0",)
    assert set(found.reason.checks) <= {"GUEST-CR-01", "GUEST-CR-02"}
    assert len(found.reason.checks) == 1


def test_a_reason_that_needs_two_fields() -> None:
    """An IA-32e mode guest needs PAE: neither field alone is to blame."""
    vmcs = broken(GUEST_CR4=0x2000)
    found = repair(vmcs, TIGERLAKE, keep=["GUEST_CR4", "ENTRY_CONTROLS"])
    assert found.reason is not None
    assert found.reason.checks == ("GUEST-CR-06",)
    assert set(found.reason.kept) == {"GUEST_CR4", "ENTRY_CONTROLS"}
    one = repair(vmcs, TIGERLAKE, keep=["ENTRY_CONTROLS"])
    assert [(change.field, change.bits) for change in one.changes] == [("GUEST_CR4", (5,))]


def test_what_no_field_can_mend() -> None:
    vmcs = broken()
    launched = attrs.evolve(vmcs, launch=attrs.evolve(vmcs.launch, launch_state="launched"))
    found = repair(launched, TIGERLAKE)
    assert found.reason is not None
    assert found.reason.checks == ("PRE-06",)


def test_a_bad_msr_load_entry_is_not_loaded() -> None:
    entries = ((0x3_1000, 16, 0x174), (0x3_1010, 16, 0xC000_0100))  # IA32_SYSENTER_CS, IA32_FS_BASE
    vmcs = attrs.evolve(broken(ENTRY_MSR_LOAD_COUNT=3, ENTRY_MSR_LOAD_ADDR=0x3_1000), memory=entries)
    assert [failure.id for failure in judge(vmcs, TIGERLAKE).failed] == ["LOAD-01"]
    found = repair(vmcs, TIGERLAKE)
    (change,) = found.changes
    assert change.field == "ENTRY_MSR_LOAD_COUNT"
    assert change.after == 1  # one bit, and what can be loaded still is


def test_a_partial_dump_says_what_was_assumed() -> None:
    partial = Vmcs(fields={"GUEST_RFLAGS": 0, "GUEST_CS_ACCESS_RIGHTS": 1})
    found = repair(partial, TIGERLAKE)
    assert {change.field for change in found.changes} == {"GUEST_RFLAGS", "GUEST_CS_ACCESS_RIGHTS"}
    assert "PIN_CONTROLS" in found.assumed
    assert not set(found.assumed) & set(partial.fields)
    complete = partial.with_fields(**{change.field: change.after for change in found.changes})
    after = judge(complete.with_fields(**found.assumed), TIGERLAKE)
    assert after.failed == ()


def test_an_unknown_processor_is_taken_to_be_a_plain_one() -> None:
    found = repair(broken(GUEST_CR0=0x8000_0030), UNKNOWN)
    assert found.plain_processor
    assert [(change.field, change.after) for change in found.changes] == [("GUEST_CR0", 0x8000_0031)]


@pytest.mark.parametrize("file", sorted(FOLDER.glob("*.txt"))[:4], ids=lambda file: file.name[:20])
def test_real_dumps_can_be_repaired(file: Path, run: Run) -> None:
    code, out = run("repair", str(file), "--json")
    answers = json.loads(out)
    assert code in (0, 3)
    for answer in answers if isinstance(answers, list) else [answers]:
        assert answer["repairable"] is True
        assert answer["after"]["failed"] == []
        failing = {name for failure in answer["failed"] for name in failure["fields"]}
        assert not failing or failing & {change["field"] for change in answer["changes"]}


def test_the_command(run: Run) -> None:
    fields = {name: hex(value) for name, value in broken(GUEST_RFLAGS=0).fields.items()}
    text = json.dumps({"fields": fields, "capabilities": "bochs-tigerlake"})
    code, out = run("repair", "-", "--json", stdin=text)
    answer = json.loads(out)
    assert code == 0
    assert answer["failed"][0]["id"] == "GUEST-RFL-02"
    assert answer["changes"] == [{"field": "GUEST_RFLAGS", "from": "0x0", "to": "0x2", "bits": [1]}]
    assert answer["after"]["outcome"] == {"kind": "enters"}
    code, out = run("repair", "-", stdin=text)
    assert "Smallest repair: 1 bit in 1 field" in out
    assert "the entry succeeds" in out
    code, out = run("repair", "-", "--keep", "guest_rflags", stdin=text)
    assert code == 1
    assert "GUEST-RFL-02" in out
    assert "while these are kept: GUEST_RFLAGS" in out


def test_bad_input_is_one_line(run: Run) -> None:
    with pytest.raises(UserError, match="--keep"):
        run("repair", "-", "--keep", "GUEST_CR9", stdin="GUEST_CR0 = 0x31\n")


def test_a_page_of_memory_is_no_obstacle() -> None:
    vmcs = attrs.evolve(broken(GUEST_RFLAGS=0), memory=((0x1000, 4096, 1 << 200),))
    assert [change.field for change in repair(vmcs, TIGERLAKE).changes] == ["GUEST_RFLAGS"]


def test_a_segment_is_mended_rather_than_given_up() -> None:
    """Bit 21 of the access rights is reserved: clearing it mends DS, and making DS unusable would, too."""
    found = repair(Vmcs(fields={"GUEST_DS_ACCESS_RIGHTS": 0x20C093, "GUEST_RFLAGS": 2}))
    assert [(change.field, change.after) for change in found.changes] == [("GUEST_DS_ACCESS_RIGHTS", 0xC093)]


def test_the_vpid_that_repair_offers_is_small() -> None:
    found = repair(
        broken(PRIMARY_PROC_CONTROLS=PRIMARY | 1 << 31, SECONDARY_PROC_CONTROLS=1 << 5, VPID=0), TIGERLAKE
    )
    assert [(change.field, change.after) for change in found.changes] == [("VPID", 1)]


@pytest.mark.parametrize(
    ("field", "value", "repaired"),
    [
        ("GUEST_CR4", 0x2_0000_0000, 0x2000),
        ("GUEST_CR4", (1 << 64) - 1, 0x1_FFFF_FFFF),
        ("HOST_CR4", (1 << 64) - 1, 0x1_FFFF_FFFF),
    ],
)
def test_reserved_bits_of_cr4_are_cleared_on_an_unknown_processor(
    field: str, value: int, repaired: int
) -> None:
    # Bits 63:33 of CR4 are reserved (vol. 3, control registers), and VMX operation needs VMXE, bit 13.
    found = repair(Vmcs(fields={field: value}))
    assert [(change.field, change.after) for change in found.changes] == [(field, repaired)]
    assert found.after is not None
    assert not found.after.failed
