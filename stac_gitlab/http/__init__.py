"""One request, answered or explained."""
