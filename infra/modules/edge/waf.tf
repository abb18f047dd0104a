# In front of the API. It takes floods and what is plainly no client; who may do what, the API itself decides.
#
# No rule may refuse by what stands in a body. The body of a click is the whole card, and a card shows what somebody asks
# to run: whoever wrote `$${jndi:` or a script's tag into a statement would make a card that nobody can deny. Bodies are
# bounded here, and read by a strict parser behind. No list of addresses either: hosted runners share theirs with anybody.
# Source: AWS WAF, "AWS Managed Rules rule groups list", "Oversize web request components".

locals {
  managed = {
    AWSManagedRulesCommonRuleSet = {
      priority = 20
      counted  = ["SizeRestrictions_BODY", "GenericLFI_BODY", "GenericRFI_BODY", "CrossSiteScripting_BODY", "EC2MetaDataSSRF_BODY"]
    }
    AWSManagedRulesKnownBadInputsRuleSet = {
      priority = 30
      counted  = ["JavaDeserializationRCE_BODY", "Log4JRCE_BODY", "ReactJSRCE_BODY"]
    }
  }
  most_body = 64 * 1024 # chalicelib.api.parse.MAX_BODY
}

resource "aws_wafv2_web_acl" "api" {
  name  = var.name
  scope = "REGIONAL"

  default_action {
    allow {}
  }

  association_config {
    request_body {
      api_gateway {
        default_size_inspection_limit = "KB_64"
      }
    }
  }

  rule {
    name     = "rate"
    priority = 0

    action {
      block {
        custom_response {
          response_code = 429
        }
      }
    }

    statement {
      rate_based_statement {
        limit                 = var.requests_each_5_min
        evaluation_window_sec = 300
        aggregate_key_type    = "IP"
      }
    }

    visibility_config {
      cloudwatch_metrics_enabled = true
      metric_name                = "${var.name}-rate"
      sampled_requests_enabled   = false
    }
  }

  rule {
    name     = "body"
    priority = 10

    action {
      block {
        custom_response {
          response_code = 413
        }
      }
    }

    statement {
      size_constraint_statement {
        comparison_operator = "GT"
        size                = local.most_body

        field_to_match {
          body {
            oversize_handling = "MATCH"
          }
        }

        text_transformation {
          priority = 0
          type     = "NONE"
        }
      }
    }

    visibility_config {
      cloudwatch_metrics_enabled = true
      metric_name                = "${var.name}-body"
      sampled_requests_enabled   = false
    }
  }

  dynamic "rule" {
    for_each = local.managed

    content {
      name     = rule.key
      priority = rule.value.priority

      override_action {
        none {}
      }

      statement {
        managed_rule_group_statement {
          vendor_name = "AWS"
          name        = rule.key

          dynamic "rule_action_override" {
            for_each = rule.value.counted

            content {
              name = rule_action_override.value

              action_to_use {
                count {}
              }
            }
          }
        }
      }

      visibility_config {
        cloudwatch_metrics_enabled = true
        metric_name                = "${var.name}-${rule.key}"
        sampled_requests_enabled   = false
      }
    }
  }

  # A sample has the whole request, with its bearer token, for whoever may look at the firewall.
  visibility_config {
    cloudwatch_metrics_enabled = true
    metric_name                = var.name
    sampled_requests_enabled   = false
  }
}

resource "aws_wafv2_web_acl_association" "api" {
  resource_arn = "arn:aws:apigateway:${local.region}::/restapis/${var.api_id}/stages/${var.api_stage}"
  web_acl_arn  = aws_wafv2_web_acl.api.arn
}
