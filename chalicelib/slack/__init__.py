"""The Slack edge: signatures checked, clicks handed to ``decide``, cards posted.

The one door to slack_bolt and slack_sdk."""
