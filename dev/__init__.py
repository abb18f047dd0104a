"""The local stack: one machine, no AWS account, no Slack; the same code with other endpoints."""
