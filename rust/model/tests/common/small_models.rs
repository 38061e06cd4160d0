//! Models of some KB with every structure that a file of this architecture may have: what hostile files are made from.
use fastllm_gguf::{DType, OwnedValue, Writer};

/// A small generator (xorshift64): the same numbers in every run.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A number below `n`.
    pub fn below(&mut self, n: usize) -> usize {
        (self.next() >> 11) as usize % n
    }
}

/// Sizes of a model.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub hidden: usize,
    pub vocab: usize,
    pub layers: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub dim: usize,
    pub width: usize,
    /// Experts, of which a token takes two.
    pub experts: usize,
}

impl Default for Shape {
    fn default() -> Shape {
        Shape { hidden: 32, vocab: 40, layers: 1, heads: 4, kv_heads: 2, dim: 8, width: 32, experts: 0 }
    }
}

/// Small numbers of a type; the blocks of quantized types have any bytes but a finite first scale where it comes first.
pub fn data(dtype: DType, elements: usize, random: &mut Random) -> Vec<u8> {
    let small_f16 = |r: u64| 0x2000 | (r as u16 & 0x83ff);
    match dtype {
        DType::F32 => (0..elements).flat_map(|_| ((random.next() % 2001) as f32 / 1e4 - 0.1).to_le_bytes()).collect(),
        DType::F16 => (0..elements).flat_map(|_| small_f16(random.next()).to_le_bytes()).collect(),
        DType::BF16 => (0..elements).flat_map(|_| (0x3c00 | (random.next() as u16 & 0x80ff)).to_le_bytes()).collect(),
        _ => {
            let blocks = elements / dtype.block_size() as usize;
            let block = |_| {
                let mut bytes: Vec<u8> = (0..dtype.block_bytes()).map(|_| random.next() as u8).collect();
                if let [low, high, _, ..] = &mut bytes[..] {
                    [*low, *high] = small_f16(random.next()).to_le_bytes();
                }
                bytes
            };
            (0..blocks).flat_map(block).collect()
        }
    }
}

/// Adds the tensor `name` with random contents.
fn add(w: &mut Writer, random: &mut Random, name: &str, dims: &[usize], dtype: DType) {
    let data = data(dtype, dims.iter().product(), random);
    let dims: Vec<u64> = dims.iter().map(|&d| d as u64).collect();
    w.add(name, &dims, dtype, data);
}

fn ones(w: &mut Writer, name: &str, len: usize) {
    w.add(name, &[len as u64], DType::F32, 1f32.to_le_bytes().repeat(len));
}

/// The metadata of a model.
fn metadata(w: &mut Writer, s: Shape) {
    w.set("general.architecture", "llama").set("general.name", "small");
    for (key, value) in [
        ("embedding_length", s.hidden),
        ("block_count", s.layers),
        ("feed_forward_length", s.width),
        ("context_length", 256),
        ("attention.head_count", s.heads),
        ("attention.head_count_kv", s.kv_heads),
        ("attention.key_length", s.dim),
        ("attention.value_length", s.dim),
        ("rope.dimension_count", s.dim),
    ] {
        w.set(format!("llama.{key}"), value as u32);
    }
    w.set("llama.attention.layer_norm_rms_epsilon", 1e-5f32).set("llama.rope.freq_base", 10_000f32);
    if s.experts > 0 {
        w.set("llama.expert_count", s.experts as u32).set("llama.expert_used_count", 2u32);
    }
    w.set("tokenizer.ggml.tokens", OwnedValue::from((0..s.vocab).map(|i| format!("t{i}")).collect::<Vec<_>>()));
}

