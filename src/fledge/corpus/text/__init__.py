"""Code points, tokens and their hashes: what rules, duplicates and contamination count."""
