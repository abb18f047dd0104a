variable "name" {
  description = "Begins every role's name"
  type        = string
}

variable "places" {
  description = "What the policy templates name: ACCOUNT, REGION, PREFIX and the rest"
  type        = map(string)
}

variable "auditors" {
  description = "ARNs of those who may become the auditor, or run queries; empty: these roles are not made"
  type        = list(string)
}

variable "target_secrets" {
  description = "ARNs of secrets that `mint` may read besides those under NAME/targets/"
  type        = list(string)
}
