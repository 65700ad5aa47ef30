//! Tests of packages against real interpreters, servers and builds.

mod biology;
