"""`popek vmcs check`: causes, exit codes, JSON. Expected causes come from the first lines of the dumps."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from popek.architectures.vtx.baselines import baseline
from popek.architectures.vtx.capability_files import load_capabilities
from popek.cli.errors import UserError
from popek.cli.vmcs import app

FOLDER = Path(__file__).parent / "dumps"
PRESET = "bochs-corei7-skylake-x"

Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a subcommand; returns the exit code and what was printed on stdout."""

    def run_it(*args: str, stdin: str | bytes = b"") -> tuple[int, str]:
        data = stdin.encode() if isinstance(stdin, str) else stdin
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
        monkeypatch.setenv("COLUMNS", "100")
        code = app(list(args), result_action="return_value", exit_on_error=False)
        return code, capsys.readouterr().out

    return run_it


def path(number: str) -> str:
    (found,) = FOLDER.glob(f"{number}-*.txt")
    return str(found)


def cause(number: str) -> str:
    lines = Path(path(number)).read_text().splitlines()
    return next(line for line in lines if line.startswith("# cause:"))


def entering(**changes: int) -> dict[str, str]:
    fields = dict(baseline("64-bit", load_capabilities(PRESET)).fields) | changes
    return {name: hex(value) for name, value in fields.items()}


@pytest.mark.parametrize(
    ("number", "words", "checks"),
    [
        ("03", "DS and ES are usable data segments whose type is 2", ["GUEST-AR-DS-01", "GUEST-AR-ES-01"]),
        ("16", "guest CR3 field has bit 63 set", ["GUEST-CR-09"]),
        ("21", "external interrupt (800000d1) while guest RFLAGS.IF=0", ["GUEST-RFL-05"]),
    ],
)
def test_known_causes_are_what_fails(run: Run, number: str, words: str, checks: list[str]) -> None:
    assert words in cause(number)
    code, out = run("check", path(number), "--json")
    verdict = json.loads(out)
    assert code == 1
    assert [item["id"] for item in verdict["failed"]] == checks
    assert verdict["outcome"] == {"kind": "entry-failure", "reason": 33, "qualification": 0}
    assert verdict["explains_report"] == ("unknown" if number == "21" else "yes")  # 21 prints no exit reason
    assert verdict["reported"].get("exit_reason") == (None if number == "21" else "0x80000021")
    code, text = run("check", path(number))
    assert code == 1
    listed = [line.split()[0] for line in text.splitlines() if line.startswith("  GUEST-")]
    assert listed == checks


def test_a_fault_without_its_error_code_is_the_suspect(run: Run) -> None:
    assert "re-injecting a fault without its error code" in cause("11")
    code, text = run("check", path("11"))
    assert code == 3  # IA32_VMX_BASIC[56] of the processor is not in the dump
    assert text.index("INJ-08") < text.index("What the dump says")
    assert "The suspects would explain this." in text
    assert "the injected event is the interrupted one, but without its error code" in text
    assert "is left from an earlier VM exit" in text
    code, out = run("check", path("11"), "--json")
    assert [item["id"] for item in json.loads(out)["warnings"]] == ["INJ-08"]


def test_with_the_processor_the_suspect_is_a_failure(run: Run, tmp_path: Path) -> None:
    # Processors of 2019 report IA32_VMX_BASIC[56] as 0, as this real one does.
    code, out = run("check", path("11"), "--json", "--capabilities", path("36"))
    verdict = json.loads(out)
    assert code == 1
    assert [item["id"] for item in verdict["failed"]] == ["INJ-08"]
    assert verdict["outcome"] == {"kind": "vmfail-valid", "errors": [7]}
    assert verdict["explains_report"] == "yes"


