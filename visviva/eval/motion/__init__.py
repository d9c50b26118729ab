"""Metrics of human motion: ground, smoothness, errors against a reference, sets against text; and how a file is measured."""
