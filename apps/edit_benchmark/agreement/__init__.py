"""How far a judge can be trusted: with people, with other judges, and with itself."""
