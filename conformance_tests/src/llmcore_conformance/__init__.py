"""The conformance suite of llmcore: what every backend must do, as tests."""
