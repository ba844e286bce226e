"""LLM-KICK (arXiv:2310.01382) on real data: question answering, summaries, instructions."""
