//! Instruction sets behind one trait: the only crate with intrinsics. Knows vectors, no formats.
