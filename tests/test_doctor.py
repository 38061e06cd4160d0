"""What the machine can do at most, the record of the last run, and the command that compares them."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import fastllm
from fastllm import _native, bench, diagnosis, last_run, roofline, system
from fastllm.errors import ParameterError
from fastllm.gguf import GGUFFile
from fastllm.last_run import LastRun, Speed
from fastllm.roofline import ComputeRoof, Rate, ReadRoof, Roofs

from .test_cli import output

QUANTS = Path(__file__).parent / "data/quants"
RUN = LastRun(
    "bench",
    "x.gguf",
    "scalar",
    10**12,
    (Speed("pp512", "prompt", 512, 1, 90.5, 0.0, 1e9, 0.0), Speed("tg128", "decode", 128, 1, 9.0, 1e9)),
    "2026-01-01T00:00:00+00:00",
)


@pytest.fixture
def state(tmp_path, monkeypatch):
    """A folder for the record of this test alone."""
    monkeypatch.setenv("FASTLLM_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.delenv("FASTLLM_LAST_RUN", raising=False)
    return tmp_path / "state"


def roofs(reads, integers):
    """Made up, in GB/s and GOP/s by threads."""
    compute = [ComputeRoof("a", n, Rate(x * 1e9, x * 9e8), Rate(x * 5e8, x * 4e8)) for n, x in integers.items()]
    compute.append(ComputeRoof("slow", 1, Rate(1e9, 1e9), Rate(1e9, 1e9)))
    return Roofs("a", 1, tuple(ReadRoof(n, Rate(x * 1e9, x * 9e8)) for n, x in reads.items()), tuple(compute))


# Measurements


def test_every_instruction_set_is_measured():
    for isa in fastllm.available_isas():
        for best, median in _native.measure_compute(isa, 1, 0.001):
            assert best >= median > 0
    for rates in (_native.measure_read("auto", [1, 2], 1 << 22, 0.001), _native.measure_read("scalar", [1], 0, 0.0)):
        assert all(best >= median > 0 for best, median in rates)


@pytest.mark.parametrize("arguments", [("sse9", 1, 0.1), ("auto", 1, -1.0), ("auto", 1, float("nan"))])
def test_measurements_refuse_odd_arguments(arguments):
    isa, threads, seconds = arguments
    with pytest.raises(ParameterError):
        _native.measure_compute(isa, threads, seconds)
    with pytest.raises(ParameterError):
        _native.measure_read(isa, [threads], 1 << 20, seconds)


def test_more_memory_than_there_is_is_an_error():
    with pytest.raises(fastllm.OutOfMemoryError, match="out of memory"):
        _native.measure_read("auto", [1], 2**63, 0.001)


def test_less_memory_is_read_where_there_is_less(monkeypatch):
    asked = []

    def measure(_isa, threads, size, _seconds):
        asked.append(size)
        if size > 1 << 26:
            raise fastllm.OutOfMemoryError("none")
        return [(1.0, 1.0)] * len(threads)

    monkeypatch.setattr(_native, "measure_read", measure)
    size, rates = roofline.measure_read("auto", [1, 2], 0.1)
    assert size == asked[-1] <= 1 << 26 < asked[-2]
    assert rates == [Rate(1.0, 1.0)] * 2


@pytest.mark.parametrize("call", ["measure_compute('auto', 2, 600)", "measure_read('auto', [2], 1 << 28, 600)"])
def test_ctrl_c_stops_a_measurement(call):
    code = f"from fastllm import _native\nprint('go', flush=True)\n_native.{call}"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"go\n"
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=120)
        assert b"KeyboardInterrupt" in error, "the measurement would take ten minutes"


def test_measure_is_short_and_names_the_threads(monkeypatch):
    asked = []

    def timed(measure, seconds):
        def wrapped(*arguments):
            asked.append(seconds(*arguments))
            return measure(*arguments)

        return wrapped

    monkeypatch.setattr(_native, "measure_compute", timed(_native.measure_compute, lambda *x: 2 * x[2]))
    monkeypatch.setattr(_native, "measure_read", timed(_native.measure_read, lambda *x: len(x[1]) * x[3]))
    measured = roofline.measure()
    assert 0 < sum(asked) < 15, "seconds"
    assert [read.threads for read in measured.reads] == roofline.thread_counts()
    assert {compute.isa for compute in measured.compute} == set(fastllm.available_isas())
    assert measured.isa == roofline.chosen_isa()
    assert measured.decode_threads in roofline.thread_counts()
    assert measured.prompt_threads in roofline.thread_counts()
    assert measured.bandwidth > 0 < measured.integer
    assert measured.floating > 0


def test_the_least_threads_that_reach_the_best_rate():
    made = roofs({1: 10, 2: 19.5, 4: 20, 8: 18}, {1: 100, 2: 200, 4: 400, 8: 405})
    assert (made.decode_threads, made.prompt_threads) == (2, 4)
    assert made.decode_share(5e9) == 0.25
    assert made.prompt_share(202.5e9, 0) == pytest.approx(0.5)
    assert made.prompt_share(81e9, 40.5e9) == pytest.approx(0.2 + 0.2), "times add up"


@pytest.mark.parametrize(
    ("quota", "allowed", "default", "expected"),
    [(None, 8, 4, [1, 2, 4, 8]), (3.5, 8, 3, [1, 2, 3]), (0.5, 8, 1, [1]), (None, 6, 6, [1, 2, 4, 6])],
)
def test_thread_counts(monkeypatch, quota, allowed, default, expected):
    monkeypatch.setattr(system, "cgroup_cpus", lambda: quota)
    monkeypatch.setattr(system, "allowed_cpus", lambda: allowed)
    monkeypatch.setattr(_native, "default_threads", lambda: default)
    assert roofline.thread_counts() == expected


# Costs


def test_the_cost_of_a_token(model):
    cost = roofline.token_cost(GGUFFile(model.path))
    matrices = sum(t.elements for t in model.tensors if len(t.shape) > 1 and t.name != "token_embd.weight")
    embedding = next(t.elements for t in model.tensors if t.name == "token_embd.weight")
    tied = not any(t.name == "output.weight" for t in model.tensors)
    assert sum(cost.layers) + sum(cost.output) == 2 * (matrices + (embedding if tied else 0))
    assert 0 < cost.weights <= model.weight_bytes
    assert roofline.token_cost(GGUFFile(model.path), position=400).kv_cache > cost.kv_cache
    made = roofs({1: 10}, {1: 100})
    assert cost.most_decoded(made) == pytest.approx(10e9 / (cost.weights + cost.kv_cache))
    assert cost.most_read(made, 100) < 100e9 / sum(cost.layers)


def test_bench_counts_logits_where_they_are_wanted(model):
    cost = roofline.token_cost(GGUFFile(model.path))
    prompt = bench.bench(model, n_prompt=8, repetitions=1, n_parallel=2)
    assert prompt.operations == 2 * (8 * sum(cost.layers) + sum(cost.output))
    assert bench.bench(model, n_gen=4, repetitions=1).operations == 4 * (sum(cost.layers) + sum(cost.output))


# The record


def test_a_record_comes_back(state):
    assert last_run.load() is None
    last_run.save(RUN)
    assert last_run.load() == RUN
    newer = dataclasses.replace(RUN, model="y.gguf", time="")
    last_run.save(newer)
    assert last_run.load().model == "y.gguf"
    assert last_run.load().time
    assert [path.name for path in state.iterdir()] == ["last-run.json"]


def good(**changes):
    return {**dataclasses.asdict(RUN), **changes}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        "[" * 100_000,
        "{}",
        "\0\xff",
        " " * (1 << 16) + json.dumps(good()),
        json.dumps(good(speeds=5)),
        json.dumps(good(speeds=[{}])),
        json.dumps(good(speeds={})),
        json.dumps(good(speeds=[{**dataclasses.asdict(RUN.speeds[0]), "threads": True}])),
        json.dumps(good(speeds=[{**dataclasses.asdict(RUN.speeds[0]), "tokens_per_second": float("nan")}])),
        json.dumps(good(speeds=[{**dataclasses.asdict(RUN.speeds[0]), "tokens": 10**30}])),
        json.dumps(good(model="\x1b[31m")),
        json.dumps(good(weight_bytes="many")),
        json.dumps(good(weight_bytes=-1)),
    ],
)
def test_what_is_no_record_counts_as_none(state, text):
    state.mkdir()
    (state / "last-run.json").write_text(text, encoding="latin-1")
    assert last_run.load() is None


def test_unknown_fields_are_ignored(state):
    state.mkdir()
    (state / "last-run.json").write_text(json.dumps(good(later="x")))
    assert last_run.load() == RUN


def test_a_record_that_cannot_be_written_is_no_failure(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("FASTLLM_STATE_DIR", str(tmp_path / "file"))
    last_run.save(RUN)
    assert last_run.load() is None
    assert output("generate", "Once", "-n", "2")


def test_the_folder(monkeypatch, tmp_path):
    monkeypatch.delenv("FASTLLM_STATE_DIR")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    assert last_run.folder() == tmp_path / ".local/state/fastllm"
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    assert last_run.folder() == tmp_path / ".local/state/fastllm"
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "xdg"))
    assert last_run.folder() == tmp_path / "xdg/fastllm"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert last_run.folder() == tmp_path / "Library/Application Support/fastllm"
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "local"))
    assert last_run.folder() == tmp_path / "local/fastllm"
    monkeypatch.setenv("FASTLLM_LAST_RUN", "0")
    assert last_run.folder() is None


@pytest.mark.parametrize(
    ("arguments", "stdin", "kinds"),
    [
        (("bench", "-p", "64", "-n", "16", "-r", "1"), "", ["prompt", "decode"]),
        (("generate", "Once upon a time", "-n", "9", "--seed", "1"), "", ["prompt", "decode"]),
        (("chat", "--temperature", "0"), "What is the capital of France?\n", ["prompt", "decode"]),
    ],
)
def test_commands_leave_a_record_of_numbers_alone(state, model, arguments, stdin, kinds):
    written = output(*arguments, stdin=stdin)
    last = last_run.load()
    assert (last.command, last.model, last.isa) == (arguments[0], Path(model.path).name, roofline.chosen_isa())
    assert [speed.kind for speed in last.speeds] == kinds
    assert all(speed.tokens_per_second > 0 < speed.threads for speed in last.speeds)
    assert last.speeds[0].integer_per_second > 0 < last.speeds[1].bytes_per_second
    text = (state / "last-run.json").read_text()
    assert all(word not in text for word in ("Once", "capital", "Paris"))
    assert written


def test_the_record_can_be_turned_off(state):
    output("generate", "Once", "-n", "2", "--no-record")
    output("chat", "--no-record", "-n", "2", stdin="Hello!\n")
    output("bench", "-p", "8", "-n", "0", "-r", "1", "--no-record")
    output("generate", "Once", "-n", "2", env={"FASTLLM_LAST_RUN": "off"})
    assert not state.exists()


# The command


@pytest.mark.usefixtures("state")
def test_doctor_as_text():
    last_run.save(RUN)
    text = output("doctor")
    parts = ["cpu ", "huge pages", "demo model", "Reading memory", "Arithmetic", "for decoding", "What to change"]
    parts += ["What limits this machine", "How close the last run came", "- bench of x.gguf"]
    for part in (*(f"\n{part}" for part in parts), "tg128: 9.0 tokens/s, 1 threads, 1.0 GB/s: "):
        assert part in text
    assert "█" not in text, "no terminal"


@pytest.mark.usefixtures("state")
def test_doctor_as_json_with_a_model():
    last_run.save(RUN)
    path = QUANTS / "llama-256-Q4_0.gguf"
    report = json.loads(output("doctor", path, "-o", "json", "--kv-dtype", "q8_0", "-c", "128"))
    assert report["roofs"]["reads"][0]["rate"]["best"] > 0
    assert {"decode_threads", "prompt_threads", "isa"} <= set(report["roofs"])
    model = report["model"]
    assert (model["path"], model["context_length"], model["depth"]) == (str(path), 128, 128)
    assert model["fits"] in {True, None}
    assert model["decode_tokens_per_second"] > model["decode_tokens_per_second_at_depth"] > 0
    assert model["bytes_per_token"] == roofline.token_cost(GGUFFile(path)).weights
    prompt, decode = report["last_run"]["speeds"]
    assert decode["share"] == pytest.approx(1e9 / report["limits"]["bytes_per_second"])
    assert prompt["share"] == pytest.approx(1e9 / report["limits"]["integer_per_second"])
    assert all({"name", "problem", "remedy"} == set(finding) for finding in report["findings"])


def test_doctor_ignores_a_damaged_record(state):
    state.mkdir()
    (state / "last-run.json").write_text("{")
    report = json.loads(output("doctor", "-o", "json"))
    assert report["last_run"] is None
    assert report["model"] is None


@pytest.mark.usefixtures("state")
def test_doctor_does_not_compare_few_tokens():
    output("generate", "Once", "-n", "4", "--ignore-eos")
    speeds = json.loads(output("doctor", "-o", "json"))["last_run"]["speeds"]
    assert all(speed["share"] is None and "too few" in speed["not_compared"] for speed in speeds)


def test_doctor_on_a_terminal_draws_bars(monkeypatch, capsys):
    from fastllm.cli import tables

    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    tables.print_table("Title [x]", ("threads", "best"), [("1", "9"), ("2", "18")], [9, 18])
    text = capsys.readouterr().out
    assert "Title [x]" in text
    assert text.count("█") == 12 + 24


# What to change


@pytest.fixture
def quiet(monkeypatch):
    """A machine with nothing to mend: 8 CPUs, 8 cores."""
    facts = {"logical_cpus": 8, "allowed_cpus": 8, "physical_cores": 8, "cgroup_cpus": None, "huge_pages": "madvise",
             "swap_used": 0, "load_average": 0.1, "autogroup": True, "governor": "performance",
             "clock_driver": "acpi-cpufreq"}  # fmt: skip
    for name, value in facts.items():
        monkeypatch.setattr(system, name, lambda value=value: value)
    monkeypatch.setattr(_native, "default_threads", lambda: 8)
    monkeypatch.delenv("FASTLLM_ISA", raising=False)
    return monkeypatch


def test_nothing_to_change(quiet):
    assert diagnosis.findings(roofs({1: 10, 8: 40}, {1: 1, 8: 8})) == []
    for name in ("logical_cpus", "physical_cores", "huge_pages", "swap_used", "load_average", "autogroup", "governor"):
        quiet.setattr(system, name, lambda: None)
    assert diagnosis.findings() == [], "what is not known is no finding"


@pytest.mark.parametrize(
    ("name", "value", "found"),
    [
        ("cgroup_cpus", 2.5, ["cpu quota"]),
        ("allowed_cpus", 4, ["affinity"]),
        ("physical_cores", 4, ["smt"]),
        ("huge_pages", "never", ["huge pages"]),
        ("swap_used", 2**30, ["swap"]),
        ("load_average", 6.0, ["load", "autogroup"]),
        ("governor", "powersave", ["governor"]),
    ],
)
def test_what_is_found(quiet, name, value, found):
    quiet.setattr(system, name, lambda: value)
    findings = diagnosis.findings()
    assert [finding.name for finding in findings] == found
    assert all(finding.problem and finding.remedy for finding in findings)


def test_powersave_is_the_usual_mode_of_some_drivers(quiet):
    quiet.setattr(system, "governor", lambda: "powersave")
    quiet.setattr(system, "clock_driver", lambda: "intel_pstate")
    assert diagnosis.findings() == []


def test_a_forced_instruction_set_is_found(quiet):
    quiet.setenv("FASTLLM_ISA", fastllm.available_isas()[-1])
    assert diagnosis.findings() == []
    quiet.setenv("FASTLLM_ISA", "scalar")
    assert [x.name for x in diagnosis.findings()] == ["isa"] * (len(fastllm.available_isas()) > 1)


@pytest.mark.usefixtures("quiet")
def test_fewer_threads_that_read_faster_are_found():
    [finding] = diagnosis.findings(roofs({1: 10, 4: 40, 8: 30}, {1: 1, 8: 8}))
    assert finding.name == "threads"
    assert "--threads 4, and --prefill-threads 8" in finding.remedy


def test_the_facts_of_this_machine():
    assert system.last_level_cache() is None or 1 << 16 <= system.last_level_cache() < 1 << 34
    assert system.load_average() is None or system.load_average() >= 0
    assert system.logical_cpus() == os.cpu_count()
