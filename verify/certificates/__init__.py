"""Certificates: what `verify.check` needs to see that a verdict holds, written for it.

This room proposes hints and tries them with the checker's own bounds; nothing that it writes is
believed by anybody.
"""
