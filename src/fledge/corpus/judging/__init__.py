"""What is measured on a page, and which pages leave."""