@pytest.mark.parametrize(
    ("number", "words", "reason"),
    [
        ("12", "not a failure", "exit reason 12 (hlt)"),
        ("26", "not an entry failure: triple fault", "exit reason 2 (triple fault)"),
    ],
)
def test_what_is_no_entry_failure_is_said_to_be_none(run: Run, number: str, words: str, reason: str) -> None:
    assert words in cause(number)
    code, text = run("check", path(number))
    assert code == 3
    assert text.splitlines()[2].startswith("NO ENTRY FAILURE")
    flat = " ".join(text.split())
    assert f"the last VM entry succeeded and ended with {reason}" in flat
    assert "No check contradicts this." in flat


@pytest.mark.parametrize("number", ["05", "10"])
def test_an_old_exit_reason_is_no_proof_of_entry(run: Run, number: str) -> None:
    """KVM prints the exit reason after VMfail, too, and no VM-instruction error."""
    code, text = run("check", path(number))
    flat = " ".join(text.split())
    assert (code, text.splitlines()[2].split()[0]) == (3, "UNDECIDED")
    assert "exit reason 48 (EPT violation) is that of the last VM exit" in flat
    assert "succeeded" not in flat


def test_kvms_hardware_error_0_says_that_there_was_no_vmfail(run: Run) -> None:
    text = Path(path("05")).read_text()
    code, out = run("check", "-", stdin="KVM: entry failed, hardware error 0x0\n" + text)
    assert code == 3
    assert out.splitlines()[2].startswith("NO ENTRY FAILURE")
    code, out = run("check", "-", stdin="KVM: entry failed, hardware error 0x7\n" + text)
    assert "VM-instruction error 7" in out
    assert "NO ENTRY FAILURE" not in out


def test_a_cause_that_is_not_printed_is_asked_for(run: Run) -> None:
    assert "which field is not known" in cause("31")
    code, text = run("check", path("31"))
    assert code == 3
    flat = " ".join(text.split())
    assert "VM-instruction error 7: VM entry with invalid control fields" in flat
    assert "The cause is not in what the dump prints" in flat
    asked = flat.split("add fields: ")[1]
    assert asked.startswith("PRIMARY_PROC_CONTROLS")
    assert "GUEST_" not in asked.split(" and ")[0]  # an error 7 is no matter of guest state


def test_the_whole_value_is_decoded(run: Run) -> None:
    _, text = run("check", path("03"))
    flat = " ".join(text.replace("\u00a0", " ").split())
    assert "GUEST_DS_ACCESS_RIGHTS = 0xc0f2 line 12" in flat
    for bit in ("TYPE[3:0]=2", "S[4]=1", "DPL[6:5]=3", "P[7]=1", "DB[14]=1", "G[15]=1", "UNUSABLE[16]=0"):
        assert bit in flat


def test_a_vmcs_that_enters(run: Run) -> None:
    vmcs = json.dumps({"name": "mine", "fields": entering(), "capabilities": PRESET})
    code, out = run("check", "-", "--json", stdin=vmcs)
    verdict = json.loads(out)
    assert code == 0
    assert verdict["schema"] == "popek/vmcs-verdict/1"
    assert verdict["name"] == "mine"
    assert verdict["outcome"] == {"kind": "enters"}
    assert verdict["failed"] == []
    code, text = run("check", "-", stdin=vmcs)
    assert code == 0
    assert "ENTERS  the VM entry succeeds" in text


def test_json_keys_are_sorted_and_values_hexadecimal(run: Run) -> None:
    vmcs = json.dumps({"fields": entering(IO_BITMAP_A=0x1001, PRIMARY_PROC_CONTROLS=0xB401E172 | 1 << 25)})
    code, out = run("check", "-", "--json", "--capabilities", PRESET, stdin=vmcs)
    verdict = json.loads(out)
    assert code == 1
    assert list(verdict) == sorted(verdict)
    assert {"outcome", "failed", "undecided", "warnings", "reported", "explains_report"} <= set(verdict)
    failure = next(item for item in verdict["failed"] if item["id"] == "CTL-IOBM-01")
    assert failure["fields"]["IO_BITMAP_A"] == "0x1001"
    assert failure["section"] == "E.2.1.1"


