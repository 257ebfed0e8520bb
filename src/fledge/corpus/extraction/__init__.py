"""Records to text: main content, encoding, normal form, lists of addresses."""
