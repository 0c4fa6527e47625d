"""Streams of partial VMCSs: compiled or not, known processor or not, the verdicts are the same."""

from __future__ import annotations

import io
import json
import random
import sys
from pathlib import Path

import attrs
import pytest

from popek.architectures.vtx.baselines import baseline
from popek.architectures.vtx.capabilities import UNKNOWN, Capabilities
from popek.architectures.vtx.capability_files import load_capabilities
from popek.architectures.vtx.compilation import inactive
from popek.architectures.vtx.dumps.diagnosis import vmcs_of
from popek.architectures.vtx.dumps.processors import ReportedProcessor, judge_any
from popek.architectures.vtx.dumps.reading import read_dumps
from popek.architectures.vtx.evaluation import Evaluator
from popek.architectures.vtx.fields import FIELDS
from popek.architectures.vtx.identity import by_identity
from popek.architectures.vtx.verdict import judge, verdict_of_many
from popek.architectures.vtx.vmcs import Vmcs
from popek.cli.vmcs import app

DUMPS = sorted((Path(__file__).parent / "dumps").glob("[!3]*.txt"))  # 36 is a list of capabilities
TIGER = load_capabilities("bochs-tigerlake")
PARTS = attrs.evolve(
    TIGER, msrs={number: TIGER.msrs[number] for number in sorted(TIGER.msrs)[::2]}, maxphyaddr=None
)
KNOWN = [TIGER, PARTS, UNKNOWN]


def real_vmcss() -> list[Vmcs]:
    found = [
        vmcs_of(dump) for path in DUMPS for dump in read_dumps(path.read_bytes(), path.name) if dump.fields
    ]
    assert len(found) >= 7
    return found


def changed(rnd: random.Random, vmcs: Vmcs) -> Vmcs:
    """The same fields, some with a bit flipped."""
    fields = dict(vmcs.fields)
    for name in rnd.choices(list(fields), k=rnd.choice((0, 1, 2, 4))):
        fields[name] ^= 1 << rnd.randrange(FIELDS[name].width)
    return attrs.evolve(vmcs, fields=fields)


@pytest.mark.parametrize("known", KNOWN, ids=["tigerlake", "parts of it", "unknown"])
def test_real_dumps_as_streams(known: Capabilities) -> None:
    rnd = random.Random(f"streams {known.maxphyaddr}")
    for vmcs in real_vmcss():
        stream = [changed(rnd, vmcs) for _ in range(45)]
        assert list(verdict_of_many(stream, known)) == [judge(item, known) for item in stream]


@pytest.mark.parametrize("known", KNOWN, ids=["tigerlake", "parts of it", "unknown"])
def test_any_fields_may_be_missing(known: Capabilities) -> None:
    rnd = random.Random(f"missing {known.maxphyaddr}")
    whole = max(real_vmcss(), key=lambda vmcs: len(vmcs.fields))
    undecided = 0
    for _ in range(8):
        share = rnd.random()
        some = {name: value for name, value in whole.fields.items() if rnd.random() < share}
        vmcs = attrs.evolve(whole, fields=some or dict(whole.fields))
        stream = [changed(rnd, vmcs) for _ in range(45)]
        verdicts = list(verdict_of_many(stream, known))
        assert verdicts == [judge(item, known) for item in stream]
        undecided += sum(len(verdict.undecided) for verdict in verdicts)
    assert undecided > 10_000


def test_a_field_that_does_not_matter_is_not_asked_for() -> None:
    """CR0 is legal for any guest: whether it is an unrestricted one may stay open, in a stream as elsewhere."""
    vmcs = Vmcs(fields={"GUEST_CR0": 0x8005_003B})
    for verdict in [judge(vmcs, TIGER), *verdict_of_many([vmcs] * 40, TIGER)]:
        assert "GUEST-CR-01" not in {item.id for item in verdict.undecided}
    unrestricted = Vmcs(fields={"GUEST_CR0": 0x20})
    for verdict in [judge(unrestricted, TIGER), *verdict_of_many([unrestricted] * 40, TIGER)]:
        assert "GUEST-CR-01" in {item.id for item in verdict.undecided}


def test_controls_that_are_not_in_effect_need_not_be_given() -> None:
    off = {"PRIMARY_PROC_CONTROLS": 0x0401_E172, "EXIT_CONTROLS": 0x3_6DFF}
    on = {"PRIMARY_PROC_CONTROLS": 0x8403_E172, "EXIT_CONTROLS": 0x8003_6DFF}
    assert inactive(off) == ("sec", "ter", "exit2")
    assert inactive(on) == ()
    assert inactive({}) == ()
    for fields in (off, on):
        stream = [Vmcs(fields={**fields, "GUEST_CR3": number}) for number in range(40)]
        assert list(verdict_of_many(stream, TIGER)) == [judge(item, TIGER) for item in stream]


