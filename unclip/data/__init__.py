"""Training data: the illustrations corpus, its captions, and shards in img2dataset's layout."""
