"""Is it better, by how much: win rates with intervals clustered by prompt, and KL."""
