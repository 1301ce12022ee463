"""Simulated meters that are wrong in the ways real ones are."""
