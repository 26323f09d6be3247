"""Measurements of speed and memory; every run appends its numbers to results.csv."""
