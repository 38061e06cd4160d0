"""The results as a table, as JSON with llama-bench's field names, and as a plot."""

from __future__ import annotations

import json
import platform
import statistics
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

OURS = "fastllm"


@dataclass(frozen=True)
class Test:
    """`n_prompt` tokens at once or `n_gen` one by one, behind `n_depth` others."""

    n_prompt: int
    n_gen: int
    n_depth: int

    @property
    def name(self) -> str:
        """As in llama-bench: pp512, tg128, tg128 @ d4096."""
        test = f"pp{self.n_prompt}" if self.n_prompt else f"tg{self.n_gen}"
        return f"{test} @ d{self.n_depth}" if self.n_depth else test

    @property
    def tokens(self) -> int:
        return self.n_prompt + self.n_gen


@dataclass
class Row:
    """One variant in one test. A round without a result has `None`, and `failure` says why."""

    test: Test
    engine: str
    name: str
    settings: dict[str, Any]
    seconds: list[float | None] = field(default_factory=list)
    load: list[float] = field(default_factory=list)
    info: dict[str, Any] = field(default_factory=dict)
    failure: str | None = None

    @property
    def rates(self) -> list[float | None]:
        """Tokens per second of each round."""
        return [self.test.tokens / s if s else None for s in self.seconds]

    @property
    def samples(self) -> list[float]:
        return [rate for rate in self.rates if rate is not None]

    @property
    def median(self) -> float | None:
        return statistics.median(self.samples) if self.samples and self.failure is None else None


def ratio(ours: Row | None, theirs: Row) -> float | None:
    """How many times as fast ours is: the median over the rounds of the ratio inside a round, so that slow minutes hit both."""
    if ours is None or ours.failure or theirs.failure:
        return None
    ratios = [a / b for a, b in zip(ours.rates, theirs.rates, strict=False) if a and b]
    return statistics.median(ratios) if ratios else None


@dataclass
class Report:
    rows: list[Row]
    environment: dict[str, Any]

    def tests(self) -> list[Test]:
        return list(dict.fromkeys(row.test for row in self.rows))

    def of(self, test: Test) -> list[Row]:
        return [row for row in self.rows if row.test == test]

    def ours(self, test: Test) -> Row | None:
        return next((row for row in self.of(test) if row.engine == OURS), None)

    def best_peer(self, test: Test) -> Row | None:
        peers = [row for row in self.of(test) if row.engine != OURS and row.median is not None]
        return max(peers, key=lambda row: row.median or 0.0, default=None)

    def table(self) -> str:
        """Rows for people: a Markdown table."""
        lines = [["test", "engine", "tokens/s (median)", "min – max", "fastllm is"]]
        for test in self.tests():
            best = self.best_peer(test)
            for row in self.of(test):
                if row.median is None:
                    lines.append([test.name, row.name, row.failure or "no result", "", ""])
                    continue
                spread = f"{min(row.samples):.2f} – {max(row.samples):.2f}"
                times = None if row.engine == OURS else ratio(self.ours(test), row)
                mark = " (best of the others)" if row is best else ""
                lines.append(
                    [test.name, row.name + mark, f"{row.median:.2f}", spread, f"{times:.2f}x" if times else ""]
                )
        widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
        rows = ["| " + " | ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)) + " |" for line in lines]
        gaps = [row for row in self.rows if row.engine != OURS and row.median is None]
        notes = [
            f"\nNot a comparison with the best of {e}: some of its rows have no result."
            for e in {r.engine: None for r in gaps}
        ]
        return "\n".join([rows[0], "|" + "|".join("-" * (w + 2) for w in widths) + "|", *rows[1:], *notes])

    def json(self) -> str:
        return json.dumps([self.record(row) for row in self.rows], indent=2)

    def record(self, row: Row) -> dict[str, Any]:
        done = [s for s in row.seconds if s is not None]
        rates = row.samples
        return {
            **self.environment,
            "engine": row.engine,
            "name": row.name,
            "version": row.info.get("version"),
            "info": row.info.get("info"),
            "settings": {k: v for k, v in row.settings.items() if k != "model"},
            "n_threads": row.settings["threads"],
            "n_batch": row.info.get("n_batch"),
            "n_ubatch": row.info.get("n_batch"),
            "type_k": row.settings["kv_dtype"],
            "type_v": row.settings["kv_dtype"],
            "flash_attn": row.settings.get("fa"),
            "n_prompt": row.test.n_prompt,
            "n_gen": row.test.n_gen,
            "n_depth": row.test.n_depth,
            "failure": row.failure,
            "avg_ns": round(statistics.fmean(done) * 1e9) if done else None,
            "stddev_ns": round(statistics.stdev(done) * 1e9) if len(done) > 1 else 0,
            "avg_ts": statistics.fmean(rates) if rates else None,
            "stddev_ts": statistics.stdev(rates) if len(rates) > 1 else 0.0,
            "median_ts": row.median,
            "samples_ns": [round(s * 1e9) for s in done],
            "samples_ts": rates,
            "load_average": row.load,
            "ratio": None if row.engine == OURS else ratio(self.ours(row.test), row),
        }

    def plot(self, path: Path) -> None:
        """Bars of medians with spread, a panel for each test."""
        import matplotlib

        matplotlib.use("Agg")
        import matplotlib.pyplot as plt

        tests = self.tests()
        figure, axes = plt.subplots(
            len(tests), 1, figsize=(8, 1.0 + 1.6 * len(tests)), squeeze=False, layout="constrained"
        )
        for axis, test in zip(axes[:, 0], tests, strict=True):
            rows = list(reversed(self.of(test)))
            medians = [row.median or 0.0 for row in rows]
            low = [m - min(row.samples) if row.median else 0.0 for row, m in zip(rows, medians, strict=True)]
            high = [max(row.samples) - m if row.median else 0.0 for row, m in zip(rows, medians, strict=True)]
            colours = ["tab:blue" if row.engine == OURS else "tab:gray" for row in rows]
            axis.barh([row.name for row in rows], medians, xerr=[low, high], color=colours, ecolor="black", capsize=2)
            for i, row in enumerate(rows):
                if row.median is None:
                    axis.text(0, i, f" {row.failure or 'no result'}", va="center", fontsize=8)
            axis.set_title(test.name, loc="left", fontsize=10)
        axes[-1, 0].set_xlabel("tokens/s, median; whiskers: least and greatest")
        figure.savefig(path, dpi=150)
        plt.close(figure)


def environment(model: Path) -> dict[str, Any]:
    """What every record says about machine and file."""
    return {
        "model_filename": model.name,
        "model_size": model.stat().st_size,
        "cpu_info": cpu_name(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "test_time": datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }


def cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
