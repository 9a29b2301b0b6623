"""The two runtimes, one shape. Protobuf and gRPC stay in this folder."""
