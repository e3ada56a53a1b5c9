"""The network as data: an immutable list of nodes with constants folded."""
