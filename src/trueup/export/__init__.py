"""What leaves trueup: the adapter, merged weights and a model card."""
