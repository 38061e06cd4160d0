//! The same weights in other layouts of the file: the same bits.
mod variants;
use fastllm_gguf::DType;
use variants::{Parts, Tensor, logits};

const TOKENS: [u32; 20] = [1, 17, 400, 3, 99, 255, 17, 17, 8, 301, 42, 43, 44, 45, 46, 500, 2, 7, 100, 200];

fn assert_same(name: &str, a: &Parts, b: &Parts) {
    let [a, b] = [a, b].map(|parts| logits(&mut parts.load().unwrap(), &TOKENS).unwrap());
    assert!(a.iter().all(|x| x.is_finite()));
    assert!(a.iter().zip(&b).all(|(a, b)| a.to_bits() == b.to_bits()) && a.len() == b.len(), "{name}");
}

fn blocks(parts: &Parts) -> usize {
    (0..100).find(|i| !parts.tensors.iter().any(|t| t.name.starts_with(&format!("blk.{i}.")))).unwrap()
}

/// The rows of some matrices one after the other.
fn fuse(parts: &mut Parts, names: &[String], fused: &str) {
    let all: Vec<Tensor> = names.iter().map(|n| parts.take(n)).collect();
    let mut dims = all[0].dims.clone();
    *dims.last_mut().unwrap() = all.iter().map(|t| *t.dims.last().unwrap()).sum();
    let data = all.iter().flat_map(|t| t.data.clone()).collect();
    parts.add(fused, &dims, all[0].dtype, data);
}

#[test]
fn queries_keys_and_values_in_one_tensor() {
    for name in ["llama", "gpt-oss", "qwen3", "gemma2"] {
        let plain = Parts::of(name);
        let mut fused = plain.clone();
        for i in 0..blocks(&plain) {
            for part in ["weight", "bias"] {
                let names = ["q", "k", "v"].map(|x| format!("blk.{i}.attn_{x}.{part}"));
                if plain.has(&names[0]) {
                    fuse(&mut fused, &names, &format!("blk.{i}.attn_qkv.{part}"));
                }
            }
        }
        assert_same(name, &plain, &fused);
    }
}

#[test]
fn gate_and_up_in_one_tensor() {
    let plain = Parts::of("qwen3");
    let mut fused = plain.clone();
    for i in 0..blocks(&plain) {
        let names = ["gate", "up"].map(|x| format!("blk.{i}.ffn_{x}.weight"));
        fuse(&mut fused, &names, &format!("blk.{i}.ffn_up.weight"));
    }
    assert_same("qwen3", &plain, &fused);
}

#[test]
fn gate_and_up_of_experts_in_one_tensor() {
    for name in ["mixtral", "qwen3next", "deepseek-v3"] {
        let plain = Parts::of(name);
        let mut fused = plain.clone();
        for i in 0..blocks(&plain) {
            let [gate, up] = ["gate", "up"].map(|x| format!("blk.{i}.ffn_{x}_exps.weight"));
            if !plain.has(&gate) {
                continue;
            }
            let (gate, up) = (fused.take(&gate), fused.take(&up));
            let expert = gate.data.len() / gate.dims[2] as usize;
            let data = gate.data.chunks(expert).zip(up.data.chunks(expert)).flat_map(|(g, u)| [g, u].concat()).collect();
            fused.add(&format!("blk.{i}.ffn_gate_up_exps.weight"), &[gate.dims[0], 2 * gate.dims[1], gate.dims[2]], gate.dtype, data);
        }
        assert_same(name, &plain, &fused);
    }
}

#[test]
fn a_tensor_for_each_expert() {
    let plain = Parts::of("mixtral");
    let mut split = plain.clone();
    for i in 0..blocks(&plain) {
        for part in ["gate", "up", "down"] {
            let all = split.take(&format!("blk.{i}.ffn_{part}_exps.weight"));
            for (e, data) in all.data.chunks(all.data.len() / all.dims[2] as usize).enumerate() {
                split.add(&format!("blk.{i}.ffn_{part}.{e}.weight"), &all.dims[..2], all.dtype, data.to_vec());
            }
        }
    }
    assert_same("mixtral", &plain, &split);
}

/// Older DeepSeek files: the matrices for keys and values of each head in one, that for keys the other way round.
#[test]
fn the_older_layout_of_latent_attention() {
    let plain = Parts::of("deepseek-v3");
    let mut old = plain.clone();
    for i in 0..blocks(&plain) {
        let (k, v) = (old.take(&format!("blk.{i}.attn_k_b.weight")), old.take(&format!("blk.{i}.attn_v_b.weight")));
        assert!(k.dtype == DType::F16 && v.dtype == DType::F16);
        let (nope, rank, heads, value) = (k.dims[0] as usize, k.dims[1] as usize, k.dims[2] as usize, v.dims[1] as usize);
        let mut data = Vec::new();
        for head in 0..heads {
            for n in 0..nope {
                for r in 0..rank {
                    data.extend_from_slice(&k.data[2 * (head * rank * nope + r * nope + n)..][..2]);
                }
            }
            data.extend_from_slice(&v.data[2 * head * value * rank..][..2 * value * rank]);
        }
        old.add(&format!("blk.{i}.attn_kv_b.weight"), &[rank as u64, (heads * (nope + value)) as u64], DType::F16, data);
    }
    old.set("deepseek2.attention.key_length", 48u32);
    old.set("deepseek2.attention.value_length", 32u32);
    old.set("deepseek2.attention.head_count_kv", 4u32);
    old.remove_key("deepseek2.attention.key_length_mla");
    old.remove_key("deepseek2.attention.value_length_mla");
    assert_same("deepseek-v3", &plain, &old);
}
