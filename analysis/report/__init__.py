"""A study as one HTML file that opens from disk, with no network."""
