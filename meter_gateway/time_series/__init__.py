"""How readings age: hypertables, downsampled history, retention."""
