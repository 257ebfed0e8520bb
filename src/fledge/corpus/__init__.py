"""From pages to clean text, with every page accounted for.

    reading/     files of any kind to records, each with its file and offset
    extraction/  records to text: main content, encoding, normal form, lists of addresses
    text/        code points, tokens and their hashes, as arrays over many pages
    judging/     what is measured on a page, and which pages leave
    scoring/     scores of models: quality classifier, perplexity
    copies/      duplicates: signatures, and the one global step
    running/     who works on the shards: chunks, watched workers, a cluster
    writing/     token shards, and which shares of them are read
    chain.py     the steps in their order: records in, pages or rows of the ledger out
    finish.py    from shards to the corpus; values.py, replay.py, lineage.py, truth.py: questions to it

A page that leaves the corpus leaves one row in the ledger: which stage and rule, at which measured value, against
which threshold, and for a duplicate which document stayed in its place. ``kept + dropped + errors == read`` is
asserted at the end of every run. Heavy libraries are imported by the modules that use them, not here.
"""
