"""What small models tell about large ones: mixtures found with proxies."""
