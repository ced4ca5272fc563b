"""The operations: each file one family, each operation above its gradient rule."""
