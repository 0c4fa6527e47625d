"""Every format and variant of dumps; the texts are made up, the layouts are not."""

from __future__ import annotations

import pytest

from pastes import VMCS
from popek.architectures.vtx.dumps import Dump, DumpError, read_dumps
from popek.architectures.vtx.dumps.diagnosis import diagnose

KVM_64 = """\
kvm_intel: VMCS 00000000abcdef01, last attempted VM-entry on CPU 3
kvm_intel: *** Guest State ***
kvm_intel: CR0: actual=0x0000000080050033, shadow=0x0000000080050033, gh_mask=fffffffffffefff7
kvm_intel: CR3 = 0x0000000001000000
kvm_intel: RSP = 0x0000000000011000  RIP = 0x0000000000100200
kvm_intel: RFLAGS=0x00000002         DR7 = 0x0000000000000400
kvm_intel: Sysenter RSP=0000000000000000 CS:RIP=0000:0000000000000000
kvm_intel: FS:   sel=0x0000, attr=0x10000, limit=0x00000000, base=0x0000000000000000
kvm_intel: GDTR:                           limit=0x0000001f, base=0x0000000000002000
kvm_intel: EFER= 0x0000000000000500
kvm_intel: PerfGlobCtl = 0x000000000000000f
kvm_intel: BndCfgS = 0x0000000000000001
kvm_intel: S_CET = 0x0000000000000002, SSP = 0x0000000000001000, SSP TABLE = 0x0000000000002000
kvm_intel: Interruptibility = 00000000  ActivityState = 00000000
kvm_intel: MSR guest autoload:
kvm_intel:    0: msr=0x0000038f value=0x0000000000000000
kvm_intel:    1: msr=0xc0000080 value=0x0000000000000d01
kvm_intel: MSR autostore:
kvm_intel:    0: msr=0x00000010 value=0x0000000000000007
kvm_intel: *** Host State ***
kvm_intel: RIP = 0xffffffffc0001000  RSP = 0xffffc90000001000
kvm_intel: CS=0010 SS=0018 DS=0000 ES=0000 FS=0000 GS=0000 TR=0040
kvm_intel: CR0=0000000080050033 CR3=0000000002000000 CR4=0000000000362ee0
kvm_intel: Sysenter RSP=fffffe0000003000 CS:RIP=0010:ffffffff81001000
kvm_intel: EFER= 0x0000000000000d01 (autoload)
kvm_intel: S_CET = 0x0000000000000003, SSP = 0x0000000000003000, SSP TABLE = 0x0000000000004000
kvm_intel: *** Control State ***
kvm_intel: CPUBased=0xb5a06dfa SecondaryExec=0x000000aa TertiaryExec=0x0000000000000010
kvm_intel: PinBased=0x0000003f EntryControls=0000d3ff ExitControls=002befff
kvm_intel: VMEntry: intr_info=800000d1 errcode=00000000 ilen=00000000
kvm_intel: VMExit: intr_info=00000000 errcode=00000000 ilen=00000000
kvm_intel:         reason=80000021 qualification=0000000000000000
kvm_intel: IDTVectoring: info=00000000 errcode=00000000
kvm_intel: SVI|RVI = 12|34 TPR Threshold = 0x05
virt-APIC addr = 0x0000000360524000
kvm_intel: CR3 target0=0000000000005000 target1=0000000000006000
kvm_intel: CR3 target2=0000000000007000
kvm_intel: VE info address = 0x0000000000008000
kvm_intel: ve_info: 0x00000030 0xffffffff 0x0000000000000181 0x0000000000001234 0x0000000000005678 0x0001
kvm_intel: EPT pointer = 0x000000000300005e
kvm_intel: Virtual processor ID = 0x0001
"""


def one(text: str) -> Dump:
    (dump,) = read_dumps(text.encode(), "input")
    return dump


