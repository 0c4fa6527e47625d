"""Coverage-guided fuzzing of what reads files of others: an answer or one clear line, no traceback, no hang, 1 GB.

    .venv/bin/pip install atheris
    .venv/bin/python tests/fuzz.py --seconds 360            each reader for so long, one after the other
    .venv/bin/python tests/fuzz.py vmcs --seconds 60        one of them

[Atheris](https://github.com/google/atheris) mutates the files that the readers' tests use, guided by the branches that
an input reaches.  What it finds is written beside the folder `--corpus`, and the exit code is not 0.  It is no part of
the tests: a hit becomes one of theirs, as an `@example` or a row.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

HERE = Path(__file__).parent
SPECS = HERE.parent / "specs" / "popek_specs"
MEMORY, LIMIT, LONGEST = 1024, 10, 8192
"""Megabytes, seconds for one input, and its bytes."""


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _readers() -> Mapping[str, tuple[Callable[[bytes], object], Iterable[bytes]]]:
    """What reads, and where the fuzzer starts."""
    from popek.architectures.svm import capabilities as svm_capabilities
    from popek.architectures.svm.dumps import read_vmcbs
    from popek.architectures.vtx import capability_files
    from popek.architectures.vtx.dumps import read_dumps
    from popek.scan.files import read as scan
    from popek.solving.proof_checker import parse_cnf, parse_proof
    from popek.vmcs.rule_files import load_rules
    from popek_proofs.claims import parse as claims

    scratch = Path(tempfile.mkdtemp(prefix="fuzz-"))

    def by_file(reader: Callable[[Path], object], name: str) -> Callable[[bytes], object]:
        def read(data: bytes) -> object:
            path = scratch / name
            path.write_bytes(data)
            return reader(path)

        return read

    def proof(data: bytes) -> None:
        formula, _, steps = _text(data).partition("\0")
        parse_cnf(formula)
        parse_proof(steps)

    dumps = [path.read_bytes() for path in sorted((HERE / "vtx" / "dumps").glob("*.txt"))]
    cpuid = b"   0x80000008 0x00: eax=0x00003030 ebx=0x00000000 ecx=0x00000000 edx=0x00000000\n"
    claim = [path.read_bytes() for path in sorted((SPECS / "claims").glob("*.toml"))]
    json_dump = json.dumps(
        {"schema": "popek/vmcs/1", "fields": {"GUEST_CR0": "0x80000031", "VPID": 1}}
    ).encode()
    elf = b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x02\x00\x3e\x00\x01" + bytes(100)
    vmcb = [b"VMCB Control Area:\ncr_read: 0010\nasid: 1\n", b'{"fields": {}}']
    vmx = [b"0x480: 0x1\n", b'{"msrs": {"0x480": "0x1"}}', cpuid]
    svm = [cpuid, b'{"maxphyaddr": 48}', b"flags : svm lm\n"]
    images = [elf, b"MZ" + bytes(64), bytes(0x202) + b"HdrS" + bytes(64)]
    return {
        "vmcs": (lambda data: read_dumps(data, "input"), [*(d[:LONGEST] for d in dumps), json_dump]),
        "vmcb": (lambda data: read_vmcbs(data, "input"), vmcb),
        "vmx-capabilities": (lambda data: capability_files.from_text(_text(data)), vmx),
        "svm-capabilities": (lambda data: svm_capabilities.from_text(_text(data)), svm),
        "claims": (lambda data: claims(_text(data), "claims.toml"), claim),
        "rules": (
            by_file(lambda path: load_rules(str(path)), "rules.toml"),
            [b'[drop]\nids = ["GUEST-CR-01"]\n'],
        ),
        "programs": (by_file(lambda path: scan(path, None, {}), "program"), images),
        "proofs": (proof, [b"p cnf 2 2\n1 2 0\n-1 0\n\x00d 1 2 0\n2 0\n0\n"]),
    }


def _fuzz(name: str, seconds: int, corpus: Path) -> None:
    """Run one reader until the time is over; libFuzzer ends the process."""
    import atheris

    with atheris.instrument_imports(include=["popek", "popek_proofs", "popek_specs"]):
        reader, seeds = _readers()[name]
        from popek.cli.errors import UserError
        from popek.errors import PopekError
        from popek.solving.proof_checker import ProofError

    folder = corpus / name
    folder.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(seeds):
        (folder / f"seed-{number}").write_bytes(seed)

    def once(data: bytes) -> None:
        try:
            reader(data)
        except (PopekError, ProofError, UserError) as error:
            message = str(error)
            assert message, "an error without a message"
            assert "\n" not in message.strip(), "a message of several lines"
            assert len(message) < 1000, "a message of more than a line"

    options = [
        f"-max_total_time={seconds}",
        f"-rss_limit_mb={MEMORY}",
        f"-timeout={LIMIT}",
        f"-max_len={LONGEST}",
    ]
    atheris.Setup(["fuzz", *options, "-verbosity=1", f"-artifact_prefix={corpus}/{name}-", str(folder)], once)
    atheris.Fuzz()


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("reader", nargs="?", help="one of them; by default each in turn")
    parser.add_argument("--seconds", type=int, default=360)
    parser.add_argument(
        "--corpus", type=Path, help="where inputs are kept; by default a folder that goes away"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="corpus-") as folder:
        corpus = options.corpus or Path(folder)
        if options.reader:
            _fuzz(options.reader, options.seconds, corpus)
            return 0
        failed = []
        for name in _readers():
            command = [
                sys.executable,
                __file__,
                name,
                "--seconds",
                str(options.seconds),
                "--corpus",
                str(corpus),
            ]
            done = subprocess.run(command, check=False, capture_output=True, text=True)
            last = [line for line in done.stderr.splitlines() if line.startswith(("Done", "SUMMARY", "#"))][
                -1:
            ]
            print(f"{name}: exit {done.returncode} {' '.join(last)}", flush=True)
            if done.returncode:
                print(done.stdout[-1500:], done.stderr[-3000:], sep="\n")
                failed.append(name)
        return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
