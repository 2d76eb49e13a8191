"""The agents: enrolment, check-in, presence, facts."""
