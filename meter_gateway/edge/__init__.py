"""What a site's gateway keeps on its own disk: the outbox, the journals, the memory of each meter."""
