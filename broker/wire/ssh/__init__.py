"""The SSH connection protocol: messages in bytes."""
