"""More ways to mangle a dump: consoles, collectors of logs, forums and mail as they write today."""

from __future__ import annotations

import base64
import html
import json
import quopri
import re
import textwrap
from collections.abc import Callable, Mapping

from pastes import Mangle

_PREFIXES: Mapping[str, str] = {
    "printk level and caller": "<4>[12345.678901][ T1234] ",
    "GitHub Actions, group": "2026-11-30T16:05:12.1234567Z ##[group]",
    "GitHub Actions, command": "::error::",
    "GitHub Actions, gh run view": "test (ubuntu-22.04)\tRun nested VM\t2026-11-30T16:05:12.1234567Z ",
    "Kubernetes, prefix and time": "[pod/virt-launcher-vm-x7k2p/compute] 2026-11-30T16:05:12.123456789Z ",
    "Docker, time": "2026-11-30T16:05:12.123456789Z ",
    "compose and kernel": "qemu-1  | [12345.678901] ",
    "logcat": "11-30 16:05:12.123  root     0     0 W KERNEL  : [12345.678901] c3   1234 ",
    "RFC 5424 with data": '<11>1 2026-11-30T16:05:12.123Z host kernel - - [timeQuality tzKnown="1" isSynced="1"] ',
    "RFC 5424 with a mark": "<11>1 2026-11-30T16:05:12Z host kernel 12 ID47 - \ufeff",
    "netconsole": "4,1234,12345678901,-,caller=T1234;",
    "/dev/kmsg": "3,1500,2345678901,c;",
    "Python": "2026-11-30 16:05:12,123 - root - ERROR - ",
    "klog": "I1130 16:05:12.123456       1 vmx.go:45] ",
    "tracing": "2026-11-30T16:05:12.123456Z ERROR kvm: ",
    "trace": "       qemu-1234    [003] ..... 12345.678901: ",
    "VMware": "2026-11-30T16:05:12.123Z| vcpu-0| I005: ",
    "VirtualBox": "00:00:12.345678 ",
    "screen": "16:05:12.123456 ",
    "Xen, local time": "(XEN) [Mon Nov 30 16:05:12 2026] ",
    "Xen, processor": "(XEN) [2026-11-30 16:05:12.123] d0v1 ",
    "Ukrainian": "\u043b\u0438\u0441 30 16:05:12 pve1 kernel: ",
    "Greek": "\u039d\u03bf\u03b5 30 16:05:12 pve1 kernel: ",
    "Finnish": "marras 30 16:05:12 pve1 kernel: ",
    "Turkish": "Kas 30 16:05:12 pve1 kernel: ",
    "Russian, dmesg -T": "[\u041f\u043d \u043d\u043e\u044f 30 16:05:12 2026] ",
    "quoted twice": "> > ",
    "quoted by initials": "JD> ",
    "entities for blanks": "&nbsp;&nbsp;&nbsp;&nbsp;",
    "bullets": "\u2022 ",
    "task list": "- [ ] ",
    "prompt": "root@pve1:~# ",
    "colours and module": "\x1b[32m[12345.678901] \x1b[0m\x1b[33mkvm_intel\x1b[0m: ",
    "title of a window": "\x1b]0;title\x07",
    "right to left": "\u200f",
    "column of a table": "4242\t",
}


def _prefix(text: str) -> Mangle:
    return lambda lines: "\n".join(text + line for line in lines)


def _each(change: Callable[[str], str], end: str = "\n") -> Mangle:
    return lambda lines: end.join(change(line) for line in lines)


def _records(record: Callable[[str], object], before: str = "", **more: int) -> Mangle:
    return lambda lines: "\n".join(before + json.dumps(record(line), **more) for line in lines)  # type: ignore[arg-type]


def _mail(lines: list[str]) -> str:
    body = base64.encodebytes("\n".join(lines).encode()).decode()
    return (
        f"Subject: kvm\nContent-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: base64\n\n{body}"
    )


def _broken_reply(lines: list[str]) -> str:
    """A reply whose sender's mailer broke lines behind the quote, which only the first part has."""
    return "\n".join(
        part if number else "> " + part
        for line in lines
        for number, part in enumerate(textwrap.wrap(line, 72, break_long_words=False) or [""])
    )


