"""Dumps as people paste them: one VMCS and one VMCB, and more than a hundred ways to mangle a text.

Both are written here in the layouts that Linux KVM prints; the values are ours.
"""

from __future__ import annotations

import html
import json
import quopri
import re
import textwrap
from collections.abc import Callable, Mapping

Mangle = Callable[[list[str]], str | bytes]

# Defects: bit 1 of RFLAGS, and a guest in 64-bit mode whose entry control says otherwise.
VMCS = """\
VMCS 00000000deadbeef, last attempted VM-entry on CPU 5
*** Guest State ***
CR0: actual=0x0000000080050033, shadow=0x0000000080050033, gh_mask=fffffffffffefff7
CR4: actual=0x00000000003726f0, shadow=0x00000000003706f0, gh_mask=fffffffffffef871
CR3 = 0x0000000102a6c003
PDPTR0 = 0x0000000000000000  PDPTR1 = 0x0000000000000000
PDPTR2 = 0x0000000000000000  PDPTR3 = 0x0000000000000000
RSP = 0xffffc90000a37e48  RIP = 0xffffffff81e3b2c4
RFLAGS=0x00000244         DR7 = 0x0000000000000400
Sysenter RSP=fffffe0000003000 CS:RIP=0010:ffffffff82001770
CS:   sel=0x0010, attr=0x0a09b, limit=0xffffffff, base=0x0000000000000000
DS:   sel=0x0000, attr=0x1c001, limit=0xffffffff, base=0x0000000000000000
SS:   sel=0x0018, attr=0x0c093, limit=0xffffffff, base=0x0000000000000000
ES:   sel=0x0000, attr=0x1c001, limit=0xffffffff, base=0x0000000000000000
FS:   sel=0x0000, attr=0x1c001, limit=0xffffffff, base=0x0000000000000000
GS:   sel=0x0000, attr=0x1c001, limit=0xffffffff, base=0xffff88813bc00000
GDTR:                           limit=0x0000007f, base=0xfffffe0000001000
LDTR: sel=0x0000, attr=0x10000, limit=0x00000000, base=0x0000000000000000
IDTR:                           limit=0x00000fff, base=0xfffffe0000000000
TR:   sel=0x0040, attr=0x0008b, limit=0x00004087, base=0xfffffe0000003000
EFER= 0x0000000000000d01
PAT = 0x0407050600070106
DebugCtl = 0x0000000000000000  DebugExceptions = 0x0000000000000000
Interruptibility = 00000000  ActivityState = 00000000
MSR guest autoload:
   0: msr=0x00000600 value=0x0000000000000000
InterruptStatus = 0000
*** Host State ***
RIP = 0xffffffffc0a81d30  RSP = 0xffffb0f6c2a6bc90
CS=0010 SS=0018 DS=0000 ES=0000 FS=0000 GS=0000 TR=0040
FSBase=00007f3d2effd700 GSBase=ffff9c4b3fb40000 TRBase=fffffe0000177000
GDTBase=fffffe0000175000 IDTBase=fffffe0000000000
CR0=0000000080050033 CR3=000000010a2d0004 CR4=00000000003726e0
Sysenter RSP=fffffe0000177000 CS:RIP=0010:ffffffff9de01770
PAT = 0x0407050600070106
MSR host autoload:
   0: msr=0x00000600 value=0xfffffe0000177100
*** Control State ***
CPUBased=0xb5a06dfa SecondaryExec=0x001237eb TertiaryExec=0x0000000000000000
PinBased=0x000000ff EntryControls=0000d1ff ExitControls=002befff
ExceptionBitmap=00060042 PFECmask=00000000 PFECmatch=00000000
VMEntry: intr_info=00000000 errcode=00000000 ilen=00000003
VMExit: intr_info=00000000 errcode=00000000 ilen=00000002
        reason=80000021 qualification=0000000000000000
IDTVectoring: info=00000000 errcode=00000000
TSC Offset = 0xffff3a7b1c0e4d52
TSC Multiplier = 0x0001000000000000
SVI|RVI = 00|00 TPR Threshold = 0x00
APIC-access addr = 0x000000010a3d1000 virt-APIC addr = 0x000000010a3d2000
PostedIntrVec = 0xf2
EPT pointer = 0x000000010a1c005e
PLE Gap=00000080 Window=00001000
Virtual processor ID = 0x0007
VE info address = 0x0000000000000000
"""
# Defects: CR0.NW without CR0.CD.
VMCB = """\
VMCB 00000000f00ba4aa, last attempted VMRUN on CPU 11
VMCB Control Area:
cr_read:            0010
cr_write:           0110
dr_read:            00ff
dr_write:           00ff
exceptions:         00060042
intercepts:         bc4c8027 0000404f
pause filter count: 3000
pause filter threshold:128
iopm_base_pa:       000000010a1c0000
msrpm_base_pa:      000000010b2e4000
tsc_offset:         ffff1234a5b6c7d8
asid:               17
tlb_ctl:            0
int_ctl:            03000200
int_vector:         00000000
int_state:          00000000
exit_code:          ffffffff
exit_info1:         0000000000000000
exit_info2:         0000000000000000
exit_int_info:      00000000
exit_int_info_err:  00000000
nested_ctl:         1
nested_cr3:         0000000109f1c000
avic_vapic_bar:     0000000000000000
ghcb:               0000000000000000
event_inj:          00000000
event_inj_err:      00000000
virt_ext:           2
next_rip:           0000000000000000
avic_backing_page:  0000000000000000
avic_logical_id:    0000000000000000
avic_physical_id:   0000000000000000
vmsa_pa:            0000000000000000
VMCB State Save Area:
es:   s: 0018 a: 0c93 l: ffffffff b: 0000000000000000
cs:   s: 0010 a: 029b l: ffffffff b: 0000000000000000
ss:   s: 0018 a: 0c93 l: ffffffff b: 0000000000000000
ds:   s: 0018 a: 0c93 l: ffffffff b: 0000000000000000
fs:   s: 0000 a: 0c00 l: ffffffff b: 0000000000000000
gs:   s: 0000 a: 0c00 l: ffffffff b: ffff88813bc00000
gdtr: s: 0000 a: 0000 l: 0000007f b: fffffe0000001000
ldtr: s: 0000 a: 0000 l: 00000000 b: 0000000000000000
idtr: s: 0000 a: 0000 l: 00000fff b: fffffe0000000000
tr:   s: 0040 a: 008b l: 00004087 b: fffffe0000003000
vmpl: 0   cpl:  0               efer:          0000000000001d01
cr0:         00000000a0050033 cr2:          00007f12a4be5010
cr3:         0000000102a6c003 cr4:          00000000003506f0
dr6:         00000000ffff0ff0 dr7:          0000000000000400
rip:         ffffffff81e3b2c4 rflags:       0000000000000246
rsp:         ffffc90000a37e48 rax:          000000000000002a
star:        0023001000000000 lstar:        ffffffff82000080
cstar:       ffffffff820015e0 sfmask:       0000000000257fd5
kernel_gs_base: 0000000000000000 sysenter_cs:  0000000000000010
sysenter_esp: fffffe0000003000 sysenter_eip: ffffffff82001770
gpat:        0407050600070106 dbgctl:       0000000000000000
br_from:     0000000000000000 br_to:        0000000000000000
excp_from:   0000000000000000 excp_to:      0000000000000000
"""
QEMU = """\
KVM: entry failed, hardware error 0x80000021

If you're running a guest on an Intel machine without unrestricted mode
support, the failure can be most likely due to the guest entering an invalid
state for Intel VT. For example, the guest maybe running in big real mode
which is not supported on less recent Intel processors.

RAX=0000000000000000 RBX=0000000000000000 RCX=0000000000000000 RDX=00000000000806ea
RSI=0000000000000000 RDI=0000000000000000 RBP=0000000000000000 RSP=0000000000000000
R8 =0000000000000000 R9 =0000000000000000 R10=0000000000000000 R11=0000000000000000
R12=0000000000000000 R13=0000000000000000 R14=0000000000000000 R15=0000000000000000
RIP=000000000000fff0 RFL=00000002 [-------] CPL=0 II=0 A20=1 SMM=0 HLT=0
ES =0000 0000000000000000 0000ffff 00009300
CS =f000 00000000ffff0000 0000ffff 00009b00
SS =0000 0000000000000000 0000ffff 00009300
DS =0000 0000000000000000 0000ffff 00009300
FS =0000 0000000000000000 0000ffff 00009300
GS =0000 0000000000000000 0000ffff 00009300
LDT=0000 0000000000000000 0000ffff 00008200
TR =0000 0000000000000000 0000ffff 00008b00
GDT=     0000000000000000 0000ffff
IDT=     0000000000000000 0000ffff
CR0=60000010 CR2=0000000000000000 CR3=0000000000000000 CR4=00000000
DR0=0000000000000000 DR1=0000000000000000 DR2=0000000000000000 DR3=0000000000000000
DR6=00000000ffff0ff0 DR7=0000000000000400
EFER=0000000000000000
Code=00 66 89 d8 66 e8 af a3 ff ff 66 83 c4 0c 66 5b 66 5e 66 c3 ea 5b e0 00 f0 30 36 2f
"""
OOPS = """\
BUG: unable to handle page fault for address: ffffffffc0a81d30
#PF: supervisor instruction fetch in kernel mode
#PF: error_code(0x0010) - not-present page
PGD 10a20e067 P4D 10a20e067 PUD 10a210067 PMD 10a7b4067 PTE 0
Oops: 0010 [#1] PREEMPT SMP NOPTI
CPU: 3 PID: 4242 Comm: CPU 0/KVM Tainted: G           OE      6.1.0-13-amd64 #1
RIP: 0010:kvm_vcpu_ioctl+0x27f/0x690 [kvm]
RSP: 0018:ffffb0f6c2a6bd88 EFLAGS: 00010246
RAX: 0000000000000000 RBX: ffff9c4a45e80000 RCX: 0000000000000000
RDX: 0000000000000000 RSI: 0000000000000001 RDI: ffff9c4a45e80000
FS:  00007f3d2effd700(0000) GS:ffff9c4b3fb40000(0000) knlGS:0000000000000000
CS:  0010 DS: 0000 ES: 0000 CR0: 0000000080050033
CR2: ffffffffc0a81d30 CR3: 000000010a2d0004 CR4: 00000000003726e0
DR0: 0000000000000000 DR1: 0000000000000000 DR2: 0000000000000000
DR3: 0000000000000000 DR6: 00000000fffe0ff0 DR7: 0000000000000400
PKRU: 55555554
"""

