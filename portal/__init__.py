"""People: the pages of subscribers, field engineers and contact-centre agents, and the use cases behind them."""
