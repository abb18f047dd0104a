# Copy to STAGE.tfvars. Every input, with its default, is in ../variables.tf; these have none, or want a thought.
region        = "eu-west-1"
slack_channel = "C0123456789"

# Who signed the broker's certificate: clients are told to trust it. The certificate and its key go into secrets.
broker_ca_pem       = <<EOT
-----BEGIN CERTIFICATE-----
EOT
broker_host         = "broker.example.com"
broker_ssh_host_key = "ssh-ed25519 AAAA..."

# broker_image     = "123456789012.dkr.ecr.eu-west-1.amazonaws.com/countersign-prod@sha256:..."
# lock_mode        = "COMPLIANCE" # nobody can shorten it, nor delete what is recorded before it is over; then also:
# break_glass_role = "arn:aws:iam::123456789012:role/break-glass"
