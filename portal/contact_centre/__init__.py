"""Tickets, their clocks and the one timeline."""
