"""Which readings to believe: rules, findings, estimates, and what a person decides."""
