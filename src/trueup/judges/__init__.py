"""Who says which of two answers is better: reward models, functions, a model behind an endpoint, people."""
