"""What the live page reads beside the ranking: files, reach over time, cascades, flow, and the analyst's figures."""
