//! Lua packages and environments: manifests, solving, locks, building, generations.
