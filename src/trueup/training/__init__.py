"""What the training stages share: arguments, the fast head, weights on samples, safe checkpoints, the proof."""