def test_what_some_processors_refuse_is_a_warning_in_a_stream_too() -> None:
    """INJ-11: bit 15 of the error code is reserved on processors without SGX only."""
    event = {"ENTRY_INTR_INFO": 0x80000B0D, "ENTRY_EXCEPTION_ERROR_CODE": 1 << 15}
    vmcs = Vmcs(fields={**baseline("64-bit", TIGER).fields, **event})
    stream = [attrs.evolve(vmcs, name=f"{number}") for number in range(40)]
    found = list(verdict_of_many(stream, TIGER))
    assert found == [judge(item, TIGER) for item in stream]
    assert [item.id for item in found[-1].warnings] == ["INJ-11"]
    assert found[-1].failed == ()


def test_few_checks_are_left_to_look_at() -> None:
    """Speed by another measure: what the sieve leaves of a real partial dump is what it says something on."""
    for vmcs in real_vmcss():
        evaluator = Evaluator(TIGER)
        for _ in range(40):
            findings = evaluator.run(vmcs)
        found = evaluator._sieve_of(vmcs.fields, vmcs.launch)
        assert found is not None
        looks, groups, failing = found.scan(vmcs.fields)
        candidates, lacking = [*looks, *failing], found.lacking(groups)
        telling = {check.id for check in (*findings.violated, *findings.doubtful)}
        assert len({check.id for check in candidates} - telling) <= 6
        assert len(findings.undecided) - len(lacking) <= 2
        assert evaluator.run(vmcs).undecided is evaluator.run(vmcs).undecided


@pytest.mark.parametrize("given", [{"capabilities": "bochs-tigerlake"}, {}], ids=["known", "unknown"])
def test_each_line_is_answered_as_if_it_were_alone(
    given: dict[str, str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rnd = random.Random("lines")
    vmcss = [changed(rnd, vmcs) for vmcs in real_vmcss() for _ in range(40)]
    lines = [
        json.dumps(
            {
                "name": str(number),
                "fields": {name: hex(value) for name, value in vmcs.fields.items()},
                **given,
            }
        )
        for number, vmcs in enumerate(vmcss)
    ]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("\n".join(lines).encode())))
    app(["check", "-", "--jsonl"], result_action="return_value", exit_on_error=False)
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    processor = load_capabilities(given["capabilities"]) if given else UNKNOWN
    assert [answer["name"] for answer in answers] == [str(number) for number in range(len(vmcss))]
    for vmcs, answer in zip(vmcss, answers, strict=True):
        alone = judge_any(
            attrs.evolve(vmcs, launch=vmcss[0].launch, printed=False), ReportedProcessor(processor)
        ).complete.to_json()
        assert {key: answer[key] for key in ("outcome", "failed", "undecided", "warnings")} == {
            key: alone[key] for key in ("outcome", "failed", "undecided", "warnings")
        }


def test_identity_and_not_equality() -> None:
    seen: list[tuple[int, ...]] = []

    @by_identity
    def length(items: tuple[int, ...]) -> int:
        seen.append(items)
        return len(items)

    first, second = tuple(range(2)), tuple(range(2))
    assert (length(first), length(first), length(second)) == (2, 2, 2)
    assert len(seen) == 2
    assert all(length(tuple(range(number))) == number for number in range(2000))


# -- fields of their own in every line ---------------------------------------------------------------

SKYLAKE = load_capabilities("intel-skylake")
COMPLETE = baseline("64-bit", SKYLAKE)


@pytest.mark.parametrize(
    "known", [SKYLAKE, TIGER, PARTS, load_capabilities("sapphire-rapids"), UNKNOWN],
    ids=["skylake", "tigerlake", "parts of it", "sapphire rapids", "unknown"],
)  # fmt: skip
def test_any_fields_are_judged_as_each_vmcs_by_itself(known: Capabilities) -> None:
    """The checks that are compiled for all fields say what the checks say."""
    rnd = random.Random(f"{known.name} {known.maxphyaddr}")
    names = list(FIELDS)
    stream = []
    for number in range(160):
        fields = dict(COMPLETE.fields)
        for name in rnd.sample(names, rnd.choice((1, 1, 2, 4))):
            fields[name] = (
                rnd.getrandbits(FIELDS[name].width) if rnd.random() < 0.5 else fields.get(name, 0) ^ 1
            )
        for name in rnd.sample(list(fields), rnd.choice((1, 3, 10, len(fields) // 2, len(fields) - 5))):
            del fields[name]
        if rnd.random() < 0.3:
            fields["PRIMARY_PROC_CONTROLS"] = 1 << 31 if rnd.random() < 0.5 else 0
        stream.append(Vmcs(name=f"{number}", fields=fields))
    for vmcs, verdict in zip(stream, verdict_of_many(stream, known), strict=True):
        assert verdict == judge(vmcs, known), vmcs.name
