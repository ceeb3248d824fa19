"""What learns from a reward as it samples: PPO and GRPO."""
