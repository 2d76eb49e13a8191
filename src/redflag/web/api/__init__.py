"""The admin API: JSON for people's programs."""
