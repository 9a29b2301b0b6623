"""The gateway: image uploads in over HTTP, tensors out over gRPC to either runtime.

It imports neither torch nor tensorflow.
"""
