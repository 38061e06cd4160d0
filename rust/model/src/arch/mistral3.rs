//! Ministral 3, Devstral 2 and Mistral Medium 3.5: "mistral3". Llama whose queries grow with the position; YaRN whose magnitude a key
//! may take back.
use super::{Family, Header};
use crate::ModelError;
use crate::config::{Config, Pairing, RopeScaling, Temperature};
use crate::error::invalid;
use fastllm_kernels::rope::yarn_mscale;

pub const FAMILY: Family = Family::new("mistral3", config);

fn config(header: &Header) -> Result<Config, ModelError> {
    let keys = &header.keys;
    let mut attention = header.attention()?;
    let mut rope = header.rope(Pairing::Interleaved, attention.dim_k)?;
    let multiplier = keys.factor("rope.scaling.yarn_log_multiplier")?;
    if let (Some(m), &RopeScaling::Yarn { factor, .. }) = (multiplier, &rope.scaling) {
        rope.magnitude /= yarn_mscale(f64::from(factor), f64::from(m));
    }
    if let Some(scale) = keys.factor("attention.temperature_scale")? {
        let Some(length) = keys.optional_count("rope.scaling.original_context_length", super::common::LONGEST)? else {
            return invalid!("the file lacks the key {}", keys.name("rope.scaling.original_context_length"));
        };
        attention.temperature = Some(Temperature { scale, length });
    }
    header.decoder(header.rms_norm()?, attention, rope, header.dense()?)
}
