variable "name" {
  description = "Begins every resource's name"
  type        = string
}

variable "functions" {
  description = "Names of the functions, as their policies' files are named"
  type        = set(string)
}

variable "log_groups" {
  description = "Function, or `broker`, to its log group's name"
  type        = map(string)
}

variable "balancer" {
  description = "The balancer, as CloudWatch names it"
  type        = string
}

variable "target_groups" {
  description = "Protocol to the target group as CloudWatch names it"
  type        = map(string)
}

variable "cluster" {
  type = string
}

variable "service" {
  type = string
}

variable "compaction_workgroup" {
  description = "Whose failed queries are told: nobody else waits for them"
  type        = string
}

variable "serving" {
  description = "Whether there is an image, so that tasks must run"
  type        = bool
}

variable "deployed" {
  description = "Whether the functions are there, so that they must run"
  type        = bool
}

variable "emails" {
  description = "Who is told; each must confirm. Pagers subscribe to the topic themselves."
  type        = set(string)
  default     = []
}
