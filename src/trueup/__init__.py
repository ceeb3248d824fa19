"""trueup: from thumbs to an aligned adapter, on one GPU."""

__version__ = "0.1.0"
