"""The audit: checks that can say no, each with its number, its interval and a stated threshold."""
