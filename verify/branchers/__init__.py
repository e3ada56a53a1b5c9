"""Branchers: where to cut a domain in two."""
