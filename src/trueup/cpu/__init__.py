"""What helps only CPUs: the dtype this processor is fast in, forwards without padding, hand-written backwards."""
