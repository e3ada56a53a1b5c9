"""Problem -> Enclosure, one method a file."""
