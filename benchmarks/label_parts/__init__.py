"""What benchmarks/labels.py is made of: cached features, simulated people, heads on the features, experiments."""
