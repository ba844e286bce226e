"""Two cells, two studies, or a study and published numbers: what got worse, and what else changed."""
