"""Scripts of what goes wrong, and what the platform must make of each."""
