"""Several vLLM servers as one engine: adapters loaded on all, checked, switched at once, and unloaded late."""
