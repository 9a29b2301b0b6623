"""The workers' gRPC interfaces: `.proto` files of our own, their compiled messages, and the official method paths."""
