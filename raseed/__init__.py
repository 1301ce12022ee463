"""The one command, its settings and the demo that starts every role."""
