//! The GGUF file format: reader, writer, shards. Knows bytes and types, no kernels.
