"""Makes `<type>.bin`: blocks of random bits of a weight type, then their values as the Python package `gguf` has them.

    pip install gguf==0.19.0 numpy
    python make.py

A file holds the bytes of the blocks, then one float32 (little endian) for each of 768 weights: 3 blocks of 256 columns,
12 of 64 (NVFP4) or 24 of 32. Scales that are halves are small and finite; everything else is random, also the scales of
NVFP4 and the exponents of MXFP4 (2 to 249: 0 and 1 stand for a subnormal scale).
"""

import pathlib

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import dequantize

# Where the scales and minima of a block that are halves are.
TYPES = {
    "Q4_0": [0],
    "Q4_1": [0, 2],
    "Q5_0": [0],
    "Q5_1": [0, 2],
    "Q8_0": [0],
    "Q2_K": [80, 82],
    "Q3_K": [108],
    "Q4_K": [0, 2],
    "Q5_K": [0, 2],
    "Q6_K": [208],
    "IQ1_S": [0],
    "IQ1_M": [],
    "IQ2_XXS": [0],
    "IQ2_XS": [0],
    "IQ2_S": [0],
    "IQ3_XXS": [0],
    "IQ3_S": [0],
    "IQ4_NL": [0],
    "IQ4_XS": [0],
    "TQ1_0": [52],
    "TQ2_0": [64],
    "MXFP4": [],
    "NVFP4": [],
}
WEIGHTS = 768


def small(random: np.random.Generator) -> np.ndarray:
    """The bytes of a half of either sign and of a size of at most 1, subnormal ones included."""
    if random.integers(4):
        return random.uniform(-1, 1, 1).astype(np.float16).view(np.uint8)
    return random.integers(0, 0x400, 1, np.uint16).view(np.uint8)


def main() -> None:
    folder = pathlib.Path(__file__).parent
    for number, (name, halves) in enumerate(TYPES.items()):
        random = np.random.default_rng(number)
        kind = GGMLQuantizationType[name]
        columns, size = GGML_QUANT_SIZES[kind]
        blocks = random.integers(0, 256, (WEIGHTS // columns, size), np.uint8)
        for block in blocks:
            for at in halves:
                block[at : at + 2] = small(random)
            if name == "MXFP4":
                block[0] = random.integers(2, 250)
            if name == "IQ1_M":
                # A half in the high four bits of four words.
                low, high = small(random)
                for at, bits in ((49, low << 4), (51, low), (53, high << 4), (55, high)):
                    block[at] = (block[at] & 15) | (int(bits) & 0xF0)
        values = dequantize(blocks, kind).astype("<f4")
        assert np.isfinite(values).all()
        assert values.size == WEIGHTS
        (folder / f"{name.lower()}.bin").write_bytes(blocks.tobytes() + values.tobytes())


if __name__ == "__main__":
    main()
