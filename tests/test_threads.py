"""Threads: one model, many callers, each served as if alone."""

import threading
from concurrent.futures import ThreadPoolExecutor

STORY = "Once upon a time"


def test_two_threads_streaming_at_once_get_what_they_get_alone(model):
    options = [{"temperature": 0.8, "seed": 1}, {"temperature": 0}, {"temperature": 1.2, "seed": 9, "top_p": 0.9}]
    alone = [model.generate(STORY, max_tokens=150, **o).text for o in options]
    barrier = threading.Barrier(len(options))

    def tell(option):
        barrier.wait()
        return "".join(chunk.text for chunk in model.stream(STORY, max_tokens=150, **option))

    with ThreadPoolExecutor(len(options)) as pool:
        for _ in range(5):
            assert list(pool.map(tell, options)) == alone


def test_everything_at_once(model):
    ids = model.tokenizer.encode(STORY)
    logits = model.logits(ids).tobytes()
    text = model.generate(STORY, max_tokens=20, temperature=0).text

    def work(i):
        kind = i % 4
        if kind == 0:
            return model.logits(ids).tobytes() == logits
        if kind == 1:
            return model.generate(STORY, max_tokens=20, temperature=0).text == text
        if kind == 2:
            return next(iter(model.stream(STORY, ignore_eos=True))).text == text[:1]
        return model.tokenizer.decode(model.tokenizer.encode("héllo")) == "héllo"

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(200)))


def test_a_waiting_thread_does_not_hold_the_interpreter(model):
    """Python code goes on while another thread waits for a token."""
    done = threading.Event()
    count = 0

    def generate():
        model.generate([[5] * 400] * 4, max_tokens=20)
        done.set()

    thread = threading.Thread(target=generate)
    thread.start()
    while not done.is_set():
        count += 1
    thread.join()
    assert count > 100
