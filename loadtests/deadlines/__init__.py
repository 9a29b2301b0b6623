"""Clients that wait for their deadlines, or hang up, while the workers answer nothing."""
