"""Many clients at once: throughput, the same texts as alone, and the wait for a token while a long prompt is read.

    python benches/serving.py MODEL.gguf [--clients 16] [--tokens 64] [--prompt 4000]

Starts `fastllm serve` and talks to it as a client does, with one connection for each. Needs the extra `server` and httpx.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field

import httpx


@dataclass
class Reply:
    text: str = ""
    tokens: int = 0
    start: float = 0.0
    times: list[float] = field(default_factory=list)
    usage: dict = field(default_factory=dict)


async def complete(client: httpx.AsyncClient, **body: object) -> Reply:
    body = {"model": MODEL_NAME, "stream": True, "stream_options": {"include_usage": True}, "ignore_eos": True, **body}
    reply = Reply(start=time.perf_counter())
    async with client.stream("POST", "/v1/completions", json=body) as response:
        if response.status_code != 200:
            raise SystemExit(f"{response.status_code}: {(await response.aread()).decode()}")
        async for line in response.aiter_lines():
            if not line.startswith("data: ") or line == "data: [DONE]":
                continue
            chunk = json.loads(line[6:])
            if chunk.get("usage"):
                reply.usage = chunk["usage"]
            if chunk.get("choices"):
                reply.times.append(time.perf_counter())
                reply.text += chunk["choices"][0]["text"]
    reply.tokens = reply.usage["completion_tokens"]
    return reply


MODEL_NAME = "bench"


def prompt(n: int, tokens: int, vocab: int) -> list[int]:
    return [(i * 7919 + n * 104729 + 13) % (vocab - 1000) + 500 for i in range(tokens)]


async def measure(base: str, arguments: argparse.Namespace) -> dict[str, object]:
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=base, timeout=600, limits=limits) as client:
        vocab = arguments.vocab
        jobs = [
            {
                "prompt": prompt(n, 32, vocab),
                "max_tokens": arguments.tokens,
                "temperature": 0 if n % 2 else 0.9,
                "seed": n,
            }
            for n in range(arguments.clients)
        ]
        alone, rates = [], []
        for job in jobs:
            reply = await complete(client, **job)
            alone.append(reply.text)
            rates.append((reply.tokens - 1) / (reply.times[-1] - reply.times[0]))
        single = statistics.median(rates)
        ratios, same = [], True
        for _ in range(arguments.rounds):
            begun = time.perf_counter()
            replies = await asyncio.gather(*(complete(client, **job) for job in jobs))
            first = max(reply.times[0] for reply in replies)
            last = min(reply.times[-1] for reply in replies)
            # While all decode: tokens that came then, by the time it took.
            during = sum(sum(first < t <= last for t in reply.times) for reply in replies)
            ratios.append(during / (last - first) / single)
            same &= [reply.text for reply in replies] == alone
            total = sum(reply.tokens for reply in replies) / (time.perf_counter() - begun)
        long = asyncio.ensure_future(complete(client, prompt=prompt(99, 256 * 4, vocab), max_tokens=1, temperature=0))
        chunk = await chunk_time(await long, 256 * 4)
        watch = asyncio.ensure_future(complete(client, prompt=prompt(7, 16, vocab), max_tokens=1500, temperature=0))
        await asyncio.sleep(1.0)
        reading = await complete(client, prompt=prompt(50, arguments.prompt, vocab), max_tokens=1, temperature=0)
        watched = await watch
    inside = [t for t in watched.times if reading.start <= t <= reading.times[0]]
    gaps = [b - a for a, b in zip(inside, inside[1:])]
    return {
        "one client, tokens/s": round(single, 1),
        "all clients, tokens/s": round(statistics.median(ratios) * single, 1),
        "with prompts, tokens/s": round(total, 1),
        "ratio": round(statistics.median(ratios), 2),
        "same texts": same,
        "chunk of 256, s": round(chunk, 3),
        "longest gap, s": round(max(gaps), 3) if gaps else None,
        "median gap, s": round(statistics.median(gaps), 3) if gaps else None,
        "longest gap in chunks": round(max(gaps) / chunk, 2) if gaps else None,
        "tokens meanwhile": len(inside),
        "prompt, s": round(reading.times[0] - reading.start, 2),
    }


async def chunk_time(reply: Reply, tokens: int) -> float:
    return (reply.times[0] - reply.start) / (tokens / 256)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--prompt", type=int, default=4000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--vocab", type=int, default=128256)
    parser.add_argument("--serve", nargs="*", default=[], help="further arguments of fastllm serve")
    arguments = parser.parse_args()
    command = [sys.executable, "-m", "fastllm", "serve", f"{MODEL_NAME}={arguments.model}", "--port", "0"]
    server = subprocess.Popen(
        [*command, "--context-length", "8192", *arguments.serve], stderr=subprocess.PIPE, text=True
    )
    try:
        for line in server.stderr:
            if found := re.search(r"http://[\d.]+:\d+", line):
                break
        result = asyncio.run(measure(found[0], arguments))
    finally:
        server.terminate()
        server.wait(timeout=60)
    for name, value in result.items():
        print(f"{name:<26} {value}")


if __name__ == "__main__":
    main()
