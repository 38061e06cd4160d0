//! Phi-3, Phi-3.5 and Phi-4: "phi3". Queries, keys and values, and gate and up, are fused in the file.
//!
//! LongRoPE (Ding et al., 2024) divides the frequencies by one of two lists of factors: the short one for contexts up to the original
//! length, the long one beyond. The choice is made once, by the context length that was asked for, so that a sequence does not change its
//! rotation when it grows.
use super::common::{LONGEST, set_windows};
use super::{Family, Header};
use crate::ModelError;
use crate::config::{Config, Pairing, RopeScaling};

pub const FAMILY: Family =
    Family { harmless_tensors: &["rope_factors_long.weight", "rope_factors_short.weight"], ..Family::new("phi3", config) };

fn config(header: &Header) -> Result<Config, ModelError> {
    let attention = header.attention()?;
    let mut rope = header.rope(Pairing::Halves, attention.dim_k)?;
    if header.tensors.has("rope_factors_long.weight") {
        let keys = &header.keys;
        let original = keys.required("rope.scaling.original_context_length", LONGEST)?;
        let asked = match header.context_length {
            Some(n) => n,
            None => keys.required("context_length", LONGEST)?,
        };
        let name = if asked > original { "rope_factors_long.weight" } else { "rope_factors_short.weight" };
        rope.scaling = RopeScaling::Divisors(name);
    }
    let mut config = header.decoder(header.rms_norm()?, attention, rope, header.dense()?)?;
    set_windows(&mut config, &header.windows(0)?);
    Ok(config)
}