def _without(every: int) -> Callable[[str], str]:
    return lambda line: "".join(c for n, c in enumerate(line) if (n * 7919 + len(line)) % every)


def _encoded_twice(lines: list[str]) -> str:
    once = quopri.encodestring("\n".join(lines).encode())
    return quopri.encodestring(once).decode()


MORE: Mapping[str, Mangle] = {
    "quoted-printable twice": _encoded_twice,
    **{name: _prefix(text) for name, text in _PREFIXES.items()},
    "journalctl -o json-pretty": _records(lambda x: {"MESSAGE": x, "PRIORITY": "3"}, indent=4),
    "journalctl, bytes": _records(lambda x: {"MESSAGE": list(x.encode())}),
    "server-sent events": _records(lambda x: {"MESSAGE": x}, "data: "),
    "logfmt": _each(lambda x: f'time="2026-11-30T16:05:12Z" level=error msg="{x}"'),
    "CSV": _each(lambda x: f'2026-11-30,kernel,"{x}"'),
    "YAML": _each(lambda x: f"  - '{x}'"),
    "calls": _each(lambda x: f'pr_err("{x}\\n");'),
    "Markdown, escaped": _each(lambda x: re.sub(r"([*_|])", r"\\\1", x)),
    "Markdown, table of code": _each(lambda x: f"| 12 | `{x}` |"),
    "details": lambda lines: "<details><summary>dmesg</summary>\n\n```text\n" + "\n".join(lines) + "\n```\n</details>",
    "Trac": lambda lines: "{{{\n#!text\n" + "\n".join(lines) + "\n}}}",
    "list of HTML": lambda lines: "<ol>" + "".join(f"<li>{html.escape(x)}</li>" for x in lines) + "</ol>",
    "chances to break": _each(lambda x: re.sub(r"([0-9a-f]{8})", r"\1<wbr>", html.escape(x)), "<br>\n"),
    "GitHub, rows": _each(lambda x: f'<tr><td id="L1"></td><td class="blob-code">{html.escape(x)}</td></tr>'),
    "Launchpad": _each(lambda x: html.escape(x).replace("  ", " &nbsp;"), "<br />\n"),
    "mail in Base64": _mail,
    "broken reply": _broken_reply,
    "stars of mathematics": _each(lambda x: x.replace("*", "\u2217")),
    "wide signs": _each(lambda x: x.replace(":", "\uff1a").replace("=", "\uff1d")),
    "multiplied": _each(lambda x: x.replace("0x", "0\xd7")),
    "soft hyphens": _each(lambda x: x.replace("0x", "0x\xad")),
    "thin blanks": _each(lambda x: x.replace(" ", "\u2009")),
    "Windows, no-break": lambda lines: "\n".join(x.replace("  ", "\xa0 ") for x in lines).encode("cp1252"),
    "zero bytes": _each(lambda x: x + "\0"),
    "escape lost": _each(lambda x: f"[1;31m{x}[0m"),
    "escape shown": _each(lambda x: f"\u241b[1;31m{x}\u241b[0m"),
    "cat -A": _each(lambda x: x.replace("\t", "^I") + "$"),
    "CR CR LF": _each(str, "\r\r\n"),
    "CR first": _each(lambda x: f"\r\x1b[K{x}"),
    "every line twice": _each(lambda x: f"{x}\n{x}"),
    "messages dropped": lambda lines: "\n".join((*lines[:20], "** 123 printk messages dropped **", *lines[20:])),
    "less -S": _each(lambda x: x[:60] + ">" if len(x) > 60 else x),
    "shortened": _each(lambda x: x[:50] + "\u2026" if len(x) > 51 else x),
    "letters lost": _each(_without(97)),
    "addresses hidden": _each(lambda x: re.sub(r"ffff[0-9a-f]{12}", "XXXXXXXXXXXXXXXX", x)),
    "numbers hidden": _each(lambda x: re.sub(r"[0-9a-f]{12,16}", "<redacted>", x)),
    "read by a machine": _each(lambda x: x.replace("1", "l")),
}  # fmt: skip
"""A text of lines, mangled; by what it is called."""

LOSING = frozenset(
    {"less -S", "shortened", "letters lost", "addresses hidden", "numbers hidden", "read by a machine"}
)
"""What takes fields away; none of them may change a value."""
