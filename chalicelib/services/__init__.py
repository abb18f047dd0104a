"""One verb each, over the domain's protocols: no AWS, no HTTP, no Slack, and no clock but the one that is passed in."""
