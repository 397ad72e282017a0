"""The page about a job's past."""
