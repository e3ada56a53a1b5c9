"""Speed and tightness measured beside the peers, in the same run on the same machine."""
