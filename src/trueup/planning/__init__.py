"""Before anyone waits: what will run, what it needs in memory and time, and what would make it fit."""
