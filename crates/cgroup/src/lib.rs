//! carrack-cgroup
