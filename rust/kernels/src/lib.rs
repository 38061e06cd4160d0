//! Quantized math generic over instruction set and format. Knows tensors, no models.

pub mod activation;
pub mod attention;
pub mod buffer;
pub mod delta_net;
pub mod dense;
pub mod elementwise;
pub mod format;
pub mod linear;
pub mod mapping;
pub mod matmul;
pub mod pool;
pub mod rms_norm;
pub mod roofline;
pub mod rope;
