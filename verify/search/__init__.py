"""How to spend a budget: stages of bounders, each on the instances still open."""