/// A model whose matrices take their types from `types` in turn.
pub fn model(s: Shape, types: &[DType], biases: bool) -> Writer {
    let (mut w, random) = (Writer::new(), &mut Random(0x9e37_79b9_7f4a_7c15));
    let mut types = types.iter().copied().cycle();
    let mut kind = || types.next().unwrap_or(DType::F16);
    metadata(&mut w, s);
    let (q, kv) = (s.heads * s.dim, s.kv_heads * s.dim);
    add(&mut w, random, "token_embd.weight", &[s.hidden, s.vocab], kind());
    ones(&mut w, "output_norm.weight", s.hidden);
    for i in 0..s.layers {
        let name = |part: &str| format!("blk.{i}.{part}");
        ones(&mut w, &name("attn_norm.weight"), s.hidden);
        for (part, cols, rows) in
            [("attn_q", s.hidden, q), ("attn_k", s.hidden, kv), ("attn_v", s.hidden, kv), ("attn_output", q, s.hidden)]
        {
            add(&mut w, random, &name(&format!("{part}.weight")), &[cols, rows], kind());
            if biases {
                add(&mut w, random, &name(&format!("{part}.bias")), &[rows], DType::F32);
            }
        }
        ones(&mut w, &name("ffn_norm.weight"), s.hidden);
        let parts = [("ffn_gate", s.hidden, s.width), ("ffn_up", s.hidden, s.width), ("ffn_down", s.width, s.hidden)];
        if s.experts == 0 {
            for (part, cols, rows) in parts {
                add(&mut w, random, &name(&format!("{part}.weight")), &[cols, rows], kind());
            }
            continue;
        }
        add(&mut w, random, &name("ffn_gate_inp.weight"), &[s.hidden, s.experts], DType::F32);
        for (j, &(part, cols, rows)) in parts.iter().enumerate() {
            let dtype = kind();
            if j < 2 {
                add(&mut w, random, &name(&format!("{part}_exps.weight")), &[cols, rows, s.experts], dtype);
            } else {
                // One tensor per expert, as older files have it.
                (0..s.experts).for_each(|e| add(&mut w, random, &name(&format!("{part}.{e}.weight")), &[cols, rows], dtype));
            }
        }
    }
    w
}

/// Dense, with biases, YaRN, a window and an output matrix of its own; two layers.
pub fn dense() -> Writer {
    let shape = Shape { layers: 2, ..Shape::default() };
    let mut w = model(shape, &[DType::F16, DType::F32, DType::BF16, DType::Q8_0, DType::Q4_0], true);
    w.set("llama.attention.sliding_window", 16u32).set("llama.rope.scaling.type", "yarn").set("llama.rope.scaling.factor", 4f32);
    w.set("llama.rope.scaling.original_context_length", 64u32);
    add(&mut w, &mut Random(3), "output.weight", &[shape.hidden, shape.vocab], DType::F16);
    w
}

/// Experts, biases and divisors of the rotary frequencies.
pub fn experts() -> Writer {
    let shape = Shape { experts: 3, ..Shape::default() };
    let mut w = model(shape, &[DType::Q4_0, DType::Q8_0, DType::F16], true);
    ones(&mut w, "rope_freqs.weight", shape.dim / 2);
    w
}

/// Types with blocks of 256.
pub fn k_quants() -> Writer {
    let shape = Shape { hidden: 256, vocab: 16, heads: 4, kv_heads: 1, dim: 64, width: 256, ..Shape::default() };
    model(shape, &[DType::Q4_K, DType::Q2_K, DType::Q3_K, DType::Q5_K, DType::Q6_K, DType::IQ4_XS, DType::Q4_1, DType::MXFP4], false)
}

/// A model of one type each.
pub fn every_type() -> Vec<(&'static str, Writer)> {
    let one = |dtype: DType| {
        let cols = (dtype.block_size() as usize).max(32);
        let shape = Shape { hidden: cols, vocab: 16, heads: cols / 32, kv_heads: cols / 32, dim: 32, width: cols, ..Shape::default() };
        (dtype.name(), model(shape, &[dtype], false))
    };
    DType::ALL.map(one).into()
}

/// The bytes of a file.
pub fn bytes(w: &Writer) -> Vec<u8> {
    let mut file = Vec::new();
    w.write(&mut file).expect("a file that can be written");
    file
}
