"""The broker's rules: messages, exchanges, queues, virtual hosts. Decides everything, never waits."""
