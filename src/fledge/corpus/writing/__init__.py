"""Token shards, and which shares of them are read."""
