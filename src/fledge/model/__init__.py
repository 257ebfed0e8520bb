"""The decoder: packed layout, attention, rotary positions, Hugging Face in and out."""
