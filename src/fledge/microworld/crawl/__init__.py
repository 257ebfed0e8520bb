"""The large crawl: pages of the world with many kinds of planted defects, and honest pages that look like defects.

A choice of its own (``defects=all``): the site that models are raised on by default stays as it is. `stream.Crawl` is
the door. Whoever looks for defects must not import this package: planting and finding share nothing.
"""
