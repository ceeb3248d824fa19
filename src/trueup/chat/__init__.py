"""From messages to tokens and masks, and what is checked of them before anything trains."""
