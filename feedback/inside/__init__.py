"""What runs inside the Label Studio that trueup starts, and not in trueup: it has Django there, and no trueup."""
