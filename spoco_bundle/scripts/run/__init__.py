"""What each run of a config does before its first image: options are checked, mistakes told in one sentence."""
