"""HTTP: routes, bodies, and the one table from errors to statuses."""
