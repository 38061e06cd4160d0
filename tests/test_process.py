"""What happens to a process: Ctrl-C, fork, exit, import."""

import os
import subprocess
import sys
import textwrap

import pytest


def python(code, **options):
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def run(code, timeout=120):
    process = python(code)
    out, err = process.communicate(timeout=timeout)
    return process.returncode, out, err


# Times are of the CPU, which other work on the machine does not lengthen.
INTERRUPTED = """
    import os, signal, sys, threading, time
    from fastllm import Model
    model = Model.demo(context_length={context}, threads=1)
    {setup}
    def interrupt():
        global sent
        sent = time.process_time()
        os.kill(os.getpid(), signal.SIGINT)
    try:
        threading.Timer(0.3, interrupt).start()
        {work}
    except KeyboardInterrupt:
        caught = time.process_time()
        while model.stats().running + model.stats().waiting != 0:
            time.sleep(0.001)
        print(caught - sent, time.process_time() - caught, flush=True)
"""


@pytest.mark.parametrize(
    ("setup", "work"),
    [
        ("ids = [5] * 200_000", "model.generate(ids, max_tokens=1)"),
        ("ids = [5] * 200_000", "model.logits(ids[:100_000])"),
        ("ids = [5] * 200_000", "model.perplexity(ids)"),
        ("", "model.generate('Once', ignore_eos=True)"),
        ("", "model.generate(['Once'] * 100, ignore_eos=True)"),
        ("", "list(model.stream('Once', ignore_eos=True))"),
        ("", "model.chat([{'role': 'user', 'content': 'Hi'}], ignore_eos=True)"),
        ("import asyncio", "asyncio.run(model.agenerate('Once', ignore_eos=True))"),
        ("text = 'many words ' * 10_000_000", "model.tokenizer.encode(text)"),
        ("from fastllm.bench import bench", "bench(model, n_prompt=200_000)"),
    ],
)
def test_ctrl_c_stops_everything_soon(setup, work):
    code, out, err = run(INTERRUPTED.format(context=262_144, setup=setup, work=work), timeout=120)
    assert code == 0, err
    caught, idle = map(float, out.split())
    # The promise is 100 ms of a quiet machine.
    assert caught < 0.3, f"KeyboardInterrupt after {caught:.3f} s of computing"
    assert idle < 0.3, f"work went on for {idle:.3f} s of computing"


def test_a_fork_after_loading_is_an_error_and_no_hang():
    code, out, err = run("""
        import os, warnings
        warnings.simplefilter("ignore", DeprecationWarning)
        import fastllm
        model = fastllm.Model.demo()
        stream = model.stream("Once", ignore_eos=True)
        next(stream)
        pid = os.fork()
        if pid == 0:
            for call in (lambda: model.generate("Once"), lambda: next(stream), lambda: model.logits([1]), model.close):
                try:
                    call()
                except fastllm.ForkError as error:
                    assert str(os.getppid()) in str(error)
                else:
                    os._exit(3)
            fresh = fastllm.Model.demo()
            assert fresh.generate("Once upon a time", max_tokens=3).token_ids
            del model, stream
            raise SystemExit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
        next(stream)
        print("fine")
    """)
    assert (code, out) == (0, "fine\n"), err


@pytest.mark.parametrize("daemon", [True, False])
def test_the_interpreter_exits_while_threads_stream(daemon):
    code, out, err = run(f"""
        import threading, time
        import fastllm
        model = fastllm.Model.demo()
        def stream():
            try:
                while True:
                    for chunk in model.stream("Once", ignore_eos=True, timeout=1):
                        pass
                    if not {daemon}:
                        return
            except fastllm.CancelledError:
                pass
        threads = [threading.Thread(target=stream, daemon={daemon}) for _ in range(4)]
        for thread in threads:
            thread.start()
        time.sleep(0.2)
        print("bye", flush=True)
    """)
    assert (code, out, err) == (0, "bye\n", "")


@pytest.mark.parametrize(
    "end",
    [
        "stream = model.stream('Once', ignore_eos=True); next(stream)",
        "stream = model.stream('Once', ignore_eos=True); next(stream); del model",
        "stream = model.stream('Once', ignore_eos=True); next(stream); model.close()",
        "streams = [model.stream('Once', ignore_eos=True) for _ in range(200)]",
        "model.me = stream = model.stream('Once', ignore_eos=True); stream.me = model; next(stream); del model, stream",
        "stream = iter(model.stream('Once', ignore_eos=True)); next(stream); del model",
        "import os; os.kill(os.getpid(), 15)",
    ],
)
def test_the_interpreter_exits_with_a_request_under_way(end):
    code, _, err = run(f"import fastllm; model = fastllm.Model.demo(); {end}")
    assert (code, err) == ((-15 if "kill" in end else 0), "")


