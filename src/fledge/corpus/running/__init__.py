"""Who works on the shards: chunks, watched workers, a cluster; the bytes are the same."""
