"""The store: keeps arrays, commits them shard by shard, and reads them back at the speed of the page cache."""
