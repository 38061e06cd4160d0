//! Quantized math generic over instruction set and format. Knows tensors, no models.
