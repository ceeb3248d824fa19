"""What benchmarks/gpu.py measures, a module for each kind of part; each part runs in a process of its own."""
