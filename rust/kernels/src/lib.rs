//! Quantized math generic over instruction set and format. Knows tensors, no models.

pub mod attention;
pub mod elementwise;
pub mod rms_norm;
pub mod rope;
