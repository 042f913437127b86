"""Scores of a shard: published last, ranked among all users, compared with what posts got."""
