"""Using the models of a run: over HTTP, and in the terminal; what people say of the answers is kept."""