def test_an_event_loop_ends_with_streams_under_way():
    code, out, err = run("""
        import asyncio
        import fastllm
        model = fastllm.Model.demo()
        kept = []
        async def main():
            for _ in range(3):
                kept.append(model.astream("Once", ignore_eos=True))
                await anext(kept[-1])
        asyncio.run(main())
        asyncio.run(main())
        print("bye")
    """)
    assert (code, out, err) == (0, "bye\n", "")


def test_nothing_leaks_over_many_models_and_requests():
    _, out, err = run("""
        import gc, os, resource, time
        import fastllm
        def counts():
            gc.collect()
            return len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))
        def within(seconds, state):
            # A thread that was joined is in the list of the system for a moment more.
            end = time.monotonic() + seconds
            while not state() and time.monotonic() < end:
                time.sleep(0.01)
            return state()
        def once():
            model = fastllm.Model.demo()
            model.generate(["Once"] * 20, max_tokens=5)
            stream = model.stream("Once", ignore_eos=True)
            next(stream)
        start = counts()
        once()
        assert within(20, lambda: counts()[1] == start[1]), "threads of the first model are left"
        before = counts()
        rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for _ in range(30):
            once()
        same = within(20, lambda: counts() == before)
        print(same, counts(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - rss)
    """)
    same, *_, growth = out.split()
    assert same == "True", out + err
    assert int(growth) < 32 * 1024, f"{growth} KiB more"


def test_close_returns_when_the_threads_have_ended():
    """Also where several threads close at once, and a stream is under way; facts and tokenizer stay."""
    _, out, err = run("""
        import os, threading, time
        import fastllm
        def names():
            found = []
            for task in os.listdir("/proc/self/task"):
                try:
                    found.append(open(f"/proc/self/task/{task}/comm").read().strip())
                except OSError:
                    pass
            return [name for name in found if name.startswith("fastllm")]
        for _ in range(5):
            model = fastllm.Model.demo(threads=3)
            facts = repr(model), model.vocab_size
            stream = model.stream("Once", ignore_eos=True)
            model.generate("Once", regex="a+", max_tokens=2)
            next(stream)
            assert len(names()) > 3, names()
            closers = [threading.Thread(target=model.close) for _ in range(4)]
            for closer in closers:
                closer.start()
            for closer in closers:
                closer.join()
            # A thread that was joined is in the list of the system for a moment more.
            end = time.monotonic() + 20
            while names() and time.monotonic() < end:
                time.sleep(0.001)
            assert not names(), names()
            assert (repr(model), model.vocab_size) == facts
            assert model.tokenizer.encode("Once")
            for ask in (lambda: model.generate("x"), lambda: model.logits([5]), stream.result):
                try:
                    ask()
                except fastllm.CancelledError:
                    continue
                raise AssertionError("it still answers")
            model.close()
        print("fine")
    """)
    assert out == "fine\n", err


def test_import_is_quick_and_loads_no_dependency():
    code, out, err = run("""
        import sys, time
        start = time.process_time()
        import fastllm
        print(time.process_time() - start)
        extras = {"fastapi", "uvicorn", "pydantic", "prometheus_client", "openai"}
        print(sorted({"numpy", "rich", "asyncio.base_events", *extras} & set(sys.modules)))
    """)
    assert code == 0, err
    seconds, loaded = out.splitlines()
    assert "asyncio" not in loaded
    assert "numpy" not in loaded
    assert "rich" not in loaded
    assert loaded == "[]"
    assert float(seconds) < 1.0


def test_a_server_without_its_extra_says_what_to_install():
    code, out, err = run("""
        import sys
        sys.modules["fastapi"] = None
        from fastllm.cli import main
        sys.exit(main(["serve"]))
    """)
    assert (code, out) == (1, "")
    assert err == "fastllm: the server needs fastapi: pip install 'fastllm[server]'\n"


def test_no_socket_is_opened():
    code, out, err = run("""
        import socket
        def refuse(*_):
            raise AssertionError("a socket")
        socket.socket.__init__ = refuse
        import fastllm
        print(fastllm.Model.demo().generate("Once", max_tokens=1).finish_reason)
    """)
    assert (code, out) == (0, "length\n"), err
    assert os.name == "posix"
