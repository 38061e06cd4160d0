//! SmolLM3: "smollm3". Llama without rotation on every fourth layer, which no key says.
use super::{Family, Header};
use crate::ModelError;
use crate::config::{Config, Mixer, Pairing};

pub const FAMILY: Family = Family::new("smollm3", config);

fn config(header: &Header) -> Result<Config, ModelError> {
    let attention = header.attention()?;
    let rope = header.rope(Pairing::Interleaved, attention.dim_k)?;
    let mut config = header.decoder(header.rms_norm()?, attention, rope, header.dense()?)?;
    for layer in config.layers.iter_mut().skip(3).step_by(4) {
        if let Mixer::Attention(a) = &mut layer.mixer {
            a.rope = None;
        }
    }
    Ok(config)
}
