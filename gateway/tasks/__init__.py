"""One module a task: raw output tensors → predictions."""
