"""What is only for GPUs."""
