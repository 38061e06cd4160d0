//! EXAONE 4: "exaone4". Norms act on the outputs of the blocks, and on the heads of queries and keys. The 32B model has windows on three
//! layers of four, which rotate; the fourth sees everything and does not.
use super::common::{rotate_windows_only, set_windows};
use super::{Family, Header};
use crate::ModelError;
use crate::config::{Config, NormNames, Pairing, QkNorm};

pub const FAMILY: Family = Family::new("exaone4", config);

fn config(header: &Header) -> Result<Config, ModelError> {
    let mut attention = header.attention()?;
    attention.qk_norm = QkNorm::Head;
    let rope = header.rope(Pairing::Halves, attention.dim_k)?;
    let mut config = header.decoder(header.rms_norm()?, attention, rope, header.dense()?)?;
    for layer in &mut config.layers {
        layer.norms = NormNames::POST;
    }
    let windows = header.windows(4)?;
    // Without a window every layer sees everything, and rotates.
    if windows.window.is_some() {
        set_windows(&mut config, &windows);
        rotate_windows_only(&mut config, &windows);
    }
    Ok(config)
}
