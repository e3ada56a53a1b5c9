"""Nouns: frozen values that every other room speaks; they import nothing but torch and errors."""
