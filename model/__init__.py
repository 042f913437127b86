"""The model: what the graph means for the reach of a user's next post."""
