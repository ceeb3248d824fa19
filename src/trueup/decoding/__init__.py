"""Decoding many prompts at once: what the decoders of the CPU and of the GPU share."""
