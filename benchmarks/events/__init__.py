"""Event logs beside their brokers' own clients."""
