import pytest


@pytest.fixture
def endpoint(monkeypatch):
    """The client, a key, and waits between tries that a test can afford."""
    pytest.importorskip("openai", reason="the extra `judge` is not installed")
    monkeypatch.setenv("JUDGE_KEY", "sk-secret")
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.01)
    monkeypatch.setattr("openai._base_client.MAX_RETRY_DELAY", 0.02)
