"""LLM-KICK (arXiv:2310.01382) on real data, repaired and as published: questions, summaries, talks."""
