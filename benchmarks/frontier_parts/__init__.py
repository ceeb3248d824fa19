"""What benchmarks/frontier.py is made of: thumbs with and without noise, figures of a policy, plot and tables."""
