//! Llama 1 to 3, Mistral, Yi, and with experts Mixtral: `general.architecture` "llama".
use super::common::{MOST, WIDEST, set_windows};
use super::{Family, Header, When};
use crate::ModelError;
use crate::config::{Config, FeedForwardConfig, Pairing};

pub const FAMILY: Family =
    Family { harmless: &[("expert_feed_forward_length", When::Same("feed_forward_length"))], ..Family::new("llama", config) };

fn config(header: &Header) -> Result<Config, ModelError> {
    let attention = header.attention()?;
    let rope = header.rope(Pairing::Interleaved, attention.dim_k)?;
    // Converters write an expert count of 0 for dense models.
    let feed_forward = if header.keys.optional_count("expert_count", MOST)?.is_some() {
        let width = header.uniform("feed_forward_length", WIDEST)?;
        FeedForwardConfig::Experts(header.experts(width, true)?)
    } else {
        header.dense()?
    };
    let mut config = header.decoder(header.rms_norm()?, attention, rope, feed_forward)?;
    // Of every layer, if the file has one: the converter writes none for Mistral 7B, which was trained with one.
    set_windows(&mut config, &header.windows(0)?);
    Ok(config)
}
