"""What happens by itself: schedules, sensors, freshness, and reports of what failed."""
