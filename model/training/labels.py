"""Labels: the reach of posts, counted only where their horizon has closed.

Times are in µs. A post's reach is the number of distinct users who shared it within the horizon of its creation. An
author's label is the mean of log(1 + reach) over the posts of a window whose horizons have all closed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from model.types import Float64s, Int64s


@dataclass(frozen=True)
class Posts:
    """Posts with closed horizons, by time.

    Attributes:
        author: Author rows `[p]`.
        time: Creation times `[p]` (µs).
        reach: Distinct sharers within the horizon `[p]`.
        horizon: Length of the horizon (µs).
    """

    author: Int64s
    time: Int64s
    reach: Int64s
    horizon: int

    @classmethod
    def count(
        cls,
        author: Int64s,
        time: Int64s,
        share_post: Int64s,
        share_user: Int64s,
        share_time: Int64s,
        *,
        horizon: int,
        until: int,
    ) -> Posts:
        """Count the sharers of every post whose horizon closed by `until`; later shares are not read.

        Args:
            author: Author rows of the posts `[p]`.
            time: Creation times of the posts `[p]` (µs).
            share_post: Row of the shared post `[s]`; shares in any order, repeats allowed.
            share_user: Sharing user `[s]`.
            share_time: Time of the share `[s]` (µs).
            horizon: Length of the horizon (µs).
            until: End of the data (µs).
        """
        posts = len(author)
        counts = (share_time <= until) & (share_time <= time[share_post] + horizon)
        users = int(share_user.max()) + 1 if len(share_user) else 1
        pairs = np.unique(share_post[counts] * users + share_user[counts])
        reach = np.bincount(pairs // users, minlength=posts)
        closed = np.flatnonzero(time + horizon <= until)
        closed = closed[np.argsort(time[closed], kind="stable")]
        return cls(author[closed], time[closed], reach[closed], horizon)

    def between(self, after: int, until: int) -> Posts:
        """Return the posts in (after, until] (µs)."""
        low, high = np.searchsorted(self.time, [after, until], side="right")
        return Posts(self.author[low:high], self.time[low:high], self.reach[low:high], self.horizon)

    def of(self, author: Int64s) -> Posts:
        """Return the posts with other author rows `[p]`, without those whose row is negative."""
        rows = np.flatnonzero(author >= 0)
        return Posts(author[rows], self.time[rows], self.reach[rows], self.horizon)

    def labels(self, users: int, after: int, window: int) -> tuple[Float64s, Int64s]:
        """Return the labels of posts in (after, after + window].

        Returns:
            Mean log reach `[users]`, NaN without a post, and number of posts `[users]`.
        """
        posts = self.between(after, after + window)
        number = np.bincount(posts.author, minlength=users)
        total = np.bincount(posts.author, np.log1p(posts.reach), minlength=users)
        with np.errstate(invalid="ignore"):
            mean: Float64s = total / number
        return mean, number
