"""Where benchmark instances come from: one file per suite."""
