"""Outages: inference from signals, life cycle and the answer to «why have I no supply?»."""
