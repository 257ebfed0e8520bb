"""Scores of models: a quality classifier, perplexity of an n-gram model and of a checkpoint."""
