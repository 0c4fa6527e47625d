"""A VMCS in more than a hundred manglings: no field changes, nothing is accused that was not, what is lost is named."""

from __future__ import annotations

import pytest

from pastes import LOSSY, MANGLED, QEMU, VMCS
from pastes_more import LOSING, MORE
from popek.architectures.vtx.dumps import Dump, read_dumps
from popek.architectures.vtx.dumps.diagnosis import diagnose


def read(data: str | bytes) -> Dump:
    (dump,) = read_dumps(data.encode() if isinstance(data, str) else data, "x")
    return dump


def failed(dump: Dump) -> set[str]:
    verdict = diagnose(dump).verdict
    return {item.id for item in (*verdict.failed, *verdict.warnings)}


WHOLE = read(VMCS)
FAILED = {"GUEST-RFL-02", "GUEST-CR-07", "GUEST-RIP-01", "GUEST-MSR-04"}


def test_the_dump_as_it_is() -> None:
    assert len(WHOLE.fields) == 114
    assert failed(WHOLE) == FAILED
    assert not WHOLE.unrecognised


EVERY = {**MANGLED, **MORE}


@pytest.mark.parametrize("name", EVERY)
def test_no_mangling_accuses_falsely(name: str) -> None:
    dump = read(EVERY[name](VMCS.rstrip("\n").split("\n")))
    assert dump.fields.items() <= WHOLE.fields.items()
    assert failed(dump) <= FAILED
    lost = WHOLE.fields.keys() - dump.fields.keys()
    if name in LOSSY | LOSING:
        # What stands above the cut is not there to be named.
        assert not lost or dump.unrecognised or dump.remarks or name == "the second half"
    else:
        # The last field cannot be told from one that was cut, if nothing ends the line.
        assert lost <= {"VE_INFO_ADDR"}
        assert failed(dump) == FAILED
        assert not lost or dump.remarks


def test_qemus_text_alone_says_how_to_get_the_dump() -> None:
    found = diagnose(read(QEMU))
    said = " ".join(
        (found.summary, found.agreement, *found.happening.sentences, *map(str, found.verdict.failed))
    )
    assert not found.verdict.failed, said
