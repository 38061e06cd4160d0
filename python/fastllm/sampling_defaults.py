"""Sampling options where a request sets none: those that a model file recommends, or ours for conversations."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from fastllm.errors import FastLLMWarning, ParameterError
from fastllm.options import SamplingParams

__all__ = ["CHAT_SAMPLING", "recommended"]

# For a conversation. The model's own distribution, which is the default elsewhere, makes small models ramble.
CHAT_SAMPLING: Mapping[str, Any] = {"temperature": 0.7, "top_p": 0.95}
# Keys of a file (`general.sampling.*`), and their names here. Two have no counterpart: the window of the repetition
# penalty (penalty_last_n), which reads the whole text here, and the order of the filters (sequence).
_KEYS = {
    "temp": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "penalty_repeat": "repetition_penalty",
    "xtc_probability": "xtc_probability",
    "xtc_threshold": "xtc_threshold",
    "mirostat": "mirostat",
    "mirostat_tau": "mirostat_tau",
    "mirostat_eta": "mirostat_eta",
}


def recommended(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """The sampling options that a file recommends; none where one of them is out of range, with a warning."""
    found: dict[str, Any] = {}
    for key, name in _KEYS.items():
        value = metadata.get(f"general.sampling.{key}")
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            # Numbers of the file have 32 bits: 0.95 must not become 0.949999988.
            found[name] = float(f"{value:.6g}") if isinstance(value, float) else value
    try:
        SamplingParams(**found)
    except (ParameterError, TypeError) as error:
        text = f"the sampling options that the file recommends (general.sampling.*) are not used: {error}"
        warnings.warn(text, FastLLMWarning, stacklevel=3)
        return {}
    return found
