"""Prepayment tokens (IEC 62055-41, OpenPAYGO), pure: no database, clock or settings."""