def test_kvm_of_linux_6() -> None:
    dump = one(KVM_64)
    expected = {
        "GUEST_RIP": 0x100200,
        "HOST_RIP": 0xFFFFFFFFC0001000,
        "GUEST_CR3": 0x1000000,
        "HOST_CR3": 0x2000000,
        "GUEST_IA32_EFER": 0x500,
        "GUEST_IA32_SYSENTER_CS": 0,
        "HOST_IA32_SYSENTER_CS": 0x10,
        "HOST_IA32_SYSENTER_ESP": 0xFFFFFE0000003000,
        "GUEST_IA32_PERF_GLOBAL_CTRL": 0xF,
        "GUEST_IA32_BNDCFGS": 1,
        "GUEST_IA32_S_CET": 2,
        "GUEST_SSP": 0x1000,
        "GUEST_IA32_INTERRUPT_SSP_TABLE_ADDR": 0x2000,
        "HOST_IA32_S_CET": 3,
        "HOST_SSP": 0x3000,
        "HOST_IA32_INTERRUPT_SSP_TABLE_ADDR": 0x4000,
        "TERTIARY_PROC_CONTROLS": 0x10,
        "PIN_CONTROLS": 0x3F,
        "GUEST_INTERRUPT_STATUS": 0x1234,
        "TPR_THRESHOLD": 5,
        "VIRTUAL_APIC_ADDR": 0x360524000,
        "CR3_TARGET_VALUE0": 0x5000,
        "CR3_TARGET_VALUE1": 0x6000,
        "CR3_TARGET_VALUE2": 0x7000,
        "CR3_TARGET_COUNT": 3,
        "VE_INFO_ADDR": 0x8000,
        "ENTRY_MSR_LOAD_COUNT": 2,
        "EXIT_MSR_STORE_COUNT": 1,
    }
    assert {field: dump.fields.get(field) for field in expected} == expected
    assert "HOST_IA32_EFER" not in dump.fields
    assert dump.reported["host_efer_autoload"] == "0x0000000000000d01"
    assert dump.reported["msr_guest_autoload"] == "0x38f=0x0; 0xc0000080=0xd01"
    assert dump.reported["ve_info"].split()[3] == "0x0000000000001234"
    assert dump.unrecognised == ()


def test_kvm_of_linux_4() -> None:
    dump = one(
        "[  100.000000] *** Host State ***\n"
        "[  100.000001] EFER =     0x0000000000000d01  PAT = 0x0407050600070106\n"
        "[  100.000002] *** Control State ***\n"
        "[  100.000003] PinBased=0000003f CPUBased=b6a1edfa SecondaryExec=000000aa\n"
        "[  100.000004] EntryControls=0000d1ff ExitControls=002fefff\n"
    )
    assert dump.fields == {
        "HOST_IA32_EFER": 0xD01,
        "HOST_IA32_PAT": 0x0407050600070106,
        "PIN_CONTROLS": 0x3F,
        "PRIMARY_PROC_CONTROLS": 0xB6A1EDFA,
        "SECONDARY_PROC_CONTROLS": 0xAA,
        "ENTRY_CONTROLS": 0xD1FF,
        "EXIT_CONTROLS": 0x2FEFFF,
    }


