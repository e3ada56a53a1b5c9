"""The programs that we measure ourselves against: one file per peer, none of them required."""
