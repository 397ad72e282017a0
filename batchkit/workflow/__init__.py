"""Workflows: phases with a checkpoint between them, questions to people, points to go back to."""
