"""Files of any kind to records, each with its file and offset."""