def test_encodings_and_names_are_the_same_field(run: Run) -> None:
    fields = entering()
    encoded = {("0x6800" if name == "GUEST_CR0" else name): value for name, value in fields.items()}
    one = run("check", "-", "--json", "--capabilities", PRESET, stdin=json.dumps({"fields": fields}))
    two = run("check", "-", "--json", "--capabilities", PRESET, stdin=json.dumps({"fields": encoded}))
    assert one == two


def test_default_fills_what_is_not_given(run: Run) -> None:
    link = "0xffffffffffffffff"
    partial = {"fields": {"GUEST_RFLAGS": "0x2", "VMCS_LINK_POINTER": link}, "capabilities": PRESET}
    assert run("check", "-", stdin=json.dumps(partial))[0] == 3
    code, out = run("check", "-", "--json", stdin=json.dumps(partial | {"default": "0x0"}))
    assert code == 1
    assert json.loads(out)["undecided"] == []


def test_memory_decides_what_is_outside_the_vmcs(run: Run) -> None:
    controls = 0xB401E172 | 1 << 21
    fields = entering(PRIMARY_PROC_CONTROLS=controls, VIRTUAL_APIC_ADDR=0x45000, TPR_THRESHOLD=5)

    def verdict(**more: Any) -> dict[str, Any]:
        _, out = run(
            "check", "-", "--json", stdin=json.dumps({"fields": fields, "capabilities": PRESET} | more)
        )
        return json.loads(out)

    assert "CTL-TPR-03" in [item["id"] for item in verdict()["undecided"]]
    low = verdict(memory=[["0x45080", 4, "0x40"]])
    assert [item["id"] for item in low["failed"]] == ["CTL-TPR-03"]
    assert verdict(memory=[["0x45080", 4, "0x50"]])["outcome"] == {"kind": "enters"}


def test_several_dumps_are_judged_each(run: Run, tmp_path: Path) -> None:
    both = tmp_path / "log.txt"
    both.write_text(Path(path("03")).read_text() + Path(path("10")).read_text())
    code, out = run("check", str(both), "--json")
    verdicts = json.loads(out)
    assert code == 1
    assert [item["outcome"]["kind"] for item in verdicts] == ["entry-failure", "undecided"]
    code, out = run("check", str(both), "--jsonl")
    assert code == 1
    assert [json.loads(line)["outcome"]["kind"] for line in out.splitlines()] == [
        "entry-failure",
        "undecided",
    ]


