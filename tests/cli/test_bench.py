"""The benchmark measures what it says: parts of a whole, in one run."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from popek import benchmark as module
from popek.benchmark import PARTS, Benchmark, Rate, benchmark, vmcss
from popek.benchmark.comparing import BenchmarkFileError, changes, read_benchmark
from popek.checks.counterexample import ReplayError
from popek.emulators import programs
from popek.kernel.machine import Machine, UnknownNameError
from popek.report import benchmark as report
from popek.report.html import plain

RUN = "import sys; from popek.cli import main; sys.argv[0] = 'popek'; main()"
QUICK = 0.01  # seconds for a rate


def _popek(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-c", RUN, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)


def _classified(*forms: str) -> module.Classified:
    found = benchmark("pg74", forms, parts=["classify"]).classified
    assert found is not None
    return found


def test_solver_time_is_a_part_of_the_total() -> None:
    found = _classified("MOVE", "GMODE")
    assert found.forms == 2
    assert 0 < found.solver_seconds < found.seconds
    assert found.ratio > 1


def test_growth_ends_at_the_total_and_never_falls() -> None:
    found = _classified("ADD", "SVC", "LRA")
    for growth, total in ((found.growth, found.seconds), (found.solver_growth, found.solver_seconds)):
        assert len(growth) == 3
        assert sorted(growth) == list(growth)
        assert abs(growth[-1] - total) < 1e-9
    assert {form for form, _ in found.slowest} == {"ADD a, b", "SVC", "LRA a, b"}


def test_rates_count_what_they_say(monkeypatch: pytest.MonkeyPatch) -> None:
    steps, judged = 0, 0
    step, judge = Machine.step, vmcss.verdict_of_many

    def counted_step(*args: object) -> object:
        nonlocal steps
        steps += next(iter(args[2].words().values())).concrete  # not those that the compiling takes
        return step(*args)  # type: ignore[arg-type]

    def counted_judge(found: list[object], capabilities: object) -> list[object]:
        nonlocal judged
        judged += len(found)
        return list(judge(found, capabilities))  # type: ignore[arg-type]

    monkeypatch.setattr(Machine, "step", counted_step)
    monkeypatch.setattr(vmcss, "verdict_of_many", counted_judge)
    monkeypatch.setattr(vmcss, "VMCSS", 20)
    found = benchmark("pg74", ["JUMP", "ADD"], parts=["steps", "vmcs"], budget=QUICK)
    assert found.classified is None
    assert found.rate("steps interpreted").count == steps > 0
    assert found.rate("steps").count > 0
    assert found.rate("vmcs complete").count + found.rate("vmcs partial").count == judged >= 40
    assert all(rate.seconds >= QUICK for rate in found.rates)


def test_half_of_the_fields_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[int] = []
    monkeypatch.setattr(vmcss, "VMCSS", 5)
    monkeypatch.setattr(
        vmcss, "verdict_of_many", lambda found, _: given.extend(len(v.fields) for v in found) or found
    )
    benchmark("pg74", parts=["vmcs"], budget=0.0)
    complete, partial = set(given[:5]), set(given[5:])
    assert len(complete) == len(partial) == 1
    assert 0.3 < partial.pop() / complete.pop() < 0.7


def test_the_law_is_checked_while_it_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert benchmark("pg74", ["GMODE", "SVC"], parts=["laws"], budget=QUICK).rate("laws").count >= 2
    explore = module.explore_instruction

    def a_path_short(*args: object) -> object:
        run = explore(*args)  # type: ignore[arg-type]
        return type(run)(run.before, run.paths[:-1], run.operands)

    monkeypatch.setattr(module, "explore_instruction", a_path_short)
    with pytest.raises(ReplayError, match="SVC: the law does not hold"):
        benchmark("pg74", ["SVC"], parts=["laws"], budget=QUICK)


def test_an_emulator_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_spec", lambda _: None)
    monkeypatch.setattr(programs, "find", lambda _: None)
    found = benchmark("pg74", parts=["difftest"])
    assert [(rate.name, rate.missing) for rate in found.rates] == [
        ("difftest unicorn", "unicorn is not installed"),
        ("difftest bochs", "bochs was not found: apt-get install bochs"),
    ]
    assert "apt-get install bochs" in plain(report.benchmark(found))


def test_other_parts_and_forms_are_refused() -> None:
    with pytest.raises(UnknownNameError, match="did you mean vmcs"):
        benchmark("pg74", parts=["vcms"])
    with pytest.raises(UnknownNameError, match="XADD"):
        benchmark("pg74", ["XADD"])


def test_json_and_figure_say_the_same(tmp_path: Path) -> None:
    file = tmp_path / "bench.svg"
    done = _popek(
        "bench", "classify", "steps", "--machine", "pg74", "--only", "ADD", "--json", "--svg", str(file)
    )
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    assert found["schema"] == "popek/benchmark/1"
    assert found["forms"] == len(found["growth"]) == 1
    assert found["steps_per_second"] == found["rates"]["steps"]["per_second"]
    assert set(found["rates"]) == {"steps", "steps interpreted", "steps unicorn", "steps python"}
    drawn = "".join(ElementTree.parse(file).getroot().itertext())
    assert "pg74: seconds after each form" in drawn
    assert f"{found['rates']['steps']['per_second']:,} a second" in drawn


def test_curves_end_at_their_totals() -> None:
    whole = module.Classified("m", 2, 4.0, 1.0, (1.0, 4.0), (0.5, 1.0), ())
    body = report.figure(Benchmark(whole, (Rate("steps", "steps", 10, 2.0),))).body
    curves = [
        [tuple(map(float, point.split(","))) for point in path.split("L")]
        for path in re.findall(r'd="M([\d.,L]+)"', body)
    ]
    assert [len(curve) for curve in curves] == [3, 3]
    (all_of_it, solver) = curves
    bottom = all_of_it[0][1]
    assert (bottom - solver[2][1]) * 4 == pytest.approx(bottom - all_of_it[2][1], abs=0.5)
    assert (bottom - all_of_it[1][1]) * 4 == pytest.approx(bottom - all_of_it[2][1], abs=0.5)
    assert [report.nice_step(n) for n in (0.0, 0.9, 5.0, 12.0, 200.0)] == [1.0, 0.2, 1.0, 5.0, 50.0]


def test_all_parts_are_the_default() -> None:
    assert PARTS == ("classify", "growth", "start", "steps", "laws", "vmcs", "difftest", "commands")
    assert "classify, growth, start, steps, laws, vmcs, difftest, commands" in " ".join(
        _popek("bench", "--help").stdout.split()
    )


def test_ratios_are_to_what_was_measured_beside() -> None:
    found = Benchmark(
        None,
        (
            Rate("steps", "steps", 30, 1.0, beside="steps unicorn"),
            Rate("steps unicorn", "calls", 20, 1.0),
            Rate("steps python", "ADDs", missing="no", beside="steps unicorn"),
            Rate("start --help", "starts", 5, 1.0, beside="start python"),
        ),
    )
    ratios = {name: rate["ratio"] for name, rate in found.to_json()["rates"].items()}  # type: ignore[attr-defined]
    assert ratios == {"steps": 1.5, "steps unicorn": None, "steps python": None, "start --help": None}
    assert "1.50 × Unicorn" in plain(report.benchmark(found))


def _measured(steps: int) -> Benchmark:
    whole = module.Classified("m", 1, 3.0, 2.0, (3.0,), (2.0,), ())
    rates = Rate("steps", "s", steps, 1.0, beside="steps unicorn"), Rate("steps unicorn", "c", 100, 1.0)
    return Benchmark(whole, rates)


def test_a_benchmark_is_compared_by_its_ratios(tmp_path: Path) -> None:
    file = tmp_path / "old.json"
    file.write_text(json.dumps(_measured(200).to_json()), encoding="ascii")
    before = read_benchmark(file)
    assert [one.worse for one in changes(before, _measured(200))] == [False, False]
    (_, worse) = changes(before, _measured(150))
    assert (worse.name, worse.before, worse.now, worse.worse) == ("steps", 2.0, 1.5, True)
    assert "worse" in plain(report.compared([worse]))


def test_a_benchmark_that_is_worse_ends_with_1(tmp_path: Path) -> None:
    file = tmp_path / "old.json"
    file.write_text(json.dumps(_measured(10**9).to_json()), encoding="ascii")
    done = _popek("bench", "steps", "--machine", "pg74", "--only", "ADD", "--compare", str(file))
    assert (done.returncode, done.stderr) == (1, "")
    assert re.search(r"steps +1e\+07 +\S+ +worse", done.stdout)


def test_what_is_no_benchmark_is_one_line(tmp_path: Path) -> None:
    file = tmp_path / "other.json"
    for text in ("{}", "[", '{"schema": "popek/claims/1"}'):
        file.write_text(text, encoding="ascii")
        with pytest.raises(
            BenchmarkFileError, match=r"other\.json: expected what popek bench --json printed"
        ):
            read_benchmark(file)
    with pytest.raises(BenchmarkFileError, match="no such file"):
        read_benchmark(tmp_path / "none.json")


def test_open_settings_grow_by_questions() -> None:
    found = benchmark("pg74", ["GMODE"], parts=["growth"])
    assert [count for count, _ in found.settings] == [1, 2, 3, 4, 6]
    assert found.to_json()["settings_growth"]


def test_open_settings_are_drawn_beside_the_forms() -> None:
    whole = module.Classified("m", 2, 4.0, 1.0, (1.0, 4.0), (0.5, 1.0), ())
    drawn = report.figure(Benchmark(whole, (), ((1, 0.5), (8, 1.0))))
    assert "open settings" in drawn.body
    assert len(re.findall(r'd="M[\d.,L]+"', drawn.body)) == 3
    assert "with 8 open settings: 1.00 s" in drawn.words
