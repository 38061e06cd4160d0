"""Makes `<type>.bin`: blocks of random bits of a weight type, then their values as the Python package `gguf` decodes them.

    pip install gguf==0.19.0 numpy
    python make.py

A file holds the bytes of the blocks, then one float32 (little endian) for each weight. Its length says how many blocks there are: 3, or
24 of the types with 32 columns and 12 of NVFP4, so that there are 768 weights. Scales that are halves are small and finite; everything
else is random, also the scales of NVFP4 and the exponents of MXFP4 (2 to 249: a value of 0 or 1 stands for a subnormal scale).
"""

import pathlib

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import dequantize

# Where the float scales and minima of a block are.
HALVES = {
    "Q2_K": [80, 82],
    "Q3_K": [108],
    "Q6_K": [208],
    "Q4_1": [0, 2],
    "Q5_1": [0, 2],
    "Q4_K": [0, 2],
    "Q5_K": [0, 2],
    "TQ1_0": [52],
    "TQ2_0": [64],
    "MXFP4": [],
    "NVFP4": [],
    "IQ1_M": [],
}
TYPES = (
    "Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q2_K Q3_K Q4_K Q5_K Q6_K IQ1_S IQ1_M IQ2_XXS IQ2_XS IQ2_S IQ3_XXS IQ3_S IQ4_NL IQ4_XS "
    "TQ1_0 TQ2_0 MXFP4 NVFP4"
).split()
WEIGHTS = 768


def small(random: np.random.Generator) -> np.ndarray:
    """The bytes of a half of either sign and of a size of at most 1, subnormal ones included."""
    if random.integers(4):
        return random.uniform(-1, 1, 1).astype(np.float16).view(np.uint8)
    return random.integers(0, 0x400, 1, np.uint16).view(np.uint8)


def main() -> None:
    folder = pathlib.Path(__file__).parent
    for number, name in enumerate(TYPES):
        random = np.random.default_rng(number)
        kind = GGMLQuantizationType[name]
        columns, size = GGML_QUANT_SIZES[kind]
        blocks = random.integers(0, 256, (WEIGHTS // columns, size), np.uint8)
        for block in blocks:
            for at in HALVES.get(name, [0]):
                block[at : at + 2] = small(random)
            if name == "MXFP4":
                block[0] = random.integers(2, 250)
            if name == "IQ1_M":
                # A half in the high four bits of four words.
                low, high = small(random)
                for at, bits in ((49, low << 4), (51, low), (53, high << 4), (55, high)):
                    block[at] = (block[at] & 15) | (int(bits) & 0xF0)
        values = dequantize(blocks, kind).astype("<f4")
        assert np.isfinite(values).all() and values.size == WEIGHTS
        (folder / f"{name.lower()}.bin").write_bytes(blocks.tobytes() + values.tobytes())


if __name__ == "__main__":
    main()
