//! Tokenizers read from GGUF metadata: SentencePiece-style and byte-level BPE.
