"""Tests of the adapter for language models."""
