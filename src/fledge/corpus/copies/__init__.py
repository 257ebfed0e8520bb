"""Duplicates: signatures of documents, and the one global step."""
