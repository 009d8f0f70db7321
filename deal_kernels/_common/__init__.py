"""What the ops share: dtypes, argument checks, dispatch, memory layout and the page cache."""