def test_json_lines_answer_every_line_in_order(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [
        json.dumps({"name": "good", "fields": entering()}),
        "",
        '{"fields": {"GUEST_CR0": "0xzz"}}',
        json.dumps({"name": "bad", "fields": entering(HOST_CS_SELECTOR=3)}),
        "{",
    ]
    monkey = "\n".join(lines) + "\n"
    code, out = run("check", "-", "--jsonl", "--capabilities", PRESET, stdin=monkey)
    answers = [json.loads(line) for line in out.splitlines()]
    assert code == 2
    assert [answer.get("name") for answer in answers] == [
        "good",
        "standard input:3",
        "bad",
        "standard input:5",
    ]
    assert answers[0]["outcome"]["kind"] == "enters"
    assert "GUEST_CR0: expected a hexadecimal string" in answers[1]["error"]
    assert answers[2]["outcome"] == {"kind": "vmfail-valid", "errors": [8]}
    assert answers[3]["error"].startswith("not JSON")


@pytest.mark.parametrize("options", [(), ("--json",), ("--jsonl",)], ids=str)
def test_nothing_heavy_is_imported(options: tuple[str, ...]) -> None:
    program = (
        "import sys; from popek.cli.vmcs import app; app(sys.argv[1:], result_action='return_value');"
        "print(*sorted({name.split('.')[0] for name in sys.modules}), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "check", path("03"), *options],
        capture_output=True,
        text=True,
        check=True,
    )
    imported = set(done.stderr.split())
    assert "popek" in imported
    assert not imported & {"z3", "cattrs", "networkx", "jinja2"}
    assert ("rich" in imported) == (not options)


def test_json_lines_are_answered_while_the_stream_is_open() -> None:
    program = "from popek.cli.vmcs import app; raise SystemExit(app(['check', '-', '--jsonl']))"
    line = json.dumps({"fields": entering(), "capabilities": PRESET}) + "\n"
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for _ in range(3):
            process.stdin.write(line)
            process.stdin.flush()
            assert json.loads(process.stdout.readline())["outcome"] == {"kind": "enters"}
        process.stdin.close()
        assert process.stdout.read() == ""


def test_json_lines_and_single_objects_agree(run: Run) -> None:
    vmcs = {"name": "one", "fields": entering(GUEST_RIP=1 << 63), "capabilities": PRESET}
    one = json.loads(run("check", "-", "--json", stdin=json.dumps(vmcs))[1])
    two = json.loads(run("check", "-", "--jsonl", stdin=json.dumps(vmcs) + "\n")[1])
    assert one == two
    assert one["outcome"]["kind"] == "entry-failure"


@pytest.mark.parametrize(
    ("stdin", "words"),
    [
        ("", "standard input: the input is empty"),
        ("nothing here", "standard input: no VMCS field in 1 line"),
        ("\nGUEST_CR3 = 12x\n", "standard input:2: GUEST_CR3: expected a hexadecimal number"),
        ('{"fields": {"GUEST_CR00": "0x1"}}', "GUEST_CR0"),
        (
            '{"fields": {"GUEST_CR0": "80000031"}}',
            'expected a hexadecimal string such as "0x2b", found "80000031"',
        ),
        ('{"fields": {"GUEST_CR0": true}}', "expected a hexadecimal string"),
        ('{"fields": {"VPID": "0x10000"}}', 'VPID: "0x10000" does not fit in 16 bits'),
        ('{"fields": {"VPID": "-0x1"}}', "expected a hexadecimal string"),
        ('{"fields": {"VPID": "0x1", "VPID": "0x2"}}', "'VPID' is given twice"),
        ('{"fields": {"VPID": "0x1", "0x0000": "0x2"}}', "VPID is given twice, as 0x1 and as 0x2"),
        ('{"fields": {"0x9999": "0x1"}}', "no VMCS field has the encoding '0x9999'"),
        ('{"fields": 7}', "'fields' is 7"),
        ('{"field": {}}', "no key 'fields'"),
        ("{\n\n,}", "standard input:3: not JSON"),
        ("[]", "standard input"),
        ('{"fields": {}, "memory": [[1, 2]]}', "memory entry [1, 2]"),
        ('{"fields": {}, "capabilities": 3}', "'capabilities' is 3"),
        ('{"fields": {}, "capabilities": "no-such-processor"}', "no-such-processor"),
        ('{"fields": {}, "capabilities": {"0x480": "x"}}', "0x480"),
        ("VMCB Control Area:\n", "standard input:1: this is an AMD VMCB"),
    ],
)
def test_bad_input_is_one_clear_line(run: Run, stdin: str, words: str) -> None:
    with pytest.raises(UserError) as caught:
        run("check", "-", stdin=stdin)
    message = str(caught.value)
    assert words in message
    assert message.startswith("standard input")
    assert "\n" not in message


@pytest.mark.parametrize("name", ["/nonexistent/dump.txt", "/", "nul\0byte"])
def test_a_file_that_cannot_be_read(run: Run, name: str) -> None:
    with pytest.raises(UserError, match=r"no such file|is a directory|not a file name"):
        run("check", name)


def test_an_unknown_preset_is_one_line(run: Run) -> None:
    with pytest.raises(UserError, match="bochs-corei7-skylake"):
        run("check", path("03"), "--capabilities", "bochs-corei7-skylake")
