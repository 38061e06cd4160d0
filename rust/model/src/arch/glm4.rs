//! GLM-4 0414: "glm4", with norms around both parts; GLM-4.5 to 4.7: "glm4moe", with experts chosen as in DeepSeek-V3.
use super::{Family, Header, When, deepseek, deepseek2};
use crate::ModelError;
use crate::config::{Config, Gating, NormNames, Pairing, QkNorm};

/// Files of the vision models, which state sections, rotate other pairs of channels.
pub const GLM4: Family = Family { harmless: &[("rope.dimension_sections", When::Is(&[0.0]))], ..Family::new("glm4", glm4) };
pub const GLM4MOE: Family = Family { harmless: &[("expert_group_used_count", When::Is(&[0.0, 1.0]))], ..Family::new("glm4moe", glm4moe) };

fn glm4(header: &Header) -> Result<Config, ModelError> {
    let attention = header.attention()?;
    let rope = header.rope(Pairing::Interleaved, attention.dim_k)?;
    let mut config = header.decoder(header.rms_norm()?, attention, rope, header.dense()?)?;
    for layer in &mut config.layers {
        layer.norms = NormNames::SANDWICH;
    }
    Ok(config)
}

fn glm4moe(header: &Header) -> Result<Config, ModelError> {
    let mut attention = header.attention()?;
    // Not in GLM-4.5-Air.
    if header.first_layer_has("attn_q_norm") {
        attention.qk_norm = QkNorm::Head;
    }
    let rope = header.rope(Pairing::Halves, attention.dim_k)?;
    let mut config = header.decoder(header.rms_norm()?, attention, rope, header.dense()?)?;
    for layer in &mut config.layers {
        layer.norms = NormNames { feed_forward: Some("post_attention_norm"), ..NormNames::PRE };
    }
    deepseek::sparse(header, &mut config, deepseek2::experts(header, Gating::Sigmoid, true)?)?;
    Ok(config)
}
