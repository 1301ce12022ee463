"""Money: tariffs, quotes, payments, vends, the journal and the register of tokens."""
