"""LLM-KICK's tasks (arXiv:2310.01382) on real data, repaired; its own protocol under other names."""