PREFIXES: Mapping[str, str] = {
    "md4": "    ",
    "tab": "\t",
    "tabs": "\t\t",
    "plus": "+",
    "plus tab": "+\t",
    "minus": "-",
    "bar": "|",
    "bar sp": "| ",
    "gt": ">",
    "gts": ">>> ",
    "> |": "> | ",
    "gh": "2026-11-02T08:15:30.1234567Z ",
    "gitlab": "00:12.345 ",
    "jenk": "[2026-11-02T08:15:30.123Z] ",
    "buildkite": "[2026-11-02 08:15:30] ",
    "azure": "2026-11-02T08:15:30.1234567Z ##[error]",
    "gitlab2": "2026-11-02T08:15:30.123456Z 01O ",
    "circle": "[08:15:30] ",
    "ts %H": "08:15:30 ",
    "ts ms": "08:15:30.123 ",
    "dmesg-x": "kern  :err   : [ 1234.567890] ",
    "dmesg-x2": "kern  :emerg : [   12.000001] ",
    "dmesg-d": "[ 1234.567890 <    0.000003>] ",
    "dmesg-xd": "kern  :err   : [ 1234.567890 <    0.000003>] ",
    "dmesg-H": "[Nov 2 08:15] ",
    "dmesg-H2": "[Nov12 08:15] ",
    "dmesg-H+": "[  +0.000003] ",
    "dmesg-r": "<3>[ 1234.567890] ",
    "dmesg-T": "[Mon Nov  2 08:15:30 2026] ",
    "dmesg-iso": "2026-11-02T08:15:30,123456+01:00 ",
    "dmesg -x -H": "kern  :err   : [  +0.000003] ",
    "dmesg T de": "[Mo Nov  2 08:15:30 2026] ",
    "dmesg T fr": "[lun. nov.  2 08:15:30 2026] ",
    "dmesg caller": "[ 1234.567890][T4242] ",
    "dmesg caller C": "[ 1234.567890][    C3] ",
    "dmesg caller x": "kern  :err   : [ 1234.567890] [   T4242] ",
    "journal": "Nov 02 08:15:30 pve1 kernel: ",
    "journal usec": "Nov 02 08:15:30.123456 pve1 kernel: ",
    "journal full": "Mon 2026-11-02 08:15:30 CET pve1 kernel: ",
    "journal pid": "Nov 02 08:15:30 pve1 qemu-system-x86_64[4242]: ",
    "journal iso": "2026-11-02T08:15:30+01:00 pve1 kernel: ",
    "journal isop": "2026-11-02T08:15:30.123456+01:00 pve1.example.org kernel: ",
    "rsyslog": "2026-11-02T08:15:30.123456+01:00 pve1 kernel: [ 1234.567890] ",
    "mono": "[ 1234.567890] pve1 kernel: ",
    "unix": "1793606130.123456 pve1 kernel: ",
    "de": "M\xe4r 02 08:15:30 pve1 kernel: ",
    "de2": "Dez 02 08:15:30 pve1 kernel: ",
    "es": "dic 02 08:15:30 pve1 kernel: ",
    "fr": "f\xe9vr. 02 08:15:30 pve1 kernel: ",
    "ru": "\u043d\u043e\u044f 02 08:15:30 pve1 kernel: ",
    "ja": "11\u6708 02 08:15:30 pve1 kernel: ",
    "pl": "lis 02 08:15:30 pve1 kernel: ",
    "pt": "nov 02 08:15:30 pve1 kernel: ",
    "zh": "11\u6708 02 08:15:30 pve1 kernel: ",
    "ko": "11\uc6d4 02 08:15:30 pve1 kernel: ",
    "cs": "lis 02 08:15:30 pve1 kernel: ",
    "syslog pri": "<3>Nov  2 08:15:30 pve1 kernel: [ 1234.567890] ",
    "rfc5424": "<3>1 2026-11-02T08:15:30.123456+01:00 pve1 kernel - - - ",
    "modul": "kvm_intel: ",
    "modul amd": "kvm_amd: ",
    "dm+mod": "[ 1234.567890] kvm_intel: ",
    "docker": "worker-1  | ",
    "k8s": "[pod/vm-0/compute] ",
    "kube ts": "2026-11-02T08:15:30.123456789Z stderr F ",
    "irc": "08:15 <bob> ",
    "slack": "bob: ",
    "hash": "# ",
    "slashes": "// ",
    "cstar": " * ",
    "semicolon": "; ",
    "esxi": "2026-11-02T08:15:30.123Z cpu5:4242)",
    "libvirt": "2026-11-02 08:15:30.123+0000: 4242: error : ",
    "logcat": "11-02 08:15:30.123  1234  4242 E kernel  : ",
    "logcat brief": "E/kernel ( 4242): ",
    "serial": "(d1) ",
    "xen": "(XEN) ",
    "xen ts": "(XEN) [2026-11-02 08:15:30.123] ",
    "xen dom": "(XEN) [  123.456] ",
    "script": "0.000123 ",
    "adb": "<3>[ 1234.567890] (5)[4242:CPU 0/KVM]",
    "loglevel": "ERROR: ",
    "crash>": "crash> ",
    "two spaces nbsp": "\xa0\xa0",
    "em": "\u2003",
    "win debug": "0:kd> ",
}
"""What stands in front of every line, by who writes it."""


