"""ONNX Runtime: shards, their KV cache, the throughput probe."""
