//! Gemma 1 to 3: "gemma", "gemma2", "gemma3". Embeddings are multiplied by the root of the width; norms are stored with 1 added.
use super::common::set_windows;
use super::{Family, Header};
use crate::ModelError;
use crate::config::{Activation, AttentionConfig, Config, Mixer, NormNames, Pairing, QkNorm, RopeConfig, RopeScaling};
use crate::error::invalid;

pub const GEMMA: Family = Family::new("gemma", gemma);
pub const GEMMA2: Family = Family::new("gemma2", gemma2);
pub const GEMMA3: Family = Family::new("gemma3", gemma3);

fn gemma(header: &Header) -> Result<Config, ModelError> {
    let attention = header.attention()?;
    decoder(header, attention)
}

/// Soft caps on scores and logits, norms around both parts, and windows on every other layer.
fn gemma2(header: &Header) -> Result<Config, ModelError> {
    let mut attention = header.attention()?;
    attention.softcap = Some(header.keys.positive("attn_logit_softcapping")?.unwrap_or(50.0));
    attention.scale = scale(header, &attention, 46)?;
    let mut config = decoder(header, attention)?;
    config.logit_softcap = Some(header.keys.positive("final_logit_softcapping")?.unwrap_or(30.0));
    config.layers.iter_mut().for_each(|layer| layer.norms = NormNames::SANDWICH);
    set_windows(&mut config, &header.windows(2)?);
    Ok(config)
}

/// Norms of queries and keys instead of caps; five windowed layers, with a rotation of their own, then one that sees all.
fn gemma3(header: &Header) -> Result<Config, ModelError> {
    let keys = &header.keys;
    let mut attention = header.attention()?;
    attention.qk_norm = QkNorm::Head;
    attention.scale = scale(header, &attention, 62)?;
    let mut config = decoder(header, attention)?;
    config.logit_softcap = keys.factor("final_logit_softcapping")?;
    // Files of Ollama's converter have other names for the bases.
    let (global, local) = (keys.positive("rope.global.freq_base")?, keys.positive("rope.local.freq_base")?);
    if keys.positive("rope.freq_base")?.is_none() {
        let Some(base) = global else { return invalid!("the file lacks the key {}", keys.name("rope.freq_base")) };
        config.ropes[0].base = base;
        // They leave out that the models of 4B and more stretch it by 8.
        if config.ropes[0].scaling == RopeScaling::None && config.layers.len() >= 34 {
            config.ropes[0].scaling = RopeScaling::Linear(8.0);
        }
    }
    let base = keys.positive("rope.freq_base_swa")?.or(local).unwrap_or(10_000.0);
    config.ropes.push(RopeConfig { base, scaling: RopeScaling::None, magnitude: 1.0, ..config.ropes[0].clone() });
    let windows = header.windows(6)?;
    set_windows(&mut config, &windows);
    for (layer, windowed) in config.layers.iter_mut().zip(windows.layers) {
        layer.norms = NormNames::SANDWICH;
        if let (Mixer::Attention(a), true) = (&mut layer.mixer, windowed) {
            a.rope = Some(1);
        }
    }
    Ok(config)
}

/// What scores are multiplied by if no key says it. The models of 27B, known by their layers, have it from the width instead of the head.
fn scale(header: &Header, attention: &AttentionConfig, layers_of_27b: usize) -> Result<f32, ModelError> {
    if header.blocks.layers == layers_of_27b && header.keys.factor("attention.scale")?.is_none() {
        return Ok((attention.heads as f32 / header.hidden()? as f32).sqrt());
    }
    Ok(attention.scale)
}

fn decoder(header: &Header, attention: AttentionConfig) -> Result<Config, ModelError> {
    let rope = header.rope(Pairing::Halves, attention.dim_k)?;
    let mut config = header.decoder(header.rms_norm()?, attention, rope, header.dense()?)?;
    config.activation = Activation::GegluTanh;
    config.embedding_scale = (config.hidden as f32).sqrt();
    Ok(config)
}
