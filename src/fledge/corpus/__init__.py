"""From pages to clean text, with every page accounted for.

read -> extract -> mojibake -> language -> rules -> contamination -> duplicates -> documents and ledger -> token shards.

A page that leaves the corpus leaves one row in the ledger: which stage and rule, at which measured value, against
which threshold, and for a duplicate which document stayed in its place. ``kept + dropped + errors == read`` is
asserted at the end of every run. Heavy libraries are imported by the modules that use them, not here.
"""
