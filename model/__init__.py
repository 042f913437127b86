"""The model: predicts the reach of a user's next post from the graph."""