def test_xen_of_2024() -> None:
    dump = one(
        "(XEN) d5v1 vmentry failure (reason 0x80000022): MSR loading (entry 3)\n"
        "(XEN)   msr 000001dd val 00007fffffffffff (mbz 0)\n"
        "(XEN) ************* VMCS Area **************\n"
        "(XEN) *** Guest State ***\n"
        "(XEN) CR4: actual=0x00000000000426e0, shadow=0x00000000000406e0, gh_mask=ffffffffffffffff\n"
        "(XEN)        sel  attr  limit   base\n"
        "(XEN)   CS: 0010 0a09b ffffffff 0000000000000000\n"
        "(XEN) GDTR:            0000007f fffffe0000001000\n"
        "(XEN)   TR: 0040 0008b 0000206f fffffe0000003000\n"
        "(XEN) EFER(MSR LL) = 0x0000000000000d01  PAT = 0x0407050600070106\n"
        "(XEN) PreemptionTimer = 0x00000009  SM Base = 0x00030000\n"
        "(XEN) *** Host State ***\n"
        "(XEN) RIP = 0xffff82d040200000 (vmx_asm_vmexit_handler)  RSP = 0xffff830000000f70\n"
        "(XEN) *** Control State ***\n"
        "(XEN) PinBased=0000003f CPUBased=b6a065fa\n"
        "(XEN) SecondaryExec=000014eb TertiaryExec=0000000000000000\n"
        "(XEN) TSC Offset = 0x0000000000000000  TSC Multiplier = 0x0000000000000001\n"
        "(XEN) TPR Threshold = 0x00  PostedIntrVec = 0xf4\n"
        "(XEN) EPT pointer = 0x000000000200001e  EPTP index = 0x0007\n"
        "(XEN) Virtual processor ID = 0x0002 VMfunc controls = 0000000000000001\n"
        "(XEN) SPEC_CTRL mask = 0x0000000000000004  shadow = 0x0000000000000006\n"
        "(XEN) **************************************\n"
    )
    assert dump.format == "Xen"
    expected = {
        "EXIT_REASON": 0x80000022,
        "EXIT_QUALIFICATION": 4,
        "CR4_READ_SHADOW": 0x406E0,
        "GUEST_CS_ACCESS_RIGHTS": 0xA09B,
        "GUEST_GDTR_LIMIT": 0x7F,
        "GUEST_TR_BASE": 0xFFFFFE0000003000,
        "PREEMPTION_TIMER_VALUE": 9,
        "GUEST_SMBASE": 0x30000,
        "HOST_RSP": 0xFFFF830000000F70,
        "TSC_MULTIPLIER": 1,
        "POSTED_INTR_NOTIFY_VECTOR": 0xF4,
        "EPTP_INDEX": 7,
        "VMFUNC_CONTROLS": 1,
        "SPEC_CTRL_MASK": 4,
        "SPEC_CTRL_SHADOW": 6,
    }
    assert {field: dump.fields.get(field) for field in expected} == expected
    assert dump.reported["failed_msr_load"] == "0x1dd=0x7fffffffffff (mbz 0)"
    assert dump.reported["guest_efer_msr_load_list"] == "0x0000000000000d01"
    assert "GUEST_IA32_EFER" not in dump.fields
    assert dump.unrecognised == ()


def test_xen_instruction_error_without_a_processor() -> None:
    assert one("(XEN) VMRESUME error: 0x5\n").fields == {"VM_INSTRUCTION_ERROR": 5}


def test_xen_older_header() -> None:
    dump = one("Failed vm entry (exit reason 0x80000021) caused by invalid guest state (4).\n")
    assert (dump.fields["EXIT_REASON"], dump.fields["EXIT_QUALIFICATION"]) == (0x80000021, 4)


@pytest.mark.parametrize(
    "line",
    [
        "GUEST_CS_SELECTOR = 0x8",
        "# GUEST_CS_SEL = 0x8",
        "VMCS_GUEST_CS_SELECTOR:  0x0000000000000008",
        "guest_cs_selector=8",
        "0x0802: 0x8",
        "Guest CS selector = 0x8",
        "GUEST_CS_SELECTOR =\n0x8",
        "haxm_warning: 0802 GUEST_CS_SELECTOR: 8",
        "haxm_error:0802 WHATEVER_NAME:8",
    ],
)
def test_one_field_on_a_line(line: str) -> None:
    assert one(line).fields == {"GUEST_CS_SELECTOR": 8}


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("CPU_BASED_VM_EXEC_CONTROL", "PRIMARY_PROC_CONTROLS"),
        ("VM_ENTRY_INTR_INFO_FIELD", "ENTRY_INTR_INFO"),
        ("GUEST_CS_AR_BYTES", "GUEST_CS_ACCESS_RIGHTS"),
        ("VMCS_PIN_BASED_CTLS", "PIN_CONTROLS"),
        ("GUEST_SYSENTER_EIP", "GUEST_IA32_SYSENTER_EIP"),
        ("VIRTUAL_PROCESSOR_ID", "VPID"),
        ("GUEST_INTERRUPTIBILITY_INFO", "GUEST_INTERRUPTIBILITY"),
    ],
)
def test_names_of_other_projects(name: str, field: str) -> None:
    assert one(f"{name} = 0x1").fields == {field: 1}


