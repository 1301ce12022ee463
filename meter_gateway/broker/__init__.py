"""The way to and from the broker: connections, logins, rules, and the contract as a file."""
