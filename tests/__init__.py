"""Tests of batchkit."""
