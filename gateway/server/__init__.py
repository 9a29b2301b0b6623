"""How the gateway takes HTTP from the network: its sockets, connections, processes, and how it stops."""
