"""Labels: the reach that posts got, counted only where their horizon has closed.

Times are µs. A post's reach is the number of distinct users who shared it within the horizon of its creation;
an author's label is the mean of log(1 + reach) over the posts of a window whose horizons have all closed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from model.types import Float64s, Int64s


@dataclass(frozen=True)
class Posts:
    """Posts with closed horizons, by time: author `[p]` (row), time `[p]` µs, reach `[p]` distinct sharers."""

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
        """Count the sharers of every post whose horizon closed by `until`; nothing later is looked at.

        author, time `[p]`: the posts. share_post (row of a post), share_user, share_time `[s]`: the shares, in any
        order, repeats allowed. horizon, until: µs.
        """
        posts = len(author)
        counts = (share_time <= until) & (share_time <= time[share_post] + horizon)
        users = int(share_user.max()) + 1 if len(share_user) else 1
        pairs = np.unique(share_post[counts] * users + share_user[counts])
        reach = np.bincount(pairs // users, minlength=posts)
        closed = np.flatnonzero(time + horizon <= until)
        closed = closed[np.argsort(time[closed], kind="stable")]
        return cls(author[closed], time[closed], reach[closed], horizon)

    def labels(self, users: int, after: int, window: int) -> tuple[Float64s, Int64s]:
        """Labels `[users]` (NaN without a post) and numbers of posts `[users]`, of posts in (after, after + window]."""
        low, high = np.searchsorted(self.time, [after, after + window], side="right")
        author = self.author[low:high]
        number = np.bincount(author, minlength=users)
        total = np.bincount(author, np.log1p(self.reach[low:high]), minlength=users)
        with np.errstate(invalid="ignore"):
            mean: Float64s = total / number
        return mean, number
