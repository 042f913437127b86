"""Next actions: given a post and who shared it, which of the exposed users share it within the horizon."""
