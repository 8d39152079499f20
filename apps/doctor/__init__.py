"""`doctor.py`: looks at this machine, touches nothing, and says how to get what is missing."""
