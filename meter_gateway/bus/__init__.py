"""One bus and its meters: frames, silence, sessions, and what an engineer asks of it."""
