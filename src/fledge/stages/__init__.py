"""One module a stage: its configuration, its source of batches, its columns and its losses."""
