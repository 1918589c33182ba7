"""whatwhere."""
