//! Activation functions and sums of vectors.