def _prefix(text: str) -> Mangle:
    return lambda lines: "\n".join(text + line for line in lines)


def _numbered(pattern: str, first: int = 1) -> Mangle:
    return lambda lines: "\n".join(pattern.format(number, line) for number, line in enumerate(lines, first))


def _wrapped(width: int, prefix: str = "", quote: str = "") -> Mangle:
    """Broken by a terminal at a column, wherever that is."""

    def mangle(lines: list[str]) -> str:
        whole = [prefix + line for line in lines]
        return "\n".join(
            quote + line[at : at + width] for line in whole for at in range(0, max(1, len(line)), width)
        )

    return mangle


def _filled(width: int) -> Mangle:
    """Broken by a mailer at blanks."""
    return lambda lines: "\n".join(
        part for line in lines for part in textwrap.wrap(line, width, break_long_words=False) or [""]
    )


def _each(pattern: str) -> Mangle:
    """Every line inside something, as HTML has it."""
    return lambda lines: "\n".join(pattern.format(html.escape(line)) for line in lines)


def _joined(text: str) -> Mangle:
    return lambda lines: text.join(lines)


def _around(before: str, after: str) -> Mangle:
    return lambda lines: before + "\n".join(lines) + after


def _quoted_printable(prefix: str = "", end: str = "\n") -> Mangle:
    return lambda lines: quopri.encodestring(end.join(prefix + line for line in lines).encode()).decode()