def test_halves_of_64_bit_fields() -> None:
    dump = one("haxm_warning: 2800 VMCS_LINK: ffffffff\nhaxm_warning: 2801 VMCS_LINK_HI: ffffffff\n")
    assert dump.fields == {"VMCS_LINK_POINTER": 0xFFFFFFFFFFFFFFFF}
    with pytest.raises(DumpError, match="contradict"):
        one("0x2800 = 0x100000000\n0x2801 = 0x2\n")
    alone = one("GUEST_CR0 = 0x1\n0x2801 = 0x2\n")
    assert "VMCS_LINK_POINTER" not in alone.fields
    assert "only its upper half (0x2)" in alone.remarks[0].text


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("GUEST_CR3 = 0xzz", "GUEST_CR3: expected a hexadecimal number, found '0xzz'"),
        ("GUEST_CS_SELECTOR = 0x10000", "GUEST_CS_SELECTOR: 0x10000 does not fit in 16 bits"),
        ("0x2801 = 0x2\n0x2800 = 0x100000000", "contradict each other"),
    ],
)
def test_a_line_that_is_wrong_takes_no_other_with_it(line: str, why: str) -> None:
    dump = one(f"GUEST_CR0 = 0x1\n{line}\nGUEST_CR4 = 0x2\n")
    assert dump.fields == {"GUEST_CR0": 1, "GUEST_CR4": 2}
    assert why in dump.remarks[0].text


def test_a_field_that_could_not_be_read_is_unknown() -> None:
    dump = one("# GUEST_CR0 = 0x1\n# GUEST_CR3 = INVALID_VALUE\n# GUEST_CR4 = vmread(0x6804) failed\n")
    assert dump.fields == {"GUEST_CR0": 1}
    assert [item.line for item in dump.remarks] == [2, 3]


def test_virtualbox_registers() -> None:
    dump = one(
        "  CS   = {0010 base=0000000000000000 limit=ffffffff flags=a09b}\n  GDTR = {base=1000 limit=7f}\n"
    )
    assert dump.fields == {
        "GUEST_CS_SELECTOR": 0x10,
        "GUEST_CS_BASE": 0,
        "GUEST_CS_LIMIT": 0xFFFFFFFF,
        "GUEST_CS_ACCESS_RIGHTS": 0xA09B,
        "GUEST_GDTR_BASE": 0x1000,
        "GUEST_GDTR_LIMIT": 0x7F,
    }


def test_capability_msrs_beside_a_dump() -> None:
    dump = one("00:00:01.000000 HM: MSR_IA32_VMX_BASIC                = 0xda040000000004\nGUEST_CR0 = 0x1\n")
    assert dump.capabilities == {"0x480": "0xda040000000004"}


def test_jailhouse() -> None:
    dump = one(
        "FATAL: VM-Entry failure, reason 33\n"
        "qualification 4\n"
        "vectoring info: 0 interrupt info: 0\n"
        "RIP: 0xffffffff81000000 RSP: 0xffffffff82000000 FLAGS: 2\n"
        "RAX: 0x0000000000000011 RBX: 0x0000000000000000 RCX: 0x0000000000000000\n"
        "CS: 10 BASE: 0x0000000000000000 AR-BYTES: a09b EFER.LMA 1\n"
        "CR0: 0x0000000080050033 CR3: 0x0000000001000000 CR4: 0x00000000000026a0\n"
        "EFER: 0x0000000000000d01\n"
    )
    expected = {
        "EXIT_REASON": 0x80000021,
        "EXIT_QUALIFICATION": 4,
        "GUEST_RFLAGS": 2,
        "GUEST_CS_SELECTOR": 0x10,
        "GUEST_CS_ACCESS_RIGHTS": 0xA09B,
        "GUEST_CR4": 0x26A0,
        "GUEST_IA32_EFER": 0xD01,
    }
    assert {field: dump.fields.get(field) for field in expected} == expected
    assert dump.reported["guest_rax"] == "0x0000000000000011"
    assert dump.unrecognised == ()
    assert one("FATAL: vmlaunch failed, error 8\n").fields == {"VM_INSTRUCTION_ERROR": 8}


QEMU = """\
KVM: entry failed, hardware error 0x80000021
EAX=00000000 EBX=00000000 ECX=00000000 EDX=000f0600
ESI=00000000 EDI=00000000 EBP=00000000 ESP=00006d18
EIP=0000fff0 EFL=00000002 [-------] CPL=0 II=0 A20=1 SMM=0 HLT=0
CS =f000 ffff0000 0000ffff 00009b00
LDT=0000 00000000 0000ffff 00008200
DS =0010 00000000 ffffffff 00cf9300 DPL=0 DS   [-WA]
FS =0000 00000000 00000000 00000000
GDT=     00000000 0000ffff
CR0=60000010 CR2=00000000 CR3=00000000 CR4=00000000
EFER=0000000000000000
"""


