"""Lines of Linux about remapping units: twenty as public reports have them, with numbers of our own, and some that were
made after Linux's formats."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from commands import popek
from popek.architectures.vtd.faults import NoFaultError, explain

LINES = [
    (("[  139.5] DMAR: [DMA Read] Request device [00:02.0] PASID ffffffff fault addr 9b001000 [fault reason 06] "
     "PTE Read access is not set"), "00:02.0", 6, "DMA-PAGE-R"),
    (("[10672.8] DMAR: [DMA Write] Request device [00:13.0] fault addr 0 [fault reason 05] "
     "PTE Write access is not set"), "00:13.0", 5, "DMA-PAGE-W"),
    (("DMAR: [DMA Read] Request device [06:00.1] fault addr ffabc000 [fault reason 06] "
     "PTE Read access is not set"), "06:00.1", 6, "DMA-PAGE-R"),
    (("[    0.9] kernel: DMAR: [DMA Read NO_PASID] Request device [0x00:0x02.0] fault addr 0x7c347000 "
     "[fault reason 0x06] PTE Read access is not set"), "00:02.0", 6, "DMA-PAGE-R"),
    (("[    0.93] kernel: DMAR: [DMA Read NO_PASID] Request device [0x00:0x02.0] fault addr 0x70ad6000 "
     "[fault reason 0x07] Next page table ptr is invalid"), "00:02.0", 7, None),
    (("[    0.3] DMAR: [DMA Read NO_PASID] Request device [00:02.0] fault addr 0x7cd81000 [fault reason 0x01] "
     "Present bit in root entry is clear"), "00:02.0", 1, "DMA-ROOT-P"),
    (("DMAR: [DMA Read] Request device [00:02.0] PASID ffffffff fault addr 70ad6000 [fault reason 07] "
     "Next page table ptr is invalid"), "00:02.0", 7, None),
    (("[    0.94] kernel: DMAR: [DMA Read NO_PASID] Request device [0x00:0x02.0] fault addr 0x70a29000 "
     "[fault reason 0x0c] non-zero reserved fields in PTE"), "00:02.0", 0xC, "DMA-PAGE-RSVD"),
    (("[ 6611.2] DMAR: [DMA Read NO_PASID] Request device [04:00.0] fault addr 0x101000 [fault reason 0x71] "
     "SM: Present bit in first-level paging entry is clear"), "04:00.0", 0x71, "FS-P"),
    (("[ 611.8] dmar: DMAR:[DMA Read] Request device [87:00.3] fault addr fffe7000 \n"
     "[ 611.8] DMAR:[fault reason 02] Present bit in context entry is clear"), "87:00.3", 2, "DMA-CONTEXT-P"),
    (("[ 611.8] dmar: INTR-REMAP: Request device [[87:00.3] fault index a5\n"
     "[ 611.8] INTR-REMAP:[fault reason 34] Present field in the IRTE entry is clear"),
     "87:00.3", 0x22, "INT-ENTRY-P"),
    (("2014-04-25T09:37:53.595431+01:00 host kernel:     8.490171] dmar: DMAR:[DMA Read] Request device [02:00.0] "
     "fault addr 41a6ab000 \n2014-04-25T09:37:53.595431+01:00 host kernel:     8.490171] DMAR:[fault reason 01] "
     "Present bit in root entry is clear"), "02:00.0", 1, "DMA-ROOT-P"),
    (("[ 1692.0] dmar: DMAR:[DMA Read] Request device [00:02.0] fault addr 1a45aaa000 \n"
     "[ 1692.0] DMAR:[fault reason 12] non-zero reserved fields in PTE"), "00:02.0", 0xC, "DMA-PAGE-RSVD"),
    # made after Linux's formats
    (("> [ 1.2] DMAR: [DMA Write] Request device [02:00.1] fault addr ffe00000 [fault reason 02] "
     "Present bit in context entry is clear"), "02:00.1", 2, "DMA-CONTEXT-P"),
    (("DMAR: [DMA Write NO_PASID] Request device [06:00.0] fault addr 0x8000000000 [fault reason 0x04] "
     "Access beyond MGAW"), "06:00.0", 4, "DMA-WIDTH"),
    ("DMAR: [DMA Read] Request device [01:00.0] fault addr 0 [fault reason 03] Invalid context entry",
     "01:00.0", 3, "DMA-CONTEXT-AW"),
    (("[ 1.1] DMAR: INTR-REMAP: Request device [f0:1f.7] fault index 0 [fault reason 37] "
     "Blocked a compatibility format interrupt request"), "f0:1f.7", 0x25, "INT-COMPATIBILITY"),
    (("DMAR: [INTR-REMAP] Request device [02:00.0] fault index 0x8000 [fault reason 0x26] "
     "Blocked an interrupt request due to source-id verification failure"), "02:00.0", 0x26, "INT-SOURCE"),
]  # fmt: skip

AMD = [
    (("[   40.1] ath10k_pci 0000:01:00.0: AMD-Vi: Event logged [IO_PAGE_FAULT domain=0x000d address=0xcff49000 "
     "flags=0x0070]"), "01:00.0", "IO_PAGE_FAULT", "a write; the translation was there, without the permission"),
    (("[   54.8] ath10k_pci 0000:02:00.0: AMD-Vi: Event logged [IO_PAGE_FAULT domain=0x000e address=0xcece9000 "
     "flags=0x0070]"), "02:00.0", "IO_PAGE_FAULT", "a write; the translation was there, without the permission"),
    (("[   10.9] nvme 0000:01:00.0: AMD-Vi: Event logged [IO_PAGE_FAULT domain=0x0000 address=0xfc18a000 "
     "flags=0x0000]"), "01:00.0", "IO_PAGE_FAULT", "a read; there was no translation"),
    (("[   12.1] nvme 0000:03:00.0: AMD-Vi: Event logged [IO_PAGE_FAULT domain=0x0000 address=0xffed6000 "
     "flags=0x0000]"), "03:00.0", "IO_PAGE_FAULT", "a read; there was no translation"),
    (("kernel: [  221.5] AMD-Vi: Event logged [\nkernel: [  221.5] IO_PAGE_FAULT device=05:00.1 domain=0x0013 "
     "address=0x00000000ff6102b0 flags=0x0070]"), "05:00.1", "IO_PAGE_FAULT", "a write"),
    (("kernel: [  221.6] AMD-Vi: Event logged [\nkernel: [  221.6] IO_PAGE_FAULT device=06:00.0 domain=0x0014 "
     "address=0x00000000ff6103c0 flags=0x0070]"), "06:00.0", "IO_PAGE_FAULT", "a write"),
    (("kernel: [   13.1] AMD-Vi: Event logged [\nkernel: [ 13.1] INVALID_DEVICE_REQUEST device=00:00.1 "
     "address=0x000000fdf8000040 flags=0x0a00]"), "00:00.1", "INVALID_DEVICE_REQUEST", "may not send such a request"),
    # made after Linux's formats
    (("iommu ivhd0: AMD-Vi: Event logged [ILLEGAL_DEV_TABLE_ENTRY device=0000:02:00.0 pasid=0x00000 "
     "address=0xfffffffdf8000000 flags=0x0a00]"), "02:00.0", "ILLEGAL_DEV_TABLE_ENTRY", "reserved value"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "device", "reason", "rule"), LINES)
def test_a_line_says_who_and_why(text: str, device: str, reason: int, rule: str | None) -> None:
    (found,) = explain(text)
    assert found.fields["device"] == device
    assert found.fields["reason"] == reason
    assert (rule in found.rules) if rule else not found.rules
    assert not any("other ones" in why or "do not fit" in why for why in found.why)


@pytest.mark.parametrize(("text", "device", "event", "why"), AMD)
def test_amd_says_who_and_what(text: str, device: str, event: str, why: str) -> None:
    (found,) = explain(text)
    assert (found.fields["device"], found.fields["event"]) == (device, event)
    assert any(why in one for one in found.why)


def test_what_does_not_fit_together_is_told() -> None:
    (found,) = explain(
        "DMAR: [DMA Read] Request device [00:02.0] fault addr 0 [fault reason 05] Access beyond MGAW"
    )
    assert any("other ones" in why for why in found.why)
    assert any("do not fit" in why for why in found.why)


def test_the_status_register_and_many_lines() -> None:
    text = "\n".join(["DMAR: DRHD: handling fault status reg 3", *(line for line, *_ in LINES[:3])])
    found = explain(text)
    assert len(found) == 4
    assert "records were lost" in found[0].what
    assert [one.line for one in found] == [1, 2, 3, 4]


def test_a_text_without_such_a_line_is_refused() -> None:
    with pytest.raises(NoFaultError, match="expected a line such as"):
        explain("nothing here\n")


def test_the_command_reads_a_paste_and_bad_input_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "log").write_text(LINES[0][0])
    done = popek("devices", "fault", "log", "--json", folder=tmp_path)
    answer = json.loads(done.stdout)
    assert answer["schema"] == "popek/remapping-faults/1"
    assert answer["faults"][0]["rules"] == ["DMA-PAGE-R"]
    (tmp_path / "empty").write_text("nothing\n")
    for words, said in (
        (("fault", "none"), "No such file"),
        (("fault", "empty"), "expected a line such as"),
        (("safety", "pg47"), "pg74"),
        (("safety", "pg74", "--attachment", "relocate"), "relocated"),
        (("safety", "pg74", "--drop", "star"), "start"),
        (("safety", "pg74", "--form", "MOOVE"), "MOVE"),
        (("check", "nothing"), "unknown claim"),
    ):
        done = popek("devices", *words, folder=tmp_path)
        assert done.returncode == 2
        assert said in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1
