"""Files to values: models, data and examples, each refused in one clear line if it is bad."""