def test_qemu_registers_are_partial_guest_state() -> None:
    dump = one(QEMU)
    assert dump.fields["EXIT_REASON"] == 0x80000021
    assert dump.fields["GUEST_CS_BASE"] == 0xFFFF0000
    assert dump.fields["GUEST_CS_ACCESS_RIGHTS"] == 0x9B
    assert dump.fields["GUEST_DS_ACCESS_RIGHTS"] == 0xC093  # without bits 19:16 of the limit
    assert dump.fields["GUEST_FS_ACCESS_RIGHTS"] == 0x10000  # not present stands for unusable
    assert dump.fields["GUEST_GDTR_LIMIT"] == 0xFFFF
    assert dump.fields["GUEST_RIP"] == 0xFFF0
    assert "GUEST_CR0" not in dump.fields  # the guest's view, not the field
    assert dump.reported["qemu_cr0"] == "60000010"
    assert "guest's view" in dump.remarks[0].text


def test_a_printed_field_overrules_qemu() -> None:
    dump = one(QEMU + "*** Guest State ***\nRSP = 0x0000000000000001  RIP = 0x0000000000000002\n")
    assert dump.fields["GUEST_RIP"] == 2


def test_hardware_error_numbers() -> None:
    assert one("KVM: entry failed, hardware error 0x7\n").fields == {"VM_INSTRUCTION_ERROR": 7}


def test_several_dumps_in_one_file() -> None:
    second = KVM_64.replace("CR3 = 0x0000000001000000", "CR3 = 0x0000000009000000")
    first_dump, second_dump = read_dumps((KVM_64 + second).encode(), "log")
    assert first_dump.fields["GUEST_CR3"] == 0x1000000
    assert second_dump.fields["GUEST_CR3"] == 0x9000000
    assert (first_dump.name, second_dump.name) == ("log#1", "log#2")
    bare = KVM_64.split("\n", 1)[1]
    assert (
        len(read_dumps((bare + bare.replace("RFLAGS=0x00000002", "RFLAGS=0x00000202")).encode(), "log")) == 2
    )


def test_several_processors_printing_at_once() -> None:
    one_, two = KVM_64.replace("kvm_intel: ", ""), KVM_64.replace("kvm_intel: ", "").replace("d1ff", "d3ff")
    two = two.replace("RIP = 0x0000000000100200", "RIP = 0x0000000000100300")
    lines = [
        line
        for pair in zip(one_.splitlines(), two.splitlines(), strict=True)
        for line in (f"[  1.000000][ T11] {pair[0]}", f"[  1.000001][ T22] {pair[1]}")
    ]
    first, second = read_dumps("\n".join(lines).encode(), "log")
    assert first.fields["GUEST_RIP"] == 0x100200
    assert second.fields["GUEST_RIP"] == 0x100300
    assert len(first.fields) == len(second.fields) == len(one(KVM_64).fields)


def test_words_without_a_heading_are_placed_by_their_order_or_left_out() -> None:
    shared = "RSP = 0x0000000000000001  RIP = 0x0000000000000002\n"
    dump = one(f"CR3 = 0x0000000000000003\n{shared}RFLAGS=0x00000002\n")
    assert dump.fields == {"GUEST_RSP": 1, "GUEST_RIP": 2, "GUEST_CR3": 3, "GUEST_RFLAGS": 2}
    dump = one(f"CR3 = 0x0000000000000003\n{shared}")
    assert dump.fields == {
        "GUEST_RSP": 1,
        "GUEST_RIP": 2,
        "GUEST_CR3": 3,
    }  # RSP stands first, and so in the guest part
    dump = one("CR3 = 0x0000000000000003\nEFER = 0x0000000000000d01\n")  # which may be the host's
    assert dump.fields == {"GUEST_CR3": 3}
    assert "EFER: a section heading is missing" in dump.remarks[0].text
    part = "RIP = 0x0000000000000002  RSP = 0x0000000000000001\nCS=0010 SS=0018\n"
    host = one("GUEST_RFLAGS = 0x2\n" + part)  # what no heading makes the host's is nobody's
    assert host.fields == {"GUEST_RFLAGS": 2}
    assert "not read" in host.remarks[0].text
    assert one("*** Host State ***\n" + part).fields["HOST_CS_SELECTOR"] == 0x10


