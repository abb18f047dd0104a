"""The Slack edge: cards out, clicks in. The only door to slack_bolt."""
