"""ONNX → TensorFlow, operator by operator. Runs in the conversion environment.

ONNX lays pictures out channels-first, TensorFlow's convolutions want channels-last. Each value knows which of the two
it is laid out in; an operator that does not care leaves it, one that does turns it first. So a chain of convolutions
has no transposition in it, and no layout is guessed.
"""