def test_prose_around_a_dump_is_listed_not_lost() -> None:
    dump = one(
        f"My guest dies. I think CR3 = old, and\nexit reason: unknown\n\n{KVM_64}\n-- \nKind regards\n"
    )
    assert dump.fields == one(KVM_64).fields
    assert [item.line for item in dump.unrecognised][:2] == [1, 2]
    assert dump.unrecognised[-1].text == "Kind regards"


def test_a_misspelt_name_is_said_with_near_matches() -> None:
    dump = one("GUEST_CR0 = 0x1\nGUEST_CR33 = 0x1\n")
    assert dump.fields == {"GUEST_CR0": 1}
    (remark,) = dump.remarks
    assert remark.line == 2
    assert "GUEST_CR33" in remark.text
    assert "GUEST_CR3" in remark.text.split("near")[1]


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("", 0, "empty"),
        ("\n \n", 0, "empty"),
        ("hello\n", 0, "no VMCS field in 2 lines"),
        ("\nGUEST_CR3 = 0xzz\n", 2, "GUEST_CR3: expected a hexadecimal number, found '0xzz'"),
        ("GUEST_CS_SELECTOR = 0x10000\n", 1, "GUEST_CS_SELECTOR: 0x10000 does not fit in 16 bits"),
        ("GUEST_CR0 = 0x1\n\nGUEST_CR0 = 0x2\n", 3, "GUEST_CR0 is 0x2 here but 0x1 on line 1"),
        ("GUEST_CR0 = 0x1\n\0\1\n", 2, "binary"),
        ("VMCB Control Area:\n", 1, "AMD VMCB"),
        ("set kvm_intel.dump_invalid_vmcs=1 to dump internal KVM state.\n", 1, "dump_invalid_vmcs=1"),
    ],
)
def test_bad_input_is_one_line_with_its_place(text: str, line: int, words: str) -> None:
    with pytest.raises(DumpError) as caught:
        read_dumps(text.encode(), "input")
    assert words in caught.value.message
    assert caught.value.line == line
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("line", "bad", "field", "words"),
    [
        ("CR3 = 0x0000000102a6c003", "CR3 = 0x00001000", "GUEST_CR3", "expected 16 hexadecimal digits"),
        ("CR3 = 0x0000000102a6c003", "CR3 = 0x00000000000q1000", "GUEST_CR3", "found '0x00000000000q1000'"),
        ("CR3 = 0x0000000102a6c003", "CR3 = 0x00000001…", "GUEST_CR3", "found '0x00000001...'"),
        ("CR3 = 0x0000000102a6c003", "CR3 = <redacted>", "GUEST_CR3", "CR3 = <redacted>"),
        ("TR:   sel=0x0040", "TR:   sel=0x10040", "GUEST_TR_SELECTOR", "does not fit in the 16 bits"),
        ("PinBased=0x000000ff", "PinBased=0xXXXXXXff", "PIN_CONTROLS", "found '0xXXXXXXff'"),
        ("   0: msr=0x00000600 value=0x0000000000000000", "   0: msr=0x00000600 value=*****",
         "ENTRY_MSR_LOAD_COUNT", "msr=0x00000600"),
    ],
)  # fmt: skip
def test_a_value_that_is_hidden_cut_or_mistyped_is_left_out_and_named(
    line: str, bad: str, field: str, words: str
) -> None:
    """The other fields stand, and nothing is accused that was not."""
    before, after = one(VMCS), one(VMCS.replace(line, bad, 1))
    assert line in VMCS
    assert before.fields.keys() - after.fields.keys() == {field}
    assert after.fields.items() <= before.fields.items()
    number = VMCS[: VMCS.index(line)].count("\n") + 1
    assert any(words in item.text and item.line == number for item in (*after.remarks, *after.unrecognised))
    assert {item.id for item in diagnose(after).verdict.failed} <= {
        item.id for item in diagnose(before).verdict.failed
    }


def test_a_cut_last_value_is_left_out_and_said() -> None:
    dump = one("*** Guest State ***\nCR3 = 0x0000000001000000\nRSP = 0x00000000000")
    assert dump.fields == {"GUEST_CR3": 0x1000000}
    assert dump.remarks[0].line == 3
    assert "cut here" in dump.remarks[0].text
