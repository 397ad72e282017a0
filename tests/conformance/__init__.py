"""The suites that every reader and every writer runs."""
