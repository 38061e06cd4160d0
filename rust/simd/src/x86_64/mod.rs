//! The instruction sets of x86-64.
mod avx;
mod avx512;

pub use avx::{Avx2, AvxVnni};
pub use avx512::Avx512Vnni;
