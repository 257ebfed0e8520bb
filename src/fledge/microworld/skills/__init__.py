"""The skills that the world teaches and tests, one module for each group."""
