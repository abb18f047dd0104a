# As many tasks as sessions need. A task with live sessions protects itself (broker.task_protection), so that scaling in
# takes one that is idle. Source: Application Auto Scaling, "Target tracking scaling policies".

resource "aws_appautoscaling_target" "broker" {
  service_namespace  = "ecs"
  scalable_dimension = "ecs:service:DesiredCount"
  resource_id        = "service/${aws_ecs_cluster.this.name}/${aws_ecs_service.broker.name}"
  min_capacity       = local.least
  max_capacity       = var.image == "" ? 0 : var.tasks.most
}

resource "aws_appautoscaling_policy" "sessions" {
  name               = "${var.name}-sessions"
  policy_type        = "TargetTrackingScaling"
  service_namespace  = aws_appautoscaling_target.broker.service_namespace
  scalable_dimension = aws_appautoscaling_target.broker.scalable_dimension
  resource_id        = aws_appautoscaling_target.broker.resource_id

  target_tracking_scaling_policy_configuration {
    target_value       = var.sessions_per_task
    scale_out_cooldown = 60
    scale_in_cooldown  = 600 # sessions come in bursts, by the hour and by the pipeline

    # Each task tells its own number, so that the average is a task's.
    customized_metric_specification {
      namespace   = "Countersign"
      metric_name = "Sessions"
      statistic   = "Average"

      dimensions {
        name  = "Service"
        value = "broker"
      }

      dimensions {
        name  = "Name"
        value = var.name
      }
    }
  }
}

resource "aws_appautoscaling_policy" "cpu" {
  name               = "${var.name}-cpu"
  policy_type        = "TargetTrackingScaling"
  service_namespace  = aws_appautoscaling_target.broker.service_namespace
  scalable_dimension = aws_appautoscaling_target.broker.scalable_dimension
  resource_id        = aws_appautoscaling_target.broker.resource_id

  target_tracking_scaling_policy_configuration {
    target_value       = 60 # one event loop: past this the slowest answers are several times the usual one
    scale_out_cooldown = 60
    scale_in_cooldown  = 600

    predefined_metric_specification {
      predefined_metric_type = "ECSServiceAverageCPUUtilization"
    }
  }
}
