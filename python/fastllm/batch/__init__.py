"""Offline generation: a file of requests in, a file of answers out.

The files are those of OpenAI's batch API, or shorter lines; also Parquet. A run that was killed goes on where it was.

>>> from fastllm import Model
>>> from fastllm.batch import run_batch
>>> report = run_batch(Model.demo(), "requests.jsonl", "answers.jsonl", max_tokens=64)  # doctest: +SKIP
"""

from __future__ import annotations

from fastllm.batch.errors import BatchFileError
from fastllm.batch.run import BatchReport, run_batch

__all__ = ["BatchFileError", "BatchReport", "run_batch"]
