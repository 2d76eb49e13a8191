"""What the system says about itself: metrics, rules, notices."""
