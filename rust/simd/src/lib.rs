//! Instruction sets behind one trait: the only crate with intrinsics. It knows vectors, no formats.
//!
//! [`Isa`] is a zero-sized proof that the CPU has an instruction set, and the vocabulary of that set. Work is a struct that implements
//! [`Kernel`]; [`Cpu::run`] compiles it once for every instruction set and runs the one that was chosen.
//!
//! Every operation is exact, or rounds once as IEEE 754 asks, so that all implementations agree bit for bit. [`Scalar`] is the
//! specification: plain arrays, no intrinsics.
//!
//! All that a kernel calls must be `#[inline(always)]`: a function that is compiled out of line lacks the target features of its
//! caller and runs 20 to 40 times slower.

mod dispatch;
pub mod half;
mod isa;
pub mod math;
mod scalar;
pub mod tiles;
#[cfg(target_arch = "x86_64")]
mod x86_64;

pub use dispatch::{Cpu, TileKernel, UnavailableIsa};
pub use isa::{Isa, Kernel, ROWS, Range};
pub use scalar::Scalar;