def _encoded(name: str) -> Mangle:
    return lambda lines: "\n".join(lines).encode(name)


def _substituted(pattern: str, by: str) -> Mangle:
    return lambda lines: "\n".join(re.sub(pattern, by, line) for line in lines)


def _interleaved(foreign: str) -> Mangle:
    return lambda lines: "\n".join(part for line in lines for part in (line, foreign))


def _records(key: str) -> Mangle:
    return lambda lines: "\n".join(json.dumps({key: line + "\n", "PRIORITY": "3"}) for line in lines)


def _in_the_middle(lines: list[str]) -> str:
    return "\n".join((*lines[:20], OOPS, *lines[20:]))


def _upper(lines: list[str]) -> str:
    return "\n".join(
        re.sub(r"\b(0x)?([0-9a-f]{4,16})\b", lambda m: (m[1] or "") + m[2].upper(), line) for line in lines
    )


_AUDIT = '[ 1234.567891] audit: type=1400 audit(1793606130.123:42): apparmor="STATUS" reason=5 limit=7'

MANGLED: Mapping[str, Mangle] = {
    **{name: _prefix(prefix) for name, prefix in PREFIXES.items()},
    "line numbers": _numbered("{:4d}  {}"),
    "line numbers and tab": _numbered("{:6d}\t{}"),
    "grep -n": _numbered("{}:{}", 117),
    "numbered list": _numbered("{}. {}"),
    "line numbers and bar": _numbered("{:3d} | {}"),
    "line numbers and bracket": _numbered("{}) {}"),
    "line numbers of a patch": _numbered("{:3d} +{}"),
    "grep -n over files": _numbered("/var/log/kern.log:{}:{}", 900),
    "grep over files": _prefix("/var/log/kern.log:"),
    "patch": lambda lines: "--- a/log\n+++ b/log\n@@ -1,3 +1,70 @@\n" + "\n".join("+" + x for x in lines),
    "table": lambda lines: "\n".join(f"| {line} |" for line in lines),
    "fence": _around("Here is it:\n```\n", "\n```\nThanks"),
    "code spans": lambda lines: "\n".join(f"`{line}`" for line in lines),
    "list of code spans": lambda lines: "\n".join(f"- `{line}`" for line in lines),
    "reStructuredText": lambda lines: "::\n\n" + "\n".join("    " + line for line in lines),
    "Jira": _around("{noformat}\n", "\n{noformat}"),
    "forum": _around("[code]", "[/code]"),
    "breaks": lambda lines: "<br>\n".join(html.escape(x).replace("  ", " &nbsp;") for x in lines),
    "breaks alone": lambda lines: (
        "<html><body><p>" + "<br />".join(map(html.escape, lines)) + "</p></body></html>"
    ),
    "preformatted": lambda lines: "<pre><code>" + "\n".join(map(html.escape, lines)) + "</code></pre>",
    "entities": lambda lines: "<br/>".join(
        line.replace("=", "&#61;").replace(":", "&#x3a;").replace(" ", "&#160;") for line in lines
    ),
    "rows": lambda lines: (
        "<table>"
        + "".join(f"<tr><td>{n}</td><td>{html.escape(x)}</td></tr>\n" for n, x in enumerate(lines, 1))
        + "</table>"
    ),
    "spans": _each('<span class="line">{}</span>'),
    "divisions": lambda lines: "".join(
        f'<div class="v"><span class="t">{html.escape(x)}</span></div>' for x in lines
    ),
    "quoted-printable": _quoted_printable(),
    "quoted-printable in a reply": _quoted_printable("> [ 1234.567890] kvm: "),
    "quoted-printable with blanks": _quoted_printable("[ 1234.567890] kvm_amd: ", "  \r\n"),
    "CR LF": _joined("\r\n"),
    "CR": _joined("\r"),
    "empty lines": _joined("\n\n"),
    "blanks at the end": _joined("   \n"),
    "colours": lambda lines: "\n".join(f"\x1b[31m[ 1234.567890]\x1b[0m \x1b[1m{x}\x1b[0m" for x in lines),
    "colours by cat -v": lambda lines: "\n".join(f"^[[31m{line}^[[0m" for line in lines),
    "UTF-16": _encoded("utf-16"),
    "UTF-16 little": _encoded("utf-16-le"),
    "UTF-16 big": _encoded("utf-16-be"),
    "UTF-8 with a mark": _encoded("utf-8-sig"),
    "Latin-1": lambda lines: (
        "Gr\xfc\xdfe:\n" + "\n".join("M\xe4r 02 08:15:30 h kernel: " + x for x in lines)
    ).encode("latin-1"),
    "no-break spaces": _substituted(" ", "\xa0"),
    "zero-width spaces": _prefix("\u200b"),
    "blanks collapsed": _substituted(" +", " "),
    "tabs for blanks": _substituted("  +", "\t"),
    "capital digits": _upper,
    **{f"wrapped at {width}": _wrapped(width) for width in (80, 76, 72, 60, 40)},
    **{f"dmesg wrapped at {width}": _wrapped(width, "[ 1234.567890] kvm_intel: ") for width in (80, 100)},
    "journal wrapped at 80": _wrapped(80, "Nov 02 08:15:30 pve1 kernel: "),
    "wrapped and indented": _wrapped(76, "", "    "),
    "wrapped and quoted": _wrapped(70, "", "> "),
    "continued": lambda lines: "\n".join(x if len(x) <= 60 else f"{x[:60]}\\\n{x[60:]}" for x in lines),
    "continued and indented": lambda lines: "\n".join(
        x if len(x) <= 60 else f"{x[:60]}\n    {x[60:]}" for x in lines
    ),
    **{f"filled to {width}": _filled(width) for width in (78, 60, 44)},
    "one line": _joined(" "),
    "escaped": _joined("\\n"),
    "JSON string": lambda lines: json.dumps({"log": "\n".join(lines)}),
    "Docker": _records("log"),
    "journalctl -o json": _records("MESSAGE"),
    "journalctl -o export": lambda lines: "\n\n".join(f"PRIORITY=3\nMESSAGE={line}" for line in lines),
    "JSON array": lambda lines: json.dumps(lines),
    "source code": lambda lines: "\n".join(f'"{line}\\n"' for line in lines),
    "list in source code": lambda lines: "[\n" + ",\n".join(f"  {line!r}" for line in lines) + "\n]",
    "representation": lambda lines: repr("\n".join(lines)),
    "USB between": _interleaved("usb 1-1: new high-speed USB device number 2"),
    "audit between": _interleaved(_AUDIT),
    "oops before": _around(OOPS, ""),
    "oops behind": _around("", "\n" + OOPS),
    "oops inside": _in_the_middle,
    "QEMU before": _around(QEMU, ""),
    "QEMU behind": _around("", "\n" + QEMU),
    "braces": lambda lines: "[ 1.0] {\n" + "\n".join("[ 1.000000] " + x for x in lines) + "\n[ 1.0] }",
    "lines cut": lambda lines: "\n".join(line[:50] for line in lines),
    "the second half": lambda lines: "\n".join(lines[len(lines) // 2 :]),
    "upside down": lambda lines: "\n".join(lines[::-1]),
    "without headings": lambda lines: "\n".join(x for x in lines if "***" not in x and "Area" not in x),
}
"""A text of lines, mangled; by what it is called."""

LOSSY = frozenset(
    {"lines cut", "the second half", "upside down", "without headings", "wrapped at 40", "capital digits"}
)
"""What takes fields away; none of them may change a value."""
