"""How far one driver goes: the real engine and its record, on thousands of simulated GPUs."""
